"""The messages of one shard that are to outlive memory: which of them are live, where they lie, and what the next commit writes.

The worker calls it, on the loop's thread only: `add` and `settle` as messages come and go, `take_batch` when a commit may begin, and
`batch_done` or `batch_failed` when the commit log has answered. Only `CommitLog.commit` runs on another thread. It knows nothing of AMQP,
opens no file and reads no clock: what it holds is a function of the calls and of the log's records.

A *segment* is up to SEGMENT_BYTES of messages that are written in one commit as one value, and never changed. Beside it stands one index
record that says for each queue in it which positions are still live; `layout.py` has both byte for byte. Settling a message costs a bit
in memory, and its segment's index record is written again once per commit; when nothing in a segment is live, both go. So a start reads
the index only, which is small, and a message costs no memory of its own once it is written.

Of a batch that is being committed, the messages count as live but are not yet read back. What is settled meanwhile goes with the next.

When more of the stored bytes are waste than live, `take_batch` also writes the live messages of half-empty segments anew, at their old
positions, and drops those segments in the same commit; so too with many tiny segments. Until the commit is done, the old ones stand.
"""

from cpython.bytes cimport _PyBytes_Resize, PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from leveret.storage.queue_index cimport QueueIndex, find_run, insert_run, lower_bound, remove_run, reserve_run
from leveret.storage.segment cimport (
    MESSAGE_HEAD_SIZE, SEGMENT_CANDIDATE, SEGMENT_DAMAGED, SEGMENT_DEAD, SEGMENT_DIRTY, SEGMENT_FLYING, SEGMENT_MOVING,
    SEGMENT_TOUCHED, TARGET_SIZE,
    Cursor, Run, Segment, Target,
    bit_is_set, clear_bit, cursor_over, drop_value, live_from, next_message, pointers_drop_flagged, pointers_push, pointers_reserve,
    popcount, run_order, segment_free, segment_new, segment_order, set_bit, target_at, words_for,
)

import logging

from leveret.storage.commit_log import Table
from leveret.storage.environment import DamagedSegment, ForeignStore
from leveret.storage.layout import CHUNK_BYTES, INDEX_KEY, QUEUE_KEY, QUEUE_VALUE, SEGMENT_KEY

cdef enum:
    SEGMENT_BYTES = 65520       # with LMDB's page head, sixteen pages
    SMALL_BYTES = 8192          # a segment below this is one to merge, if there are many
    SMALL_COUNT_MAX = 1024      # ... more than so many
    WASTE_BYTES_MAX = 1 << 24   # stored bytes may be twice the live ones and this much more
    MOVED_BYTES_MAX = 1 << 20   # moved by one batch
    MOVED_READ_MAX = 1 << 22    # read for it
    MOVED_SEGMENTS_MAX = 256
    GAP_MAX = 256               # a run with a longer hole costs more in bits than a second run
    RUNS_MAX = 8192             # of a segment; a run's number is a u16
    TARGETS_MAX = 4096          # of a message; with more it is stored again
    INDEX_HEAD_SIZE = 24
    INDEX_RUN_SIZE = 32
    DROPPED_MAX = 1000          # segments removed by one batch, so that a purge does not make one endless commit
    CACHED_BYTES_MAX = 1 << 20  # a value that is read is remembered up to this size

log = logging.getLogger(__name__)

cdef int SEGMENTS = Table.SEGMENTS
cdef int INDEX = Table.INDEX
cdef int QUEUES = Table.QUEUES
cdef uint64_t CHUNK = CHUNK_BYTES
cdef object pack_segment_key = SEGMENT_KEY.pack
cdef object pack_index_key = INDEX_KEY.pack
cdef object pack_queue_key = QUEUE_KEY.pack
cdef object pack_queue_value = QUEUE_VALUE.pack
cdef int QUEUE_RECORD_SIZE = QUEUE_VALUE.size


cdef inline bint advance(Cursor* cursor) except -1:
    """Whether there is a next message; the cursor stands on it."""
    cdef int found = next_message(cursor)
    if found < 0:
        raise DamagedSegment("the value of a stored segment is damaged")
    return found


cdef bint is_worth_moving(const Segment* segment, bint sparse, size_t small_bytes) noexcept nogil:
    """A message alone in its segment is either wholly live or gone, so there is nothing to gain but by merging."""
    if segment.value_size < small_bytes:
        return True
    return sparse and segment.message_count > 1 and 2 * <uint64_t>segment.unit * segment.live < segment.value_size


cdef size_t open_bound(QueueIndex queue, const Entry* entries, uint64_t position) noexcept:
    """Index in `open_entries` of the first at or after the position. Positions are mostly without holes, so it is guessed first."""
    cdef size_t low = 0
    cdef size_t high = queue.open_count
    cdef size_t middle
    cdef uint64_t first
    if high == 0:
        return 0
    first = entries[queue.open_entries[0]].position
    if position <= first:
        return 0
    if position - first < high:
        middle = position - first
        if entries[queue.open_entries[middle]].position == position:
            return middle
        high = middle  # the n-th is at `first + n` or further
    while low < high:
        middle = (low + high) >> 1
        if entries[queue.open_entries[middle]].position < position:
            low = middle + 1
        else:
            high = middle
    return low


cdef class SegmentReader:
    cdef int take(self, uint64_t position, uint64_t note, const uint8_t* data, uint32_t size) except -1:
        """One message, `data` good until this returns. It may call the store. What it raises ends the read."""
        raise NotImplementedError


cdef class Batch:
    def __cinit__(self):
        self.operations = []
        self.queues = []
        self.marks = []
        self.forgotten = []

    def __dealloc__(self):
        free(self.written.items)
        free(self.copies.items)
        free(self.moved.items)
        free(self.rewritten.items)
        free(self.dropped.items)


