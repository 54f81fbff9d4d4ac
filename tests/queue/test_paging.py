"""What a queue with a journal promises, one promise a test: what leaves memory when, how it comes back, and what is never lost."""

from __future__ import annotations

from tests.queue.recording import RecordingConsumer, RecordingJournal, RecordingQueue

ACK, REQUEUE = 0, 1
READ_AHEAD = 1000  # messages that a queue wants in memory before it hands out the next
PURGED_AT_ONCE = 10_000


def paging(count: int, *, persistent: bool = True) -> tuple[RecordingQueue, RecordingJournal]:
    """A durable queue of so many committed messages, all of them in memory; bodies are their positions."""
    queue = RecordingQueue(durable=True)
    journal = RecordingJournal(queue)
    queue.keep_journal(journal, True)
    publish(queue, 1, count, persistent=persistent)
    journal.commit()
    return queue, journal


def publish(queue: RecordingQueue, first: int, last: int, *, persistent: bool = True) -> None:
    for number in range(first, last + 1):
        queue.publish_body(b"%d" % number, persistent=persistent)


def getting(queue: RecordingQueue, *, no_ack: bool = False) -> RecordingConsumer:
    getter = RecordingConsumer(b"", no_ack=no_ack)
    queue.add_getter(getter)
    return getter


def got_all(queue: RecordingQueue) -> list[int]:
    """The numbers of all that is ready, oldest first, taken out."""
    getter = getting(queue, no_ack=True)
    found = []
    while (got := queue.get(getter)) is not None:
        found.append(int(got[1]))
        if len(found) % 100 == 1:
            queue.verify()
    queue.remove_consumer(getter)
    return found


def test_all_but_what_is_next_leaves_memory_and_comes_back_in_order() -> None:
    queue, journal = paging(5000)
    assert queue.let_go(100, 1 << 30) == 4900
    assert sum(queue.held()) == 100
    assert queue.ready_count == 5000
    assert queue.paged_bytes == sum(len(b"%d" % number) for number in range(101, 5001))
    journal.page_in_max = 700
    assert got_all(queue) == list(range(1, 5001))
    assert journal.live == {}
    assert sum(queue.held()) == 0


def test_bytes_bound_what_stays_too() -> None:
    queue, _ = paging(100)
    assert queue.let_go(100, 9) == 91
    assert sum(queue.held()) == 9


def test_what_is_not_committed_stays_and_so_does_all_behind_it() -> None:
    queue, journal = paging(50)
    publish(queue, 51, 100)
    publish(queue, 101, 150, persistent=False)
    assert queue.let_go(10, 1 << 30) == 40
    assert queue.let_go(10, 1 << 30) == 0
    journal.commit()
    assert queue.let_go(10, 1 << 30) == 100
    assert len(journal.scratch) == 50
    assert got_all(queue) == list(range(1, 151))
    assert journal.scratch == {}


def test_what_may_not_leave_at_all_changes_nothing() -> None:
    queue, journal = paging(0)
    publish(queue, 1, 100)
    assert queue.let_go(10, 1 << 30) == 0
    assert queue.places()[0] == 100
    assert queue.tail_size() == 0
    journal.commit()
    assert queue.let_go(100, 1 << 30) == 0, "there is no more than may stay"


def test_without_a_scratch_place_transient_messages_stay() -> None:
    queue, journal = paging(100, persistent=False)
    journal.has_scratch = False
    assert queue.let_go(1, 1) == 0
    assert got_all(queue) == list(range(1, 101))


def test_what_comes_meanwhile_lies_behind_what_is_paged_out() -> None:
    queue, journal = paging(3000)
    queue.let_go(1, 1)
    publish(queue, 3001, 3010)
    assert queue.tail_size() == 10
    assert sum(queue.held()) == 11
    journal.commit()
    assert queue.let_go(1, 1) == 10
    assert queue.tail_size() == 0
    publish(queue, 3011, 3020, persistent=False)
    assert got_all(queue) == list(range(1, 3021))


