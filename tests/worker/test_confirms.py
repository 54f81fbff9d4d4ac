"""`Confirms` against a plain model: whatever comes in whatever order, every publish is answered once, and rightly.

The model knows of each publish who has still to answer and whether anybody refused; the client's side knows which tags are not answered yet
and what each may be told. Verdicts and confirms come in any order, as they do on different links; only what the links themselves promise
is kept to: a router speaks of a dead worker after its last verdict that named it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.worker.driven_confirms import DrivenConfirms

WORKERS = 3
Told = tuple[int, bool, bool]  # tag, multiple, nack


@dataclass
class Publish:
    """What the model knows of one publish."""

    number: int
    routed: bool
    planned: set[int]  # workers that are given it
    confirms_due: set[int] = field(default_factory=set)  # of these, who has not said so yet
    verdict_due: bool = False
    refused: bool = False
    done: bool = False

    def settle_if_complete(self) -> None:
        self.done = self.done or not (self.verdict_due or self.confirms_due)

    def refuse(self) -> None:
        self.refused = self.done = True


class ConfirmsMachine(RuleBasedStateMachine):
    """Random histories of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.real = DrivenConfirms()
        self.publishes: list[Publish] = []
        self.base: int | None = None  # publishes made before confirm.select
        self.unanswered: dict[int, Publish] = {}  # tag -> publish, as the client sees it

    def add(self, routed: bool, planned: set[int], verdict_due: bool) -> Publish:
        publish = Publish(len(self.publishes) + 1, routed, planned, set(planned), verdict_due)
        self.publishes.append(publish)
        if self.base is not None:
            self.unanswered[publish.number - self.base] = publish
        return publish

    def open_ones(self) -> list[Publish]:
        return [publish for publish in self.publishes if not publish.done]

    # --- the channel's side

    @initialize(at_once=st.booleans())
    def begin(self, at_once: bool) -> None:
        if at_once:
            self.select()

    @precondition(lambda self: self.base is None)
    @rule()
    def select(self) -> None:
        self.real.start()
        self.base = len(self.publishes)

    @precondition(lambda self: self.base is not None)
    @rule(count=st.integers(1, 20))
    def publish_here(self, count: int) -> None:
        for _ in range(count):
            self.real.publish_here()
            self.add(False, set(), False).settle_if_complete()

    @precondition(lambda self: self.base is not None)
    @rule(worker=st.integers(0, WORKERS - 1), count=st.integers(1, 20))
    def publish_to(self, worker: int, count: int) -> None:
        for _ in range(count):
            publish = self.add(False, {worker}, False)
            assert self.real.publish_to(1 << worker) == publish.number

    @rule(workers=st.sets(st.integers(0, WORKERS - 1)), mandatory=st.booleans(), count=st.integers(1, 5))
    def publish_routed(self, workers: set[int], mandatory: bool, count: int) -> None:
        for _ in range(count):
            publish = self.add(True, workers, True)
            assert self.real.publish_routed(mandatory) == publish.number

    # --- the links' side

    def hear_verdict(self, publish: Publish) -> None:
        self.real.told_verdict(publish.number, sum(1 << worker for worker in publish.planned))
        publish.verdict_due = False
        publish.settle_if_complete()

    @precondition(lambda self: any(publish.verdict_due for publish in self.publishes))
    @rule(data=st.data())
    def verdict(self, data: st.DataObject) -> None:
        self.hear_verdict(data.draw(st.sampled_from([publish for publish in self.publishes if publish.verdict_due][:8])))

    @precondition(lambda self: any(publish.confirms_due for publish in self.publishes))
    @rule(data=st.data(), refused=st.booleans(), count=st.integers(1, 10))
    def confirm(self, data: st.DataObject, refused: bool, count: int) -> None:
        due = [(publish, worker) for publish in self.publishes for worker in sorted(publish.confirms_due)]
        at = data.draw(st.integers(0, len(due) - 1))
        for publish, worker in due[at : at + count]:
            self.real.told_confirm(publish.number, 1 << worker, refused)
            publish.confirms_due.discard(worker)
            if not publish.done:
                publish.refused = publish.refused or refused
                publish.settle_if_complete()

    @rule(worker=st.integers(0, WORKERS - 1))
    def the_link_to_a_worker_breaks(self, worker: int) -> None:
        self.real.lost_worker(1 << worker, False)
        for publish in self.open_ones():
            if not publish.routed and worker in publish.confirms_due:
                publish.refuse()

    @rule(worker=st.integers(0, WORKERS - 1))
    def the_router_says_that_a_worker_is_down(self, worker: int) -> None:
        for publish in self.open_ones():
            if publish.verdict_due and worker in publish.planned:
                self.hear_verdict(publish)
        self.real.lost_worker(1 << worker, True)
        for publish in self.open_ones():
            if publish.routed and not publish.verdict_due and worker in publish.confirms_due:
                publish.refuse()

    @rule()
    def the_router_dies(self) -> None:
        self.real.lost_router()
        for publish in self.open_ones():
            if publish.routed:
                publish.refuse()

    # --- the client's side

    @rule()
    def the_turn_ends(self) -> None:
        told = self.real.collected()
        if self.base is None:
            return
        for tag, multiple, nack in told:
            assert tag in self.unanswered, f"{tag} is answered a second time"
            covered = [other for other in sorted(self.unanswered) if other == tag or (multiple and other < tag)]
            assert multiple == (len(covered) > 1)
            if nack:
                assert min(self.unanswered) == covered[0], "a nack goes out when it is the oldest"
            for other in covered:
                publish = self.unanswered.pop(other)
                assert publish.done, f"{other} is answered before everybody has taken it"
                assert publish.refused == nack, f"{other} is told the wrong thing"
        oldest_open = min((publish.number for publish in self.open_ones()), default=len(self.publishes) + 1)
        for tag, publish in self.unanswered.items():
            if publish.done:
                assert publish.refused, f"the ack of {tag} waits"
                assert oldest_open < publish.number, f"the nack of {tag} waits for nobody"
        assert self.real.unsettled == len(self.publishes) + 1 - oldest_open

    def teardown(self) -> None:
        for publish in self.publishes:
            if publish.verdict_due:
                self.hear_verdict(publish)
            for worker in sorted(publish.confirms_due):
                self.real.told_confirm(publish.number, 1 << worker, False)
            publish.confirms_due.clear()
            publish.settle_if_complete()
        self.the_turn_ends()
        assert self.real.unsettled == 0
        assert self.unanswered == {}
        assert self.real.messages_kept == 0


