"""Group commit: when what has gathered in the worker's stores is written, and who hears of it.

While one commit waits for the disk the next batch gathers; when it is done, everybody who waited for it is answered at once, and the next
begins. Whoever waits for a confirm is never kept waiting: a busy worker commits back to back, an idle one at the end of the turn that
brought the message. What nobody waits for, acks and messages that are not to be confirmed, goes with the next commit that somebody waits
for, or by itself LINGER_S later at most, or once LINGER_BYTES have gathered: a client that sends one message, waits for its confirm and
sends the next would otherwise wait for the commit of the ack between the two as well, and one that wants no confirms would cost the disk a
flush for each few of its messages.
One round commits all shards of the worker, and answers after the last of them.

Where a commit runs: on a thread of its own, or, if it is small, the disk has been quick and little else comes in, in the loop, for the
hand-overs would cost as much as the commit. Deliveries of the turn are written before it either way. What the logs have put off, so that
commits are quick, is done on the thread every CATCH_UP_S.

What may go wrong: a full disk refuses the round's publishes (nack), and what was to be deleted is tried again before the next round, by
itself, at least every second. Any other failure ends the process without an answer, because the next commit would lie: the supervisor
starts it from what is on the disk.
"""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from leveret.link.packets cimport CONFIRM_REFUSED
from leveret.worker.message_store cimport MessageStore
from leveret.worker.neighbour cimport Neighbour
from leveret.worker.queue_journal cimport PRESSED_BYTES, PRESSED_MESSAGES, QueueJournal
from leveret.worker.state cimport ShardQueue, WorkerState

from leveret.storage.environment import DiskFull, StoreFailed
from leveret.worker.message_store import wall_offset_ms

log = logging.getLogger(__name__)

RETRY_S = 1.0
QUICK_S = 0.002                 # a disk whose commits take less is quick
# What else the loop may have worked since the last commit, if this one is to be made in it: so much, and what its own messages cost.
SPARE_S = 0.0002
WORK_S_PER_BYTE = 10e-9
LINGER_S = 0.01                 # how long what nobody waits for may gather
HOLD_MAX_S = 0.25               # how long a transaction may keep commits back; its worker may have been stopped
HOLDS_MAX_S = 0.02              # how long several of them may, one after the other, before those that come must wait
BUSY_MS = 20
EXACT_AFTER_S = 0.05
PRESSURE_EVERY_S = 0.1          # between two looks at how much the queues hold ...
CALM_LOOKS = 10                 # ... of which so many may be left out while there is room for what could come in
FILLED_BYTES_PER_S = 4e9        # more than a worker can take in
CATCH_UP_S = 1.0
PRESSURE_STEP_S = 0.01          # of the loop's time, before others have their turn
MESSAGE_OVERHEAD_BYTES = 96     # of a ready message beside its body: head, names, properties, entry, allocator