def test_a_consumer_never_waits_for_one_message_and_reads_no_more_than_it_needs() -> None:
    queue, journal = paging(20_000)
    queue.let_go(1, 1)
    journal.page_in_max = 300
    consumer = RecordingConsumer(b"c", prefetch=1)
    queue.add_consumer(consumer)
    consumer.activate()
    for number in range(1, 6001):
        assert consumer.deliveries[-1] == (number, b"%d" % number, False)
        queue.settle_range(consumer, number, number, ACK)
        assert READ_AHEAD - 1 <= queue.places()[0] <= READ_AHEAD + 300
    assert journal.page_ins <= 7000 // 300 + 1
    queue.verify()


def test_large_bodies_are_read_ahead_by_their_size() -> None:
    queue = RecordingQueue(durable=True)
    journal = RecordingJournal(queue)
    queue.keep_journal(journal, True)
    body = bytes(400_000)
    for _ in range(40):
        queue.publish_body(body, persistent=True)
    journal.commit()
    assert queue.let_go(2, 1 << 30) == 38
    journal.page_in_max = 1
    getter = getting(queue, no_ack=True)
    for _ in range(38):
        assert queue.get(getter)[1] == body
        assert 1 <= queue.places()[0] <= 3
    queue.verify()


def test_what_somebody_holds_comes_back_before_what_is_paged_out() -> None:
    """A hundred are held, the first ten of them given back. None of these may leave memory: their places are before the other ninety's."""
    queue, _ = paging(200)
    getter = getting(queue)
    for _ in range(100):
        queue.get(getter)
    queue.settle_range(getter, 1, 10, REQUEUE)
    assert queue.let_go(1, 1) == 100
    queue.verify()
    queue.settle_range(getter, 11, 100, REQUEUE)
    queue.verify()
    assert got_all(queue) == list(range(1, 201))


def test_what_lies_in_the_heap_is_not_read_back_a_second_time() -> None:
    """Given back one by one from both ends, entries go to the heap; then all the ring might leave memory, with places on both sides."""
    queue, journal = paging(2000)
    getter = getting(queue)
    for _ in range(1000):
        queue.get(getter)
    for number in range(500, 0, -1):
        queue.settle_range(getter, number, number, REQUEUE)
        queue.settle_range(getter, 1001 - number, 1001 - number, REQUEUE)
    assert queue.places()[1] > 0, "nothing is in the heap: the test is pointless"
    assert queue.let_go(1, 1) == 1000
    queue.verify()
    assert got_all(queue) == list(range(1, 2001))
    assert journal.live == {}


def test_messages_that_all_came_back_may_leave_again_and_stay_redelivered() -> None:
    queue, _ = paging(2000)
    getter = getting(queue)
    for _ in range(1500):
        queue.get(getter)
    queue.remove_consumer(getter)
    assert queue.let_go(1, 1) == 1999
    getter = getting(queue)
    assert [queue.get(getter)[1:] for _ in range(2000)] == [(b"%d" % number, number <= 1500) for number in range(1, 2001)]


def test_a_purge_takes_what_is_paged_out_and_nothing_that_is_held() -> None:
    queue, journal = paging(3000)
    publish(queue, 3001, 3100, persistent=False)
    getter = getting(queue)
    for _ in range(5):
        queue.get(getter)
    queue.let_go(10, 1 << 30)
    publish(queue, 3101, 3110)
    assert queue.purge() == 3105
    queue.verify()
    assert sorted(journal.live) == [1, 2, 3, 4, 5]
    assert journal.scratch == {}
    assert queue.ready_count == queue.ready_bytes == queue.paged_count == queue.paged_bytes == 0
    publish(queue, 3111, 3112)
    queue.settle_range(getter, 1, 5, REQUEUE)
    assert got_all(queue) == [1, 2, 3, 4, 5, 3111, 3112]