TestConfirms = ConfirmsMachine.TestCase
TestConfirms.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


# --- histories with names


@pytest.fixture
def confirms() -> DrivenConfirms:
    made = DrivenConfirms()
    made.start()
    return made


def test_publishes_taken_here_are_acked_together(confirms: DrivenConfirms) -> None:
    for _ in range(100):
        confirms.publish_here()
    assert confirms.collected() == [(100, True, False)]
    confirms.publish_here()
    assert confirms.collected() == [(101, False, False)]
    assert confirms.collected() == []


def test_a_slow_worker_does_not_hold_up_the_others_confirms(confirms: DrivenConfirms) -> None:
    slow = confirms.publish_to(0b001)
    quick = confirms.publish_to(0b010)
    confirms.told_confirm(quick, 0b010, False)
    assert confirms.collected() == [(2, False, False)]
    confirms.told_confirm(slow, 0b001, False)
    assert confirms.collected() == [(1, False, False)], "2 has been told already"


def test_a_cumulative_ack_names_a_publish_that_was_not_told_yet(confirms: DrivenConfirms) -> None:
    numbers = [confirms.publish_to(1) for _ in range(5)]
    confirms.told_confirm(numbers[4], 1, False)
    assert confirms.collected() == [(5, False, False)]
    for number in numbers[:4]:
        confirms.told_confirm(number, 1, False)
    assert confirms.collected() == [(4, True, False)]


