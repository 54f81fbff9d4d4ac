"""The C interface of a queue's index, and what is done to its runs: found, inserted, removed; all in an array that is sorted by position.

`lower_bound` remembers where it was, so that going through a queue in order costs no search.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memmove

from leveret.storage.segment cimport Run


cdef class QueueIndex:
    """Where the messages of one queue lie. Made by `SegmentStore.open_queue` and `load` only; all counts are of messages."""

    cdef readonly uint32_t queue_id
    cdef readonly uint64_t live             # stored or waiting for a commit, not settled
    cdef readonly uint64_t live_bytes       # sum of their body sizes
    cdef readonly uint64_t stored_through   # every message up to this position is on disk or settled; moves in `batch_done`
    cdef readonly uint64_t delivered        # as last given to `mark`, or loaded
    cdef readonly uint64_t lease
    cdef uint64_t highest                   # highest position ever added or loaded
    cdef uint64_t flying_through            # `highest` when the batch under way was taken
    # Runs with something live, ascending, in runs[run_head .. run_head + run_count].
    cdef Run** runs
    cdef size_t run_head
    cdef size_t run_count
    cdef size_t run_capacity
    cdef size_t hint                        # the run found last
    # Its entries of the batch that is gathering, ascending by position.
    cdef uint32_t* open_entries
    cdef size_t open_count
    cdef size_t open_capacity
    # Its newest run in the segment being built.
    cdef uint64_t build_stamp
    cdef uint32_t build_run
    cdef ssize_t build_source
    cdef bint marked                        # in SegmentStore.marks
    cdef bint forgotten
    cdef bint recorded                      # it may have a record in QUEUES


cdef inline size_t lower_bound(QueueIndex queue, uint64_t position) noexcept:
    """Index of the first run that ends at or after the position; `run_count` if there is none. Cheap where it was asked before."""
    cdef Run** runs = queue.runs + queue.run_head
    cdef size_t low = 0
    cdef size_t high = queue.run_count
    cdef size_t middle = queue.hint
    if middle < high:
        if position < runs[middle].first + runs[middle].span:
            if middle == 0 or position >= runs[middle - 1].first + runs[middle - 1].span:
                return middle
            high = middle
        else:
            low = middle + 1
            if low == high or position < runs[low].first + runs[low].span:
                queue.hint = low
                return low
    while low < high:
        middle = (low + high) >> 1
        if position < runs[middle].first + runs[middle].span:
            high = middle
        else:
            low = middle + 1
    queue.hint = low
    return low


cdef inline Run* find_run(QueueIndex queue, uint64_t position) noexcept:
    """The run that spans the position, or NULL."""
    cdef size_t index = lower_bound(queue, position)
    cdef Run* run
    if index == queue.run_count:
        return NULL
    run = queue.runs[queue.run_head + index]
    return run if position >= run.first else NULL


cdef inline int reserve_run(QueueIndex queue, size_t more) except -1:
    """Room for so many runs more at the end."""
    cdef size_t capacity
    cdef Run** runs
    if queue.run_head + queue.run_count + more <= queue.run_capacity:
        return 0
    if queue.run_head > queue.run_count + more:
        memmove(queue.runs, queue.runs + queue.run_head, queue.run_count * sizeof(Run*))
        queue.run_head = 0
        return 0
    capacity = max(2 * queue.run_capacity, queue.run_head + queue.run_count + more, <size_t>4)
    runs = <Run**>realloc(queue.runs, capacity * sizeof(Run*))
    if runs == NULL:
        raise MemoryError
    queue.runs = runs
    queue.run_capacity = capacity
    return 0


cdef inline void insert_run(QueueIndex queue, Run* run) noexcept:
    """Into its place; `reserve_run` was called."""
    cdef size_t index = lower_bound(queue, run.first)
    cdef Run** place = queue.runs + queue.run_head + index
    if index < queue.run_count // 2 and queue.run_head:
        memmove(queue.runs + queue.run_head - 1, queue.runs + queue.run_head, index * sizeof(Run*))
        queue.run_head -= 1
        place -= 1
    else:
        memmove(place + 1, place, (queue.run_count - index) * sizeof(Run*))
    place[0] = run
    queue.run_count += 1


cdef inline int remove_run(QueueIndex queue, Run* run) except -1:
    """Nothing in it is live any more, or another takes its place. The shorter side of the array moves up."""
    cdef size_t index = lower_bound(queue, run.first)
    cdef Run** place = queue.runs + queue.run_head + index
    assert index < queue.run_count and place[0] == run
    if index < queue.run_count // 2:
        memmove(queue.runs + queue.run_head + 1, queue.runs + queue.run_head, index * sizeof(Run*))
        queue.run_head += 1
    else:
        memmove(place, place + 1, (queue.run_count - index - 1) * sizeof(Run*))
    queue.run_count -= 1
    if queue.run_count == 0:
        queue.run_head = 0
    return 0
