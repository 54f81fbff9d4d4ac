"""A segment that is being encoded: its value so far, and which queue's messages lie where in it.

The segment store fills one with the messages of a batch, message by message, each with its targets; `finish` makes a segment of it and
begins the next. It touches no log and changes no queue, except for what the queue remembers of its newest run here. `layout.py` has the
bytes.
"""

from cpython.bytes cimport _PyBytes_Resize, PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from leveret.storage.queue_index cimport QueueIndex
from leveret.storage.segment cimport (
    MESSAGE_HEAD_SIZE, SEGMENT_FLYING, TARGET_SIZE,
    Cursor, Run, Segment, Target,
    clear_bit, cursor_over, next_message, segment_free, segment_new, target_at, words_for,
)

from leveret.storage.layout import CHUNK_BYTES

cdef enum:
    GAP_MAX = 256               # a run with a longer hole costs more in bits than a second run
    RUNS_MAX = 8192             # of a segment; a run's number is a u16

cdef uint64_t CHUNK = CHUNK_BYTES


cdef class SegmentDraft:
    """Empty at first. Its segments have at most `segment_bytes`, unless one message alone is larger."""

    def __cinit__(self):
        self.stamp = 1

    def __dealloc__(self):
        Py_XDECREF(self.value)
        free(self.runs)

    cdef bint is_full(self, uint32_t size, uint32_t targets) noexcept:
        """Whether a message with so many bytes and targets belongs into the next segment."""
        return self.message_count != 0 and (
            self.size + MESSAGE_HEAD_SIZE + <size_t>targets * TARGET_SIZE + size > self.segment_bytes
            or self.run_count + targets > RUNS_MAX)

    cdef int add_message(self, const uint8_t* data, uint32_t size, uint32_t body_size, uint32_t targets) except -1:
        """Append a message; `targets` calls of `add_target` fill in whom it is for."""
        cdef size_t needed = self.size + MESSAGE_HEAD_SIZE + <size_t>targets * TARGET_SIZE + size
        cdef size_t capacity
        cdef uint8_t* at
        cdef Run* runs
        cdef uint16_t count = <uint16_t>targets
        assert 0 < targets <= DRAFT_TARGETS_MAX
        if needed > self.capacity:
            capacity = max(needed, self.segment_bytes)
            if self.value == NULL:
                value = PyBytes_FromStringAndSize(NULL, capacity)
                Py_INCREF(value)
                self.value = <PyObject*>value
                value = None
            else:
                self.capacity = 0
                _PyBytes_Resize(&self.value, capacity)
            self.capacity = capacity
        if self.run_count + targets > self.run_capacity:
            capacity = max(2 * <size_t>self.run_capacity, <size_t>(self.run_count + targets))
            runs = <Run*>realloc(self.runs, capacity * sizeof(Run))
            if runs == NULL:
                raise MemoryError
            self.runs = runs
            self.run_capacity = <uint32_t>capacity
        at = <uint8_t*>PyBytes_AS_STRING(<object>self.value) + self.size
        memcpy(at, &size, 4)
        memcpy(at + 4, &body_size, 4)
        memcpy(at + 8, &count, 2)
        memcpy(at + needed - self.size - size, data, size)
        self.next_target = self.size + MESSAGE_HEAD_SIZE
        self.size = needed
        self.message_count += 1
        return 0

    cdef int add_target(self, QueueIndex queue, uint64_t position, uint64_t note, uint32_t body_size, ssize_t source) except -1:
        """One target of the message just appended. source: the index of the queue's run that it is moved from; -1 if it is new."""
        cdef Run* run
        cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(<object>self.value) + self.next_target
        cdef uint16_t number
        cdef uint32_t offset
        # A run must not close over another run of the queue that lies elsewhere.
        run = &self.runs[queue.build_run]
        if (queue.build_stamp != self.stamp or position < run.first + run.span or position - (run.first + run.span) >= GAP_MAX
                or source - queue.build_source > 1 or source < queue.build_source):
            queue.build_stamp = self.stamp
            queue.build_run = self.run_count
            self.run_count += 1
            run = &self.runs[queue.build_run]
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
        self.next_target += TARGET_SIZE
        self.target_count += 1
        return 0

    cdef Segment* finish(self, uint64_t segment_no) except NULL:
        """A segment of what was added, flagged as flying, with its value; the draft is empty. Its runs are in no queue's array yet."""
        cdef Segment* segment
        cdef Run* run
        cdef uint64_t* words
        cdef size_t word_count = 0
        cdef uint32_t index
        cdef Target target
        cdef Cursor cursor
        for index in range(self.run_count):
            word_count += words_for(self.runs[index].span)
        segment = segment_new(self.run_count, word_count)
        segment.segment_no = segment_no
        segment.value_size = self.size
        segment.message_count = self.message_count
        segment.target_count = self.target_count
        segment.live = self.target_count
        segment.chunk_count = <uint32_t>((self.size + CHUNK - 1) // CHUNK)
        segment.flags = SEGMENT_FLYING
        words = <uint64_t*>(segment.runs + segment.run_count)
        for index in range(self.run_count):
            run = &segment.runs[index]
            run[0] = self.runs[index]
            run.segment = segment
            run.settled = words
            words += words_for(run.span)
        self.capacity = 0
        try:
            _PyBytes_Resize(&self.value, self.size)
        except BaseException:
            segment_free(segment)
            raise
        segment.value = self.value
        self.value = NULL
        cursor = cursor_over(<object>segment.value)
        while next_message(&cursor) > 0:
            for index in range(cursor.target_count):
                target = target_at(&cursor, index)
                clear_bit(segment.runs[target.run].settled, target.offset)
        self.size = 0
        self.run_count = 0
        self.message_count = 0
        self.target_count = 0
        self.stamp += 1
        return segment
