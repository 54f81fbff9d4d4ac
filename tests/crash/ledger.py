"""The ledger: what clients know about their messages, in the order in which they learnt it, outside the broker.

Owns `Ledger`, an append-only list of events in the memory of the test process, which outlives every process of the node. Publishers write
what they attempt and how it was answered, consumers what they got and what they settled, the laboratory when it did harm. Nothing is ever
taken back or judged here: `checker.py` does that, from the list alone.

A message is known by its `MessageId`, which travels in the property `message_id`; its body follows from it (`body_of`), so that a body of
one byte is as good as one of 300 KB and a broken one is seen.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

STORY_LINES_MAX = 24


class MessageId(NamedTuple):
    """Who published it, and the how manyth it was of this publisher (from 1)."""

    publisher: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.publisher}/{self.sequence}"

    @classmethod
    def parse(cls, text: str | None) -> MessageId:
        """The id written in a property; one that is none becomes the publisher `?`, whom nobody knows."""
        publisher, _, sequence = (text or "").rpartition("/")
        return cls(publisher, int(sequence)) if publisher and sequence.isdecimal() else cls(f"?{text}", 0)


def body_of(message: MessageId, size: int) -> bytes:
    """`size` bytes that no other message has."""
    seed = hashlib.blake2b(str(message).encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


# --- events. `at_s` is the monotonic clock; their place in the list is the order that counts.


class Attempted(NamedTuple):
    """About to be published into these queues, for the first time or again. `group`: its transaction's name, empty without one."""

    at_s: float
    message: MessageId
    exchange: str
    queues: tuple[str, ...]
    size: int
    group: str


class Confirmed(NamedTuple):
    """The broker took it over."""

    at_s: float
    message: MessageId


class Nacked(NamedTuple):
    """The broker said that it could not."""

    at_s: float
    message: MessageId


class Unanswered(NamedTuple):
    """The connection ended before the broker said anything."""

    at_s: float
    message: MessageId


class Opened(NamedTuple):
    """A connection of the load stands (a session). `queue` is what it consumes; empty for a publisher."""

    at_s: float
    session: int
    queue: str


class Ended(NamedTuple):
    """The broker ended the session, its channel or its subscription, or vanished; `why` in the client's words."""

    at_s: float
    session: int
    why: str


class Received(NamedTuple):
    """A delivery. `intact`: the body is what `body_of` says for its size."""

    at_s: float
    session: int
    queue: str
    message: MessageId
    redelivered: bool
    size: int
    intact: bool


class Acked(NamedTuple):
    """An ack was sent; whether it arrived is not known."""

    at_s: float
    session: int
    queue: str
    message: MessageId


class Requeued(NamedTuple):
    """Given back, to be delivered again."""

    at_s: float
    session: int
    queue: str
    message: MessageId


class Synced(NamedTuple):
    """The session's queue answered a question asked when the list had `asked_at` events: what this session sent before, it has handled."""

    at_s: float
    session: int
    asked_at: int


class Blocked(NamedTuple):
    """`connection.blocked` reached a publisher (`blocked`), or `connection.unblocked` did."""

    at_s: float
    session: int
    blocked: bool


class HarmBegan(NamedTuple):
    """The laboratory is about to do harm. `dirty`: what was not on disk may be lost, and connections may end."""

    at_s: float
    what: str
    dirty: bool


class HarmEnded(NamedTuple):
    """All that the last harm did is over: every process runs and serves."""

    at_s: float
    what: str


class Stopped(NamedTuple):
    """The whole node stopped when asked to, with exit status 0."""

    at_s: float


class Strange(NamedTuple):
    """Something that must not happen, whatever else does; in words."""

    at_s: float
    what: str


Event = (
    Attempted
    | Confirmed
    | Nacked
    | Unanswered
    | Opened
    | Ended
    | Received
    | Acked
    | Requeued
    | Synced
    | Blocked
    | HarmBegan
    | HarmEnded
    | Stopped
    | Strange
)


class Ledger:
    """The events of one epoch: from a node without messages to one that has been drained. Any thread may write."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.confirmed = 0  # messages
        self.open_harm = ""  # what the laboratory is doing at present
        self._sessions = 0
        self._written = threading.Condition()

    def write(self, *events: Event) -> int:
        """Append, and give back the number of events there are now."""
        with self._written:
            for event in events:
                if isinstance(event, Confirmed):
                    self.confirmed += 1
                elif isinstance(event, HarmBegan):
                    self.open_harm = event.what
                elif isinstance(event, HarmEnded):
                    self.open_harm = ""
            self.events.extend(events)
            self._written.notify_all()
            return len(self.events)

    def new_session(self, queue: str) -> int:
        """Write that a connection stands, and give it its number."""
        with self._written:
            self._sessions += 1
            self.events.append(Opened(now_s(), self._sessions, queue))
            self._written.notify_all()
            return self._sessions

    def settle(self, session: int, queue: str, messages: Iterable[MessageId]) -> None:
        """Write that these were acked."""
        at_s = now_s()
        self.write(*(Acked(at_s, session, queue, message) for message in messages))

    def wait(self, reached: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait until `reached()`, looked at after each event, is true; `AssertionError` after `within_s` seconds."""
        with self._written:
            assert self._written.wait_for(reached, within_s), f"not within {within_s} s: {what} ({len(self.events)} events)"

    def wait_for_confirms(self, more: int, within_s: float = 120.0) -> None:
        """Wait until `more` further messages are confirmed."""
        goal = self.confirmed + more
        self.wait(lambda: self.confirmed >= goal, within_s, f"{more} more confirms")

    def story(self, message: MessageId) -> list[str]:
        """All that is known of one message, and the harm done meanwhile, a line each; at most STORY_LINES_MAX."""
        lines: list[str] = []
        for number, event in enumerate(self.events):
            about = getattr(event, "message", None) == message
            if about or (lines and isinstance(event, HarmBegan | HarmEnded | Stopped | Strange)):
                fields = {name: value for name, value in event._asdict().items() if name not in {"at_s", "message"}}
                words = " ".join(f"{name}={value}" for name, value in fields.items())
                lines.append(f"{number:7} {event.at_s - self.events[0].at_s:9.3f} s  {type(event).__name__} {words}")
        return lines if len(lines) <= STORY_LINES_MAX else [*lines[:STORY_LINES_MAX], f"… and {len(lines) - STORY_LINES_MAX} more"]


def now_s() -> float:
    """The clock of all events."""
    return time.monotonic()
