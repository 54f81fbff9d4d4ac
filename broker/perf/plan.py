"""What a load is to be: broker, connections, messages, acknowledgements and time, checked before anything is opened.

A `Plan` is plain data: the parent sends it to every loader process as JSON, and reports carry it, so that a figure never travels without
the load it belongs to. Nothing here opens a socket.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

EXCHANGE_KINDS: Final = ("default", "direct", "topic", "fanout")
DECLARERS: Final = ("publisher", "consumer", "other")

PUBLISHERS_MAX: Final = 1024
CONSUMERS_MAX: Final = 1024
QUEUES_MAX: Final = 10_000
KEYS_MAX: Final = 65_536
SIZE_MAX: Final = 128 * 1024 * 1024  # RabbitMQ's own default for max_message_size since 3.8
CONFIRMS_MAX: Final = 1 << 20
STAMP_BYTES: Final = 16


class PlanError(ValueError):
    """An option, or two together, make no load; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a broker listens and as whom to come."""

    host: str
    port: int
    user: str
    password: str
    vhost: str

    @classmethod
    def from_uri(cls, uri: str) -> Target:
        """Read `amqp://user:password@host:port/vhost`; each part may be missing (guest, guest, localhost, 5672, `/`).

        Raises PlanError for another scheme or a port that is none.
        """
        parts = urlsplit(uri)
        if parts.scheme != "amqp":
            raise PlanError(f"{uri!r} does not begin with amqp:// (TLS is not supported here)")
        try:
            port = parts.port
        except ValueError as error:
            raise PlanError(f"{uri!r} has no usable port: {error}") from None
        return cls(
            host=parts.hostname or "localhost",
            port=port or 5672,
            user=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            vhost=unquote(parts.path[1:]) or "/",
        )


@dataclass(frozen=True)  # without slots: the command line reads the defaults off the class
class Plan:
    """One load. `__post_init__` raises PlanError for what cannot be; the fields are the options of `leveret perf`."""

    uri: str = "amqp://guest:guest@localhost:5672/"
    publishers: int = 1
    consumers: int = 1
    queues: int = 1
    size: int = 16  # bytes of a body
    rate: float = 0.0  # messages/s of each publisher; 0: as fast as it goes
    persistent: bool = False
    confirms: int = 0  # publishes that may await their confirm, per publisher; 0: no confirm mode
    mandatory: bool = False
    ack: str = "auto"  # auto, each, or multiple:N
    prefetch: int = 0  # per consumer; 0: no limit
    exchange_kind: str = "default"
    exchange: str = ""  # "": a name of our own
    queue: str = ""  # prefix of the queues' names, or the name itself when there is one; "": a name of our own
    routing_key: str = ""  # pattern with {queue} and {n}; "": what fits the exchange
    binding_key: str = ""  # pattern with {queue}; "": what fits the exchange
    keys: int = 1  # {n} runs from 0 to keys - 1
    durable: bool = False
    seconds: float = 10.0  # how long to measure
    messages: int = 0  # or how many to publish in all; 0: by time
    warmup_s: float = 1.0  # before the measuring begins
    declare_by: str = "publisher"
    idle_between: int = 0  # connections opened between the publishers' and the consumers'
    keep: bool = False  # leave exchange and queues behind

    def __post_init__(self) -> None:
        Target.from_uri(self.uri)
        for name, value, lowest, highest in (
            ("publishers", self.publishers, 0, PUBLISHERS_MAX),
            ("consumers", self.consumers, 0, CONSUMERS_MAX),
            ("queues", self.queues, 1, QUEUES_MAX),
            ("size", self.size, 0, SIZE_MAX),
            ("confirms", self.confirms, 0, CONFIRMS_MAX),
            ("prefetch", self.prefetch, 0, 65_535),
            ("keys", self.keys, 1, KEYS_MAX),
            ("idle-between", self.idle_between, 0, 10_000),
        ):
            if not lowest <= value <= highest:
                raise PlanError(f"{name} must lie between {lowest:,} and {highest:,}, not at {value:,}")
        if self.publishers + self.consumers == 0:
            raise PlanError("with neither publishers nor consumers there is nothing to do")
        if self.exchange_kind not in EXCHANGE_KINDS:
            raise PlanError(f"the exchange is one of {', '.join(EXCHANGE_KINDS)}, not {self.exchange_kind!r}")
        if self.declare_by not in DECLARERS:
            raise PlanError(f"declare-by is one of {', '.join(DECLARERS)}, not {self.declare_by!r}")
        if self.declare_by == "other" and not self.idle_between:
            raise PlanError("declare-by other needs an idle connection: --idle-between 1")
        if self.exchange_kind == "default" and (self.exchange or self.binding_key):
            raise PlanError("the default exchange has no name and no bindings")
        if self.rate < 0 or self.warmup_s < 0 or self.messages < 0 or (self.messages == 0 and self.seconds <= 0):
            raise PlanError("rates, counts and times are positive")
        if self.messages == 0 and self.consumers and not self.publishers and not self.queue:
            raise PlanError("consumers without publishers need the name of a filled queue: --queue")
        if not self.publishers and self.messages and not self.consumers:
            raise PlanError("--messages counts what is published")
        _ = self.ack_every
        if self.keys * self.queues > KEYS_MAX:
            raise PlanError(f"queues times keys must not exceed {KEYS_MAX:,}")
        for name, pattern in (("routing-key", self.routing_key), ("binding-key", self.binding_key)):
            try:
                filled = pattern.format(queue=0, n=0)
            except (KeyError, IndexError, ValueError):
                raise PlanError(f"{name} may hold {{queue}} and {{n}} and no other braces: {pattern!r}") from None
            if len(filled.encode()) > 245:
                raise PlanError(f"{name} is longer than a routing key may be")
        for name, text in (("exchange", self.exchange), ("queue", self.queue)):
            if len(text.encode()) > 245:
                raise PlanError(f"{name} is longer than a name may be")

    @property
    def target(self) -> Target:
        return Target.from_uri(self.uri)

    @property
    def ack_every(self) -> int:
        """0: the broker acknowledges for us; 1: one ack for each message; n: one `multiple` ack for n of them."""
        if self.ack == "auto":
            return 0
        if self.ack == "each":
            return 1
        head, _, count = self.ack.partition(":")
        if head != "multiple" or not count.isdecimal() or not 2 <= int(count) <= 65_535:
            raise PlanError(f"ack is auto, each or multiple:N with N from 2 to 65,535, not {self.ack!r}")
        if 0 < self.prefetch < int(count):
            raise PlanError(f"an ack for every {count} messages never comes with a prefetch of {self.prefetch}")
        return int(count)

    @property
    def copies(self) -> int | None:
        """How many queues each message goes to; None when the user's own keys decide it."""
        if self.exchange_kind == "fanout":
            return self.queues
        if self.exchange_kind == "default":
            return 1 if not self.routing_key else None
        return 1 if not (self.routing_key or self.binding_key) else None

    def with_names(self, unique: str) -> Plan:
        """This plan with `unique` in the names that the user left open."""
        return dataclasses.replace(
            self,
            queue=self.queue or f"leveret-perf-{unique}",
            exchange=self.exchange or ("" if self.exchange_kind == "default" else f"leveret-perf-{unique}"),
        )

    def queue_names(self) -> list[str]:
        return [self.queue] if self.queues == 1 else [f"{self.queue}-{number}" for number in range(self.queues)]

    def binding_keys(self) -> list[str]:
        """The key that binds each queue, in the order of `queue_names`."""
        pattern = self.binding_key or {"topic": "perf.{queue}.*", "fanout": ""}.get(self.exchange_kind, "perf.{queue}.0")
        return [pattern.format(queue=number, n=0) for number in range(self.queues)]

    def routing_keys(self) -> list[str]:
        """The keys that messages are published with, taken in turn; all queues come before the next `n`."""
        if self.exchange_kind == "default" and not self.routing_key:
            return self.queue_names()
        pattern = self.routing_key or {"fanout": "", "topic": "perf.{queue}.{n}"}.get(self.exchange_kind, "perf.{queue}.0")
        keys = [pattern.format(queue=queue, n=n) for n in range(self.keys) for queue in range(self.queues)]
        return list(dict.fromkeys(keys))

    def queues_of(self, consumer: int) -> list[int]:
        """Numbers of the queues that consumer `consumer` takes from: every queue has a consumer, every consumer has a queue."""
        if self.consumers >= self.queues:
            return [consumer % self.queues]
        return list(range(consumer, self.queues, self.consumers))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Plan:
        return cls(**fields)
