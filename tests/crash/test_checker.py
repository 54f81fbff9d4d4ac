"""The checker itself: each rule catches its breach, and grants what a crash may do. Pure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.crash.checker import SETTLED_AFTER_S, check, lost
from tests.crash.ledger import (
    Acked,
    Attempted,
    Confirmed,
    Ended,
    Event,
    HarmBegan,
    HarmEnded,
    Ledger,
    MessageId,
    Nacked,
    Opened,
    Received,
    Requeued,
    Stopped,
    Strange,
    Synced,
    Unanswered,
    body_of,
)

Q, OTHER = "q", "other"
M = [MessageId("p", number) for number in range(10)]


class Told:
    """A ledger's events, told in short; the clock advances by `step_s` with each."""

    def __init__(self) -> None:
        self.events: list[Event] = [Opened(0.0, 1, Q), Opened(0.0, 9, "")]
        self.step_s = 0.001
        self.at_s = 0.0

    def now(self) -> float:
        self.at_s += self.step_s
        return self.at_s

    def attempt(self, *numbers: int, queues: tuple[str, ...] = (Q,), group: str = "") -> Told:
        self.events += [Attempted(self.now(), M[number], "", queues, 5, group) for number in numbers]
        return self

    def confirm(self, *numbers: int) -> Told:
        self.events += [Confirmed(self.now(), M[number]) for number in numbers]
        return self

    def publish(self, *numbers: int, queues: tuple[str, ...] = (Q,)) -> Told:
        return self.attempt(*numbers, queues=queues).confirm(*numbers)

    def nack(self, number: int) -> Told:
        self.events.append(Nacked(self.now(), M[number]))
        return self

    def unanswered(self, *numbers: int) -> Told:
        self.events += [Unanswered(self.now(), M[number]) for number in numbers]
        return self

    def get(self, *numbers: int, queue: str = Q, session: int = 1, again: bool = False, size: int = 5, intact: bool = True) -> Told:
        self.events += [Received(self.now(), session, queue, M[number], again, size, intact) for number in numbers]
        return self

    def ack(self, *numbers: int, queue: str = Q, session: int = 1) -> Told:
        self.events += [Acked(self.now(), session, queue, M[number]) for number in numbers]
        return self

    def sync(self, session: int = 1) -> Told:
        self.events.append(Synced(self.now(), session, len(self.events)))
        return self

    def consume(self, *numbers: int, queue: str = Q, session: int = 1, again: bool = False) -> Told:
        return self.get(*numbers, queue=queue, session=session, again=again).ack(*numbers, queue=queue, session=session).sync(session)

    def session(self, number: int) -> Told:
        self.events.append(Opened(self.now(), number, Q))
        return self

    def end(self, session: int, why: str = "gone") -> Told:
        self.events.append(Ended(self.now(), session, why))
        return self

    def requeue(self, number: int) -> Told:
        self.events.append(Requeued(self.now(), 1, Q, M[number]))
        return self

    def harm(self, *, dirty: bool = True) -> Told:
        self.events.append(HarmBegan(self.now(), "harm", dirty))
        return self

    def over(self) -> Told:
        self.events.append(HarmEnded(self.now(), "harm"))
        return self

    def crash(self, *, dirty: bool = True) -> Told:
        return self.harm(dirty=dirty).over()

    def stop(self) -> Told:
        self.harm().events.append(Stopped(self.now()))
        return self.over()

    def later(self, seconds: float) -> Told:
        self.at_s += seconds
        return self

    def strange(self) -> Told:
        self.events.append(Strange(self.now(), "odd"))
        return self