def test_what_was_acked_alone_is_not_acked_again_behind_a_nack(confirms: DrivenConfirms) -> None:
    lost, taken = confirms.publish_to(0b01), confirms.publish_to(0b10)
    last = confirms.publish_to(0b10)
    confirms.told_confirm(taken, 0b10, False)
    assert confirms.collected() == [(2, False, False)]
    confirms.lost_worker(0b01, False)
    assert confirms.collected() == [(1, False, True)]
    confirms.told_confirm(last, 0b10, False)
    assert confirms.collected() == [(3, False, False)]
    assert lost == 1


def test_no_cumulative_ack_covers_a_nack(confirms: DrivenConfirms) -> None:
    first, refused, last = (confirms.publish_to(bit) for bit in (0b001, 0b010, 0b100))
    confirms.told_confirm(refused, 0b010, True)
    confirms.told_confirm(last, 0b100, False)
    assert confirms.collected() == [(3, False, False)], "the nack waits until it is the oldest"
    confirms.told_confirm(first, 0b001, False)
    assert confirms.collected() == [(1, False, False), (2, False, True)]


def test_a_run_of_nacks_at_the_front_is_one_answer(confirms: DrivenConfirms) -> None:
    for _ in range(40):  # more than the ring begins with
        confirms.publish_to(1)
    last = confirms.publish_to(2)
    confirms.lost_worker(1, False)
    confirms.told_confirm(last, 2, False)
    assert confirms.collected() == [(40, True, True), (41, False, False)]


def test_verdict_and_confirms_may_come_in_either_order(confirms: DrivenConfirms) -> None:
    early, late = confirms.publish_routed(False), confirms.publish_routed(False)
    confirms.told_confirm(early, 0b01, False)
    confirms.told_confirm(early, 0b10, False)
    confirms.told_verdict(late, 0b11)
    assert confirms.collected() == [], "neither is complete: who else was given the first is not known"
    confirms.told_verdict(early, 0b11)
    confirms.told_confirm(late, 0b10, False)
    assert confirms.collected() == [(1, False, False)]
    confirms.told_confirm(late, 0b01, False)
    assert confirms.collected() == [(2, False, False)]


def test_what_was_published_before_confirm_select_is_not_answered() -> None:
    confirms = DrivenConfirms()
    early = [confirms.publish_routed(True) for _ in range(3)]
    assert confirms.messages_kept == 3
    confirms.start()
    counted = confirms.publish_to(0b1)
    confirms.told_verdict(early[0], 0)
    confirms.lost_router()
    assert confirms.messages_kept == 0
    assert confirms.collected() == []
    confirms.told_confirm(counted, 0b1, False)
    assert confirms.collected() == [(1, False, False)]


def test_the_messages_kept_for_a_return_go_with_the_channel() -> None:
    confirms = DrivenConfirms()
    confirms.publish_routed(True)
    answered = confirms.publish_routed(True)
    confirms.told_verdict(answered, 0)
    assert confirms.messages_kept == 1


@pytest.mark.parametrize(
    ("confirms_say", "returned"),
    [
        ([(False, False), (False, False)], 1),
        ([(False, False), (False, True)], 0),
        ([(False, True), (False, False)], 0),
        ([(True, False)], 0),
    ],
    ids=["nobody took it", "the last took it", "the first took it", "refused"],
)
def test_an_immediate_message_is_returned_if_every_worker_says_that_nobody_took_it(
    confirms: DrivenConfirms, confirms_say: list[tuple[bool, bool]], returned: int
) -> None:
    publish = confirms.publish_routed(False, immediate=True)
    confirms.told_verdict(publish, (1 << len(confirms_say)) - 1)
    for worker, (refused, taken) in enumerate(confirms_say):
        assert confirms.to_be_returned == 0
        confirms.told_confirm(publish, 1 << worker, refused, taken)
    assert confirms.to_be_returned == returned
    assert confirms.messages_kept == returned
    assert confirms.refusals == confirms_say[0][0]
    assert confirms.collected() == [(1, False, confirms_say[0][0])]
