"""A performance: one script carried out on one broker, and the transcript of all that its clients see.

Owns `perform` and the `Transcript` it gives back. After every step it asks until the broker is quiet: a `channel.flow` on every open
channel and a passive declare of every queue, answered and without news twice in a row, and every published message confirmed where
confirms are on. So what a step causes stands in the record of that step, on every broker. Names that brokers make up are numbered in the
order in which they are seen. It judges nothing: `tests.differential.comparison` does.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from leveret.codec import methods
from leveret.codec.errors import AmqpError
from leveret.codec.frames import encode_content, encode_frame, encode_method_frame
from leveret.codec.methods import METHODS, Method
from leveret.codec.properties import ContentHeader, Properties, decode_properties

from tests.differential.client import FRAME_BODY, FRAME_HEADER, Arrival, WireConnection, wait
from tests.differential.script import OWN_NAME, Generated, GeneratedTag, ReplyAddress, Script, Settled, Step, Unacked
from tests.node import Broker

ANSWER_WITHIN_S = 10.0
FRAME_OVERHEAD = 8
ROUNDS_MAX = 60  # a broker that is not quiet then never will be
ROUNDS_QUIET = 2
# An auto-delete queue may go a little after its last consumer, and a message through an exchange by way of the router; nobody is told.
ROUNDS_QUIET_SLOW = 10
ROUNDS_QUIET_ROUTED = 4
PROBE = "probe"  # the connection that looks at queues; no script may use the name
PROBE_CHANNEL = 1999  # on every connection, for what only that connection may look at
FRAME_MAX = {"B": 4096}  # connection B's bodies come in many frames
CLASSES = {kind.name: kind for kind in METHODS.values()}
MADE_UP = {
    "queue": re.compile(r"amq\.gen-[A-Za-z0-9_-]{22}"),
    "tag": re.compile(r"amq\.ctag-[A-Za-z0-9_-]{22}"),
    "reply-to": re.compile(r"amq\.rabbitmq\.reply-to\.[A-Za-z0-9+/=._-]+"),
}
SHOWN_BODY_BYTES = 40


@dataclass
class Record:
    """What one step caused.

    streams: lines by whoever saw them (`A.1`, `A.1 confirms`, `queues`); loose: deliveries without receiver and tag.
    """

    title: str
    streams: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)

    def add(self, stream: str, line: str) -> None:
        self.streams.setdefault(stream, []).append(line)

    def lines(self) -> list[str]:
        """All of it, one line each, in a fixed order of streams."""
        return [f"{stream}: {line}" for stream in sorted(self.streams) for line in self.streams[stream]]


@dataclass
class Transcript:
    """The records of a script's steps, and a last one for what was left in the queues."""

    records: list[Record]


@dataclass
class _Channel:
    """What the performer knows of a channel. is_open: usable; is_closing: closed by the server, close-ok not yet sent."""

    is_open: bool = False
    is_closing: bool = False
    confirming: bool = False
    published: int = 0
    confirmed: set[int] = field(default_factory=set)
    returned: int = 0
    consumers: dict[str, tuple[str, bool]] = field(default_factory=dict)  # tag -> (queue, no_ack)
    asked: list[tuple[str, bool]] = field(default_factory=list)  # consumes without a tag of their own, still to be answered
    getting_no_ack: bool = False
    unacked: list[int] = field(default_factory=list)
    settled: int = 1
    probes: int = 0
    replies: int = 0


class _Client:
    """One connection of the script and its channels."""

    def __init__(self, performance: Performance, letter: str) -> None:
        self.letter = letter
        self.channels: dict[int, _Channel] = {}
        self.probe_answers: list[Method] = []
        self.closed_by_server = False
        self.performance = performance
        self.wire = WireConnection(
            performance.broker,
            lambda arrival: performance.on_arrival(self, arrival),
            lambda: performance.on_end(self),
            frame_max=FRAME_MAX.get(letter, 131072),
        )
        self.wire.send_method(PROBE_CHANNEL, methods.ChannelOpen())

    @property
    def is_usable(self) -> bool:
        return not self.wire.ended and not self.closed_by_server

    def channel(self, number: int) -> _Channel:
        return self.channels.setdefault(number, _Channel())


