"""A load as a whole: one process for each publisher and consumer, brought up in a known order, started together, watched and counted.

The order of connecting is part of the load, because a broker may place queues and connections by it: publishers first, then the idle
connections of the plan, then consumers, each after the one before is open. The parent sends no load itself. If it is told the root of the
broker's processes, it samples them at both ends of the measured time.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from leveret.perf.histogram import Histogram
from leveret.perf.plan import Plan
from leveret.perf.process_tree import MachineTime, Usage, process_tree, rss_bytes
from leveret.perf.report import BrokerUse, LoaderUse, Report
from leveret.perf.session import Session
from leveret.perf.topology import declare, delete, left_in_queues

_READY_S: Final = 60.0
_DRAIN_S: Final = 70.0  # how long consumers may take for what is still queued after the publishers have ended
_QUIET_S: Final = 2.0  # nothing has come for so long: nothing will
_SAMPLE_S: Final = 1.0  # between two looks at the broker's memory
_RUN_ON_S: Final = 20.0  # beyond the planned end, before a load counts as stuck


class LoadFailed(Exception):
    """A loader, or the broker that it talked to, gave up. `reply_code` is the broker's, or 0."""

    def __init__(self, who: str, scope: str, reply_code: int, text: str) -> None:
        said = f"the broker closed the {scope} of {who}: {reply_code} {text}" if reply_code else f"{who}: {text}"
        super().__init__(said)
        self.reply_code = reply_code
        self.text = text


class LoadStopped(Exception):
    """The user ended it before there was anything to report."""


@dataclass(slots=True)
class Progress:
    """What is known while a load runs: messages so far, and whether the measured part has begun."""

    published: int = 0
    received: int = 0
    phase: str = "connecting"  # connecting, warming up, measuring, draining
    blocked: str = ""  # the broker's reason for connection.blocked, while it holds


