"""A hash map from byte strings to 64-bit values, as a C struct: routing keys and their words to what the router knows of them.

The keys come from clients, so the hash is keyed with 128 random bits that each map draws for itself: nobody can choose keys that collide.
Open addressing with linear probing, at most half full; the map owns copies of its keys. A map of zeros is an empty map. Whoever
embeds one frees it (`byte_map_free`); what the values point to is the embedder's.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void* buffer, size_t size, unsigned int flags)

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* Both halves of a 64 x 64 bit product folded together: every bit of both factors reaches every bit of the result. */
    static inline uint64_t leveret_fold(uint64_t a, uint64_t b) {
        __uint128_t product = (__uint128_t)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    static inline uint64_t leveret_hash_bytes(const uint8_t *data, size_t size, uint64_t secret_a, uint64_t secret_b) {
        uint64_t state = secret_b ^ size, low, high;
        while (size > 16) {
            memcpy(&low, data, 8);
            memcpy(&high, data + 8, 8);
            state = leveret_fold(low ^ secret_a, high ^ state);
            data += 16;
            size -= 16;
        }
        if (size >= 8) {            /* two loads that overlap cover 8 to 16 bytes */
            memcpy(&low, data, 8);
            memcpy(&high, data + size - 8, 8);
        } else if (size >= 4) {
            uint32_t first, last;
            memcpy(&first, data, 4);
            memcpy(&last, data + size - 4, 4);
            low = first;
            high = last;
        } else {
            low = size ? ((uint64_t)data[0] << 16) | ((uint64_t)data[size >> 1] << 8) | data[size - 1] : 0;
            high = 0;
        }
        state = leveret_fold(low ^ secret_a, high ^ state);
        return leveret_fold(state ^ secret_b, secret_a) | 1;   /* 0 marks a free slot */
    }
    """
    uint64_t leveret_hash_bytes(const uint8_t* data, size_t size, uint64_t secret_a, uint64_t secret_b) noexcept nogil

cdef struct ByteSlot:
    uint64_t hash       # 0: free
    uint64_t value
    uint8_t* key
    size_t key_size

cdef struct ByteMap:
    ByteSlot* slots
    size_t capacity     # a power of two, or 0
    size_t count
    uint64_t secret_a
    uint64_t secret_b


cdef inline uint64_t* byte_map_find(const ByteMap* map, const uint8_t* key, size_t key_size) noexcept nogil:
    """Where the value of `key` stands, until the next change of the map; NULL when there is none."""
    cdef uint64_t hashed
    cdef size_t at
    if map.count == 0:
        return NULL
    hashed = leveret_hash_bytes(key, key_size, map.secret_a, map.secret_b)
    at = <size_t>(hashed >> 1) & (map.capacity - 1)
    while map.slots[at].hash:
        if map.slots[at].hash == hashed and map.slots[at].key_size == key_size and memcmp(map.slots[at].key, key, key_size) == 0:
            return &map.slots[at].value
        at = (at + 1) & (map.capacity - 1)
    return NULL


cdef inline int byte_map_set(ByteMap* map, const uint8_t* key, size_t key_size, uint64_t value) except -1 nogil:
    cdef size_t at, old_capacity = map.capacity
    cdef ByteSlot* old = map.slots
    cdef ByteSlot* grown
    cdef ByteSlot slot
    cdef uint64_t* found = byte_map_find(map, key, key_size)
    if found != NULL:
        found[0] = value
        return 0
    if map.secret_a == 0:
        if getrandom(&map.secret_a, 8, 0) != 8 or getrandom(&map.secret_b, 8, 0) != 8:
            with gil:
                raise OSError("the system gives no random numbers")
        map.secret_a |= 1
    if (map.count + 1) * 2 > map.capacity:
        grown = <ByteSlot*>calloc(old_capacity * 2 if old_capacity else 8, sizeof(ByteSlot))
        if grown == NULL:
            with gil:
                raise MemoryError()
        map.slots = grown
        map.capacity = old_capacity * 2 if old_capacity else 8
        for at in range(old_capacity):
            if old[at].hash:
                byte_map_place(map, &old[at])
        free(old)
    slot.key = <uint8_t*>malloc(key_size if key_size else 1)
    if slot.key == NULL:
        with gil:
            raise MemoryError()
    memcpy(slot.key, key, key_size)
    slot.key_size = key_size
    slot.value = value
    slot.hash = leveret_hash_bytes(key, key_size, map.secret_a, map.secret_b)
    byte_map_place(map, &slot)
    map.count += 1
    return 0


cdef inline void byte_map_place(ByteMap* map, const ByteSlot* slot) noexcept nogil:
    """Put a slot whose key is not there into a map that has room."""
    cdef size_t at = <size_t>(slot.hash >> 1) & (map.capacity - 1)
    while map.slots[at].hash:
        at = (at + 1) & (map.capacity - 1)
    map.slots[at] = slot[0]


cdef inline bint byte_map_remove(ByteMap* map, const uint8_t* key, size_t key_size) noexcept nogil:
    """Whether the key was there."""
    cdef size_t hole, at, home
    cdef uint64_t* found = byte_map_find(map, key, key_size)
    if found == NULL:
        return False
    hole = (<size_t>found - <size_t>map.slots) // sizeof(ByteSlot)
    free(map.slots[hole].key)
    at = hole
    while True:
        # Pull back whatever probed past the hole, so that no tombstones are needed.
        at = (at + 1) & (map.capacity - 1)
        if map.slots[at].hash == 0:
            break
        home = <size_t>(map.slots[at].hash >> 1) & (map.capacity - 1)
        if ((at - home) & (map.capacity - 1)) >= ((at - hole) & (map.capacity - 1)):
            map.slots[hole] = map.slots[at]
            hole = at
    map.slots[hole].hash = 0
    map.count -= 1
    return True


cdef inline void byte_map_free(ByteMap* map) noexcept nogil:
    """Empty, and give the memory back; the secrets stay."""
    cdef size_t at
    for at in range(map.capacity):
        if map.slots[at].hash:
            free(map.slots[at].key)
    free(map.slots)
    map.slots = NULL
    map.capacity = 0
    map.count = 0