cdef class SegmentStore:
    """The store over one log. `load` (or the first `open_queue`) reads what the log holds; `close` at the end lets go of what waits.

    Positions of a queue ascend from 1 over all `add`s that the store has seen, and may have holes. A queue id is never used again after
    `forget`. MemoryError from anything but `add` leaves the store unfit for use: the process should end, the log is whole.
    """

    def __init__(self, log):
        self.log = log
        self.queues = {}
        self.open_queues = []
        self.marks = []
        self.forgotten = []
        self.next_segment_no = 1
        self.building.stamp = 1
        self.compacting = True
        self.segment_bytes = SEGMENT_BYTES
        self.small_bytes = SMALL_BYTES
        self.small_count_max = SMALL_COUNT_MAX
        self.waste_bytes_max = WASTE_BYTES_MAX
        self.next_sweep_bytes = self.waste_bytes_max
        self.next_sweep_small = self.small_count_max

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.segments.count):
            segment_free(self.segments.items[index])
        free(self.segments.items)
        free(self.dirty.items)
        free(self.dead.items)
        free(self.candidates.items)
        free(self.entries)
        free(self.groups)
        free(self.moves)
        Py_XDECREF(self.building.value)
        free(self.building.runs)

    def close(self):
        """Let go of every message that was not written. The log stays open; the store is not used afterwards."""
        cdef size_t index
        for index in range(self.group_count):
            if self.groups[index].owner != NULL:
                self.let_go(self.groups[index].owner)
                self.groups[index].owner = NULL
        self.group_count = 0
        self.entry_count = 0

    # --- what the worker says of its messages -------------------------------------------------------------------------------------------

    cdef void keep(self, void* owner) noexcept:
        """Hold the memory of a message; a subclass knows how."""

    cdef void let_go(self, void* owner) noexcept:
        """Give back what `keep` took, once: the message is encoded, or nobody wants it any more."""

    # --- messages come and go -----------------------------------------------------------------------------------------------------------

    cdef int add(self, QueueIndex queue, uint64_t position, uint64_t note, const uint8_t* data, uint32_t size, uint32_t body_size,
                 void* owner) except -1:
        """A message joins the batch that gathers.

        position: above every one before it in this queue. note: kept with it, whatever it means. data: valid until `let_go(owner)`.
        owner: consecutive calls with the same owner and data store the message once; NULL if its memory needs no holding. Raises
        ValueError for a position that does not ascend or a forgotten queue, MemoryError; either leaves everything as it was.
        """
        cdef Entry* entry
        cdef Group* group
        if position <= queue.highest or queue.forgotten:
            raise ValueError(f"position {position} of queue {queue.queue_id}: the queue is forgotten or has been further")
        if self.entry_count == self.entry_capacity or queue.open_count == queue.open_capacity or queue.open_count == 0:
            self._grow_open(queue)
        if self.group_count:
            group = &self.groups[self.group_count - 1]
            if owner == NULL or group.owner != owner or group.data != data or self.entry_count - group.entry >= TARGETS_MAX:
                self._open_group(data, size, owner)
        else:
            self._open_group(data, size, owner)
        group = &self.groups[self.group_count - 1]
        group.wanted += 1
        entry = &self.entries[self.entry_count]
        entry.queue = <PyObject*>queue
        entry.position = position
        entry.note = note
        entry.body_size = body_size
        entry.group = <uint32_t>(self.group_count - 1)
        queue.open_entries[queue.open_count] = <uint32_t>self.entry_count
        queue.open_count += 1
        self.entry_count += 1
        queue.highest = position
        queue.live += 1
        queue.live_bytes += body_size
        return 0

    cdef int _grow_open(self, QueueIndex queue) except -1:
        """Room for one more entry, in the batch and in the queue; the queue's first joins it to the batch."""
        cdef size_t capacity
        cdef Entry* entries
        cdef uint32_t* numbers
        if self.entry_count == self.entry_capacity:
            if self.entry_count >= 0x7FFFFFFF:
                raise MemoryError("a batch holds two thousand million messages")
            capacity = max(2 * self.entry_capacity, <size_t>1024)
            entries = <Entry*>realloc(self.entries, capacity * sizeof(Entry))
            if entries == NULL:
                raise MemoryError
            self.entries = entries
            self.entry_capacity = capacity
        if queue.open_count == queue.open_capacity:
            capacity = max(2 * queue.open_capacity, <size_t>4)
            numbers = <uint32_t*>realloc(queue.open_entries, capacity * sizeof(uint32_t))
            if numbers == NULL:
                raise MemoryError
            queue.open_entries = numbers
            queue.open_capacity = capacity
        if queue.open_count == 0:
            self.open_queues.append(queue)
        return 0

    def _grow_groups(self):
        cdef size_t capacity = max(2 * self.group_capacity, <size_t>1024)
        cdef Group* groups = <Group*>realloc(self.groups, capacity * sizeof(Group))
        if groups == NULL:
            raise MemoryError
        self.groups = groups
        self.group_capacity = capacity

    cdef int _open_group(self, const uint8_t* data, uint32_t size, void* owner) except -1:
        cdef Group* group
        if self.group_count == self.group_capacity:
            self._grow_groups()
        group = &self.groups[self.group_count]
        group.owner = owner
        group.data = data
        group.size = size
        group.wanted = 0
        group.entry = <uint32_t>self.entry_count
        self.group_count += 1
        self.gathered_bytes += size
        if owner != NULL:
            self.keep(owner)
        return 0

    cdef int settle(self, QueueIndex queue, uint64_t position, uint32_t body_size) except -1:
        """The message will not be wanted again. body_size: as it was given to `add`. 1 if it was live, 0 if it was not there."""
        cdef size_t at
        cdef Run* run
        if queue.open_count and position >= self.entries[queue.open_entries[0]].position:
            at = open_bound(queue, self.entries, position)
            if at == queue.open_count or self.entries[queue.open_entries[at]].position != position:
                return 0
            return self._settle_open(queue, at)
        run = find_run(queue, position)
        if run == NULL or bit_is_set(run.settled, position - run.first):
            return 0
        self._settle_in_run(run, position, body_size)
        queue.live -= 1
        queue.live_bytes -= body_size
        return 1

    cdef int _settle_open(self, QueueIndex queue, size_t at) noexcept:
        """The entry at this place of the queue's is never written. 1, or 0 if it was settled before."""
        cdef Entry* entry = &self.entries[queue.open_entries[at]]
        cdef Group* group
        cdef void* owner
        if entry.queue == NULL:
            return 0
        entry.queue = NULL
        queue.live -= 1
        queue.live_bytes -= entry.body_size
        group = &self.groups[entry.group]
        group.wanted -= 1
        if group.wanted == 0:
            self.gathered_bytes -= group.size
            owner = group.owner
            group.owner = NULL
            group.data = NULL
            if owner != NULL:
                self.let_go(owner)
        return 1

    cdef int _settle_in_run(self, Run* run, uint64_t position, uint32_t body_size) except -1:
        """One live message of a run; the queue's own counts are the caller's. The run may be gone afterwards from the queue's array."""
        cdef Segment* segment = run.segment
        if segment.flags & SEGMENT_MOVING:
            self._note_move(run.queue, position, position, body_size)
        set_bit(run.settled, position - run.first)
        run.live -= 1
        run.live_bytes -= body_size
        if run.live == 0:
            run.live_bytes = 0
            remove_run(<QueueIndex>run.queue, run)
        segment.live -= 1
        self.live_stored_bytes -= segment.unit
        self._touch(segment)
        return 0

    cdef void _touch(self, Segment* segment) noexcept:
        """Its index record is no longer what is stored. There is room in the arrays for every segment."""
        if segment.flags & SEGMENT_MOVING:
            segment.flags |= SEGMENT_TOUCHED
        elif segment.live == 0:
            if not segment.flags & SEGMENT_DEAD:
                segment.flags |= SEGMENT_DEAD
                pointers_push(&self.dead, segment)
        elif not segment.flags & SEGMENT_DIRTY:
            segment.flags |= SEGMENT_DIRTY
            pointers_push(&self.dirty, segment)

    cdef int _note_move(self, PyObject* queue, uint64_t first, uint64_t last, uint32_t body_size) except -1:
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

    cdef int settle_range(self, QueueIndex queue, uint64_t first, uint64_t last) except -1:
        """Every live message from `first` to `last`, both included. How many there were.

        Reads the log for at most the two segments that the range cuts (`StoreFailed`). Where one is damaged, its messages count as equally
        large.
        """
        cdef uint64_t body_bytes = 0
        cdef uint64_t count
        cdef size_t at
        count = self._settle_in_runs(queue, first, last, &body_bytes)
        queue.live -= count
        queue.live_bytes -= body_bytes
        at = open_bound(queue, self.entries, first)
        while at < queue.open_count and self.entries[queue.open_entries[at]].position <= last:
            count += self._settle_open(queue, at)
            at += 1
        return <int>min(count, <uint64_t>0x7FFFFFFF)

    cdef uint64_t _settle_in_runs(self, QueueIndex queue, uint64_t first, uint64_t last, uint64_t* body_bytes) except? 0xFFFFFFFFFFFFFFFF:
        """As `settle_range` in what is or is being written; the queue's own counts are the caller's."""
        cdef uint64_t count = 0
        cdef uint64_t run_last
        cdef size_t index
        cdef Run* run
        cdef Segment* segment
        while first <= last:
            index = lower_bound(queue, first)
            if index == queue.run_count:
                break
            run = queue.runs[queue.run_head + index]
            if run.first > last:
                break
            run_last = run.first + run.span - 1
            if first > run.first or last < run_last:
                count += self._settle_part(run, first, last, body_bytes)
            else:
                segment = run.segment
                if segment.flags & SEGMENT_MOVING:
                    self._note_move(run.queue, run.first, run_last, <uint32_t>run.live_bytes)
                count += run.live
                body_bytes[0] += run.live_bytes
                segment.live -= run.live
                self.live_stored_bytes -= <uint64_t>segment.unit * run.live
                memset(run.settled, 0xFF, words_for(run.span) * sizeof(uint64_t))
                run.live = 0
                run.live_bytes = 0
                remove_run(queue, run)
                self._touch(segment)
            first = run_last + 1
        return count

    cdef uint64_t _settle_part(self, Run* run, uint64_t first, uint64_t last, uint64_t* body_bytes) except? 0xFFFFFFFFFFFFFFFF:
        """The live ones of a run from `first` to `last`. Their sizes are in the segment's value only."""
        cdef Segment* segment = run.segment
        cdef uint32_t number = <uint32_t>(run - segment.runs)
        cdef uint64_t count = 0
        cdef uint64_t position
        cdef uint32_t index
        cdef Target target
        cdef Cursor cursor
        if first > run.first + run.span - 1 or not live_from(run, first):
            return 0
        try:
            value = self._value(segment)
            cursor = cursor_over(value)
            while advance(&cursor):
                for index in range(cursor.target_count):
                    target = target_at(&cursor, index)
                    if target.run != number or target.offset >= run.span:
                        continue
                    position = run.first + target.offset
                    if first <= position <= last and not bit_is_set(run.settled, target.offset):
                        count += 1
                        body_bytes[0] += cursor.body_size
                        self._settle_in_run(run, position, cursor.body_size)
        except DamagedSegment:
            count += self._settle_unread(run, first, last, body_bytes)
        return count

    cdef uint64_t _settle_unread(self, Run* run, uint64_t first, uint64_t last, uint64_t* body_bytes) except? 0xFFFFFFFFFFFFFFFF:
        """`_settle_part` where the value cannot be read."""
        cdef uint64_t count = 0
        cdef uint64_t position
        cdef uint32_t size
        for position in range(max(first, run.first), min(last, run.first + run.span - 1) + 1):
            if not bit_is_set(run.settled, position - run.first):
                size = <uint32_t>(run.live_bytes // run.live)
                count += 1
                body_bytes[0] += size
                self._settle_in_run(run, position, size)
        return count

    cdef int forget(self, QueueIndex queue) except -1:
        """The queue is deleted: all of it is settled, and its record goes. It takes no more messages."""
        if queue.forgotten:
            return 0
        self.settle_range(queue, 1, 0xFFFFFFFFFFFFFFFE)
        queue.forgotten = True
        self.forgotten.append(queue)
        return 0

    cdef int mark(self, QueueIndex queue, uint64_t delivered, uint64_t lease) except -1:
        """Two numbers for the queue's record, written with the next batch. Whatever they mean."""
        if queue.forgotten:
            return 0
        queue.delivered = delivered
        queue.lease = lease
        if not queue.marked:
            self.marks.append(queue)
            queue.marked = True
        return 0

    # --- reading back -------------------------------------------------------------------------------------------------------------------

    cdef uint64_t run_end(self, QueueIndex queue, uint64_t first) noexcept:
        """The last position of the first committed run with something live at or after `first`; 0 if there is none.

        A run lies in one segment: reading up to there costs one read of the log.
        """
        cdef size_t index = lower_bound(queue, first)
        cdef Run* run
        while index < queue.run_count:
            run = queue.runs[queue.run_head + index]
            if not run.segment.flags & SEGMENT_FLYING and live_from(run, first):
                return run.first + run.span - 1
            index += 1
        return 0

    cdef bint holds(self, QueueIndex queue, uint64_t position) noexcept:
        """Whether that message can be read: committed, and not settled."""
        cdef Run* run = find_run(queue, position)
        return run != NULL and not run.segment.flags & SEGMENT_FLYING and not bit_is_set(run.settled, position - run.first)

    cdef int read(self, QueueIndex queue, uint64_t first, uint64_t last, SegmentReader reader) except -1:
        """Give the reader every live, committed message from `first` to `last`, ascending. How many there were.

        Raises `StoreFailed` if the log cannot be read, `DamagedSegment` after what could be read before the damage, and whatever the reader
        raises.
        """
        cdef int count = 0
        cdef size_t index
        cdef uint64_t run_first, run_last, position
        cdef uint32_t number, target_index, span
        cdef uint64_t* settled = NULL
        cdef Run* run
        cdef Target target
        cdef Cursor cursor
        try:
            while first <= last:
                index = lower_bound(queue, first)
                if index == queue.run_count:
                    break
                run = queue.runs[queue.run_head + index]
                run_first, span = run.first, run.span
                if run_first > last:
                    break
                run_last = run_first + span - 1
                if not run.segment.flags & SEGMENT_FLYING and live_from(run, first):
                    # The reader may settle what it is given, and the run may go with it: what it is asked of is copied.
                    free(settled)
                    settled = <uint64_t*>malloc(words_for(span) * sizeof(uint64_t))
                    if settled == NULL:
                        raise MemoryError
                    memcpy(settled, run.settled, words_for(span) * sizeof(uint64_t))
                    number = <uint32_t>(run - run.segment.runs)
                    value = self._value(run.segment)
                    cursor = cursor_over(value)
                    while advance(&cursor):
                        for target_index in range(cursor.target_count):
                            target = target_at(&cursor, target_index)
                            if target.run != number or target.offset >= span or bit_is_set(settled, target.offset):
                                continue
                            position = run_first + target.offset
                            if first <= position <= last:
                                reader.take(position, target.note, cursor.data, cursor.size)
                                count += 1
                first = run_last + 1
        finally:
            free(settled)
        return count

    cdef object _value(self, Segment* segment):
        """The whole value of a segment. The last one read is remembered, since a queue is read in slices."""
        cdef uint32_t chunk
        if segment.value != NULL:
            return <object>segment.value
        if self.cached_value is not None and self.cached_no == segment.segment_no:
            return self.cached_value
        chunks = [self.log.get(SEGMENTS, pack_segment_key(segment.segment_no, chunk)) for chunk in range(segment.chunk_count)]
        if None in chunks:
            raise DamagedSegment(f"stored segment {segment.segment_no} is missing, or a part of it")
        value = chunks[0] if segment.chunk_count == 1 else b"".join(chunks)
        if <uint64_t>len(value) != segment.value_size:
            raise DamagedSegment(f"stored segment {segment.segment_no} has {len(value)} bytes, not {segment.value_size}")
        if segment.value_size <= CACHED_BYTES_MAX:
            self.cached_no = segment.segment_no
            self.cached_value = value
        return value

    # --- encoding -----------------------------------------------------------------------------------------------------------------------

    cdef bint _build_is_full(self, uint32_t size, uint32_t targets) noexcept:
        """Whether a message with so many bytes and targets belongs into the next segment."""
        return self.building.message_count != 0 and (
            self.building.size + MESSAGE_HEAD_SIZE + <size_t>targets * TARGET_SIZE + size > self.segment_bytes
            or self.building.run_count + targets > RUNS_MAX)

    cdef int _build_message(self, const uint8_t* data, uint32_t size, uint32_t body_size, uint32_t targets) except -1:
        """Append a message; `targets` calls of `_build_target` fill in whom it is for."""
        cdef Building* building = &self.building
        cdef size_t needed = building.size + MESSAGE_HEAD_SIZE + <size_t>targets * TARGET_SIZE + size
        cdef size_t capacity
        cdef uint8_t* at
        cdef Run* runs
        cdef uint16_t count = <uint16_t>targets
        assert 0 < targets <= TARGETS_MAX
        if needed > building.capacity:
            capacity = max(needed, self.segment_bytes)
            if building.value == NULL:
                value = PyBytes_FromStringAndSize(NULL, capacity)
                Py_INCREF(value)
                building.value = <PyObject*>value
                value = None
            else:
                building.capacity = 0
                _PyBytes_Resize(&building.value, capacity)
            building.capacity = capacity
        if building.run_count + targets > building.run_capacity:
            capacity = max(2 * <size_t>building.run_capacity, <size_t>(building.run_count + targets))
            runs = <Run*>realloc(building.runs, capacity * sizeof(Run))
            if runs == NULL:
                raise MemoryError
            building.runs = runs
            building.run_capacity = <uint32_t>capacity
        at = <uint8_t*>PyBytes_AS_STRING(<object>building.value) + building.size
        memcpy(at, &size, 4)
        memcpy(at + 4, &body_size, 4)
        memcpy(at + 8, &count, 2)
        memcpy(at + needed - building.size - size, data, size)
        building.target_at = building.size + MESSAGE_HEAD_SIZE
        building.size = needed
        building.message_count += 1
        return 0

    cdef int _build_target(self, QueueIndex queue, uint64_t position, uint64_t note, uint32_t body_size, ssize_t source) except -1:
        """One target of the message just appended. source: the index of the queue's run that it is moved from; -1 if it is new."""
        cdef Building* building = &self.building
        cdef Run* run
        cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(<object>building.value) + building.target_at
        cdef uint16_t number
        cdef uint32_t offset
        # A run must not close over another run of the queue that lies elsewhere.
        run = &building.runs[queue.build_run]
        if (queue.build_stamp != building.stamp or position < run.first + run.span or position - (run.first + run.span) >= GAP_MAX
                or source - queue.build_source > 1 or source < queue.build_source):
            queue.build_stamp = building.stamp
            queue.build_run = building.run_count
            building.run_count += 1
            run = &building.runs[queue.build_run]
            memset(run, 0, sizeof(Run))
            run.queue = <PyObject*>queue
            run.queue_id = queue.queue_id
            run.first = position
        queue.build_source = source
        offset = <uint32_t>(position - run.first)
        run.span = offset + 1
        run.live += 1
        run.live_bytes += body_size
        number = <uint16_t>queue.build_run
        memcpy(at, &number, 2)
        memcpy(at + 2, &offset, 4)
        memcpy(at + 6, &note, 8)
        building.target_at += TARGET_SIZE
        building.target_count += 1
        return 0

    cdef Segment* _finish_segment(self, Batch batch) except NULL:
        """Make a segment of what was built and put it into the batch; the caller ties its runs to their queues."""
        cdef Building* building = &self.building
        cdef Segment* segment
        cdef Run* run
        cdef uint64_t* words
        cdef size_t word_count = 0
        cdef uint32_t index
        cdef Target target
        cdef Cursor cursor
        for index in range(building.run_count):
            word_count += words_for(building.runs[index].span)
        segment = segment_new(building.run_count, word_count)
        segment.segment_no = self.next_segment_no
        segment.value_size = building.size
        segment.message_count = building.message_count
        segment.target_count = building.target_count
        segment.live = building.target_count
        words = <uint64_t*>(segment.runs + segment.run_count)
        for index in range(building.run_count):
            run = &segment.runs[index]
            run[0] = building.runs[index]
            run.segment = segment
            run.settled = words
            words += words_for(run.span)
        try:
            building.capacity = 0
            _PyBytes_Resize(&building.value, building.size)
            value = <object>building.value
            Py_DECREF(value)
            building.value = NULL
            cursor = cursor_over(value)
            while advance(&cursor):
                for index in range(cursor.target_count):
                    target = target_at(&cursor, index)
                    clear_bit(segment.runs[target.run].settled, target.offset)
            segment.chunk_count = <uint32_t>((building.size + CHUNK - 1) // CHUNK)
            if segment.chunk_count == 1:
                batch.operations.append((SEGMENTS, pack_segment_key(segment.segment_no, 0), value))
            else:
                for index in range(segment.chunk_count):
                    batch.operations.append(
                        (SEGMENTS, pack_segment_key(segment.segment_no, index), value[index * CHUNK:(index + 1) * CHUNK]))
            batch.size_bytes += building.size
            self._write_index(batch, segment)
            self._add_segment(segment)
        except BaseException:
            free(segment)
            raise
        Py_INCREF(value)
        segment.value = <PyObject*>value
        segment.flags |= SEGMENT_FLYING
        self.next_segment_no += 1
        building.size = 0
        building.run_count = 0
        building.message_count = 0
        building.target_count = 0
        building.stamp += 1
        return segment

    cdef int _write_index(self, Batch batch, Segment* segment) except -1:
        """The segment's index record, as it stands now, into the batch."""
        cdef size_t size = INDEX_HEAD_SIZE
        cdef uint32_t index
        cdef uint32_t zero = 0
        cdef size_t bit_bytes
        cdef uint8_t* at
        cdef Run* run
        for index in range(segment.run_count):
            size += INDEX_RUN_SIZE + (<size_t>segment.runs[index].span + 7) // 8
        record = PyBytes_FromStringAndSize(NULL, size)
        at = <uint8_t*>PyBytes_AS_STRING(record)
        memcpy(at, &segment.value_size, 8)
        memcpy(at + 8, &segment.chunk_count, 4)
        memcpy(at + 12, &segment.message_count, 4)
        memcpy(at + 16, &segment.target_count, 4)
        memcpy(at + 20, &segment.run_count, 4)
        at += INDEX_HEAD_SIZE
        for index in range(segment.run_count):
            run = &segment.runs[index]
            memcpy(at, &run.queue_id, 4)
            memcpy(at + 4, &run.span, 4)
            memcpy(at + 8, &run.live, 4)
            memcpy(at + 12, &zero, 4)
            memcpy(at + 16, &run.first, 8)
            memcpy(at + 24, &run.live_bytes, 8)
            at += INDEX_RUN_SIZE
            bit_bytes = (<size_t>run.span + 7) // 8
            memcpy(at, run.settled, bit_bytes)
            at += bit_bytes
        batch.operations.append((INDEX, pack_index_key(segment.segment_no), record))
        batch.size_bytes += size
        return 0

    cdef int _add_segment(self, Segment* segment) except -1:
        """Count a segment in, with room for it in every array that it may come into."""
        pointers_reserve(&self.segments, self.segments.count + 1)
        pointers_reserve(&self.dirty, self.segments.count + 1)
        pointers_reserve(&self.dead, self.segments.count + 1)
        segment.unit = <uint32_t>min(segment.value_size // segment.target_count, <uint64_t>0xFFFFFFFF)
        segment.slot = <uint32_t>self.segments.count
        pointers_push(&self.segments, segment)
        self.stored_bytes += segment.value_size
        self.live_stored_bytes += <uint64_t>segment.unit * segment.live
        self.small_count += segment.value_size < self.small_bytes
        return 0

    cdef void _remove_segment(self, Segment* segment) noexcept:
        """Count a segment out and free it. Its runs are in no queue's array, itself in none but `candidates`."""
        cdef Segment* other = self.segments.items[self.segments.count - 1]
        self.segments.items[segment.slot] = other
        other.slot = segment.slot
        self.segments.count -= 1
        self.stored_bytes -= segment.value_size
        self.live_stored_bytes -= <uint64_t>segment.unit * segment.live
        self.small_count -= segment.value_size < self.small_bytes
        if segment.flags & SEGMENT_CANDIDATE:
            self.candidates.items[segment.candidate] = NULL
        segment_free(segment)

    cdef int _encode_gathered(self, Batch batch) except -1:
        """Segments of all that was added and is still wanted. Every owner is let go."""
        cdef size_t number, index, end
        cdef Group* group
        cdef Entry* entry
        cdef QueueIndex queue
        for number in range(self.group_count):
            group = &self.groups[number]
            if group.wanted == 0:
                continue
            if self._build_is_full(group.size, group.wanted):
                self._finish_new(batch)
            end = self.groups[number + 1].entry if number + 1 < self.group_count else self.entry_count
            # The message's body size is the same for all its queues.
            index = group.entry
            while self.entries[index].queue == NULL:
                index += 1
            self._build_message(group.data, group.size, self.entries[index].body_size, group.wanted)
            for index in range(index, end):
                entry = &self.entries[index]
                if entry.queue != NULL:
                    self._build_target(<QueueIndex>entry.queue, entry.position, entry.note, entry.body_size, -1)
            if group.owner != NULL:
                self.let_go(group.owner)
                group.owner = NULL
        if self.building.message_count:
            self._finish_new(batch)
        for queue in self.open_queues:
            queue.flying_through = queue.highest
            queue.open_count = 0
            if queue.open_capacity > 4096:
                free(queue.open_entries)
                queue.open_entries = NULL
                queue.open_capacity = 0
        batch.queues = self.open_queues
        self.open_queues = []
        self.entry_count = 0
        self.group_count = 0
        self.gathered_bytes = 0
        if self.entry_capacity > 65536:
            free(self.entries)
            self.entries = NULL
            self.entry_capacity = 0
        if self.group_capacity > 65536:
            free(self.groups)
            self.groups = NULL
            self.group_capacity = 0
        return 0

    cdef int _finish_new(self, Batch batch) except -1:
        """The segment built is one of new messages: their queues know it from now on."""
        cdef Segment* segment
        cdef uint32_t index
        pointers_reserve(&batch.written, batch.written.count + 1)
        segment = self._finish_segment(batch)
        pointers_push(&batch.written, segment)
        for index in range(segment.run_count):
            reserve_run(<QueueIndex>segment.runs[index].queue, 1)
            insert_run(<QueueIndex>segment.runs[index].queue, &segment.runs[index])
        return 0

    cdef bint has_work(self) noexcept:
        """Whether `take_batch` would have something to write."""
        return (self.entry_count != 0 or self.dirty.count != 0 or self.dead.count != 0 or len(self.marks) != 0
                or len(self.forgotten) != 0 or self._compaction_due())

    def take_batch(self, bint messages=True):
        """Everything that is to be written now, as a `Batch`; it may be empty. The next one only after `batch_done` or `batch_failed`.

        messages: False leaves out what takes room, new messages and moved ones, so that what makes room can be written on a full disk. The
        removal of dead segments is spread over batches of DROPPED_MAX, those that died last first. Raises `StoreFailed` if the log cannot
        be read where segments are to be moved.
        """
        cdef Batch batch
        cdef Segment* segment
        cdef QueueIndex queue
        cdef size_t index
        if self.flying is not None:
            raise RuntimeError("a batch is under way")
        batch = Batch()
        batch.messages = messages
        if messages:
            self._encode_gathered(batch)
            self.next_sweep_bytes = min(self.next_sweep_bytes, max(self.waste_bytes_max, self._waste() + self.waste_bytes_max // 4))
            self.next_sweep_small = min(self.next_sweep_small, max(self.small_count_max, self.small_count + self.small_count_max // 4))
            if self._compaction_due():
                self._move_sparse(batch)
        pointers_reserve(&batch.rewritten, self.dirty.count)
        for index in range(self.dirty.count):
            segment = self.dirty.items[index]
            segment.flags &= ~<uint32_t>SEGMENT_DIRTY
            if segment.flags & SEGMENT_MOVING:
                segment.flags |= SEGMENT_TOUCHED  # should the move fail
            elif not segment.flags & SEGMENT_DEAD:
                self._write_index(batch, segment)
                pointers_push(&batch.rewritten, segment)
        self.dirty.count = 0
        pointers_reserve(&batch.dropped, min(self.dead.count, <size_t>DROPPED_MAX))
        while self.dead.count and batch.dropped.count < DROPPED_MAX:
            self.dead.count -= 1
            segment = self.dead.items[self.dead.count]
            pointers_push(&batch.dropped, segment)
            self._write_removal(batch, segment)
        for queue in self.forgotten:
            if queue.recorded:
                batch.operations.append((QUEUES, pack_queue_key(queue.queue_id), None))
        for queue in self.marks:
            queue.marked = False
            if not queue.forgotten:
                queue.recorded = True
                batch.operations.append((QUEUES, pack_queue_key(queue.queue_id), pack_queue_value(queue.delivered, queue.lease)))
                batch.size_bytes += QUEUE_RECORD_SIZE
        batch.marks, self.marks = self.marks, []
        batch.forgotten, self.forgotten = self.forgotten, []
        self.flying = batch
        return batch

    cdef int _write_removal(self, Batch batch, Segment* segment) except -1:
        cdef uint32_t chunk
        for chunk in range(segment.chunk_count):
            batch.operations.append((SEGMENTS, pack_segment_key(segment.segment_no, chunk), None))
        batch.operations.append((INDEX, pack_index_key(segment.segment_no), None))
        return 0

    def batch_done(self, Batch batch not None):
        """Its operations are committed: its messages can be read back, and `stored_through` moves."""
        cdef size_t index
        cdef Segment* segment
        cdef QueueIndex queue
        self._end(batch)
        for index in range(batch.written.count):
            segment = batch.written.items[index]
            segment.flags &= ~<uint32_t>SEGMENT_FLYING
            drop_value(segment)
        for index in range(batch.dropped.count):
            self._remove_segment(batch.dropped.items[index])
        if batch.moved.count:
            self._switch_to_copies(batch)
        for queue in batch.queues:
            queue.stored_through = queue.flying_through
        for queue in batch.forgotten:
            if self.queues.get(queue.queue_id) is queue:
                del self.queues[queue.queue_id]
        if batch.messages:
            self.compacting = True

    def batch_failed(self, Batch batch not None):
        """Nothing of its operations is there, and the log goes on (`DiskFull`).

        Its new messages are gone: they do not count as live any more, and settling them is passed over. Everything else in it, settled
        messages, removals and marks, is written with the next batch.
        """
        cdef size_t index
        cdef uint32_t number
        cdef Segment* segment
        cdef Run* run
        cdef QueueIndex queue
        self._end(batch)
        self.compacting = False  # it asks for room where there is none
        for index in range(batch.written.count):
            segment = batch.written.items[index]
            for number in range(segment.run_count):
                run = &segment.runs[number]
                if run.live:
                    queue = <QueueIndex>run.queue
                    queue.live -= run.live
                    queue.live_bytes -= run.live_bytes
                    remove_run(queue, run)
        pointers_drop_flagged(&self.dirty, SEGMENT_FLYING)
        pointers_drop_flagged(&self.dead, SEGMENT_FLYING)
        for index in range(batch.written.count):
            self._remove_segment(batch.written.items[index])
        for index in range(batch.copies.count):
            self._remove_segment(batch.copies.items[index])
        for index in range(batch.moved.count):
            segment = batch.moved.items[index]
            segment.flags &= ~<uint32_t>SEGMENT_MOVING
            drop_value(segment)
            if segment.flags & SEGMENT_TOUCHED:
                segment.flags &= ~<uint32_t>SEGMENT_TOUCHED
                self._touch(segment)
        self.move_count = 0
        for index in range(batch.rewritten.count):
            self._touch(batch.rewritten.items[index])
        for index in range(batch.dropped.count):
            pointers_push(&self.dead, batch.dropped.items[index])
        for queue in batch.marks:
            if not queue.marked and not queue.forgotten:
                queue.marked = True
                self.marks.append(queue)
        self.forgotten = batch.forgotten + self.forgotten

    cdef int _end(self, Batch batch) except -1:
        if batch is not self.flying:
            raise RuntimeError("this batch is not under way")
        self.flying = None
        return 0

    # --- moving what is left of sparse and of tiny segments -----------------------------------------------------------------------------

    cdef uint64_t _waste(self) noexcept:
        """By how much the stored bytes are more than twice the live ones."""
        return self.stored_bytes - 2 * self.live_stored_bytes if self.stored_bytes > 2 * self.live_stored_bytes else 0

    cdef bint _compaction_due(self) noexcept:
        if not self.compacting:
            return False
        if self.candidate_next < self.candidates.count:
            return self._waste() > self.waste_bytes_max or self.small_count > self.small_count_max
        return self._waste() > self.next_sweep_bytes or self.small_count > self.next_sweep_small

    cdef int _find_candidates(self) except -1:
        """Look through all segments for those worth moving, oldest first, so that neighbours come to lie in one segment again."""
        cdef bint sparse = self._waste() > self.next_sweep_bytes
        cdef bint small = self.small_count > self.next_sweep_small
        cdef size_t index
        cdef Segment* segment
        self.candidates.count = 0
        self.candidate_next = 0
        pointers_reserve(&self.candidates, self.segments.count)
        for index in range(self.segments.count):
            segment = self.segments.items[index]
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

    cdef int _move_sparse(self, Batch batch) except -1:
        """Copies of what is live in some candidates join the batch, with the removal of those. Bounded, since the loop waits for it."""
        cdef uint64_t moved_bytes = 0
        cdef uint64_t read_bytes = 0
        cdef Segment* segment
        if self.candidate_next == self.candidates.count:
            self._find_candidates()
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
                self._move_segment(batch, segment)
        if self.building.message_count:
            self._finish_copy(batch)
        if self.candidate_next == self.candidates.count:
            # What could not be gained now is not looked for again until there is more to gain.
            self.next_sweep_bytes = self._waste() + self.waste_bytes_max // 4
            self.next_sweep_small = self.small_count + self.small_count_max // 4
        return 0

    cdef int _move_segment(self, Batch batch, Segment* segment) except -1:
        cdef uint32_t index, wanted
        cdef Target target
        cdef Run* run
        cdef QueueIndex queue
        cdef uint64_t position
        cdef Cursor cursor
        value = self._sound_value(segment)
        if value is None:
            segment.flags |= SEGMENT_DAMAGED
            return 0
        Py_INCREF(value)
        segment.value = <PyObject*>value  # read from here while the commit may have removed it
        segment.flags |= SEGMENT_MOVING
        pointers_push(&batch.moved, segment)
        self._write_removal(batch, segment)
        cursor = cursor_over(value)
        while advance(&cursor):
            wanted = 0
            for index in range(cursor.target_count):
                target = target_at(&cursor, index)
                wanted += not bit_is_set(segment.runs[target.run].settled, target.offset)
            if not wanted:
                continue
            if self._build_is_full(cursor.size, wanted):
                self._finish_copy(batch)
            self._build_message(cursor.data, cursor.size, cursor.body_size, wanted)
            for index in range(cursor.target_count):
                target = target_at(&cursor, index)
                run = &segment.runs[target.run]
                if not bit_is_set(run.settled, target.offset):
                    queue = <QueueIndex>run.queue
                    position = run.first + target.offset
                    self._build_target(queue, position, target.note, cursor.body_size, lower_bound(queue, position))
        return 0

    cdef object _sound_value(self, Segment* segment):
        """The value if all of it fits its index record, else None: half a segment must not be moved."""
        cdef uint32_t index
        cdef Target target
        cdef Cursor cursor
        try:
            value = self._value(segment)
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

    cdef int _finish_copy(self, Batch batch) except -1:
        """The segment built holds copies: until the commit is done, the queues know the originals."""
        pointers_reserve(&batch.copies, batch.copies.count + 1)
        pointers_push(&batch.copies, self._finish_segment(batch))
        return 0

    cdef int _switch_to_copies(self, Batch batch) except -1:
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
                self._settle_in_runs(queue, move.first, move.last, &counted_already)
            else:
                run = find_run(queue, move.first)
                if run != NULL and not bit_is_set(run.settled, move.first - run.first):
                    self._settle_in_run(run, move.first, move.body_size)
        self.move_count = 0
        self.moved_segments += batch.moved.count
        for index in range(batch.copies.count):
            drop_value(batch.copies.items[index])
        for index in range(batch.moved.count):
            self._remove_segment(batch.moved.items[index])
        return 0

    # --- queues, and what the log holds at start ----------------------------------------------------------------------------------------

    def open_queue(self, queue_id):
        """The index of a queue, new or as loaded. queue_id: u32.

        One that is forgotten, and whose removal is not on the disk yet, begins anew behind its old positions: whoever said that it was
        deleted may have died before that was known.
        """
        cdef QueueIndex queue
        if not self.loaded:
            self.load()
        queue = self.queues.get(queue_id)
        if queue is None:
            queue = QueueIndex.__new__(QueueIndex)
            queue.queue_id = queue_id
            self.queues[queue_id] = queue
        elif queue.forgotten:
            highest = queue.highest
            queue = QueueIndex.__new__(QueueIndex)
            queue.queue_id = queue_id
            queue.highest = highest
            self.queues[queue_id] = queue
        return queue

    def load(self):
        """Read the index; every queue that has anything in the log, by id. Never the messages themselves.

        Raises `ForeignStore` at a record that is damaged, `StoreFailed` if the log cannot be read; the store is then not used.
        """
        cdef const uint8_t* data
        cdef QueueIndex queue
        cdef size_t index
        cdef Run** runs
        if self.loaded:
            return dict(self.queues)
        self.loaded = True
        for key, value in self.log.scan(INDEX):
            if len(key) != 8:
                raise ForeignStore("the index has a key that is no segment's")
            segment_no = int.from_bytes(key, "big")
            data = value
            self._load_segment(segment_no, data, len(value))
            self.next_segment_no = segment_no + 1
        for queue in self.queues.values():
            runs = queue.runs + queue.run_head
            if queue.run_count > 1:
                qsort(runs, queue.run_count, sizeof(Run*), run_order)
            for index in range(1, queue.run_count):
                if runs[index - 1].first + runs[index - 1].span > runs[index].first:
                    raise ForeignStore(f"the index holds position {runs[index].first} of queue {queue.queue_id} twice")
            queue.stored_through = queue.highest
        for key, value in self.log.scan(QUEUES):
            if len(key) != QUEUE_KEY.size or len(value) != QUEUE_VALUE.size:
                raise ForeignStore("the record of a queue is damaged")
            queue = self.open_queue(QUEUE_KEY.unpack(key)[0])
            queue.delivered, queue.lease = QUEUE_VALUE.unpack(value)
            queue.recorded = True
        return dict(self.queues)

    cdef int _load_segment(self, uint64_t segment_no, const uint8_t* data, size_t size) except -1:
        cdef Segment head
        cdef Segment* segment
        cdef Run* run
        cdef Run loaded
        cdef QueueIndex queue
        cdef uint64_t* words
        cdef size_t word_count = 0
        cdef size_t bit_bytes, word
        cdef const uint8_t* at
        cdef const uint8_t* end = data + size
        cdef uint32_t number
        cdef uint64_t zeros
        damaged = ForeignStore(f"the index record of segment {segment_no} is damaged")
        if size < INDEX_HEAD_SIZE:
            raise damaged
        memcpy(&head.value_size, data, 8)
        memcpy(&head.chunk_count, data + 8, 4)
        memcpy(&head.message_count, data + 12, 4)
        memcpy(&head.target_count, data + 16, 4)
        memcpy(&head.run_count, data + 20, 4)
        if (head.chunk_count == 0 or head.chunk_count != (head.value_size + CHUNK - 1) // CHUNK or head.message_count == 0
                or head.target_count < head.message_count):
            raise damaged
        at = data + INDEX_HEAD_SIZE
        for _ in range(head.run_count):
            if <size_t>(end - at) < INDEX_RUN_SIZE:
                raise damaged
            memcpy(&loaded.span, at + 4, 4)
            bit_bytes = (<size_t>loaded.span + 7) // 8
            at += INDEX_RUN_SIZE
            if loaded.span == 0 or <size_t>(end - at) < bit_bytes:
                raise damaged
            at += bit_bytes
            word_count += words_for(loaded.span)
        if at != end:
            raise damaged
        segment = segment_new(head.run_count, word_count)
        segment.segment_no = segment_no
        segment.value_size = head.value_size
        segment.chunk_count = head.chunk_count
        segment.message_count = head.message_count
        segment.target_count = head.target_count
        words = <uint64_t*>(segment.runs + segment.run_count)
        at = data + INDEX_HEAD_SIZE
        for number in range(head.run_count):
            run = &segment.runs[number]
            run.segment = segment
            memcpy(&run.queue_id, at, 4)
            memcpy(&run.span, at + 4, 4)
            memcpy(&run.live, at + 8, 4)
            memcpy(&run.first, at + 16, 8)
            memcpy(&run.live_bytes, at + 24, 8)
            at += INDEX_RUN_SIZE
            bit_bytes = (<size_t>run.span + 7) // 8
            run.settled = words
            memcpy(words, at, bit_bytes)
            at += bit_bytes
            zeros = 0
            words += words_for(run.span)
            for word in range(words_for(run.span)):
                zeros += popcount(~run.settled[word])
            if run.span & 63 and ~run.settled[words_for(run.span) - 1] >> (run.span & 63):
                zeros += 1  # a bit past the end is not 1
            if zeros != run.live or run.first == 0:
                free(segment)
                raise damaged
            segment.live += run.live
        if segment.live > segment.target_count:
            free(segment)
            raise damaged
        try:
            self._add_segment(segment)
        except BaseException:
            free(segment)
            raise
        for number in range(segment.run_count):
            run = &segment.runs[number]
            queue = self.open_queue(run.queue_id)
            run.queue = <PyObject*>queue
            queue.highest = max(queue.highest, run.first + run.span - 1)
            if run.live:
                reserve_run(queue, 1)
                queue.runs[queue.run_head + queue.run_count] = run
                queue.run_count += 1
                queue.live += run.live
                queue.live_bytes += run.live_bytes
        if segment.live == 0:
            self._touch(segment)
        return 0

    def statistics(self):
        """Counts and bytes as of now, for people and metrics.

        messages, message_bytes: live ones and their body sizes; stored_bytes, live_stored_bytes: of segment values, and about how much of
        them is live; moved_segments: rewritten by compaction since the start; gathered_bytes: waits for the next batch; file_bytes,
        used_bytes, free_bytes: the log's `Sizes`.
        """
        cdef QueueIndex queue
        cdef uint64_t messages = 0
        cdef uint64_t message_bytes = 0
        for queue in self.queues.values():
            messages += queue.live
            message_bytes += queue.live_bytes
        file_bytes, used_bytes, free_bytes = self.log.sizes()
        return {
            "queues": len(self.queues),
            "segments": self.segments.count,
            "small_segments": self.small_count,
            "messages": messages,
            "message_bytes": message_bytes,
            "stored_bytes": self.stored_bytes,
            "live_stored_bytes": self.live_stored_bytes,
            "moved_segments": self.moved_segments,
            "gathered_bytes": self.gathered_bytes,
            "file_bytes": file_bytes,
            "used_bytes": used_bytes,
            "free_bytes": free_bytes,
        }