@dataclass(slots=True)
class _Loader:
    role: str
    index: int
    process: subprocess.Popen[bytes]
    unread: bytes = b""
    count: int = 0
    measured: dict[str, Any] | None = None
    ended: dict[str, Any] | None = None
    ready: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.role} {self.index}"

    def tell(self, command: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has failed, and its event says why
            self.process.stdin.write(json.dumps({"do": command, **fields}).encode() + b"\n")
            self.process.stdin.flush()


class Fleet:
    """The loader processes of one plan. Use as a context manager: leaving it ends them all and deletes what the load declared."""

    def __init__(self, plan: Plan, *, broker_pid: int = 0, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
        self.plan = plan.with_names(str(os.getpid()))
        # What the user named may have been there before: only what we named is deleted afterwards.
        self._own_queues, self._own_exchange = not plan.queue, not plan.exchange
        self._broker_pid = broker_pid
        self._on_progress = on_progress
        self._progress = Progress()
        self._selector = selectors.DefaultSelector()
        self._idle: list[Session] = []
        self._declared = False
        self._server = ""
        self._rss_max_bytes = 0
        self._sampled_at_s = 0.0
        self._machine_busy_share = 0.0
        self._heard_at_s = 0.0  # when a consumer's count last rose
        self._publishers = [self._spawn("publisher", index) for index in range(plan.publishers)]
        self._consumers = [self._spawn("consumer", index) for index in range(plan.consumers)]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for loader in self._all:
            assert loader.process.stdin is not None and loader.process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                loader.process.stdin.close()
        for loader in self._all:
            try:
                loader.process.wait(3.0)
            except subprocess.TimeoutExpired:
                loader.process.kill()
                loader.process.wait()
            assert loader.process.stdout is not None
            loader.process.stdout.close()
        self._selector.close()
        for session in self._idle:
            session.close()
        if self._declared and not self.plan.keep:
            delete(self.plan, queues=self._own_queues, exchange=self._own_exchange)

    @property
    def _all(self) -> list[_Loader]:
        return self._publishers + self._consumers

    def _spawn(self, role: str, index: int) -> _Loader:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "leveret.perf.loader"],  # -P: the folder it is called in holds no modules of ours
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        loader = _Loader(role, index, process)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, loader)
        return loader

    def run(self) -> Report:
        """Connect, declare, load, measure, drain. Raises LoadFailed, LoadStopped, BrokerRefused or BrokerUnreachable."""
        try:
            self._connect()
        except KeyboardInterrupt:
            raise LoadStopped from None
        begin_ns = 0 if self.plan.messages else time.monotonic_ns() + int(self.plan.warmup_s * 1e9)
        end_ns = None if self.plan.messages else begin_ns + int(self.plan.seconds * 1e9)
        for loader in self._consumers + self._publishers:
            loader.tell("run", begin_ns=begin_ns, end_ns=end_ns)
        try:
            samples = self._measure(begin_ns, end_ns)
        except KeyboardInterrupt:
            samples = []
        self._progress.phase = "draining"
        with contextlib.suppress(KeyboardInterrupt):
            self._drain()
        return self._report(samples)

    def _connect(self) -> None:
        plan = self.plan.to_json()
        for loader in self._publishers:
            loader.tell("connect", plan=plan, role=loader.role, index=loader.index)
            self._await_ready(loader)
        for number in range(self.plan.idle_between):
            self._idle.append(Session(self.plan.target, f"leveret perf idle {number}"))
        for loader in self._consumers:
            loader.tell("connect", plan=plan, role=loader.role, index=loader.index)
            self._await_ready(loader)
        if self.plan.publishers or self.plan.messages:
            self._declare()
        # Consumers first: a message must not wait in a queue for its consumer to be set up.
        for loader in self._consumers + self._publishers:
            loader.tell("prepare")
            self._await_ready(loader)

    def _declare(self) -> None:
        self._declared = True
        if self.plan.declare_by == "other":
            declare(self._idle[0], self.plan)
            return
        declarers = self._consumers if self.plan.declare_by == "consumer" and self._consumers else self._publishers
        declarers[0].tell("declare")
        self._await_ready(declarers[0])

    def _await_ready(self, loader: _Loader) -> None:
        deadline_s = time.monotonic() + _READY_S
        while not loader.ready:
            if time.monotonic() > deadline_s:
                raise LoadFailed(loader.name, "", 0, f"not ready within {_READY_S:.0f} s")
            self._pump(0.25)
        loader.ready -= 1

    def _measure(self, begin_ns: int, end_ns: int | None) -> list[tuple[float, list[Usage]]]:
        """Wait through the measured time. Two samples of the broker's processes, each with its time in seconds; none without a pid."""
        self._progress.phase = "warming up" if begin_ns else "measuring"
        while time.monotonic_ns() < begin_ns:
            self._pump(min(0.25, max(0.0, (begin_ns - time.monotonic_ns()) / 1e9)))
        samples = self._sample()
        machine_before = MachineTime.now()
        self._progress.phase = "measuring"
        if end_ns is None:
            while not self._all_counted():
                self._pump(0.25)
        else:
            while (left_s := (end_ns - time.monotonic_ns()) / 1e9) > 0:
                self._pump(min(0.25, left_s))
        self._machine_busy_share = MachineTime.now().busy_share_since(machine_before)
        return samples + self._sample()

    def _sample(self) -> list[tuple[float, list[Usage]]]:
        if not self._broker_pid:
            return []
        tree = process_tree(self._broker_pid)
        if not tree:
            raise LoadFailed("the broker", "", 0, f"there is no process {self._broker_pid}")
        return [(time.monotonic(), tree)]

    def _all_counted(self) -> bool:
        """Whether all that was to be published has been, and has come to the consumers: by number, or by silence."""
        if any(loader.measured is None for loader in self._publishers):
            self._heard_at_s = time.monotonic()
            return False
        return not self._consumers or self._nothing_due() or time.monotonic() - self._heard_at_s > _QUIET_S

    def _nothing_due(self) -> bool:
        if self.plan.copies is None or not self._publishers:
            return False
        published = sum(loader.count for loader in self._publishers)
        return sum(loader.count for loader in self._consumers) >= published * self.plan.copies

    def _drain(self) -> None:
        """Until every loader has ended: publishers by themselves, consumers when nothing more is due or comes."""
        deadline_s = time.monotonic() + _DRAIN_S
        self._heard_at_s = time.monotonic()
        told = False
        while any(loader.ended is None for loader in self._all):
            self._pump(0.05)
            now_s = time.monotonic()
            if now_s > deadline_s + _RUN_ON_S:
                raise LoadFailed("the load", "", 0, "it did not end in time")
            publishing = any(loader.ended is None for loader in self._publishers)
            if publishing and now_s > deadline_s:
                for loader in self._publishers:
                    loader.tell("finish")
            if publishing:
                self._heard_at_s = now_s
            if not told and not publishing and (self._nothing_due() or now_s - self._heard_at_s > _QUIET_S or now_s > deadline_s):
                told = True
                for loader in self._consumers:
                    loader.tell("finish")

    def _pump(self, timeout_s: float) -> None:
        """Take in what loaders tell, for at most `timeout_s`."""
        for key, _ in self._selector.select(timeout_s):
            loader: _Loader = key.data
            assert loader.process.stdout is not None
            received = os.read(loader.process.stdout.fileno(), 1 << 20)
            if not received:
                self._selector.unregister(loader.process.stdout)
                if loader.ended is None:
                    raise LoadFailed(loader.name, "", 0, f"its process ended with exit code {loader.process.wait(5.0)}")
                continue
            *lines, loader.unread = (loader.unread + received).split(b"\n")
            for line in lines:
                self._on_event(loader, json.loads(line))
        self._progress.published = sum(loader.count for loader in self._publishers)
        count = sum(loader.count for loader in self._consumers)
        if count > self._progress.received:
            self._heard_at_s = time.monotonic()
        self._progress.received = count
        if self._broker_pid and time.monotonic() - self._sampled_at_s > _SAMPLE_S:
            self._sampled_at_s = time.monotonic()
            self._rss_max_bytes = max(self._rss_max_bytes, rss_bytes(process_tree(self._broker_pid)))
        self._on_progress(self._progress)

    def _on_event(self, loader: _Loader, event: dict[str, Any]) -> None:
        match event["event"]:
            case "ready":
                loader.ready += 1
                self._server = event.get("server", self._server)
            case "progress":
                loader.count = event["count"]
            case "measured":
                loader.measured = event
            case "blocked":
                self._progress.blocked = event["reason"] if event["blocked"] else ""
            case "ended":
                loader.count = event["count"]
                loader.ended = event
            case "failed":
                raise LoadFailed(loader.name, event["scope"], event["reply_code"], event["text"])

    def _report(self, samples: list[tuple[float, list[Usage]]]) -> Report:
        measured = [loader.measured for loader in self._all if loader.measured is not None]
        if len(measured) < len(self._all):
            raise LoadStopped
        for loader in self._all:
            with contextlib.suppress(subprocess.TimeoutExpired):
                loader.process.wait(3.0)  # its connection is closed: what it had not acked is back in the queue
        latency, confirm_latency = Histogram(), Histogram()
        for part in measured:
            if "latency" in part:
                (confirm_latency if part["role"] == "publisher" else latency).merge(Histogram.restore(part["latency"]))
        totals = [loader.ended or {} for loader in self._all]

        def total(name: str) -> int:
            return sum(int(part.get(name, 0)) for part in totals)

        return Report(
            plan=self.plan,
            server=self._server,
            published_per_s=_rate(measured, "publisher"),
            received_per_s=_rate(measured, "consumer"),
            published=self._progress.published,
            received=self._progress.received,
            left_in_queues=left_in_queues(self.plan),
            confirmed=total("confirmed"),
            nacked=total("nacked"),
            unconfirmed=total("unconfirmed"),
            returned=total("returned"),
            redelivered=total("redelivered"),
            overtaken=total("overtaken"),
            foreign=total("foreign"),
            unsettled=total("unsettled"),
            latency=latency,
            confirm_latency=confirm_latency,
            loaders=[LoaderUse.of(part) for part in measured],
            broker=BrokerUse.between(samples, self._rss_max_bytes) if len(samples) == 2 else None,
            machine_busy_share=self._machine_busy_share,
        )


def _rate(measured: list[dict[str, Any]], role: str) -> float:
    """Messages/s of all loaders of one role: each has its own clock, so their rates add up, not their counts."""
    return sum((part["count"] / part["elapsed_s"] for part in measured if part["role"] == role and part["elapsed_s"] > 0), 0.0)