def perform(script: Script, broker: Broker, prefix: str) -> Transcript:
    """Carry the script out. `prefix` goes before the script's own names; it must be new to the broker."""
    performance = Performance(broker, prefix)
    try:
        records = [performance.perform(step) for step in script.steps]
        records.append(performance.finish(script))
    finally:
        performance.close()
    return Transcript(records)


class Performance:
    """The state of one performance; see `perform`."""

    def __init__(self, broker: Broker, prefix: str) -> None:
        self.broker = broker
        self.prefix = prefix
        self.clients: dict[str, _Client] = {}
        self.record = Record("start")
        self.news = 0  # arrivals that were no answers to probes
        self.queues: dict[str, str] = {}  # those that may exist: name -> letter of the connection that may look
        self.makes_letters = False  # a queue has been declared that does
        self.made_up: dict[str, dict[str, str]] = {kind: {} for kind in MADE_UP}
        self.generated: list[str] = []
        self.generated_tags: list[str] = []
        self.reply_address = "amq.rabbitmq.reply-to.nobody"
        self.sent_in_step = 0
        self.lingers = False
        self.is_routed = False  # this step publishes through exchanges
        self.is_slow = False  # what this step causes may come late
        self._client(PROBE)

    # --- arrivals

    def on_arrival(self, client: _Client, arrival: Arrival) -> None:
        method = arrival.method
        if arrival.channel == PROBE_CHANNEL:
            client.probe_answers.append(method)
            return
        channel = client.channel(arrival.channel)
        if method.name == "channel.flow-ok" and channel.probes:
            channel.probes -= 1
            return
        self.news += 1
        self._note_names(method, arrival)
        stream = f"{client.letter}.{arrival.channel}"
        if isinstance(method, methods.BasicAck | methods.BasicNack):
            self._on_confirm(channel, stream, method)
            return
        if isinstance(method, methods.BasicDeliver):
            queue, no_ack = channel.consumers.get(method.consumer_tag, ("", False))
            if not queue:
                self.record.add(stream, "the next delivery is for a consumer that nobody has")
            if not no_ack:
                channel.unacked.append(method.delivery_tag)
            self._note_content(stream + " deliveries", arrival, queue)
            return
        if method.name in ("basic.return", "basic.get-ok"):
            if isinstance(method, methods.BasicGetOk) and not channel.getting_no_ack:
                channel.unacked.append(method.delivery_tag)
            if method.name == "basic.return":
                channel.returned += 1
                if channel.confirming and self.sent_in_step == 1 and channel.published in channel.confirmed:
                    self.record.add(stream, "the next return comes after its confirm")
            self._note_content(stream, arrival, None)
            return
        channel.replies += 1
        if client.letter != PROBE or method.name != "channel.open-ok":
            self.record.add(stream, self.shown(repr(method)))
        self._on_state(client, channel, arrival.channel, method)

    def _on_state(self, client: _Client, channel: _Channel, number: int, method: Method) -> None:
        self.is_slow |= isinstance(method, methods.ConnectionClose | methods.ChannelClose)
        if isinstance(method, methods.ConnectionClose):
            client.closed_by_server = True
            client.wire.send_method(0, methods.ConnectionCloseOk())
        elif isinstance(method, methods.ConnectionCloseOk):
            client.wire.close()  # RabbitMQ leaves that to the client
        elif isinstance(method, methods.ChannelOpenOk):
            client.channels[number] = _Channel(is_open=True, replies=channel.replies)
        elif isinstance(method, methods.ChannelClose):
            client.channels[number] = _Channel(is_closing=self.lingers, replies=channel.replies)
            if not self.lingers:
                client.wire.send_method(number, methods.ChannelCloseOk())
        elif isinstance(method, methods.ChannelCloseOk):
            client.channels[number] = _Channel(replies=channel.replies)
        elif isinstance(method, methods.BasicConsumeOk):
            if method.consumer_tag not in channel.consumers and channel.asked:
                channel.consumers[method.consumer_tag] = channel.asked.pop(0)
                self.generated_tags.append(method.consumer_tag)
        elif isinstance(method, methods.BasicCancelOk | methods.BasicCancel):
            channel.consumers.pop(method.consumer_tag, None)
        elif isinstance(method, methods.QueueDeclareOk) and method.queue.startswith("amq.gen-") and method.queue not in self.generated:
            self.generated.append(method.queue)
            self.queues.setdefault(method.queue, client.letter)

    def on_end(self, client: _Client) -> None:
        self.news += 1
        if not client.closed_by_server:
            self.record.add(f"{client.letter}.0", "end of stream")

    def _on_confirm(self, channel: _Channel, stream: str, method: methods.BasicAck | methods.BasicNack) -> None:
        tag = method.delivery_tag
        numbers = range(1, tag + 1) if method.multiple else (tag,)
        fresh = [number for number in numbers if number not in channel.confirmed]
        if not fresh or tag > channel.published:
            self.record.add(stream, f"{method!r} that confirms nothing")
        channel.confirmed.update(fresh)
        for number in fresh:
            self.record.add(stream + " confirms", f"{method.name} {number}")
        self.record.streams.get(stream + " confirms", []).sort()

    def _note_content(self, stream: str, arrival: Arrival, queue: str | None) -> None:
        content = f"{shown_properties(arrival.properties)} {shown_body(arrival.body)}"
        if len(arrival.body_frames) > 1:
            content += f" in frames of {list(arrival.body_frames)}"
        self.record.add(stream, self.shown(f"{arrival.method!r} {content}"))
        if queue is not None:
            redelivered = getattr(arrival.method, "redelivered", False)
            self.record.loose.append(self.shown(f"{queue} {redelivered} {shown_properties(arrival.properties)} {shown_body(arrival.body)}"))

    def _note_names(self, method: Method, arrival: Arrival) -> None:
        if arrival.properties:
            found = MADE_UP["reply-to"].search(arrival.properties.decode("latin-1"))
            if found:
                self.reply_address = found[0]

    def shown(self, line: str) -> str:
        """The line without the prefix, and with numbers for made-up names."""
        for kind, pattern in MADE_UP.items():
            numbers = self.made_up[kind]
            line = pattern.sub(lambda match, kind=kind, numbers=numbers: numbers.setdefault(match[0], f"<{kind} {len(numbers)}>"), line)
        return line.replace(self.prefix, "")

    # --- steps

    def perform(self, step: Step) -> Record:
        """One step, until the broker is quiet again."""
        self.record = Record(str(step))
        self.lingers = step.lingers
        self.makes_letters |= any("x-dead-letter-exchange" in fields for fields in [step.arguments.get("arguments") or {}])
        # Dead letters take ways of their own, in steps that nobody hears of.
        self.is_slow = self.makes_letters or step.operation in ("basic.cancel", "channel.close", "connection.close", "drop")
        self.is_routed = step.operation == "tx.commit" or (step.operation == "publish" and bool(step.arguments.get("exchange")))
        client = self._client(step.connection, anew=step.ready)
        if step.operation == "drop":
            self._drop(client)
            return self.record
        if step.channel and step.ready and step.operation != "channel.open":
            self._open_channel(client, step.channel)
        channel = client.channel(step.channel)
        replies = channel.replies
        self.record = Record(str(step))  # what was made good before it is nobody's business
        self._prepare(client, channel, step)
        client.wire.send(self._encoded(client, channel, step))
        if self._expects_close_or_open(channel, step):
            wait(self._wires(), lambda: client.channel(step.channel).replies > replies or not client.is_usable, ANSWER_WITHIN_S)
        if step.operation == "connection.close":
            wait(self._wires(), lambda: client.wire.ended, ANSWER_WITHIN_S)
        self._settle()
        self._sort_cancels()
        if client.closed_by_server:
            self._drop_last_deliveries(client.letter)
        return self.record

    def _drop_last_deliveries(self, letter: str) -> None:
        """While a connection breaks down, what one channel gives back may reach another, or not: nobody can use it any more."""
        for stream in [stream for stream in self.record.streams if stream.startswith(letter + ".") and stream.endswith(" deliveries")]:
            del self.record.streams[stream]

    def _sort_cancels(self) -> None:
        """Which of a channel's consumers hears first that their queue is gone means nothing."""
        for lines in self.record.streams.values():
            cancels = sorted(line for line in lines if line.startswith("BasicCancel("))
            if len(cancels) > 1:
                lines[:] = [cancels.pop(0) if line.startswith("BasicCancel(") else line for line in lines]

    def _expects_close_or_open(self, channel: _Channel, step: Step) -> bool:
        """Whether nothing more may be asked on the channel before the answer has come."""
        if step.operation == "channel.close":
            return channel.is_open or channel.is_closing
        if step.operation in ("channel.flow", "tx.commit"):
            # The one's answer would be taken for a probe's; while RabbitMQ commits, it suffers nothing else on the channel.
            return channel.is_open
        return step.operation in ("channel.open", "connection.close") and not channel.is_closing

    def _prepare(self, client: _Client, channel: _Channel, step: Step) -> None:
        """What the performer has to know of a step before its answer comes."""
        fields = step.arguments
        self.sent_in_step = 0
        if not channel.is_open:
            return
        if step.operation == "basic.consume":
            asked = (str(self._value(channel, fields.get("queue"))) or "last declared", bool(fields.get("no_ack")))
            tag = str(fields.get("consumer_tag", ""))
            if not tag:
                channel.asked.append(asked)
            elif tag not in channel.consumers:
                channel.consumers[tag] = asked
        elif step.operation == "basic.cancel" and fields.get("nowait"):
            channel.consumers.pop(str(self._value(channel, fields.get("consumer_tag", ""))), None)
        elif step.operation == "basic.get":
            channel.getting_no_ack = bool(fields.get("no_ack"))
        elif step.operation == "confirm.select":
            channel.confirming = True
        elif step.operation in ("publish", "raw"):
            self.sent_in_step = int(fields.get("count", 1))
            channel.published += self.sent_in_step if channel.confirming and step.operation == "publish" else 0
        elif step.operation == "queue.declare" and not fields.get("passive") and fields.get("queue"):
            name = str(self._value(channel, fields["queue"])).replace("\r", "").replace("\n", "")
            self.queues.setdefault(name, client.letter if fields.get("exclusive") else PROBE)

    def _encoded(self, client: _Client, channel: _Channel, step: Step) -> bytes:
        fields = {name: self._value(channel, value) for name, value in step.arguments.items()}
        if step.operation == "raw":
            return b"".join(encode_frame(kind, step.channel, payload) for kind, payload in fields["frames"])
        if step.operation == "publish":
            return self._publish(client, step.channel, dict(fields))
        if step.operation in ("basic.ack", "basic.reject", "basic.nack"):
            self._settle_tags(channel, step.operation, fields)
        method = CLASSES[step.operation](**fields)
        return encode_method_frame(step.channel, method)

    def _publish(self, client: _Client, number: int, fields: dict[str, Any]) -> bytes:
        body: bytes = fields.pop("body", b"")
        body += b"." * (fields.pop("size", 0) - len(body))
        count: int = fields.pop("count", 1)
        split: list[int] | None = fields.pop("split", None)
        properties = Properties(**fields.pop("properties", {})).encode()
        method = encode_method_frame(number, methods.BasicPublish(**fields))
        sent = b""
        for copy in range(count):
            text = body if count == 1 else b"%d of %s" % (copy, body)
            sent += method
            if split is None:
                sent += encode_content(number, 60, properties, text, client.wire.frame_max)
                continue
            sent += encode_frame(FRAME_HEADER, number, ContentHeader(60, len(text), properties).encode())
            whole = client.wire.frame_max - FRAME_OVERHEAD
            for size in [*split, *[whole] * (len(text) // whole)]:
                sent += encode_frame(FRAME_BODY, number, text[:size])
                text = text[size:]
            sent += encode_frame(FRAME_BODY, number, text) if text else b""
        return sent

    def _settle_tags(self, channel: _Channel, operation: str, fields: dict[str, Any]) -> None:
        tag = fields.get("delivery_tag", 0)
        if not channel.is_open:
            return
        if fields.get("multiple"):
            channel.unacked = [other for other in channel.unacked if tag and other > tag]
        elif tag in channel.unacked:
            channel.unacked.remove(tag)
        channel.settled = tag or channel.settled

    def _value(self, channel: _Channel, value: Any) -> Any:
        """A step's value with its references looked up and the prefix before the script's own names."""
        match value:
            case str():
                return self.prefix + value if OWN_NAME.fullmatch(value) else value
            case dict():
                return {name: self._value(channel, inner) for name, inner in value.items()}
            case list():
                return [self._value(channel, inner) for inner in value]
            case Generated(number):
                return self.generated[number] if number < len(self.generated) else "q-none-generated"
            case GeneratedTag(number):
                return self.generated_tags[number] if number < len(self.generated_tags) else "no-tag-generated"
            case Unacked(number):
                return channel.unacked[number % len(channel.unacked)] if channel.unacked else 1
            case Settled():
                return channel.settled
            case ReplyAddress():
                return self.reply_address
        return value

    def _client(self, letter: str, *, anew: bool = True) -> _Client:
        client = self.clients.get(letter)
        if client is None or (anew and not client.is_usable):
            client = self.clients[letter] = _Client(self, letter)
            wait([client.wire], lambda: len(client.probe_answers) > 0, ANSWER_WITHIN_S)
            client.probe_answers.clear()
        return client

    def _open_channel(self, client: _Client, number: int) -> None:
        channel = client.channel(number)
        if channel.is_open:
            return
        if channel.is_closing:
            client.wire.send_method(number, methods.ChannelCloseOk())
            channel.is_closing = False
        client.wire.send_method(number, methods.ChannelOpen())
        opened = wait(self._wires(), lambda: client.channel(number).is_open or not client.is_usable, ANSWER_WITHIN_S)
        assert opened, f"no channel.open-ok within {ANSWER_WITHIN_S} s"

    def _wires(self) -> list[WireConnection]:
        return [client.wire for client in self.clients.values()]

    # --- quiet

    def _settle(self) -> None:
        """Ask until two rounds in a row brought no news; what the queues then hold goes into the record."""
        last: list[str] | None = None
        quiet, wanted = 1, ROUNDS_QUIET
        for _ in range(ROUNDS_MAX):
            news = self.news
            self._ask_channels()  # first: before that, the step itself may not have been done
            self._wait_for_confirms()
            state = self._look_at_queues()
            quiet = quiet + 1 if state == last and news == self.news else 1
            last = state
            if self.is_slow or self.is_routed:
                wanted = ROUNDS_QUIET_SLOW if self.is_slow else ROUNDS_QUIET_ROUTED
            if quiet >= wanted:
                break
        else:
            self.record.add("queues", f"not quiet after {ROUNDS_MAX} rounds")
        for line in last or []:
            self.record.add("queues", line)

    def _ask_channels(self) -> None:
        """A flow on every open channel: answered after all that the channel did before."""
        asked: list[tuple[_Client, _Channel | None, int]] = []
        for client in self.clients.values():
            if not client.is_usable:
                continue
            # What was published through an exchange goes the same way through Leveret as an unbind, whose answer cannot overtake it.
            unbind = methods.QueueUnbind(queue="none such", exchange="amq.direct", routing_key="probe")
            client.wire.send_method(PROBE_CHANNEL, unbind if self.is_routed else methods.ChannelFlow(active=True))
            asked.append((client, None, 0))
            for number, channel in client.channels.items():
                if channel.is_open and number:
                    channel.probes += 1
                    client.wire.send_method(number, methods.ChannelFlow(active=True))
                    asked.append((client, channel, number))

        def answered() -> bool:
            for client, channel, number in asked:
                if not client.is_usable:
                    if not client.wire.ended:
                        return False  # its end is still to come
                    continue
                if channel is None:
                    if not client.probe_answers:
                        return False
                elif channel.probes and client.channels.get(number) is channel:
                    return False
            return True

        if not wait(self._wires(), answered, ANSWER_WITHIN_S):
            self._complain(asked)
        for client in self.clients.values():
            client.probe_answers.clear()

    def _complain(self, asked: list[tuple[_Client, _Channel | None, int]]) -> None:
        for client, channel, number in asked:
            if client.closed_by_server and not client.wire.ended:
                self.record.add(f"{client.letter}.0", f"no end of the stream within {ANSWER_WITHIN_S} s of close-ok")
                client.wire.close()
            elif channel is not None and channel.probes:
                self.record.add(f"{client.letter}.{number}", f"no answer to channel.flow within {ANSWER_WITHIN_S} s")
                channel.probes = 0
                client.wire.close()  # nothing more can be learned from it

    def _wait_for_confirms(self) -> None:
        waiting = [
            (client, number, channel)
            for client in self.clients.values()
            for number, channel in client.channels.items()
            if channel.is_open and channel.confirming
        ]

        def complete(client: _Client, number: int, channel: _Channel) -> bool:
            return len(channel.confirmed) >= channel.published or not client.is_usable or client.channels.get(number) is not channel

        if wait(self._wires(), lambda: all(complete(*each) for each in waiting), ANSWER_WITHIN_S):
            return
        for client, number, channel in waiting:
            if not complete(client, number, channel):
                self.record.add(f"{client.letter}.{number}", f"only {len(channel.confirmed)} of {channel.published} confirmed")
                channel.published = len(channel.confirmed)

    def _look_at_queues(self) -> list[str]:
        """A line for every queue that may exist, and forget those that do not."""
        found: dict[str, str] = {}
        for letter in sorted(set(self.queues.values())):
            client = self.clients[letter]
            names = [name for name, owner in self.queues.items() if owner == letter]
            if not client.is_usable:
                # Its exclusive queues go with it; whether they did, anybody can see.
                self.queues.update(dict.fromkeys(names, PROBE))
                client = self.clients[PROBE]
            found |= self._declare_passively(client, names)
        for name, line in found.items():
            if line == "gone":
                del self.queues[name]
        return sorted(self.shown(f"{name}: {line}") for name, line in found.items())

    def _declare_passively(self, client: _Client, names: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        while len(found) < len(names):
            missing = names[len(found) :]
            for name in missing:
                client.wire.send_method(PROBE_CHANNEL, methods.QueueDeclare(queue=name, passive=True))
            wanted = len(missing)
            refusal = self._await_probe(client, lambda wanted=wanted: len(client.probe_answers) >= wanted)
            for name, answer in zip(missing, client.probe_answers, strict=False):
                if isinstance(answer, methods.QueueDeclareOk):
                    found[name] = f"{answer.message_count} messages, {answer.consumer_count} consumers"
                else:
                    found[name] = "gone" if refusal is not None and refusal.reply_code == 404 else f"{answer!r}"
            client.probe_answers.clear()
            if refusal is not None:
                client.wire.send_method(PROBE_CHANNEL, methods.ChannelCloseOk())
                client.wire.send_method(PROBE_CHANNEL, methods.ChannelOpen())
                self._await_probe(client, lambda: len(client.probe_answers) > 0)
                client.probe_answers.clear()
            if not client.is_usable:
                return found
        return found

    def _await_probe(self, client: _Client, until: Callable[[], bool]) -> methods.ChannelClose | None:
        """Wait for answers on the probe channel, or for its close, which is given back."""

        def refused() -> methods.ChannelClose | None:
            last = client.probe_answers[-1] if client.probe_answers else None
            return last if isinstance(last, methods.ChannelClose) else None

        answered = wait(self._wires(), lambda: until() or refused() is not None or not client.is_usable, ANSWER_WITHIN_S)
        assert answered, f"no answer to a probe on {client.letter} within {ANSWER_WITHIN_S} s, after {self.record.title}"
        return refused()

    def _drop(self, client: _Client) -> None:
        """The client vanishes. Nobody is told when the broker has noticed: its queues and consumers are, by their absence."""
        client.wire.close()
        own = [name for name, owner in self.queues.items() if owner == client.letter]
        consumers: dict[str, int] = {}
        for other in self.clients.values():
            for channel in other.channels.values() if other.is_usable else ():
                for queue, _ in channel.consumers.values():
                    consumers[queue] = consumers.get(queue, 0) + 1
        lines: list[str] = []
        for _ in range(ROUNDS_MAX * 10):
            lines = self._look_at_queues()
            gone = not any(name in self.queues for name in own)
            left = all(
                line.endswith(f" {consumers.get(name, 0)} consumers")
                for name in self.queues
                for line in lines
                if line.startswith(self.shown(name) + ":")
            )
            if gone and left:
                break
        self._settle()

    # --- the end

    def finish(self, script: Script) -> Record:
        """Close all connections, take out what the queues still hold, and delete everything the script has made."""
        for letter, client in sorted(self.clients.items()):
            if letter == PROBE:
                continue
            self.record = Record("closing")
            self.is_slow = True
            if client.is_usable:
                # One after the other: what comes back from this one may go to a consumer of the next.
                client.wire.send_method(0, methods.ConnectionClose(reply_code=200, reply_text="bye"))
                wait(self._wires(), lambda client=client: client.wire.ended, ANSWER_WITHIN_S)
            client.wire.close()
            self._settle()
        self.record, closed = Record("what is left in the queues"), self.record
        self.record.streams["queues"] = closed.streams.get("queues", [])
        self._empty()
        self._delete(script)
        return self.record

    def _empty(self) -> None:
        """Get everything, in order, on an ordinary channel of the probe connection."""
        probe = self.clients[PROBE]
        for name in sorted(self.queues, key=self.shown):
            self._open_channel(probe, 1)
            channel = probe.channel(1)
            channel.getting_no_ack = True
            while probe.is_usable and probe.channel(1) is channel:
                replies = channel.replies
                messages = len(self.record.streams.get(f"{PROBE}.1", []))
                for _ in range(4):
                    probe.wire.send_method(1, methods.BasicGet(queue=name, no_ack=True))
                wait(
                    self._wires(),
                    lambda messages=messages: (
                        len(self.record.streams.get(f"{PROBE}.1", [])) >= messages + 4 or not probe.channel(1).is_open
                    ),
                    ANSWER_WITHIN_S,
                )
                if channel.replies > replies or len(self.record.streams.get(f"{PROBE}.1", [])) < messages + 4:
                    break  # get-empty, or a refusal

    def _delete(self, script: Script) -> None:
        probe = self.clients[PROBE]
        wire = probe.wire
        for name in self.queues:
            wire.send_method(PROBE_CHANNEL, methods.QueueDelete(queue=name, nowait=True))
        exchanges = {
            step.arguments["exchange"]
            for step in script.steps
            if step.operation == "exchange.declare" and OWN_NAME.fullmatch(str(step.arguments.get("exchange", "")))
        }
        for name in exchanges:
            wire.send_method(PROBE_CHANNEL, methods.ExchangeDelete(exchange=self.prefix + name, nowait=True))
        for step in script.steps:
            if step.operation == "exchange.bind":
                fields = {name: self._value(_Channel(), value) for name, value in step.arguments.items() if name != "nowait"}
                if all(str(fields.get(end, "")).startswith("amq.") for end in ("source", "destination")):
                    wire.send_method(PROBE_CHANNEL, methods.ExchangeUnbind(**fields, nowait=True))
        probe.probe_answers.clear()
        wire.send_method(PROBE_CHANNEL, methods.ChannelFlow(active=True))
        self._await_probe(probe, lambda: len(probe.probe_answers) > 0)

    def close(self) -> None:
        """Drop whatever is still open."""
        for client in self.clients.values():
            client.wire.close()


def shown_properties(data: bytes) -> str:
    """The properties that are there, with the wire types of what is in tables."""
    try:
        properties = decode_properties(data, typed=True)
    except AmqpError:
        return f"properties {data.hex()}"
    if properties.headers is not None and "x-death" in properties.headers:
        properties.headers = _steady(properties.headers)
    fields = ((name, getattr(properties, name)) for name in CONTENT_PROPERTIES)
    return "{" + ", ".join(f"{name}={value!r}" for name, value in fields if value is not None) + "}"


def _steady(headers: dict[str, Any]) -> dict[str, Any]:
    """A dead letter's headers in order, without times, and without x-last-death-*, which RabbitMQ has since 3.13."""
    shown = {name: headers[name] for name in sorted(headers) if not name.startswith("x-last-death-")}
    if isinstance(deaths := headers["x-death"].value, list) and all(isinstance(death.value, dict) for death in deaths):
        shown["x-death"] = [{name: death.value[name] for name in sorted(death.value) if name != "time"} for death in deaths]
    return shown


CONTENT_PROPERTIES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)


def shown_body(body: bytes) -> str:
    """The body, or its size, sum and beginning."""
    if len(body) <= SHOWN_BODY_BYTES:
        return repr(body)
    return f"{len(body)} bytes ({zlib.crc32(body):08x}) {body[:SHOWN_BODY_BYTES]!r}..."
