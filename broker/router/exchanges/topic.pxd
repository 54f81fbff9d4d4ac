from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.lookup.byte_map cimport ByteMap
from leveret.router.exchanges.destination_set cimport DestinationSet
from leveret.router.exchanges.exchange cimport Destinations, Exchange
from leveret.lookup.integer_map cimport IntegerMap

cdef struct Node:               # one position in the patterns; node 0 is the beginning of all of them. One cache line: matching visits many
    uint32_t parent             # of a free node: the next free one
    uint32_t word               # on the edge that leads here: a word's id, WORD_STAR or WORD_HASH
    uint32_t star               # child, or 0
    uint32_t hash               # child, or 0
    uint32_t exact              # number of children that lead on by a word
    uint32_t only_word          # if that is 1: the word, and the child, which then needs no look-up
    uint32_t only_child
    uint32_t bound_count        # of the destinations, so that most nodes' need not be looked at
    uint32_t next_waiting       # of a `#` that waits for `only_word`: the next that does, or 0
    uint64_t entered            # the step in which it was last reached; of a `#`: the match, since it stays reached until the key ends
    uint64_t closed             # of a `#`: the match in which a later `#` has made it needless

cdef struct Waiting:            # the `#` nodes that go on with one word only
    uint64_t match              # in which the list was begun; else it is empty
    uint32_t first              # or 0


cdef class TopicExchange(Exchange):
    cdef Node* nodes
    cdef DestinationSet* bound  # by node
    cdef uint32_t node_count    # ever used; free ones among them hang on `free_node`
    cdef uint32_t node_capacity
    cdef uint32_t free_node
    cdef IntegerMap children    # (node + 1) << 32 | word id -> child
    cdef ByteMap words          # word -> uses << 32 | id
    cdef list free_words        # ids that no pattern uses any more
    cdef uint32_t next_word
    cdef uint64_t step
    cdef uint64_t current_match
    cdef Waiting* waiting       # by word id
    cdef uint32_t waiting_size
    cdef bint any_waiting
    cdef uint32_t* reached      # the nodes reached after the words read so far
    cdef uint32_t* reached_next
    cdef uint32_t next_count

    cdef uint32_t new_node(self, uint32_t parent, uint32_t word) except 0
    cdef uint32_t child(self, uint32_t node, bytes word) except? 0
    cdef int make_waiting(self) except -1
    cdef int enter(self, uint32_t node, Destinations into) except -1
    cdef int open_hash(self, uint32_t node, Destinations into) except -1
