"""The checker: reads a ledger and says what the broker did wrong. Pure; called by the tests with the events of one drained epoch.

The rules, and what they grant a broker that may crash:

- **lost**: a confirmed message must have been received and acked on every queue it was published to. One that was received but not acked
  has to come again, so it counts as lost if it does not.
- **unexpected**: nothing comes that was not published, not to a queue it was not meant for, not with another body.
- **returned**: a message whose ack was surely handled does not come back, unless a crash follows within `SETTLED_AFTER_S`: acks have no
  answer, so the last ones before a crash may be forgotten. A clean stop forgets none. An ack is surely handled when the queue answered a
  later question of the same session and no crash lay between; all others are uncertain.
- **duplicate**: received without the flag `redelivered` no more often than it was published; once more for each crash behind an ack that
  was not surely handled.
- **order**: on a queue whose consumers requeue nothing, confirmed messages of one publisher come first in the order of publishing, and
  within a session they go back once a crash at most.
- **torn**: of a transaction whose answer is unknown, each queue has all or nothing after the crash. What came before it came from memory.
- **answer**: each publish is confirmed or nacked once, and nacked only while harm is done.
- **connection**: none ends but by a crash; while a worker stands still, who asks it something is told so after a while (404).
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.crash.ledger import (
    Acked,
    Attempted,
    Confirmed,
    Ended,
    Event,
    HarmBegan,
    HarmEnded,
    MessageId,
    Nacked,
    Opened,
    Received,
    Requeued,
    Stopped,
    Strange,
    Synced,
    Unanswered,
)

NO_ANSWER = "is down or inaccessible"  # of a queue's worker
SETTLED_AFTER_S = 5.0  # a commit takes milliseconds; so much is granted to a machine whose disk is shared


class Finding(NamedTuple):
    """One breach of a rule."""

    rule: str
    message: MessageId | None
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message or ''} {self.text}"


class Harm(NamedTuple):
    """An interval of the list in which the laboratory did harm; `end` is beyond the list if it never ended. `stop`: it was a clean stop."""

    what: str
    dirty: bool
    begin: int
    end: int
    begin_s: float
    stop: bool = False


@dataclass
class Publish:
    """What a publisher knows of one message."""

    exchange: str
    queues: tuple[str, ...]
    size: int
    group: str
    tries: list[int] = field(default_factory=list)  # where in the list
    confirmed: bool = False
    open_tries: int = 0


class Copy(NamedTuple):
    """One message on one queue."""

    queue: str
    message: MessageId


class Settle(NamedTuple):
    """An ack that was surely handled when the list had `at` events."""

    at: int
    at_s: float


def harms(events: Sequence[Event]) -> list[Harm]:
    """The intervals of harm, in order."""
    found: list[Harm] = []
    for at, event in enumerate(events):
        if isinstance(event, HarmBegan):
            found.append(Harm(event.what, event.dirty, at, len(events), event.at_s))
        elif isinstance(event, HarmEnded):
            found[-1] = found[-1]._replace(end=at)
        elif isinstance(event, Stopped):
            found[-1] = found[-1]._replace(stop=True)
    return found


def publishes(events: Iterable[Event]) -> dict[MessageId, Publish]:
    """Every message that somebody tried to publish, in order."""
    found: dict[MessageId, Publish] = {}
    for at, event in enumerate(events):
        if isinstance(event, Attempted):
            publish = found.setdefault(event.message, Publish(event.exchange, event.queues, event.size, event.group))
            publish.tries.append(at)
            publish.open_tries += 1
        elif isinstance(event, Confirmed | Nacked | Unanswered) and event.message in found:
            found[event.message].open_tries -= 1
            found[event.message].confirmed |= isinstance(event, Confirmed)
    return found


def check(events: Sequence[Event]) -> list[Finding]:
    """Every breach of every rule; empty when the broker kept its word. The events must end with a drained broker."""
    record = _Record(events)
    return [
        *(Finding("strange", None, event.what) for event in events if isinstance(event, Strange)),
        *record.answers(),
        *record.connections(),
        *record.unexpected(),
        *record.lost(),
        *record.torn(),
        *record.duplicates(),
        *record.returned(),
        *record.disorder(),
    ]


def lost(events: Sequence[Event]) -> list[Finding]:
    """The breaches of the first rule alone: empty as soon as the queues have been drained."""
    return _Record(events).lost()


class _Record:
    """The events sorted by what they are about, and the rules."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.publishes = publishes(events)
        self.harms = harms(events)
        self.dirty = [harm for harm in self.harms if harm.dirty]
        self.stops = [at for at, event in enumerate(events) if isinstance(event, Stopped)]
        self.receipts: dict[Copy, list[tuple[int, Received]]] = defaultdict(list)
        self.acks: dict[Copy, list[int]] = defaultdict(list)
        self.requeueing: set[str] = set()  # queues
        for at, event in enumerate(events):
            if isinstance(event, Received):
                self.receipts[Copy(event.queue, event.message)].append((at, event))
            elif isinstance(event, Acked):
                self.acks[Copy(event.queue, event.message)].append(at)
            elif isinstance(event, Requeued):
                self.requeueing.add(event.queue)

    def _hurt(self, begin: int, end: int, harms: Sequence[Harm]) -> bool:
        """Whether any of `harms` was under way between two places of the list."""
        return any(harm.begin <= end and harm.end >= begin for harm in harms)

    # --- the publishers' side

    def answers(self) -> list[Finding]:
        found = []
        open_tries: Counter[MessageId] = Counter()
        last_try: dict[MessageId, int] = {}
        for at, event in enumerate(self.events):
            if isinstance(event, Attempted):
                open_tries[event.message] += 1
                last_try[event.message] = at
            elif isinstance(event, Confirmed | Nacked | Unanswered):
                open_tries[event.message] -= 1
                if open_tries[event.message] < 0:
                    found.append(Finding("answer", event.message, f"{type(event).__name__.lower()} once more than it was published"))
                if isinstance(event, Nacked) and not self._hurt(last_try.get(event.message, at), at, self.harms):
                    found.append(Finding("answer", event.message, "nacked while nothing was wrong"))
        found += [Finding("answer", message, "neither confirmed nor nacked") for message, count in open_tries.items() if count > 0]
        return found

    def connections(self) -> list[Finding]:
        opened = {event.session: at for at, event in enumerate(self.events) if isinstance(event, Opened)}
        return [
            Finding("connection", None, f"session {event.session} ended while no process had died: {event.why}")
            for at, event in enumerate(self.events)
            if isinstance(event, Ended)
            and not self._hurt(opened[event.session], at, self.dirty)
            and not (NO_ANSWER in event.why and self._hurt(opened[event.session], at, self.harms))
        ]

    # --- the consumers' side

    def unexpected(self) -> list[Finding]:
        found = []
        for copy, receipts in self.receipts.items():
            publish = self.publishes.get(copy.message)
            if publish is None:
                found.append(Finding("unexpected", copy.message, f"was never published, and came from {copy.queue}"))
            elif copy.queue not in publish.queues:
                found.append(Finding("unexpected", copy.message, f"came from {copy.queue}, published for {publish.queues}"))
            else:
                found += [
                    Finding("unexpected", copy.message, f"{copy.queue}: {receipt.size} bytes, not its own {publish.size}")
                    for at, receipt in receipts
                    if not receipt.intact or receipt.size != publish.size or at < publish.tries[0]
                ]
        return found

    def lost(self) -> list[Finding]:
        return [
            Finding("lost", message, f"confirmed, and {'never acked' if (queue, message) in self.receipts else 'never came'} on {queue}")
            for message, publish in self.publishes.items()
            if publish.confirmed
            for queue in publish.queues
            if Copy(queue, message) not in self.acks
        ]

    def torn(self) -> list[Finding]:
        kept: dict[tuple[str, str], list[MessageId]] = defaultdict(list)
        missing: dict[tuple[str, str], list[MessageId]] = defaultdict(list)
        for message, publish in self.publishes.items():
            crash = min((harm.end for harm in self.dirty if harm.end > publish.tries[-1]), default=len(self.events))
            for queue in publish.queues if publish.group else ():
                receipts = [at for at, _ in self.receipts.get(Copy(queue, message), ())]
                if any(at > crash for at in receipts):
                    kept[publish.group, queue].append(message)
                elif not receipts:
                    missing[publish.group, queue].append(message)
        return [
            Finding("torn", there[0], f"of transaction {group} {queue} kept {len(there)}, and lacks {len(missing[group, queue])}")
            for (group, queue), there in kept.items()
            if missing[group, queue]
        ]

    def duplicates(self) -> list[Finding]:
        found = []
        for copy, receipts in self.receipts.items():
            tries = len(self.publishes[copy.message].tries) if copy.message in self.publishes else 0
            new = [at for at, receipt in receipts if not receipt.redelivered]
            allowed = max(1, tries) + self._crashes_behind_acks(copy, new)
            # The first of all may well be marked as redelivered: it was sent to somebody who did not get it. A later one may not be new.
            if len(new) > allowed or (tries == 1 and new and new[-1] != receipts[0][0] and allowed == 1):
                found.append(Finding("duplicate", copy.message, f"{copy.queue} gave it as new for the {len(receipts)}th time"))
        return found

    def _crashes_behind_acks(self, copy: Copy, new: Sequence[int]) -> int:
        """How many of these receipts follow another one whose ack was sent and perhaps lost in a crash between the two."""
        return sum(
            any(before < at < harm.end and harm.begin < after and not harm.stop for at in self.acks[copy] for harm in self.dirty)
            for before, after in itertools.pairwise(new)
        )

    def settles(self) -> dict[Copy, list[Settle]]:
        """The acks that were surely handled."""
        found: dict[Copy, list[Settle]] = defaultdict(list)
        since: dict[int, int] = {}  # session -> from where on what it holds is of the queue as it is now
        waiting: dict[int, list[tuple[int, Acked, int]]] = defaultdict(list)  # session -> acks, and where their delivery was `since`
        held: dict[tuple[int, Copy], int] = {}
        for at, event in enumerate(self.events):
            if isinstance(event, Opened):
                since[event.session] = at
            elif isinstance(event, Received):
                held[event.session, Copy(event.queue, event.message)] = since[event.session]
            elif isinstance(event, Acked):
                begin = held.get((event.session, Copy(event.queue, event.message)), at)
                waiting[event.session].append((at, event, begin))
            elif isinstance(event, Synced):
                left = []
                for acked_at, acked, begin in waiting[event.session]:
                    if acked_at >= event.asked_at:
                        left.append((acked_at, acked, begin))
                    elif not self._hurt(begin, at, self.dirty):
                        found[Copy(acked.queue, acked.message)].append(Settle(at, event.at_s))
                waiting[event.session] = left
                # A delivery made before a crash may still lie in a buffer after it; the answer came behind all of these.
                since[event.session] = event.asked_at
        return found

    def returned(self) -> list[Finding]:
        found = []
        for copy, settles in self.settles().items():
            if copy.message not in self.publishes or len(self.publishes[copy.message].tries) > 1:
                continue  # of several tries there may be several copies
            for settle in settles:
                later = [at for at, _ in self.receipts[copy] if at > settle.at]
                if not later or self._forgotten(settle, later[0]):
                    continue
                found.append(Finding("returned", copy.message, f"{copy.queue} had settled it (event {settle.at}) and gave it again"))
                break
        return found

    def _forgotten(self, settle: Settle, received_at: int) -> bool:
        """Whether a crash may have made the broker forget this settle before `received_at`."""
        stop = bisect_left(self.stops, settle.at)
        safe_from = self.stops[stop] if stop < len(self.stops) else len(self.events)
        return any(
            harm.end >= settle.at and harm.begin < min(received_at, safe_from) and harm.begin_s - settle.at_s < SETTLED_AFTER_S
            for harm in self.dirty
            if not harm.stop
        )

    def disorder(self) -> list[Finding]:
        found = []
        seen: set[Copy] = set()
        newest: dict[tuple[str, str], int] = defaultdict(int)  # (queue, publisher) -> sequence
        last: dict[tuple[int, str, str], int] = defaultdict(int)  # (session, queue, publisher) -> sequence
        went_back: Counter[tuple[int, str, str]] = Counter()
        opened = {event.session: at for at, event in enumerate(self.events) if isinstance(event, Opened)}
        begins = [harm.begin for harm in self.dirty]
        ends = [harm.end for harm in self.dirty]
        for at, event in enumerate(self.events):
            if not isinstance(event, Received) or event.queue in self.requeueing:
                continue
            publish = self.publishes.get(event.message)
            if publish is None or not publish.confirmed or len(publish.tries) > 1:
                continue  # what was not confirmed at its first try may come by several ways
            publisher, sequence = event.message
            copy = Copy(event.queue, event.message)
            if copy not in seen:
                seen.add(copy)
                if sequence < newest[event.queue, publisher]:
                    found.append(Finding("order", event.message, f"came first after {newest[event.queue, publisher]} on {event.queue}"))
                newest[event.queue, publisher] = max(sequence, newest[event.queue, publisher])
            way = event.session, event.queue, publisher
            if sequence < last[way]:
                went_back[way] += 1
                # Those that began up to now, less those that were over before the session.
                crashes = bisect_right(begins, at) - bisect_left(ends, opened[event.session])
                if went_back[way] > crashes:
                    found.append(Finding("order", event.message, f"came after {last[way]} in session {event.session} on {event.queue}"))
            last[way] = sequence
        return found