def test_a_queue_that_is_deleted_lets_go_of_everything_and_tells_its_journal_nothing() -> None:
    """Messages in every place at once: ring, heap, paged out, behind it, held. The journal's owner forgets the queue as a whole."""
    queue, journal = paging(2000)
    getter = getting(queue)
    for _ in range(1000):
        queue.get(getter)
    for number in range(500, 0, -1):
        queue.settle_range(getter, number, number, REQUEUE)
        if number > 100:
            queue.settle_range(getter, 1001 - number, 1001 - number, REQUEUE)
    assert queue.places()[1] > 0
    assert queue.let_go(1, 1) == 1000
    publish(queue, 2001, 2100)
    live = dict(journal.live)
    assert queue.clear() == []
    queue.verify()
    assert journal.live == live
    assert set(queue.held()) == {0}
    assert queue.statistics()["messages"] == 0
    assert queue.statistics()["message_bytes_paged_out"] == 0


def test_a_recovered_queue_reads_its_head_only() -> None:
    queue, journal = paging(5000)
    getter = getting(queue)
    for _ in range(20):
        queue.get(getter)
    queue.settle_range(getter, 1, 10, ACK)
    journal.commit()
    journal.page_in_max = 100
    assert journal.marked_through == 20
    after = RecordingQueue(durable=True)
    kept = journal.recover(after, journal.marked_through)
    assert kept.page_ins == READ_AHEAD / 100
    assert after.ready_count == 4990
    assert after.ready()[:12] == [(number, b"%d" % number, number <= 20) for number in range(11, 23)]
    publish(after, 5001, 5001)
    after.verify()
    assert after.ready()[-1] == (5001, b"5001", False)
    assert got_all(after) == list(range(11, 5002))


def test_positions_go_on_behind_what_may_have_been_handed_out() -> None:
    """A lease reaches beyond the last message: what is published now was in nobody's hands."""
    _, journal = paging(3)
    after = RecordingQueue(durable=True)
    journal.recover(after, 100)
    publish(after, 4, 5)
    assert after.ready() == [(1, b"1", True), (2, b"2", True), (3, b"3", True), (101, b"4", False), (102, b"5", False)]


def test_what_a_consumer_without_acks_takes_at_once_is_never_stored() -> None:
    queue, journal = paging(0)
    consumer = RecordingConsumer(b"c", no_ack=True)
    queue.add_consumer(consumer)
    consumer.activate()
    publish(queue, 1, 10)
    assert len(consumer.deliveries) == 10
    assert journal.live == {}
    consumer.make_room(0)
    publish(queue, 11, 12)
    assert sorted(journal.live) == [11, 12]
    consumer.make_room(-1)
    assert journal.live == {}
    assert journal.marked_through == queue.handed_through == 0


def test_an_exclusive_or_transient_queues_journal_is_asked_for_paging_only() -> None:
    queue = RecordingQueue()
    journal = RecordingJournal(queue)
    queue.keep_journal(journal, False)
    publish(queue, 1, 3000)
    assert journal.live == {}
    assert queue.let_go(1, 1) == 2999
    assert len(journal.scratch) == 2999
    assert got_all(queue) == list(range(1, 3001))


def test_what_the_journal_has_lost_is_passed_over_and_not_counted_for_ever() -> None:
    """The sizes are right again when all that was paged out with it has come back."""
    queue, journal = paging(3000)
    queue.let_go(10, 1 << 30)
    journal.page_in_max = 100
    journal.lose(11, 500, 501, 2999, 3000)
    publish(queue, 3001, 3003)
    assert queue.ready_count == 3003
    expected = [number for number in range(1, 3004) if number not in (11, 500, 501, 2999, 3000)]
    assert got_all(queue) == expected
    assert queue.ready_count == queue.ready_bytes == queue.paged_count == queue.paged_bytes == 0
    assert journal.live == {}


def test_a_queue_of_which_all_is_lost_is_empty() -> None:
    queue, journal = paging(50)
    queue.let_go(1, 1)
    journal.lose(*range(2, 51))
    assert got_all(queue) == [1]
    assert queue.ready_count == queue.ready_bytes == 0
    publish(queue, 51, 52)
    assert got_all(queue) == [51, 52]