GOOD: dict[str, Callable[[Told], Told]] = {
    "nothing happened": lambda told: told,
    "plain": lambda told: told.publish(1, 2).consume(1, 2),
    "to two queues": lambda told: told.publish(1, queues=(Q, OTHER)).consume(1).consume(1, queue=OTHER),
    "an unanswered one that came": lambda told: told.attempt(1).harm().unanswered(1).over().consume(1),
    "an unanswered one that did not come": lambda told: told.attempt(1).harm().unanswered(1).over(),
    "a nacked one that came": lambda told: told.harm(dirty=False).attempt(1).nack(1).over().consume(1),
    "a nack that comes after the harm": lambda told: told.harm(dirty=False).attempt(1).over().nack(1),
    "published again and there twice": lambda told: told.attempt(1).harm().unanswered(1).over().publish(1).consume(1).consume(1),
    "a part of a transaction that came before the crash": lambda told: (
        told.attempt(1, 2, group="g").consume(1).harm().unanswered(1, 2).over()
    ),
    "unacked and redelivered": lambda told: told.publish(1).get(1).crash().session(2).consume(1, session=2, again=True),
    "redelivered at first": lambda told: told.publish(1).crash().session(2).consume(1, session=2, again=True),
    "an ack that was not surely handled": lambda told: told.publish(1).get(1).ack(1).crash().session(2).consume(1, session=2, again=True),
    "a settle just before a crash": lambda told: told.publish(1).consume(1).crash().session(2).consume(1, session=2, again=True),
    "new again after an ack that a crash may have lost": lambda told: (
        told.publish(1).get(1).ack(1).crash().session(2).consume(1, session=2)
    ),
    "a stop in mid-delivery": lambda told: told.publish(1).get(1).stop().session(2).consume(1, session=2, again=True),
    "an ack from before a crash, handled by nobody": lambda told: (
        told.publish(1).get(1).crash().ack(1).sync().later(60).get(1, again=True).ack(1).sync()
    ),
    "an old delivery that lay in a buffer": lambda told: (
        told.publish(1).crash().get(1).ack(1).sync().later(60).get(1, again=True).ack(1).sync()
    ),
    "back once a crash in one session": lambda told: told.publish(1, 2, 3).get(1, 2).crash().consume(1, 2, again=True).consume(3),
    "a gap that was never confirmed": lambda told: (
        told.publish(1).attempt(2).harm().unanswered(2).over().publish(3).consume(1).consume(3).consume(2)
    ),
    "requeued": lambda told: told.publish(1, 2).get(1).requeue(1).consume(2).consume(1, again=True),
    "a connection that a crash ended": lambda told: told.harm().end(1).over(),
    "a connection that a crash ended, noticed later": lambda told: told.crash().end(1),
    "a channel that asked a worker which stood still": lambda told: (
        told.harm(dirty=False).end(1, "queue 'q' is down or inaccessible").over()
    ),
    "a whole transaction": lambda told: told.attempt(1, 2, group="g").harm().unanswered(1, 2).over().consume(1, 2),
    "no transaction": lambda told: told.attempt(1, 2, group="g").harm().unanswered(1, 2).over(),
}

BAD: dict[str, tuple[str, Callable[[Told], Told]]] = {
    "confirmed and gone": ("lost", lambda told: told.publish(1)),
    "confirmed at the second try and gone": ("lost", lambda told: told.attempt(1).harm().unanswered(1).over().publish(1)),
    "confirmed, then unanswered, and gone": ("lost", lambda told: told.attempt(1, 1).confirm(1).harm().unanswered(1).over()),
    "gone from one of two queues": ("lost", lambda told: told.publish(1, queues=(Q, OTHER)).consume(1)),
    "received, not acked, and gone": ("lost", lambda told: told.publish(1).get(1).crash()),
    "never published": ("unexpected", lambda told: told.get(1)),
    "before it was published": ("unexpected", lambda told: told.get(1).publish(1).ack(1)),
    "from a queue it was not for": ("unexpected", lambda told: told.publish(1).consume(1).consume(1, queue=OTHER)),
    "a broken body": ("unexpected", lambda told: told.publish(1).get(1, intact=False).ack(1)),
    "a cut body": ("unexpected", lambda told: told.publish(1).get(1, size=4).ack(1)),
    "twice as new": ("duplicate", lambda told: told.publish(1).get(1).get(1).ack(1)),
    "twice as new across a crash": ("duplicate", lambda told: told.publish(1).get(1).crash().session(2).consume(1, session=2)),
    "new again though a stop forgets no ack": (
        "duplicate",
        lambda told: told.publish(1).get(1).ack(1).stop().session(2).consume(1, session=2),
    ),
    "new twice again after one lost ack": (
        "duplicate",
        lambda told: told.publish(1).get(1).ack(1).crash().session(2).get(1, session=2).crash().session(3).consume(1, session=3),
    ),
    "as new after it was redelivered": ("duplicate", lambda told: told.publish(1).get(1, again=True).requeue(1).get(1).ack(1)),
    "three times as new after two tries": (
        "duplicate",
        lambda told: told.attempt(1).harm().unanswered(1).over().publish(1).get(1).get(1).get(1).ack(1),
    ),
    "settled, and back without a crash": ("returned", lambda told: told.publish(1).consume(1).get(1, again=True)),
    "settled, and back after a stop": (
        "returned",
        lambda told: told.publish(1).consume(1).stop().session(2).consume(1, session=2, again=True),
    ),
    "settled, stopped, and back after a crash": (
        "returned",
        lambda told: told.publish(1).consume(1).stop().crash().session(2).consume(1, session=2, again=True),
    ),
    "settled long before the crash": (
        "returned",
        lambda told: told.publish(1).consume(1).later(SETTLED_AFTER_S).crash().session(2).consume(1, session=2, again=True),
    ),
    "settled, and back after the router died": (
        "returned",
        lambda told: told.publish(1).consume(1).crash(dirty=False).session(2).consume(1, session=2, again=True),
    ),
    "settled after the crash": (
        "returned",
        lambda told: told.publish(1).crash().session(2).consume(1, session=2).session(3).consume(1, session=3, again=True),
    ),
    "an old delivery that a question had flushed": (
        "returned",
        lambda told: told.publish(1).crash().sync().get(1).ack(1).sync().get(1, again=True).ack(1).sync(),
    ),
    "overtaken": ("order", lambda told: told.publish(1, 2).consume(2).consume(1)),
    "overtaken after a crash": (
        "order",
        lambda told: told.publish(1, 2, 3).consume(1).crash().session(2).consume(3, 2, session=2),
    ),
    "not in its old place": (
        "order",
        lambda told: (
            told.publish(1, 2, 3).get(1).crash().session(2).consume(2, session=2).consume(1, session=2, again=True).consume(3, session=2)
        ),
    ),
    "back twice after one crash": (
        "order",
        lambda told: told.publish(1, 2).get(1, 2).crash().get(1, 2, again=True).get(1, 2, again=True).ack(1, 2),
    ),
    "back without a crash": ("order", lambda told: told.publish(1, 2).get(1, 2).get(1, 2, again=True).ack(1, 2)),
    "half a transaction": ("torn", lambda told: told.attempt(1, 2, group="g").harm().unanswered(1, 2).over().consume(2)),
    "never answered": ("answer", lambda told: told.attempt(1)),
    "answered twice": ("answer", lambda told: told.publish(1).confirm(1).consume(1)),
    "confirmed and nacked": ("answer", lambda told: told.harm().publish(1).nack(1).over().consume(1)),
    "nacked in peace": ("answer", lambda told: told.crash().attempt(1).nack(1)),
    "a connection that ended in peace": ("connection", lambda told: told.end(1)),
    "a connection that ended with the router": ("connection", lambda told: told.harm(dirty=False).end(1).over()),
    "a connection made after the crash": ("connection", lambda told: told.crash().session(2).end(2)),
    "a queue that was called inaccessible in peace": ("connection", lambda told: told.end(1, "queue 'q' is down or inaccessible")),
    "a client's own surprise": ("strange", lambda told: told.strange()),
}


