"""Compaction: the live messages of half-empty and of tiny segments are copied together, and those segments go, in one commit.

The segment store asks it for its part of each batch, and tells it how the commit ended. It decides which segments are worth moving and
remembers what was settled of them meanwhile, to settle it in the copies as well; what a segment is, and what lies where, is the store's. A
batch moves a bounded amount, since the worker's loop waits for it.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc

from leveret.storage.queue_index cimport QueueIndex, find_run, insert_run, lower_bound, remove_run, reserve_run
from leveret.storage.segment cimport (
    SEGMENT_CANDIDATE, SEGMENT_DAMAGED, SEGMENT_FLYING, SEGMENT_MOVING,
    Cursor, Run, Segment, Target,
    advance, bit_is_set, cursor_over, drop_value, pointers_push, pointers_reserve, segment_order, target_at,
)

import logging

from leveret.storage.environment import DamagedSegment

cdef enum:
    SMALL_BYTES = 8192          # a segment below this is one to merge, if there are many
    SMALL_COUNT_MAX = 1024      # ... more than so many
    WASTE_BYTES_MAX = 1 << 24   # stored bytes may be twice the live ones and this much more
    MOVED_BYTES_MAX = 1 << 20   # moved by one batch
    MOVED_READ_MAX = 1 << 22    # read for it
    MOVED_SEGMENTS_MAX = 256

log = logging.getLogger(__name__)


cdef bint is_worth_moving(const Segment* segment, bint sparse, size_t small_bytes) noexcept nogil:
    """A message alone in its segment is either wholly live or gone, so there is nothing to gain but by merging."""
    if segment.value_size < small_bytes:
        return True
    return sparse and segment.message_count > 1 and 2 * <uint64_t>segment.unit * segment.live < segment.value_size


cdef class Sweep:
    """Of one store, which gives itself along with each call."""

    def __cinit__(self):
        self.enabled = True
        self.set_bounds(SMALL_BYTES, SMALL_COUNT_MAX, WASTE_BYTES_MAX)

    def __dealloc__(self):
        free(self.candidates.items)
        free(self.moves)

    cdef void set_bounds(self, size_t small_bytes, size_t small_count_max, uint64_t waste_bytes_max) noexcept:
        """Segments below `small_bytes` are small; nothing moves before more than `small_count_max` are, or so many bytes wasted."""
        self.small_bytes = small_bytes
        self.small_count_max = self.next_small = small_count_max
        self.waste_bytes_max = self.next_bytes = waste_bytes_max

    cdef void lower_bounds(self, SegmentStore store) noexcept:
        """A batch begins: what was found not to be worth it may be so again, if there is less of it now."""
        self.next_bytes = min(self.next_bytes, max(self.waste_bytes_max, self.waste(store) + self.waste_bytes_max // 4))
        self.next_small = min(self.next_small, max(self.small_count_max, store.small_count + self.small_count_max // 4))

    cdef void leave_out(self, Segment* segment) noexcept:
        """It is about to be freed."""
        if segment.flags & SEGMENT_CANDIDATE:
            self.candidates.items[segment.candidate] = NULL

    cdef int note_move(self, PyObject* queue, uint64_t first, uint64_t last, uint32_t body_size) except -1:
        """Something of a segment that is being moved was settled."""
        cdef size_t capacity
        cdef Moved* moves
        if self.move_count == self.move_capacity:
            capacity = max(2 * self.move_capacity, <size_t>64)
            moves = <Moved*>realloc(self.moves, capacity * sizeof(Moved))
            if moves == NULL:
                raise MemoryError
            self.moves = moves
            self.move_capacity = capacity
        self.moves[self.move_count].queue = queue
        self.moves[self.move_count].first = first
        self.moves[self.move_count].last = last
        self.moves[self.move_count].body_size = body_size
        self.move_count += 1
        return 0

    cdef uint64_t waste(self, SegmentStore store) noexcept:
        """By how much the stored bytes are more than twice the live ones."""
        return store.stored_bytes - 2 * store.live_stored_bytes if store.stored_bytes > 2 * store.live_stored_bytes else 0

    cdef bint is_due(self, SegmentStore store) noexcept:
        """Whether the next batch would move anything."""
        if not self.enabled:
            return False
        if self.candidate_next < self.candidates.count:
            return self.waste(store) > self.waste_bytes_max or store.small_count > self.small_count_max
        return self.waste(store) > self.next_bytes or store.small_count > self.next_small

    cdef int _find_candidates(self, SegmentStore store) except -1:
        """Look through all segments for those worth moving, oldest first, so that neighbours come to lie in one segment again."""
        cdef bint sparse = self.waste(store) > self.next_bytes
        cdef bint small = store.small_count > self.next_small
        cdef size_t index
        cdef Segment* segment
        self.candidates.count = 0
        self.candidate_next = 0
        pointers_reserve(&self.candidates, store.segments.count)
        for index in range(store.segments.count):
            segment = store.segments.items[index]
            if segment.live == 0 or segment.flags & (SEGMENT_FLYING | SEGMENT_DAMAGED):
                continue
            if is_worth_moving(segment, sparse, self.small_bytes if small else 0):
                pointers_push(&self.candidates, segment)
        if self.candidates.count > 1:
            qsort(self.candidates.items, self.candidates.count, sizeof(Segment*), segment_order)
        for index in range(self.candidates.count):
            self.candidates.items[index].candidate = <uint32_t>index
            self.candidates.items[index].flags |= SEGMENT_CANDIDATE
        return 0

    cdef int move(self, SegmentStore store, Batch batch) except -1:
        """Copies of what is live in some candidates join the batch, with the removal of those. Bounded, since the loop waits for it."""
        cdef uint64_t moved_bytes = 0
        cdef uint64_t read_bytes = 0
        cdef Segment* segment
        if self.candidate_next == self.candidates.count:
            self._find_candidates(store)
        pointers_reserve(&batch.moved, MOVED_SEGMENTS_MAX)
        while self.candidate_next < self.candidates.count:
            if moved_bytes >= MOVED_BYTES_MAX or read_bytes >= MOVED_READ_MAX or batch.moved.count == MOVED_SEGMENTS_MAX:
                break
            segment = self.candidates.items[self.candidate_next]
            self.candidate_next += 1
            if segment == NULL:
                continue
            segment.flags &= ~<uint32_t>SEGMENT_CANDIDATE
            if segment.live:
                moved_bytes += <uint64_t>segment.unit * segment.live
                read_bytes += segment.value_size
                self._move_segment(store, batch, segment)
        if store.draft.message_count:
            self._finish_copy(store, batch)
        if self.candidate_next == self.candidates.count:
            # What could not be gained now is not looked for again until there is more to gain.
            self.next_bytes = self.waste(store) + self.waste_bytes_max // 4
            self.next_small = store.small_count + self.small_count_max // 4
        return 0

    cdef int _move_segment(self, SegmentStore store, Batch batch, Segment* segment) except -1:
        cdef uint32_t index, wanted
        cdef Target target
        cdef Run* run
        cdef QueueIndex queue
        cdef uint64_t position
        cdef Cursor cursor
        value = self._sound_value(store, segment)
        if value is None:
            segment.flags |= SEGMENT_DAMAGED
            return 0
        Py_INCREF(value)
        segment.value = <PyObject*>value  # read from here while the commit may have removed it
        segment.flags |= SEGMENT_MOVING
        pointers_push(&batch.moved, segment)
        store.write_removal(batch, segment)
        cursor = cursor_over(value)
        while advance(&cursor):
            wanted = 0
            for index in range(cursor.target_count):
                target = target_at(&cursor, index)
                wanted += not bit_is_set(segment.runs[target.run].settled, target.offset)
            if not wanted:
                continue
            if store.draft.is_full(cursor.size, wanted):
                self._finish_copy(store, batch)
            store.draft.add_message(cursor.data, cursor.size, cursor.body_size, wanted)
            for index in range(cursor.target_count):
                target = target_at(&cursor, index)
                run = &segment.runs[target.run]
                if not bit_is_set(run.settled, target.offset):
                    queue = <QueueIndex>run.queue
                    position = run.first + target.offset
                    store.draft.add_target(queue, position, target.note, cursor.body_size, lower_bound(queue, position))
        return 0

    cdef object _sound_value(self, SegmentStore store, Segment* segment):
        """The value if all of it fits its index record, else None: half a segment must not be moved."""
        cdef uint32_t index
        cdef Target target
        cdef Cursor cursor
        try:
            value = store.value_of(segment)
            cursor = cursor_over(value)
            while advance(&cursor):
                for index in range(cursor.target_count):
                    target = target_at(&cursor, index)
                    if target.run >= segment.run_count or target.offset >= segment.runs[target.run].span:
                        raise DamagedSegment(f"the value of stored segment {segment.segment_no} is damaged")
        except DamagedSegment as error:
            log.error("%s: it is left where it is", error)
            return None
        return value

    cdef int _finish_copy(self, SegmentStore store, Batch batch) except -1:
        """The segment built holds copies: until the commit is done, the queues know the originals."""
        pointers_reserve(&batch.copies, batch.copies.count + 1)
        pointers_push(&batch.copies, store.finish_segment(batch))
        return 0

    cdef int switch_to_copies(self, SegmentStore store, Batch batch) except -1:
        """The originals are gone from the log. What was settled of them since the copies were made is settled in the copies."""
        cdef uint64_t counted_already = 0
        cdef size_t index
        cdef uint32_t number
        cdef Segment* segment
        cdef QueueIndex queue
        cdef Run* run
        cdef Moved* move
        for index in range(batch.moved.count):
            segment = batch.moved.items[index]
            for number in range(segment.run_count):
                if segment.runs[number].live:
                    remove_run(<QueueIndex>segment.runs[number].queue, &segment.runs[number])
        for index in range(batch.copies.count):
            segment = batch.copies.items[index]
            segment.flags &= ~<uint32_t>SEGMENT_FLYING
            for number in range(segment.run_count):
                queue = <QueueIndex>segment.runs[number].queue
                reserve_run(queue, 1)
                insert_run(queue, &segment.runs[number])
        for index in range(self.move_count):
            move = &self.moves[index]
            queue = <QueueIndex>move.queue
            if move.first < move.last:
                store.settle_in_runs(queue, move.first, move.last, &counted_already)
            else:
                run = find_run(queue, move.first)
                if run != NULL and not bit_is_set(run.settled, move.first - run.first):
                    store.settle_in_run(run, move.first, move.body_size)
        self.move_count = 0
        store.moved_segments += batch.moved.count
        for index in range(batch.copies.count):
            drop_value(batch.copies.items[index])
        for index in range(batch.moved.count):
            store.remove_segment(batch.moved.items[index])
        return 0
