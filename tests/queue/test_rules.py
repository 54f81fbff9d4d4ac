"""A queue's rules (time to live, limits, dead letters, use), on a clock that the test turns, and by random steps against a list."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from leveret.queue.rules import Rules
from tests.queue.recording import RecordingConsumer, RecordingQueue

ACK, REQUEUE, DISCARD, BURIED = 0, 1, 2, 4
TAKEN, REFUSED = 0, 2
LETTERS = {"dead_letter_exchange": "x"}


def queue_with(**rules: Any) -> RecordingQueue:
    return RecordingQueue(rules=Rules(**rules))


def getter(queue: RecordingQueue, *, no_ack: bool = False) -> RecordingConsumer:
    made = RecordingConsumer(no_ack=no_ack)
    queue.add_getter(made)
    return made


def bodies(queue: RecordingQueue) -> list[bytes]:
    return [body for _, body, _ in queue.ready()]


def test_a_queue_without_rules_asks_for_no_call() -> None:
    queue = RecordingQueue()
    queue.publish_body(b"x")
    assert (queue.duties, queue.call_at_ms, queue.dead_letters) == (0, None, None)


@pytest.mark.parametrize(("ttl_ms", "expiration", "lives_ms"), [(100, None, 100), (None, "100", 100), (100, "70", 70), (70, "100", 70)])
def test_the_lower_time_counts_to_the_millisecond(ttl_ms: int | None, expiration: str | None, lives_ms: int) -> None:
    queue = queue_with(message_ttl_ms=ttl_ms)
    queue.publish_body(b"x", expiration)
    assert queue.call_at_ms == queue.clock_ms + lives_ms
    queue.pass_time(lives_ms - 1)
    assert bodies(queue) == [b"x"]
    queue.pass_time(1)
    assert (bodies(queue), queue.expired, queue.held()) == ([], 1, [0])


def test_what_is_overdue_is_got_by_nobody_even_if_no_timer_came() -> None:
    queue = queue_with(message_ttl_ms=10)
    for number in range(3):
        queue.publish_body(b"%d" % number, None)
    queue.clock_ms += 10
    assert queue.get(getter(queue)) is None
    consumer = RecordingConsumer()
    queue.publish_body(b"new")
    queue.clock_ms += 10
    queue.add_consumer(consumer)
    consumer.activate()
    assert (consumer.deliveries, queue.ready_count) == ([], 0)


def test_zero_is_for_a_consumer_that_takes_it_at_once() -> None:
    queue = queue_with(message_ttl_ms=0)
    queue.publish_body(b"nobody")
    consumer = RecordingConsumer()
    queue.add_consumer(consumer)
    consumer.activate()
    queue.publish_body(b"somebody")
    assert (consumer.deliveries, queue.expired) == ([(1, b"somebody", False)], 1)


def test_the_front_holds_up_what_is_behind_it() -> None:
    queue = RecordingQueue()
    queue.publish_body(b"long", "1000")
    queue.publish_body(b"short", "1")
    queue.pass_time(10)
    assert bodies(queue) == [b"long", b"short"]
    number, body, _ = queue.get(getter(queue))
    assert (number, body, bodies(queue)) == (1, b"long", [])


def test_a_message_that_comes_back_keeps_its_moment() -> None:
    queue = queue_with(message_ttl_ms=100)
    holder = getter(queue)
    queue.publish_body(b"x")
    queue.get(holder)
    queue.pass_time(50)
    queue.settle_range(holder, 1, 1, REQUEUE)
    assert bodies(queue) == [b"x"]
    queue.get(holder)
    queue.pass_time(50)
    assert queue.unacked_count == 1
    queue.settle_range(holder, 2, 2, REQUEUE)
    assert (queue.ready_count, queue.unacked_count, queue.expired) == (0, 0, 1)


def test_a_burst_of_expiries_is_taken_in_slices() -> None:
    queue = queue_with(message_ttl_ms=5)
    for _ in range(25_000):
        queue.publish_body(b"x")
    queue.clock_ms += 5
    queue.come_due()
    assert 0 < queue.expired < 25_000
    assert queue.pumps_due == 1
    queue.pass_time(0)
    assert (queue.expired, queue.ready_count, sum(queue.held())) == (25_000, 0, 0)


@pytest.mark.parametrize("limit", [{"max_length": 2}, {"max_length_bytes": 2}])
def test_the_oldest_make_room(limit: dict[str, int]) -> None:
    queue = queue_with(**limit, **LETTERS)
    assert [queue.publish_body(b"%d" % number) for number in range(4)] == [TAKEN] * 4
    assert (bodies(queue), queue.letters()) == ([b"2", b"3"], [(1, b"0", "maxlen"), (2, b"1", "maxlen")])


@pytest.mark.parametrize(("overflow", "letters"), [("reject-publish", []), ("reject-publish-dlx", [(1, b"2", "maxlen")])])
def test_a_full_queue_refuses(overflow: str, letters: list[tuple[int, bytes, str]]) -> None:
    queue = queue_with(max_length=2, overflow=overflow, **LETTERS)
    assert [queue.publish_body(b"%d" % number) for number in range(3)] == [TAKEN, TAKEN, REFUSED]
    assert (bodies(queue), queue.letters(), queue.refused) == ([b"0", b"1"], letters, 1)


def test_what_comes_back_pushes_the_oldest_out() -> None:
    queue = queue_with(max_length=2, **LETTERS)
    holder = getter(queue)
    for number in range(2):
        queue.publish_body(b"%d" % number)
        queue.get(holder)
    for number in range(2, 4):
        queue.publish_body(b"%d" % number)
    queue.settle_range(holder, 1, 2, REQUEUE)
    assert (bodies(queue), [body for _, body, _ in queue.letters()]) == ([b"2", b"3"], [b"0", b"1"])


def test_rejected_messages_are_letters_until_they_are_buried() -> None:
    queue = queue_with(**LETTERS)
    holder = getter(queue)
    for number in range(3):
        queue.publish_body(b"%d" % number)
        queue.get(holder)
    assert queue.settle_range(holder, 1, 2, DISCARD) == 2
    assert queue.letters() == [(1, b"0", "rejected"), (2, b"1", "rejected")]
    assert (queue.letters_came, queue.unacked_count, queue.held()) == (2, 3, [1, 1, 1])
    assert queue.settle_range(queue.dead_letters, 1, 1, BURIED) == 1
    assert (queue.buried, queue.held()) == (1, [0, 1, 1])
    assert queue.send_again(0, 2) == 1
    assert queue.letters() == [(3, b"1", "rejected")]
    queue.verify()


def test_letters_outlive_the_queue_and_purges() -> None:
    queue = queue_with(message_ttl_ms=0, **LETTERS)
    queue.publish_body(b"x")
    assert queue.purge() == 0
    queue.clear()
    assert (queue.letters(), queue.unacked_count, queue.held()) == ([(1, b"x", "expired")], 1, [1])
    queue.settle_range(queue.dead_letters, 1, 1, BURIED)
    assert (queue.unacked_count, queue.held()) == (0, [0])


def test_an_unused_queue_is_found_out() -> None:
    queue = queue_with(expires_ms=100)
    queue.touch()
    consumer = RecordingConsumer()
    queue.pass_time(99)
    queue.get(getter(queue))
    queue.pass_time(99)
    queue.add_consumer(consumer)
    queue.pass_time(1000)
    assert queue.found_unused == 0
    queue.remove_consumer(consumer)
    queue.pass_time(99)
    assert queue.found_unused == 0
    queue.pass_time(1)
    assert queue.found_unused == 1


@dataclass
class Told:
    """What the rules in words say of one message."""

    body: bytes
    moment_ms: int | None


@pytest.mark.parametrize("seed", range(60))
def test_random_steps(seed: int) -> None:
    """Publishes, gets, settles and time, against a list: which messages are ready, held and dead, and of what."""
    dice = random.Random(seed)
    ttl_ms = dice.choice([None, 0, 5, 20])
    limit = dice.choice([None, 0, 1, 4])
    overflow = dice.choice(["drop-head", "reject-publish", "reject-publish-dlx"])
    queue = queue_with(message_ttl_ms=ttl_ms, max_length=limit, overflow=overflow, **LETTERS)
    holder = getter(queue)
    ready: list[Told] = []
    held: dict[int, Told] = {}
    order: dict[bytes, int] = {}
    dead: list[tuple[bytes, str]] = []

    def keep_rules() -> None:
        while limit is not None and overflow == "drop-head" and len(ready) > limit:
            dead.append((ready.pop(0).body, "maxlen"))
        while ready and ready[0].moment_ms is not None and ready[0].moment_ms <= queue.clock_ms:
            dead.append((ready.pop(0).body, "expired"))

    for number in range(300):
        step = dice.random()
        if step < 0.45:
            body = b"%d" % number
            expiration = dice.choice([None, None, "0", "3", "30"])
            times = [int(time) for time in (ttl_ms, expiration) if time is not None]
            if limit is not None and overflow != "drop-head" and len(ready) >= limit:
                assert queue.publish_body(body, expiration) == REFUSED
                if overflow == "reject-publish-dlx":
                    dead.append((body, "maxlen"))
            else:
                order[body] = number
                ready.append(Told(body, queue.clock_ms + min(times) if times else None))
                assert queue.publish_body(body, expiration) == TAKEN
        elif step < 0.65:
            keep_rules()
            got = queue.get(holder)
            assert (got is None) == (not ready)
            if got is not None:
                held[got[0]] = ready.pop(0)
                assert held[got[0]].body == got[1]
        elif step < 0.85 and held:
            first, last = sorted(dice.choices(list(held), k=2))
            outcome = dice.choice([ACK, REQUEUE, DISCARD])
            settled = [held.pop(key) for key in sorted(held) if first <= key <= last]
            assert queue.settle_range(holder, first, last, outcome) == len(settled)
            if outcome == DISCARD:
                dead += [(told.body, "rejected") for told in settled]
            elif outcome == REQUEUE:
                ready = sorted([*ready, *settled], key=lambda told: order[told.body])
        else:
            queue.pass_time(dice.choice([1, 3, 10]))
        keep_rules()
        assert bodies(queue) == [told.body for told in ready]
        assert [(body, reason) for _, body, reason in queue.letters()] == dead
        queue.verify()
    assert sum(queue.held()) == len(ready) + len(held) + len(dead)
