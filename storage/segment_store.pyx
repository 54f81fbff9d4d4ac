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

How a segment is encoded says `segment_draft`, its index record `index_record`, and which segments are moved `sweep`.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from leveret.storage.index_record cimport decode_index, encode_index
from leveret.storage.queue_index cimport QueueIndex, find_run, insert_run, lower_bound, remove_run, reserve_run
from leveret.storage.segment cimport (
    SEGMENT_DEAD, SEGMENT_DIRTY, SEGMENT_FLYING, SEGMENT_MOVING, SEGMENT_TOUCHED,
    Cursor, Run, Segment, Target,
    advance, bit_is_set, cursor_over, drop_value, live_from, pointers_drop_flagged, pointers_push, pointers_reserve, run_order,
    segment_free, set_bit, target_at, words_for,
)
from leveret.storage.segment_draft cimport DRAFT_TARGETS_MAX, SegmentDraft
from leveret.storage.sweep cimport Sweep

from leveret.storage.commit_log import Table
from leveret.storage.environment import DamagedSegment, ForeignStore
from leveret.storage.layout import CHUNK_BYTES, INDEX_KEY, QUEUE_KEY, QUEUE_VALUE, SEGMENT_KEY

cdef enum:
    SEGMENT_BYTES = 65520       # with LMDB's page head, sixteen pages
    DROPPED_MAX = 1000          # segments removed by one batch, so that a purge does not make one endless commit
    CACHED_BYTES_MAX = 1 << 20  # a value that is read is remembered up to this size

