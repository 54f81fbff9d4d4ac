"""A `leveret perf` plan as the work of a bench: as fast as it goes, and again at half of that rate for the latencies.

With Leveret, the order of connecting and the declaring connection also decide on which workers publisher, queue and consumer are, so a load
names its placement, and a round that found them elsewhere says so. RabbitMQ gets the very same plan. Rows and curves hold loads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from leveret.perf.fleet import Fleet, Progress
from leveret.perf.plan import Plan
from leveret.perf.report import Report

from bench.figures import Figure
from bench.latency import SHARE, Latency
from bench.leveret_node import LeveretNode
from bench.memory import MemoryWatch
from bench.node import Node

# Where Leveret has the queue. The first connection goes to one worker, the next to another, and so on.
ON_PUBLISHERS_WORKER: Final = "publisher's worker"  # the consumer is on another
ON_ANOTHER_WORKER: Final = "another worker"  # with the consumer, away from the publisher
ALL_ON_ONE_WORKER: Final = "all on one worker"
ANYWHERE: Final = "anywhere"
_WATCHED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a round of a row may take."""

    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """`options` are a `Plan`'s fields. Called with a node and a timing, a load makes a figure.

    Calls raise LoadFailed, LoadStopped, BrokerRefused or BrokerUnreachable.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    placement: str = ON_PUBLISHERS_WORKER

    def plan(self, node: Node, timing: Timing) -> Plan:
        plan = Plan(uri=node.uri, seconds=timing.seconds, warmup_s=timing.warmup_s, **self.options)
        if self.placement == ON_ANOTHER_WORKER:
            return dataclasses.replace(plan, declare_by="consumer")
        if self.placement == ALL_ON_ONE_WORKER:
            # One connection for each other worker between the publisher's and the consumer's brings the turn round again.
            return dataclasses.replace(plan, idle_between=node.workers - 1 if isinstance(node, LeveretNode) else 1)
        return plan

    @property
    def has_latency(self) -> bool:
        """Whether messages arrive anywhere, and are large enough to tell when they were due."""
        plan = Plan(**self.options)
        return plan.publishers > 0 and plan.consumers > 0 and plan.size >= 8 and plan.copies is not None

    def __call__(self, node: Node, timing: Timing) -> Figure:
        """One round as fast as it goes."""
        watch = MemoryWatch(node)
        report, where = self._run(node, self.plan(node, timing), watch)
        watch.look()
        faults = tuple(report.faults) + misplaced(self.placement, where)
        details = report.to_json() | {"placement": self.placement, "workers": where}
        cpu_us = report.broker_cpu_us if watched(report) else None
        return Figure(report.messages_per_s, cpu_us, report.limit, faults, memory_bytes=watch.most.all_bytes, details=details)

    def latency(self, node: Node, timing: Timing, messages_per_s: float) -> Latency:
        """One round at half of a rate. Raises ValueError, too, when nothing arrived. Only for a load that `has_latency`."""
        plan = self.plan(node, timing)
        # What the round is judged by are deliveries: several for each publish of a fan-out.
        asked = messages_per_s * SHARE
        report, _ = self._run(node, dataclasses.replace(plan, rate=asked / (plan.copies or 1) / plan.publishers))
        return Latency.of(report, asked)

    def _run(self, node: Node, plan: Plan, watch: MemoryWatch | None = None) -> tuple[Report, dict[str, int]]:
        where: dict[str, int] = {}
        wanted = 1 + plan.publishers + plan.consumers + plan.idle_between

        def look(progress: Progress) -> None:
            # Before the measured time, and only until all are known: the question costs the broker something too.
            if self.placement != ANYWHERE and progress.phase == "warming up" and len(where) < wanted and isinstance(node, LeveretNode):
                where.update(node.placement(fleet.plan.queue_names()[0]))
            if watch is not None:
                watch(progress)

        with Fleet(plan, broker_pid=node.pid, on_progress=look) as fleet:
            return fleet.run(), where


def watched(report: Report) -> bool:
    """Whether the broker's CPU was looked at for most of the measured time. Else (a crowded machine let us sleep) it is nobody's figure."""
    return report.broker is not None and report.broker.elapsed_s >= _WATCHED_SHARE * report.plan.seconds


def misplaced(placement: str, where: dict[str, int]) -> tuple[str, ...]:
    """What is not on the worker where the row wants it, in words; empty for a broker without workers (RabbitMQ) or with one.

    Empty, too, where the broker had not yet told of the publisher or the queue when the warm-up was over.
    """
    queue, publisher = where.get("queue"), where.get("publisher 0")
    if placement == ANYWHERE or queue is None or publisher is None:
        return ()
    consumer = where.get("consumer 0", publisher)
    if len(set(where.values())) < 2 and placement != ALL_ON_ONE_WORKER:
        return ()
    wanted = {
        ON_PUBLISHERS_WORKER: queue == publisher,
        ON_ANOTHER_WORKER: queue == consumer != publisher,
        ALL_ON_ONE_WORKER: queue == publisher == consumer,
    }
    return () if wanted[placement] else (f"wanted: {placement}; but workers are: {where}",)