@pytest.mark.parametrize("tell", GOOD.values(), ids=GOOD)
def test_what_a_good_broker_may_do_is_no_finding(tell: Callable[[Told], Told]) -> None:
    assert [str(finding) for finding in check(tell(Told()).events)] == []


@pytest.mark.parametrize(("rule", "tell"), BAD.values(), ids=BAD)
def test_every_breach_is_found(rule: str, tell: Callable[[Told], Told]) -> None:
    assert {finding.rule for finding in check(tell(Told()).events)} == {rule}


def test_what_is_lost_is_told_alone() -> None:
    told = Told().publish(1, 2).get(2).get(2)
    assert [finding.message for finding in lost(told.events)] == [M[1], M[2]]


def test_bodies_differ_from_message_to_message_and_have_their_size() -> None:
    for size in (1, 63, 64, 65, 300_000):
        assert len(body_of(M[1], size)) == size
    assert body_of(M[1], 300_000) != body_of(M[2], 300_000)
    assert body_of(M[1], 65) == body_of(M[1], 64) + body_of(M[1], 1)


@pytest.mark.parametrize("text", [None, "", "17", "p/", "p/-1", "p/x"])
def test_a_property_that_is_no_id_belongs_to_nobody(text: str | None) -> None:
    assert MessageId.parse(text).publisher.startswith("?")


def test_an_id_survives_its_property() -> None:
    assert MessageId.parse(str(MessageId("a/b", 7))) == MessageId("a/b", 7)


def test_a_ledger_numbers_sessions_and_counts_confirms() -> None:
    ledger = Ledger()
    assert [ledger.new_session(Q), ledger.new_session(Q)] == [1, 2]
    ledger.write(Confirmed(1.0, M[1]), HarmBegan(1.0, "h", True))
    assert (ledger.confirmed, ledger.open_harm) == (1, "h")
    ledger.write(HarmEnded(1.0, "h"))
    assert ledger.open_harm == ""
    assert any("Confirmed" in line for line in ledger.story(M[1]))
    with pytest.raises(AssertionError, match="more confirms"):
        ledger.wait_for_confirms(1, within_s=0.01)
