"""One publisher or consumer as a process of its own: `python -m leveret.perf.loader`, steered by its parent through standard input.

Commands come in and events go out as one JSON map a line (the parent's side is `leveret.perf.fleet`):

    connect {plan, role, index}      -> ready           open a connection and a channel
    declare {}                       -> ready           exchange, queues and bindings of the plan, on this connection
    prepare {}                       -> ready           confirm mode and the encoded messages, or the subscriptions
    run {begin_ns, end_ns}           -> progress ..., measured, ended
                                        the load; `begin_ns` and `end_ns` (None: by count) bound what is measured, on the monotonic clock
    finish {}                                           a consumer stops; a publisher stops early
    anything that goes wrong         -> failed          and the process ends

It ends when its input ends, so that it never outlives its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from leveret.codec import methods
from leveret.codec.errors import AmqpError
from leveret.codec.frames import encode_content, encode_method_frame
from leveret.codec.properties import Properties
from leveret.perf.consumer import Consumer
from leveret.perf.line import LineBroken
from leveret.perf.plan import Plan
from leveret.perf.publisher import Publisher
from leveret.perf.session import CHANNEL_ID, BrokerRefused, BrokerUnreachable, Session, refusal
from leveret.perf.topology import declare

_SLICE_NS: Final = 100_000_000  # how long a line runs before it looks at its input and tells its progress
_SETTLE_S: Final = 60.0  # for the last confirms, after the load
_BLOCK_BYTES: Final = 1 << 16  # small messages: more would leave the processor's nearest cache
_BLOCK_MESSAGES: Final = 16  # of large ones, since TCP is half as dear in large writes
_LARGE_BLOCK_BYTES: Final = 1 << 20
_BASIC_CLASS: Final = 60
_NEVER_NS: Final = (1 << 63) - 1


class _Finished(Exception):
    """The parent has ended our input: nobody wants the rest."""


class Commands:
    """The parent's commands, and whether one is there without waiting."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unread = b""

    def next(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            received = os.read(self._descriptor, 1 << 16)
            if not received:
                raise _Finished
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        command: dict[str, Any] = json.loads(line)
        return command

    def pending(self) -> bool:
        return b"\n" in self._unread or bool(select.select([self._descriptor], [], [], 0)[0])


def tell(event: str, **fields: Any) -> None:
    """One event to the parent; a parent that has gone is found out at the next command."""
    try:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise _Finished from None


class Busyness:
    """How much this process has run and how long it has waited for a core: what tells a load generator that was the limit."""

    def __init__(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self.starved_s = 0.0
        with contextlib.suppress(OSError, IndexError):  # a kernel without schedule statistics: starving goes unseen
            self.starved_s = int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9

    def since(self, before: Busyness) -> dict[str, float]:
        return {"cpu_s": self.cpu_s - before.cpu_s, "starved_s": self.starved_s - before.starved_s}


class Loader:
    """One connection and what it does. The line exists from `prepare` on."""

    def __init__(self, plan: Plan, role: str, index: int) -> None:
        self.plan = plan
        self.role = role
        self.index = index
        self.session = Session(plan.target, f"leveret perf {role} {index}")
        self.line: Publisher | Consumer | None = None
        self.settled = role == "consumer"  # a publisher is when the broker has taken all that it sent

    def prepare(self) -> None:
        if self.role == "publisher":
            self._prepare_publisher()
        else:
            self._prepare_consumer()

    def _prepare_publisher(self) -> None:
        plan = self.plan
        if plan.confirms:
            self.session.confirm_select()
        messages, stamps_at = encode_block(plan, self.session.frame_max)
        limit = 0
        if plan.messages:
            # The first publishers take what does not divide evenly.
            limit = plan.messages // plan.publishers + (self.index < plan.messages % plan.publishers)
        self.line = Publisher(
            self.session.detach(),
            CHANNEL_ID,
            self.index,
            messages,
            stamps_at,
            plan.size,
            plan.confirms,
            plan.rate,
            limit or int(plan.messages > 0),
        )
        if plan.messages and not limit:
            self.line = None  # fewer messages than publishers: nothing to do for this one
            self.settled = True

    def _prepare_consumer(self) -> None:
        plan = self.plan
        if plan.prefetch:
            self.session.qos(plan.prefetch)
        names = plan.queue_names()
        for number in plan.queues_of(self.index):
            self.session.start_consuming(names[number], str(number), no_ack=plan.ack_every == 0)
        self.line = Consumer(self.session.detach(), CHANNEL_ID, plan.queues, plan.publishers, plan.ack_every)

    def run(self, commands: Commands, begin_ns: int, end_ns: int | None) -> None:
        """The load, slice by slice, with the measured part cut out of it; then the rest until all is settled."""
        if self.line is None:
            tell("measured", role=self.role, index=self.index, count=0, bytes=0, elapsed_s=0.0, **Busyness().since(Busyness()))
            tell("ended", **self._totals())
            return
        stopped = self._advance(commands, begin_ns)
        self._reset()
        before, began_ns, count_before, bytes_before = Busyness(), time.monotonic_ns(), self._count(), self._bytes()
        if not stopped:
            stopped = self._advance(commands, end_ns)
        if end_ns is None and isinstance(self.line, Publisher):
            self._settle(self.line)  # a count is done when the broker has taken it, not when the kernel has
        ended_ns = time.monotonic_ns()
        if end_ns is None and isinstance(self.line, Consumer):
            ended_ns = max(self.line.last_ns, began_ns)  # what came after the last message was waiting for the word to stop
        tell(
            "measured",
            role=self.role,
            index=self.index,
            count=self._count() - count_before,
            bytes=self._bytes() - bytes_before,
            elapsed_s=(ended_ns - began_ns) / 1e9,
            latency=self._latency(),
            **Busyness().since(before),
        )
        if isinstance(self.line, Publisher):
            if end_ns is not None:
                self._settle(self.line)
        elif not stopped:
            self._advance(commands, None)
        tell("ended", **self._totals())

    def _advance(self, commands: Commands, until_ns: int | None) -> bool:
        """Run the line until a time, until it has finished or until the parent says so. Whether it was one of the latter two."""
        assert self.line is not None
        until_ns = _NEVER_NS if until_ns is None else until_ns
        while (now_ns := time.monotonic_ns()) < until_ns:
            if self.line.run(min(until_ns, now_ns + _SLICE_NS)):
                self._on_method()
            tell("progress", role=self.role, index=self.index, count=self._count())
            if isinstance(self.line, Publisher) and self.line.finished:
                return True
            if commands.pending():
                commands.next()
                return True
        return False

    def _settle(self, publisher: Publisher) -> None:
        """Finish the half-written batch, take in the last confirms, and make sure that the broker has taken every message."""
        give_up_ns = time.monotonic_ns() + int(_SETTLE_S * 1e9)
        while time.monotonic_ns() < give_up_ns and not publisher.settled_down:
            if publisher.settle(give_up_ns):
                self._on_method()
        if not publisher.settled_down:
            return
        self.session.ask_to_close_channel()
        while not self.settled and time.monotonic_ns() < give_up_ns:
            if publisher.listen(give_up_ns):
                self._on_method()

    def _on_method(self) -> None:
        """A method that stopped the line."""
        assert self.line is not None
        _, payload = self.line.take_cold()
        method = methods.decode_method(payload)
        if (refused := refusal(method)) is not None:
            self.session.answer_close(method)
            raise refused
        if isinstance(method, methods.ChannelCloseOk):
            self.settled = True
        if isinstance(method, methods.BasicCancel):
            raise BrokerUnreachable(f"the broker cancelled the consumer of queue number {method.consumer_tag}: is the queue gone?")
        if isinstance(self.line, Publisher) and isinstance(method, methods.ConnectionBlocked | methods.ConnectionUnblocked):
            self.line.blocked = isinstance(method, methods.ConnectionBlocked)
            tell("blocked", index=self.index, blocked=self.line.blocked, reason=getattr(method, "reason", ""))

    def _count(self) -> int:
        if isinstance(self.line, Publisher):
            return self.line.published
        return self.line.received if self.line is not None else 0

    def _bytes(self) -> int:
        return self.line.received_bytes if isinstance(self.line, Consumer) else self._count() * self.plan.size

    def _reset(self) -> None:
        if isinstance(self.line, Publisher):
            self.line.confirm_latency.reset()
        elif self.line is not None:
            self.line.latency.reset()

    def _latency(self) -> dict[str, Any]:
        assert self.line is not None
        dumped: dict[str, Any] = (self.line.confirm_latency if isinstance(self.line, Publisher) else self.line.latency).dump()
        return dumped

    def _totals(self) -> dict[str, Any]:
        totals: dict[str, Any] = {"role": self.role, "index": self.index, "count": self._count(), "unsettled": not self.settled}
        if isinstance(self.line, Publisher):
            names: tuple[str, ...] = ("confirmed", "nacked", "returned", "unconfirmed", "system_calls")
        elif self.line is not None:
            names = ("redelivered", "overtaken", "foreign", "system_calls")
        else:
            names = ()
        return totals | {name: getattr(self.line, name) for name in names}

    def close(self) -> None:
        self.session.drop(politely=self.settled)


def encode_block(plan: Plan, frame_max: int) -> tuple[list[bytes], list[int]]:
    """The messages of a publisher's block, encoded for the wire, and where in each its body begins.

    Each routing key comes once before any comes twice. Small messages are repeated until they fill 64 KiB, larger ones until there are 16
    or 1 MiB of them: what a block holds can leave in one write.
    """
    properties = Properties(delivery_mode=2 if plan.persistent else 1).encode()
    content = encode_content(CHANNEL_ID, _BASIC_CLASS, properties, bytes(plan.size), frame_max)
    # The header frame, then (with a body) the head of the first body frame.
    body_at = 7 + 12 + len(properties) + 1 + 7
    messages: list[bytes] = []
    stamps_at: list[int] = []
    for routing_key in plan.routing_keys():
        publish = methods.BasicPublish(exchange=plan.exchange, routing_key=routing_key, mandatory=plan.mandatory)
        head = encode_method_frame(CHANNEL_ID, publish)
        messages.append(head + content)
        stamps_at.append(len(head) + (body_at if plan.size else 0))  # an empty body has no frame, and no stamp
    size = sum(map(len, messages))
    repeats = max(1, _BLOCK_BYTES // size, min(_BLOCK_MESSAGES // len(messages), _LARGE_BLOCK_BYTES // size))
    return messages * repeats, stamps_at * repeats


def _serve(commands: Commands) -> None:
    loader: Loader | None = None
    while True:
        command = commands.next()
        match command["do"]:
            case "connect":
                loader = Loader(Plan.from_json(command["plan"]), command["role"], command["index"])
                tell("ready", frame_max=loader.session.frame_max, server=loader.session.server)
            case "declare":
                assert loader is not None
                declare(loader.session, loader.plan)
                tell("ready")
            case "prepare":
                assert loader is not None
                loader.prepare()
                tell("ready")
            case "run":
                assert loader is not None
                loader.run(commands, command["begin_ns"], command["end_ns"])
                loader.close()
                return


def main() -> None:
    """Serve the parent until the load is over. Exit code 1 after `failed`."""
    # Ctrl-C reaches the whole terminal; the parent decides what it means and tells us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _serve(Commands(sys.stdin.fileno()))
    except BrokerRefused as refused:
        tell("failed", scope=refused.scope, reply_code=refused.reply_code, text=refused.reply_text)
        sys.exit(1)
    except (BrokerUnreachable, LineBroken, AmqpError, ValueError, MemoryError) as error:
        tell("failed", scope="", reply_code=0, text=str(error) or type(error).__name__)
        sys.exit(1)
    except _Finished:
        return


if __name__ == "__main__":
    main()
