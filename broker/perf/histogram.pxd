from libc.stdint cimport uint64_t

cdef enum:
    # Values below 256 ns have a slot each; above, every power of two is cut into 128 slots, so a slot is at most 1/128 of its value wide.
    SLOT_BITS = 7
    VALUE_BITS = 40                                         # 2^40 ns are 18 minutes; what is above counts as that
    SLOTS = (VALUE_BITS - SLOT_BITS + 1) << SLOT_BITS


cdef class Histogram:
    cdef uint64_t counts[SLOTS]
    cdef readonly uint64_t total
    cdef readonly uint64_t sum_ns
    cdef readonly uint64_t max_ns

    cdef void add(self, uint64_t value_ns, uint64_t times) noexcept nogil
