"""Random scripts: from a seed, a sequence of steps in which most things are right and everything that can be wrong sometimes is.

Owns `random_script` and the list of features that scripts may use. The maker keeps a loose idea of what exists, so that most steps meet
something; it does not know what a broker answers. Each script draws its own few kinds of steps with its own weights, because rare things
meet more often in a script that does little else.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from leveret.codec.properties import ContentHeader, Properties
from leveret.codec.tables import Timestamp

from tests.differential.client import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD
from tests.differential.script import Generated, GeneratedTag, ReplyAddress, Script, Settled, Step, Unacked

# What a script may use. A feature that Leveret does not have yet is left out here until it has.
FEATURES = frozenset(
    {
        "alternate exchange",
        "cc",
        "consumer priorities",
        "dead letters",
        "exchange-to-exchange",
        "expiration",
        "flow",
        "headers exchange",
        "immediate",
        "internal exchanges",
        "length limits",
        "reply-to",
        "ttl",
        "tx",
        "user id",
    }
)

QUEUES = ("q0", "q1", "q2", "q3")
EXCHANGES = ("x0", "x1", "x2")
SYSTEM_EXCHANGES = ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match")
KEYS = ("k", "k.one", "k.two.three", "", "q0", "q1")
PATTERNS = ("#", "*", "k.*", "k.#", "*.one", "#.three", "k", "", "q0")
TAGS = ("t0", "t1", "t2")
HEADERS: tuple[dict[str, Any], ...] = ({"h": 1}, {"h": 1, "i": "two"}, {"i": "two"}, {"h": "1"}, {"h": True}, {"j": None}, {})
MATCHES: tuple[dict[str, Any], ...] = (
    {"x-match": "all", "h": 1},
    {"x-match": "any", "h": 1, "i": "two"},
    {"x-match": "all", "j": None},
    {"h": 1, "i": "two"},
    {"x-match": "all-with-x", "h": 1},
    {"x-match": "any-with-x", "i": "two"},
    {"x-match": "all"},
    {"x-match": "any"},
    {"x-match": "none"},
    {"x-match": 1},
    {},
)
RESERVED_LONG = "q" + "u" * 254
BROKEN_NAME = "q\r\n5"


class _Maker:
    """The makings of one script."""

    def __init__(self, seed: int, features: frozenset[str]) -> None:
        self.random = random.Random(seed)
        self.features = features
        self.queues: dict[str, dict[str, Any]] = {}
        self.queue_owner: dict[str, str] = {}
        self.exchanges: dict[str, dict[str, Any]] = {}
        self.bindings: list[dict[str, Any]] = []
        self.consumers: list[tuple[str, int, str, str]] = []
        self.confirming: set[tuple[str, int]] = set()
        self.body_number = 0
        self.with_rules = bool(self.features & {"ttl", "length limits", "dead letters"}) and self.chance(0.4)
        self.here = ("A", 1)
        letters = self.random.choice(("A", "A", "AB", "AB", "AB", "ABC"))
        channels = self.random.choice((1, 1, 2, 2, 3))
        self.places = [(letter, number) for letter in letters for number in range(1, channels + 1)]
        self.makers: dict[str, tuple[float, Callable[[], Step | None]]] = {
            "queue.declare": (9, self.declare_queue),
            "queue.bind": (5, self.bind_queue),
            "queue.unbind": (2, self.unbind_queue),
            "queue.purge": (1.5, self.purge),
            "queue.delete": (2.5, self.delete_queue),
            "exchange.declare": (4, self.declare_exchange),
            "exchange.delete": (2, self.delete_exchange),
            "publish": (14, self.publish),
            "basic.get": (6, self.get),
            "basic.consume": (6, self.consume),
            "basic.cancel": (2.5, self.cancel),
            "basic.ack": (6, self.ack),
            "basic.nack": (3, self.nack),
            "basic.reject": (3, self.reject),
            "basic.recover": (1.5, self.recover),
            "basic.qos": (2, self.qos),
            "confirm.select": (2, self.confirm),
            "channel.close": (1.5, self.close_channel),
            "channel.open": (0.2, self.open_channel),
            "channel.flow": (0.4, self.flow),
            "connection.close": (0.7, self.close_connection),
            "drop": (0.5, self.drop),
            "access.request": (0.2, self.access),
            "wrong frames": (0.25, self.wrong_frames),
            "wrong state": (0.3, self.wrong_state),
        }
        if "exchange-to-exchange" in features:
            self.makers["exchange.bind"] = (3, self.bind_exchange)
            self.makers["exchange.unbind"] = (1.5, self.unbind_exchange)
        if "tx" in features:
            self.makers["tx.select"] = (1.5, lambda: self.step("tx.select"))
            self.makers["tx.commit"] = (2, lambda: self.step("tx.commit"))
            self.makers["tx.rollback"] = (1.5, lambda: self.step("tx.rollback"))

    # --- chance

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def step(self, operation: str, **arguments: Any) -> Step:
        return Step(*self.here, operation, arguments)

    def flags(self, probability: float, *names: str) -> dict[str, bool]:
        """Those of the names that the dice favour, as true."""
        return {name: True for name in names if self.chance(probability)}

    def queue(self, *, existing: float = 0.88) -> Any:
        """The name of a queue: nearly always one that should exist."""
        dice = self.random.random()
        if self.queues and dice < existing:
            return self.random.choice(list(self.queues))
        if dice < 0.92:
            return self.random.choice(QUEUES)
        return self.random.choice(("", "", Generated(0), Generated(self.random.randrange(3)), "amq.nothing", BROKEN_NAME))

    def exchange(self, *, existing: float = 0.6) -> str:
        dice = self.random.random()
        if self.exchanges and dice < existing:
            return self.random.choice(list(self.exchanges))
        if dice < 0.93:
            return self.random.choice(SYSTEM_EXCHANGES)
        return self.random.choice((*EXCHANGES, "", "amq.nothing"))

    # --- queues

    def declare_queue(self) -> Step:
        dice = self.random.random()
        name: Any = self.random.choice(QUEUES)
        if dice < 0.1:
            name = ""
        elif dice < 0.13:
            name = self.random.choice(("amq.mine", "amq.", "amq", BROKEN_NAME, RESERVED_LONG, "Warteschlange ü", Generated(0)))
        if name in self.queues and self.chance(0.7):
            fields = dict(self.queues[name])  # equal redeclare, or nearly
            if self.chance(0.3):
                flag = self.random.choice(("durable", "auto_delete", "exclusive"))
                fields[flag] = not fields.get(flag, False)
        else:
            fields = self.flags(0.3, "durable") | self.flags(0.2, "auto_delete") | self.flags(0.15, "exclusive")
            if self.chance(0.1):
                fields["arguments"] = self.random.choice(({"x-unknown": 1}, {"x-queue-mode": "lazy"}, {"x-queue-type": "classic"}))
            elif self.with_rules and self.chance(0.6):
                fields["arguments"] = self.rules()
        if isinstance(name, str) and name in QUEUES:
            self.queues.setdefault(name, fields)
            if fields.get("exclusive"):
                self.queue_owner.setdefault(name, self.here[0])
        return self.step("queue.declare", queue=name, **fields | self.flags(0.12, "passive", "nowait"))

    def rules(self) -> dict[str, Any]:
        """Arguments by which messages die. Times are none or longer than any script, so that all brokers agree on what is over."""
        rules: dict[str, Any] = {}
        if "ttl" in self.features:
            if self.chance(0.35):
                rules["x-message-ttl"] = self.random.choice((0, 0, 60_000_000, 60_000_000, -1, 315_360_000_001, "0", True))
            if self.chance(0.1):
                rules["x-expires"] = self.random.choice((60_000_000, 60_000_000, 0, -1, "x"))
        if "length limits" in self.features and self.chance(0.35):
            rules["x-max-length"] = self.random.choice((0, 1, 2, 2, 3, -1, None))
        if "length limits" in self.features and self.chance(0.15):
            rules["x-max-length-bytes"] = self.random.choice((0, 5, 60, 60, -1))
        if "length limits" in self.features and self.chance(0.3):
            rules["x-overflow"] = self.random.choice(("drop-head", "reject-publish", "reject-publish", "reject-publish-dlx", "drop", 1))
        if "dead letters" in self.features and self.chance(0.7):
            rules["x-dead-letter-exchange"] = self.random.choice(("", "", "", *EXCHANGES, "amq.fanout", "amq.topic", 5))
        if "dead letters" in self.features and self.chance(0.6 if rules.get("x-dead-letter-exchange") == "" else 0.2):
            rules["x-dead-letter-routing-key"] = self.random.choice((*QUEUES, *QUEUES, "k", "", 5))
        return rules

    def bind_queue(self) -> Step:
        fields: dict[str, Any] = {"queue": self.queue(), "exchange": self.exchange(), "routing_key": self.random.choice((*KEYS, *PATTERNS))}
        if fields["exchange"] in ("amq.headers", "amq.match") or self.chance(0.15):
            fields["arguments"] = self.random.choice(MATCHES)
        if self.chance(0.08):
            fields |= {"queue": "", "routing_key": ""}
        self.bindings.append(fields)
        return self.step("queue.bind", **fields, **self.flags(0.1, "nowait"))

    def unbind_queue(self) -> Step:
        known = [binding for binding in self.bindings if "queue" in binding]
        if known and self.chance(0.8):
            return self.step("queue.unbind", **self.random.choice(known))
        return self.step("queue.unbind", queue=self.queue(), exchange=self.exchange(), routing_key=self.random.choice(KEYS))

    def purge(self) -> Step:
        return self.step("queue.purge", queue=self.queue(), **self.flags(0.1, "nowait"))

    def delete_queue(self) -> Step:
        name = self.queue()
        if self.chance(0.5):
            self.queues.pop(name, None)
        return self.step("queue.delete", queue=name, **self.flags(0.25, "if_unused", "if_empty"), **self.flags(0.1, "nowait"))

    # --- exchanges

    def declare_exchange(self) -> Step:
        name = self.random.choice(EXCHANGES) if self.chance(0.88) else self.random.choice((*SYSTEM_EXCHANGES, "", "amq.new", "x\r\n0"))
        if name in self.exchanges and self.chance(0.6):
            fields = dict(self.exchanges[name])
            if self.chance(0.3):
                flag = self.random.choice(("durable", "auto_delete"))
                fields[flag] = not fields.get(flag, False)
        else:
            kinds = ["direct", "fanout", "topic"] + (["headers"] if "headers exchange" in self.features else [])
            fields = {"type": self.random.choice(kinds)} | self.flags(0.3, "durable") | self.flags(0.15, "auto_delete")
            if "internal exchanges" in self.features:
                fields |= self.flags(0.08, "internal")
            if "alternate exchange" in self.features and self.chance(0.2):
                fields["arguments"] = {"alternate-exchange": self.random.choice((*EXCHANGES, "amq.fanout", 5))}
            if self.chance(0.02):
                fields["type"] = self.random.choice(("unheard-of", "", "x-delayed-message"))
        if name in EXCHANGES:
            self.exchanges.setdefault(name, fields)
        return self.step("exchange.declare", exchange=name, **fields, **self.flags(0.12, "passive", "nowait"))

    def delete_exchange(self) -> Step:
        name = self.exchange(existing=0.85)
        if self.chance(0.5):
            self.exchanges.pop(name, None)
        return self.step("exchange.delete", exchange=name, **self.flags(0.3, "if_unused"), **self.flags(0.1, "nowait"))

    def bind_exchange(self) -> Step:
        source, destination = self.exchange(), self.exchange()
        if source.startswith("amq.") and destination.startswith("amq.") and self.exchanges:
            destination = self.random.choice(list(self.exchanges))  # what would stay for other scripts is rare
        fields: dict[str, Any] = {"source": source, "destination": destination, "routing_key": self.random.choice((*KEYS, *PATTERNS))}
        if source in ("amq.headers", "amq.match"):
            fields["arguments"] = self.random.choice(MATCHES)
        self.bindings.append(fields)
        return self.step("exchange.bind", **fields, **self.flags(0.1, "nowait"))

    def unbind_exchange(self) -> Step:
        known = [binding for binding in self.bindings if "source" in binding]
        if known and self.chance(0.8):
            return self.step("exchange.unbind", **self.random.choice(known), **self.flags(0.1, "nowait"))
        return self.step("exchange.unbind", source=self.exchange(), destination=self.exchange(), routing_key=self.random.choice(KEYS))

    # --- messages

    def body(self) -> dict[str, Any]:
        if self.chance(0.03):
            return {"body": b""}
        self.body_number += 1
        size = self.random.choice((50, 4087, 4088, 4089, 9000, 140000)) if self.chance(0.2) else 0
        return {"body": b"m%d" % self.body_number} | ({"size": size} if size else {})

    def properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        if self.chance(0.35):
            properties["headers"] = dict(self.random.choice(HEADERS))
        if self.chance(0.25):
            properties["delivery_mode"] = self.random.choice((1, 2))
        if self.chance(0.15):
            properties |= {"content_type": "text/plain", "message_id": "id", "timestamp": 1_700_000_000}
        if self.chance(0.05):
            properties["headers"] = {
                "list": [1, "two", {"three": 3}],
                "time": Timestamp(5),
                "float": 1.5,
                "bytes": b"\0\xff",
                "none": None,
                "long": 2**40,
            }
        if self.chance(0.06):
            properties |= {"priority": 3, "correlation_id": "c", "type": "t", "app_id": "a", "cluster_id": "", "content_encoding": "x"}
        if "user id" in self.features and self.chance(0.06):
            properties["user_id"] = self.random.choice(("guest", "guest", "somebody"))
        if "expiration" in self.features and self.chance(0.05):
            properties["expiration"] = self.random.choice(("60000000", "-1", "x", "", "1.5", "315360000001"))
            if self.with_rules:
                properties["expiration"] = self.random.choice(("0", "0", "60000000", "+0", "00"))
        if "cc" in self.features and self.chance(0.12):
            name = "CC" if self.with_rules else self.random.choice(("CC", "BCC"))  # dead letters go to CC alone, see `intended.toml`
            keys = [self.random.choice((*QUEUES, "k", "k.one")) for _ in range(self.random.randrange(3))]
            properties["headers"] = properties.get("headers", {}) | {name: self.random.choice((keys, keys, keys, "q0", 5, [1]))}
        if "reply-to" in self.features and self.chance(0.06):
            properties["reply_to"] = self.random.choice(("amq.rabbitmq.reply-to", "q0"))
        return properties

    def publish(self) -> Step:
        fields: dict[str, Any] = {}
        dice = self.random.random()
        if dice < 0.5:
            fields |= {"exchange": "", "routing_key": self.queue(existing=0.93)}
        else:
            fields |= {"exchange": self.exchange(), "routing_key": self.random.choice(KEYS)}
        if "reply-to" in self.features and self.chance(0.04):
            fields |= {"exchange": "", "routing_key": ReplyAddress()}
        fields |= self.flags(0.2, "mandatory")
        if "immediate" in self.features:
            fields |= self.flags(0.006, "immediate")
        body = self.body()
        if properties := self.properties():
            fields["properties"] = properties
        if body["body"] and self.chance(0.1):
            fields["split"] = [1, min(body.get("size", 2) // 3, 4000)]
        if body.get("size", 0) < 100 and self.chance(0.25):
            fields["count"] = self.random.randrange(2, 6)
        return self.step("publish", **fields, **body)

    def get(self) -> Step:
        return self.step("basic.get", queue=self.queue(), **self.flags(0.4, "no_ack"))

    def consume(self) -> Step:
        name = self.queue()
        busy = {queue for *_, queue in self.consumers}
        free = [other for other in self.queues if other not in busy]
        if name in busy and self.chance(0.75):
            if not free:
                return self.get()
            name = self.random.choice(free)
        tag = self.random.choice(TAGS) if self.chance(0.8) else ""
        fields: dict[str, Any] = (
            {"queue": name, "consumer_tag": tag} | self.flags(0.4, "no_ack") | self.flags(0.06, "exclusive", "no_local")
        )
        if "consumer priorities" in self.features and self.chance(0.1):
            fields["arguments"] = {"x-priority": self.random.choice((1, 10, -3, "high"))}
        if "reply-to" in self.features and self.chance(0.08):
            fields |= {"queue": "amq.rabbitmq.reply-to", "no_ack": self.chance(0.8)}
        self.consumers.append((*self.here, tag, name))
        return self.step("basic.consume", **fields, **self.flags(0.1, "nowait"))

    def cancel(self) -> Step:
        mine = [consumer for consumer in self.consumers if consumer[:2] == self.here]
        tag: Any = self.random.choice((*TAGS, GeneratedTag(0), "unknown"))
        if mine and self.chance(0.85):
            consumer = self.random.choice(mine)
            self.consumers.remove(consumer)
            tag = consumer[2] or GeneratedTag(self.random.randrange(2))
        return self.step("basic.cancel", consumer_tag=tag, **self.flags(0.12, "nowait"))

    def delivery_tag(self) -> Any:
        dice = self.random.random()
        if dice < 0.93:
            return Unacked(self.random.choice((0, 0, 0, 1, -1)))
        return self.random.choice((0, 1, 999, Settled(), 2**63))

    def ack(self) -> Step:
        if self.chance(0.06):
            return self.step("basic.ack", delivery_tag=0, multiple=True)
        return self.step("basic.ack", delivery_tag=self.delivery_tag(), **self.flags(0.25, "multiple"))

    def nack(self) -> Step:
        tag = 0 if self.chance(0.06) else self.delivery_tag()
        return self.step("basic.nack", delivery_tag=tag, multiple=tag == 0 or self.chance(0.3), requeue=self.chance(0.6))

    def reject(self) -> Step:
        return self.step("basic.reject", delivery_tag=self.delivery_tag(), requeue=self.chance(0.5))

    def recover(self) -> Step:
        return self.step("basic.recover" if self.chance(0.7) else "basic.recover-async", requeue=self.chance(0.98))

    def qos(self) -> Step:
        """Limits for consumers that are there already are shared ones: RabbitMQ's others do not reach them, ours do (`intended.toml`)."""
        size = 0 if self.chance(0.98) else 5
        shared = self.chance(0.35) or any(consumer[:2] == self.here for consumer in self.consumers)
        return self.step("basic.qos", prefetch_size=size, prefetch_count=self.random.choice((0, 1, 1, 2, 3)), global_qos=shared)

    # --- channels and connections

    def confirm(self) -> Step:
        return self.step("confirm.select", **self.flags(0.2, "nowait"))

    def close_channel(self) -> Step:
        self.consumers = [consumer for consumer in self.consumers if consumer[:2] != self.here]
        return self.step("channel.close", reply_code=200, reply_text="done")

    def open_channel(self) -> Step:
        return self.step("channel.open")

    def flow(self) -> Step:
        return self.step("channel.flow", active="flow" not in self.features or self.chance(0.9))

    def access(self) -> Step:
        return self.step("access.request")

    def close_connection(self) -> Step:
        self._forget_connection()
        return Step(self.here[0], 0, "connection.close", {"reply_code": 200, "reply_text": "done"})

    def drop(self) -> Step:
        self._forget_connection()
        return Step(self.here[0], 0, "drop")

    def _forget_connection(self) -> None:
        letter = self.here[0]
        self.consumers = [consumer for consumer in self.consumers if consumer[0] != letter]
        for name in [name for name, owner in self.queue_owner.items() if owner == letter]:
            del self.queue_owner[name]
            self.queues.pop(name, None)

    def wrong_frames(self) -> Step:
        """Frames out of order, or that nobody knows. Each ends the connection."""
        header = ContentHeader(60, 3, Properties().encode()).encode()
        publish = bytes.fromhex("003c00280000000000")
        frames = self.random.choice(
            (
                [(FRAME_HEADER, header)],
                [(FRAME_BODY, b"abc")],
                [(FRAME_METHOD, publish), (FRAME_BODY, b"abc")],
                [(FRAME_METHOD, publish), (FRAME_METHOD, publish)],
                [(FRAME_METHOD, publish), (FRAME_HEADER, header), (FRAME_METHOD, publish)],
                [(FRAME_METHOD, publish), (FRAME_HEADER, header), (FRAME_BODY, b"abcd")],
                [(FRAME_METHOD, publish), (FRAME_HEADER, header), (FRAME_HEADER, header)],
                [(FRAME_METHOD, publish), (FRAME_HEADER, ContentHeader(50, 3, Properties().encode()).encode())],
                [(FRAME_METHOD, bytes.fromhex("003c0000"))],
                [(FRAME_METHOD, bytes.fromhex("00630001"))],
                [(FRAME_METHOD, bytes.fromhex("0032000b01610000000000000000"))],
                [(FRAME_METHOD, bytes.fromhex("0032000a000005"))],
                [(FRAME_HEARTBEAT, b"")],
                [(7, b"seven")],
            )
        )
        return self.step("raw", frames=frames)

    def wrong_state(self) -> Step:
        """A method where it may not come."""
        letter, number = self.here
        return self.random.choice(
            (
                Step(letter, number + 20, "basic.qos", {}, ready=False),
                Step(letter, number + 20, "channel.close", {"reply_code": 200}, ready=False),
                Step(letter, number + 20, "channel.close-ok", {}, ready=False),
                Step(letter, number, "channel.close-ok"),
                Step(letter, number, "basic.cancel-ok", {"consumer_tag": "t0"}),
                Step(letter, number, "basic.get-empty"),
                Step(letter, number, "connection.open"),
                Step(letter, 0, "connection.open"),
                Step(letter, 0, "connection.tune-ok", {"channel_max": 10, "frame_max": 8192}),
                Step(letter, 0, "basic.qos"),
                Step(letter, 0, "channel.open"),
                Step(letter, 0, "connection.blocked", {"reason": "me"}),
            )
        )

    # --- a script

    def script(self, seed: int) -> Script:
        weights = {
            name: weight * self.random.choice((0, 0.5, 1, 1, 3)) if name not in ("queue.declare", "publish") else weight
            for name, (weight, _) in self.makers.items()
        }
        names = list(weights)
        steps: list[Step] = []
        for _ in range(self.random.choice((8, 15, 25, 40))):
            if self.chance(0.4):
                self.here = self.random.choice(self.places)
            name = "queue.declare" if not self.queues and self.chance(0.6) else self.random.choices(names, list(weights.values()))[0]
            step = self.makers[name][1]()
            if step is None:
                continue
            owner = self.queue_owner.get(str(step.arguments.get("queue")))
            if owner and self.chance(0.8):
                step = Step(owner, step.channel, step.operation, step.arguments)  # its own connection may touch it
            if step.ready and step.channel and step.operation != "channel.open":
                if self.chance(0.02):
                    step = replace(step, ready=False)
                elif self.chance(0.05):
                    step = replace(step, lingers=True)
            steps.append(step)
        return Script(f"seed {seed}", tuple(steps))


def random_script(seed: int, features: frozenset[str] = FEATURES) -> Script:
    """The script of that seed, always the same; 8 to 40 steps."""
    return _Maker(seed, features).script(seed)