cdef class Committer(Ending):
    """Made by the worker before its stores are opened; `failed` is a Future that is done when the process must end."""

    def __init__(self, WorkerState state not None):
        self.state = state
        self.wall_offset_ms = wall_offset_ms()
        self.stores = []
        self.marked = []
        self.crowded = []
        self.leased = set()
        self.asking = []
        self.asked = []
        self.holds = {}
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self.failed = state.poller.loop.create_future()

    def __dealloc__(self):
        free(self.gathering.items)
        free(self.flying.items)

    def add_store(self, MessageStore store not None):
        """One more shard of this worker."""
        self.stores.append(store)

    def start(self):
        """The stores are open: write what opening them has left to do, and begin to watch how much the queues hold."""
        self.want()
        self.state.poller.loop.call_later(PRESSURE_EVERY_S, self._watch)

    # --- what gathers

    cdef int want(self) except -1:
        """There is something to write: a commit begins at the end of the turn, or when the one under way is done."""
        self.urgent = True
        if self.batches is None and not self.ending_pending:
            return self.state.poller.want_ending(self)
        return 0

    cdef int want_message(self, uint64_t size) except -1:
        """A message of `size` bytes has gathered. Whoever waits for it comes next (`wait_for`)."""
        self.gathered_bytes += size
        return self.want() if self.gathered_bytes > LINGER_BYTES else self.want_soon()

    cdef int want_soon(self) except -1:
        """There is something to write that nobody waits for: with the next commit, LINGER_S from now at the latest."""
        if not self.urgent and not self.lingering and self.batches is None:
            self.lingering = True
            self.state.poller.loop.call_later(LINGER_S, self._linger_no_longer)
        return 0

    def _linger_no_longer(self):
        self.lingering = False
        if self.has_work() or self.marked:
            self.want()

    cdef int wait_for(self, uint16_t origin, uint32_t channel_ref, uint64_t publish_no) except -1:
        """A publish whose message is in a store now: confirm it after the next commit."""
        cdef Waiters* waiters = &self.gathering
        cdef Waiter* waiter
        cdef Waiter* grown
        cdef size_t capacity
        if waiters.count:
            waiter = &waiters.items[waiters.count - 1]
            if waiter.channel_ref == channel_ref and waiter.origin == origin and waiter.first_publish_no + waiter.count == publish_no:
                waiter.count += 1
                return 0
        if waiters.count == waiters.capacity:
            capacity = max(<size_t>16, 2 * waiters.capacity)
            grown = <Waiter*>realloc(waiters.items, capacity * sizeof(Waiter))
            if grown == NULL:
                raise MemoryError("no memory to remember who waits for a commit")
            waiters.items = grown
            waiters.capacity = capacity
        waiter = &waiters.items[waiters.count]
        waiter.first_publish_no = publish_no
        waiter.count = 1
        waiter.channel_ref = channel_ref
        waiter.origin = origin
        waiters.count += 1
        return self.want()

    def written(self):
        """A Future that is done when all that has gathered so far is on the disk; it holds a `DiskFull` if there was no room."""
        asked = self.state.poller.loop.create_future()
        self.asking.append(asked)
        self.want()
        return asked

    cdef bint has_work(self):
        """Whether anything has gathered."""
        cdef MessageStore store
        for store in self.stores:
            if store.has_work():
                return True
        return False

    # --- transactions

    # What one transaction does to queues of several workers comes to each of them over several lines and in several turns. While it is on
    # its way nothing is committed, so that each shard has all of it or nothing after a crash.

    def hold(self, key):
        """Commit nothing until `release`, or HOLD_MAX_S from now. key: (worker of the transaction, a number of its own)."""
        if not self.holds:
            self.held_since_s = time.monotonic()
        self.holds[key] = self.state.poller.loop.call_later(HOLD_MAX_S, self.release, key)

    def release(self, key):
        timer = self.holds.pop(key, None)
        if timer is not None:
            timer.cancel()
            if not self.holds:
                self.want()

    def release_all(self, int worker):
        """That worker has died, or the line to it has: what it held back is released."""
        for key in [key for key in self.holds if key[0] == worker]:
            self.release(key)

    @property
    def held_for_long(self):
        """Whether commits have been kept back for so long that another transaction has to wait for one."""
        return len(self.holds) > 0 and time.monotonic() - self.held_since_s > HOLDS_MAX_S

    # --- what the logs put off

    # A log may say that a batch is on the disk before it has it in its final place. Left alone it would do that when it has to, within a
    # round of its own choice; done every second there is little of it at any time, for a start to read and for memory to hold.

    def _look_behind(self):
        """Once in CATCH_UP_S: the next round does what the logs have put off."""
        cdef MessageStore store
        self.looked_behind_s = time.monotonic()
        for store in self.stores:
            if store.log.is_behind():
                self.catching_up = True
                self.want()
                return

    # --- rounds

    cdef int at_turn_end(self) except -1:
        if self.batches is not None or self.closed or self.holds or self.failed.done():
            return 0
        if not self.flushed:    # once more, after the deliveries of this turn have been written
            self.flushed = True
            return self.state.poller.want_ending(self)
        self.flushed = False
        try:
            return self.begin()
        except Exception as error:      # whoever waits would wait for ever
            self.fail(error)
            raise

    cdef int begin(self) except -1:
        cdef MessageStore store
        cdef Waiters gathered = self.gathering
        cdef list batches = []
        cdef list behind = []
        cdef uint64_t size = 0
        cdef double began_s
        cdef bint slow = False
        cdef bint small
        self.urgent = False
        self.gathered_bytes = 0
        self.take_marks()
        if self.full:
            self.make_room()
        for store in self.stores:
            if store.has_work():
                batch = store.take_batch()
                batches.append((store, batch))
                size += batch.size_bytes
                slow = slow or store.log.catches_up(batch.size_bytes)
        if self.catching_up:
            self.catching_up = False
            behind = [store.log for store in self.stores if store.log.is_behind()]
        self.asked, self.asking = self.asking, []
        self.gathering = self.flying
        self.gathering.count = 0
        self.flying = gathered
        small = size <= INLINE_BYTES and not slow and not behind
        if small and self.commit_s < QUICK_S and time.thread_time() - self.loop_cpu_s <= SPARE_S + size * WORK_S_PER_BYTE:
            began_s = time.perf_counter()
            return self.finish(batches, write(batches), time.perf_counter() - began_s)
        self.batches = batches
        self.thread.submit(self._write, batches, behind)
        return 0

    def make_room(self):
        """The disk was full: write by themselves what was settled and removed. Beside new messages it might be refused for ever."""
        cdef MessageStore store
        for store in self.stores:
            batch = store.take_batch(messages=False)
            try:
                if batch.operations:
                    store.log.commit(batch.operations)
            except DiskFull:
                store.batch_failed(batch)
            else:
                store.batch_done(batch)

    def take_marks(self):
        """Have written how far queues have handed out: after a crash, what lies within comes back as redelivered.

        A queue that hands out all the time writes a lease, some way ahead, so that what it hands out during a commit is covered by the
        one before; when it has paused, the exact place.
        """
        cdef QueueJournal journal
        cdef uint64_t now_ms = time.monotonic_ns() // 1_000_000      # the poller's stands still while nothing happens
        cdef uint64_t through
        cdef bint busy
        marked, self.marked = self.marked, []
        for journal in marked:
            journal.queue.marked = False
            if journal.queue.journal is not journal:    # deleted
                continue
            through = journal.queue.handed_through
            busy = now_ms - journal.marked_at_ms < BUSY_MS
            journal.marked_at_ms = now_ms
            if busy:
                if journal.index.lease >= through + LEASE // 2:
                    continue
                journal.store.mark(journal.index, through, through + LEASE)
                if not self.leased:
                    self.state.poller.loop.call_later(EXACT_AFTER_S, self._end_leases)
                self.leased.add(journal)
            else:
                journal.store.mark(journal.index, through, through)

    def _end_leases(self):
        cdef QueueJournal journal
        cdef uint64_t now_ms = time.monotonic_ns() // 1_000_000      # the poller's stands still while nothing happens
        if self.closed:
            return
        for journal in list(self.leased):
            if journal.queue.journal is not journal:
                self.leased.discard(journal)
            elif now_ms - journal.marked_at_ms >= BUSY_MS:
                self.leased.discard(journal)
                journal.store.mark(journal.index, journal.queue.handed_through, journal.queue.handed_through)
                self.want()
        if self.leased:
            self.state.poller.loop.call_later(EXACT_AFTER_S, self._end_leases)

    def _write(self, list batches, list behind):
        """On the thread."""
        began_s = time.perf_counter()
        self.errors = write(batches)
        took_s = time.perf_counter() - began_s
        for failure in [error for error in (catch_up(each) for each in behind) if error is not None]:
            self.behind_error = failure
        self.state.poller.loop.call_soon_threadsafe(self._written, took_s)

    def _written(self, double took_s):
        if self.closed:
            return
        batches, self.batches = self.batches, None
        if self.behind_error is not None:
            self.fail(self.behind_error)
            return
        try:
            self.finish(batches, self.errors, took_s)
        except Exception as error:
            self.fail(error)
            raise

    cdef int finish(self, list batches, list errors, double took_s) except -1:
        """The round is over: errors holds None, `DiskFull` or what ends the process, for each batch."""
        cdef QueueJournal journal
        cdef MessageStore store
        cdef bint refused = False
        for (store, batch), error in zip(batches, errors, strict=True):
            if error is None:
                store.batch_done(batch)
                self.committed_bytes += batch.size_bytes
            elif isinstance(error, DiskFull):
                store.batch_failed(batch)
                refused = True
                if not self.full:
                    log.error("%s: publishers are told that their messages were not taken", error)
            else:
                self.fail(error)
                return 0
        self.commits += 1
        if batches:
            self.commit_s = self.commit_s * 0.8 + took_s * 0.2
        if refused:
            self.commits_failed += 1
            self.state.poller.loop.call_later(RETRY_S, self._retry)
        elif self.full and batches:
            log.warning("the disk has room again")
        if batches:
            self.full = refused
        self.answer(refused)
        asked, self.asked = self.asked, []
        for future in asked:
            if not future.done():
                if refused:
                    future.set_exception(next(error for error in errors if error is not None))
                else:
                    future.set_result(None)
        crowded, self.crowded = self.crowded, []
        for journal in crowded:
            if journal.queue.journal is journal:
                journal.relieve()
        self.loop_cpu_s = time.thread_time()
        if self.urgent:
            return self.want()
        if self.marked or (self.has_work() and not refused):
            return self.want_soon()
        return 0

    def _retry(self):
        self.want()

    cdef int answer(self, bint refused) except -1:
        """Confirm, or refuse, all that waited for this round."""
        cdef size_t index
        cdef Waiter* waiter
        cdef uint8_t flags = CONFIRM_REFUSED if refused else 0
        cdef Neighbour origin
        for index in range(self.flying.count):
            waiter = &self.flying.items[index]
            if waiter.origin == self.state.index:
                self.state.confirm(waiter.channel_ref, waiter.first_publish_no, waiter.count, self.state.index, flags)
            elif waiter.origin < len(self.state.workers):
                origin = <Neighbour>self.state.workers[waiter.origin]
                origin.flush_confirms()
                origin.write_confirm(flags, waiter.channel_ref, waiter.first_publish_no, waiter.count)
        self.flying.count = 0
        return 0

    def fail(self, error):
        """The store cannot be trusted any more: nothing is answered from now on, and the process ends. Returns the error."""
        if not self.failed.done():
            log.critical("the message store has failed: %s", error)
            self.failed.set_result(error)
        return error

    # --- memory

    def _watch(self):
        """If the queues of the worker hold more than their share, those with much page it out: ten times a second when that may be so,
        else once."""
        cdef double wait_s = PRESSURE_EVERY_S * CALM_LOOKS
        if self.closed or self.failed.done():
            return
        if self.memory_max:
            wait_s = self.relieve_pressure()
        if self.scratch is not None:
            wait_s = min(wait_s, <double>PRESSURE_EVERY_S)
            if self.scratch.has_work():
                self.write_scratch()        # what was read back is given up
        if time.monotonic() - self.looked_behind_s >= CATCH_UP_S:
            self._look_behind()
        self.state.poller.loop.call_later(wait_s, self._watch)

    cdef double relieve_pressure(self) except -1:
        """Page out. How long until the next look, seconds: 0 if there is more to page out than one step allows."""
        cdef ShardQueue queue
        cdef uint64_t held = 0
        cdef uint64_t before
        cdef double until_s
        for queue in self.state.queues.values():
            held += queue.ready_bytes - queue.paged_bytes + (queue.ready_count - queue.paged_count) * MESSAGE_OVERHEAD_BYTES
        if held <= self.memory_max:
            return min(max((self.memory_max - held) / <double>FILLED_BYTES_PER_S, <double>PRESSURE_EVERY_S), PRESSURE_EVERY_S * CALM_LOOKS)
        until_s = time.perf_counter() + PRESSURE_STEP_S
        for queue in self.state.queues.values():
            while (queue.ready_count - queue.paged_count > 2 * PRESSED_MESSAGES
                    or queue.ready_bytes - queue.paged_bytes > 2 * PRESSED_BYTES):
                if time.perf_counter() > until_s:
                    return 0
                before = queue.paged_count
                queue.page_out(PRESSED_MESSAGES, PRESSED_BYTES)
                if queue.paged_count == before:
                    break
        return PRESSURE_EVERY_S

    # --- scratch

    cdef MessageStore need_scratch(self):
        """The scratch store, opened when it is needed first; None if there is none."""
        if self.scratch is None and self.make_scratch is not None:
            try:
                self.scratch = MessageStore(self.make_scratch(), -1, self.wall_offset_ms)
            except (DiskFull, StoreFailed) as error:
                log.error("what is not durable stays in memory: %s", error)
                self.make_scratch = None
        return self.scratch

    cdef bint write_scratch(self) except -1:
        """Commit what was added to the scratch store, which waits for no disk. False: there was no room."""
        batch = self.scratch.take_batch()
        try:
            self.scratch.log.commit(batch.operations)
        except DiskFull:
            self.scratch.batch_failed(batch)
            return False
        except StoreFailed as error:
            raise self.fail(error) from error
        self.scratch.batch_done(batch)
        return True

    # --- the end

    def close(self):
        """Write what there is, exactly as it is, and close the logs. What waited for a confirm has its connection closed by now."""
        cdef MessageStore store
        cdef QueueJournal journal
        if self.closed:
            return
        self.thread.shutdown(wait=True)
        self.closed = True
        if self.batches is not None:
            batches, self.batches = self.batches, None
            self.finish(batches, self.errors, self.commit_s)
        if self.behind_error is not None:
            self.fail(self.behind_error)
        if not self.failed.done():
            self.take_marks()
            for journal in self.leased:
                if journal.queue.journal is journal:
                    journal.store.mark(journal.index, journal.queue.handed_through, journal.queue.handed_through)
            for store in self.stores:
                while store.has_work():
                    batch = store.take_batch()
                    try:
                        store.log.commit(batch.operations)
                    except (DiskFull, StoreFailed) as error:
                        log.error("the last commit of shard %d failed: %s", store.shard, error)
                        break
                    store.batch_done(batch)
        for store in self.stores:
            store.log.close()
        if self.scratch is not None:
            self.scratch.log.close()

    def statistics(self):
        """Numbers of the commits and of each store."""
        return {
            "commits": self.commits,
            "commits_failed": self.commits_failed,
            "committed_bytes": self.committed_bytes,
            "commit_s": self.commit_s,
            "disk_full": self.full,
            "shards": [{"shard": store.shard} | store.statistics() for store in self.stores],
        }


cdef object catch_up(log):
    """Have a log do what it has put off; None or what ends the process. Where there is no room it is put off still."""
    try:
        log.catch_up()
    except DiskFull:
        return None
    except Exception as error:
        return error
    return None


cdef list write(list batches):
    """Commit each batch into its store's log; for each None or what went wrong."""
    errors = []
    for store, batch in batches:
        try:
            if batch.operations:
                store.log.commit(batch.operations)
        except Exception as error:
            errors.append(error)
        else:
            errors.append(None)
    return errors