cdef int SEGMENTS = Table.SEGMENTS
cdef int INDEX = Table.INDEX
cdef int QUEUES = Table.QUEUES
cdef uint64_t CHUNK = CHUNK_BYTES
cdef object pack_segment_key = SEGMENT_KEY.pack
cdef object pack_index_key = INDEX_KEY.pack
cdef object pack_queue_key = QUEUE_KEY.pack
cdef object pack_queue_value = QUEUE_VALUE.pack
cdef int QUEUE_RECORD_SIZE = QUEUE_VALUE.size


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
        self.draft = SegmentDraft()
        self.draft.segment_bytes = SEGMENT_BYTES
        self.sweep = Sweep()

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.segments.count):
            segment_free(self.segments.items[index])
        free(self.segments.items)
        free(self.dirty.items)
        free(self.dead.items)
        free(self.entries)
        free(self.groups)

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
            if owner == NULL or group.owner != owner or group.data != data or self.entry_count - group.entry >= DRAFT_TARGETS_MAX:
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
        self.settle_in_run(run, position, body_size)
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

    cdef int settle_in_run(self, Run* run, uint64_t position, uint32_t body_size) except -1:
        """One live message of a run; the queue's own counts are the caller's. The run may be gone afterwards from the queue's array."""
        cdef Segment* segment = run.segment
        if segment.flags & SEGMENT_MOVING:
            self.sweep.note_move(run.queue, position, position, body_size)
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

    cdef int settle_range(self, QueueIndex queue, uint64_t first, uint64_t last) except -1:
        """Every live message from `first` to `last`, both included. How many there were.

        Reads the log for at most the two segments that the range cuts (`StoreFailed`). Where one is damaged, its messages count as equally
        large.
        """
        cdef uint64_t body_bytes = 0
        cdef uint64_t count
        cdef size_t at
        count = self.settle_in_runs(queue, first, last, &body_bytes)
        queue.live -= count
        queue.live_bytes -= body_bytes
        at = open_bound(queue, self.entries, first)
        while at < queue.open_count and self.entries[queue.open_entries[at]].position <= last:
            count += self._settle_open(queue, at)
            at += 1
        return <int>min(count, <uint64_t>0x7FFFFFFF)

    cdef uint64_t settle_in_runs(self, QueueIndex queue, uint64_t first, uint64_t last, uint64_t* body_bytes) except? 0xFFFFFFFFFFFFFFFF:
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
                    self.sweep.note_move(run.queue, run.first, run_last, <uint32_t>run.live_bytes)
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
            value = self.value_of(segment)
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
                        self.settle_in_run(run, position, cursor.body_size)
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
                self.settle_in_run(run, position, size)
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
                    value = self.value_of(run.segment)
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

    cdef object value_of(self, Segment* segment):
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

    cdef Segment* finish_segment(self, Batch batch) except NULL:
        """Make a segment of the draft and put it into the batch; the caller ties its runs to their queues."""
        cdef Segment* segment = self.draft.finish(self.next_segment_no)
        cdef uint32_t index
        try:
            value = <object>segment.value
            if segment.chunk_count == 1:
                batch.operations.append((SEGMENTS, pack_segment_key(segment.segment_no, 0), value))
            else:
                for index in range(segment.chunk_count):
                    batch.operations.append(
                        (SEGMENTS, pack_segment_key(segment.segment_no, index), value[index * CHUNK:(index + 1) * CHUNK]))
            batch.size_bytes += segment.value_size
            self._write_index(batch, segment)
            self._add_segment(segment)
        except BaseException:
            segment_free(segment)
            raise
        self.next_segment_no += 1
        return segment

    cdef int _write_index(self, Batch batch, Segment* segment) except -1:
        """The segment's index record, as it stands now, into the batch."""
        record = encode_index(segment)
        batch.operations.append((INDEX, pack_index_key(segment.segment_no), record))
        batch.size_bytes += <size_t>len(record)
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
        self.small_count += segment.value_size < self.sweep.small_bytes
        return 0

    cdef void remove_segment(self, Segment* segment) noexcept:
        """Count a segment out and free it. Its runs are in no queue's array, itself in none but the sweep's."""
        cdef Segment* other = self.segments.items[self.segments.count - 1]
        self.segments.items[segment.slot] = other
        other.slot = segment.slot
        self.segments.count -= 1
        self.stored_bytes -= segment.value_size
        self.live_stored_bytes -= <uint64_t>segment.unit * segment.live
        self.small_count -= segment.value_size < self.sweep.small_bytes
        self.sweep.leave_out(segment)
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
            if self.draft.is_full(group.size, group.wanted):
                self._finish_new(batch)
            end = self.groups[number + 1].entry if number + 1 < self.group_count else self.entry_count
            # The message's body size is the same for all its queues.
            index = group.entry
            while self.entries[index].queue == NULL:
                index += 1
            self.draft.add_message(group.data, group.size, self.entries[index].body_size, group.wanted)
            for index in range(index, end):
                entry = &self.entries[index]
                if entry.queue != NULL:
                    self.draft.add_target(<QueueIndex>entry.queue, entry.position, entry.note, entry.body_size, -1)
            if group.owner != NULL:
                self.let_go(group.owner)
                group.owner = NULL
        if self.draft.message_count:
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
        segment = self.finish_segment(batch)
        pointers_push(&batch.written, segment)
        for index in range(segment.run_count):
            reserve_run(<QueueIndex>segment.runs[index].queue, 1)
            insert_run(<QueueIndex>segment.runs[index].queue, &segment.runs[index])
        return 0

    cdef bint has_work(self) except -1:
        """Whether `take_batch` would have something to write."""
        return (self.entry_count != 0 or self.dirty.count != 0 or self.dead.count != 0 or len(self.marks) != 0
                or len(self.forgotten) != 0 or self.sweep.is_due(self))

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
            self.sweep.lower_bounds(self)
            if self.sweep.is_due(self):
                self.sweep.move(self, batch)
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
            self.write_removal(batch, segment)
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

    cdef int write_removal(self, Batch batch, Segment* segment) except -1:
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
            self.remove_segment(batch.dropped.items[index])
        if batch.moved.count:
            self.sweep.switch_to_copies(self, batch)
        for queue in batch.queues:
            queue.stored_through = queue.flying_through
        for queue in batch.forgotten:
            if self.queues.get(queue.queue_id) is queue:
                del self.queues[queue.queue_id]
        if batch.messages:
            self.sweep.enabled = True

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
        self.sweep.enabled = False  # it asks for room where there is none
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
            self.remove_segment(batch.written.items[index])
        for index in range(batch.copies.count):
            self.remove_segment(batch.copies.items[index])
        for index in range(batch.moved.count):
            segment = batch.moved.items[index]
            segment.flags &= ~<uint32_t>SEGMENT_MOVING
            drop_value(segment)
            if segment.flags & SEGMENT_TOUCHED:
                segment.flags &= ~<uint32_t>SEGMENT_TOUCHED
                self._touch(segment)
        self.sweep.move_count = 0
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
        cdef Segment* segment = decode_index(segment_no, data, size)
        cdef uint32_t number
        cdef QueueIndex queue
        cdef Run* run
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
