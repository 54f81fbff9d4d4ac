"""Growth curves: what becomes of throughput and CPU per message when one thing grows and all else stays.

Each curve is a list of points on one axis and a way to measure a node at a point, once. Leveret is started anew for each curve, and for
each point where the point is its number of workers. RabbitMQ has fewer points where a point would take it minutes. `bench.run` measures
them (`--curves`), `bench.plots` draws them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from leveret.perf.fleet import Fleet
from leveret.perf.plan import Plan
from leveret.perf.process_tree import cpu_s, process_tree
from leveret.perf.report import Report
from leveret.perf.session import Session

from bench.figures import Figure
from bench.load import ANYWHERE, Load, Timing
from bench.memory import MemoryWatch
from bench.node import Node

_EXCHANGE: Final = "bench-bindings"
_SINK: Final = "bench-bindings-sink"
_DEEP: Final = "bench-curve-depth"
_KEYS: Final = 1_000
DEEP_SIZE: Final = 100
_CORES: Final = len(os.sched_getaffinity(0))

Measure = Callable[[Node, Timing, int], tuple[Figure, ...]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve. `measure(node, timing, point)` makes a figure for each of `parts` (one without a name for most curves).

    axis: what grows; points: of Leveret; peer_points: those of them that RabbitMQ takes part in; workers: whether a point is the number of
    Leveret's workers.
    """

    name: str
    title: str
    axis: str
    points: tuple[int, ...]
    peer_points: tuple[int, ...]
    measure: Measure
    parts: tuple[str, ...] = ("",)
    workers: bool = False


def _size(node: Node, timing: Timing, size: int) -> tuple[Figure, ...]:
    return (Load({"size": size})(node, timing),)


def _queues(node: Node, timing: Timing, queues: int) -> tuple[Figure, ...]:
    return (Load({"queues": queues}, ANYWHERE)(node, timing),)


def _pairs(node: Node, timing: Timing, pairs: int) -> tuple[Figure, ...]:
    return (Load({"publishers": pairs, "consumers": pairs, "queues": pairs}, ANYWHERE)(node, timing),)


def _cores_pairs(node: Node, timing: Timing, _: int) -> tuple[Figure, ...]:
    return _pairs(node, timing, _CORES)


def _connections(node: Node, timing: Timing, connections: int) -> tuple[Figure, ...]:
    with ExitStack() as stack:
        for number in range(connections):
            session = Session(Plan(uri=node.uri).target, f"bench idle {number}")
            stack.callback(session.drop, politely=False)
        return (Load({}, ANYWHERE)(node, timing),)


def _bindings(kind: str, node: Node, timing: Timing, bindings: int) -> tuple[Figure, ...]:
    """A loaded pair through an exchange with so many bindings beside its own, all of one queue that gets nothing."""
    session = Session(Plan(uri=node.uri).target, "bench bindings")
    try:
        session.declare_exchange(_EXCHANGE, kind, durable=False)
        session.declare_queue(_SINK)
        # The load's own key has number 0.
        pattern = "perf.{}.*" if kind == "topic" else "perf.{}.0"
        session.bind_all(_SINK, _EXCHANGE, (pattern.format(number) for number in range(1, bindings + 1)))
        options = {"exchange": _EXCHANGE, "exchange_kind": kind, "keys": _KEYS if kind == "topic" else 1}
        return (Load(options, ANYWHERE)(node, timing),)
    finally:
        session.delete_exchange(_EXCHANGE)
        session.delete_queue(_SINK)
        session.close()


def _depth(node: Node, timing: Timing, messages: int) -> tuple[Figure, ...]:
    """Publish into a queue that holds so many persistent messages, with confirms; then take all of them out, an ack for each."""
    durable: dict[str, Any] = {"uri": node.uri, "queue": _DEEP, "durable": True, "size": DEEP_SIZE, "keep": True}
    publisher: dict[str, Any] = durable | {"consumers": 0, "persistent": True, "confirms": 1000}
    try:
        if messages:
            with Fleet(Plan(**publisher, messages=messages)) as fleet:
                fleet.run()
        published, report = _watched(node, Plan(**publisher, seconds=timing.seconds, warmup_s=timing.warmup_s))
        held = messages + report.published
        if report.left_in_queues != held:
            published = replace(published, faults=(f"{report.left_in_queues} of {held} messages were in the queue",))
        # By count, not by time: a short queue is empty before a warm-up would be over.
        consumed, report = _watched(node, Plan(**durable, publishers=0, declare_by="consumer", ack="each", prefetch=1000, messages=held))
        if report.received != held:
            consumed = replace(consumed, faults=(f"{report.received} of {held} messages came out",))
        return published, consumed
    finally:
        session = Session(Plan(uri=node.uri).target, "bench depth")
        session.delete_queue(_DEEP)
        session.close()


def _watched(node: Node, plan: Plan) -> tuple[Figure, Report]:
    """A load whose accounts the caller checks, since messages were there before it. CPU is that of the whole load, by its count."""
    watch = MemoryWatch(node)
    used_s = cpu_s(process_tree(node.pid))
    with Fleet(plan, on_progress=watch) as fleet:
        report = fleet.run()
    used_s = cpu_s(process_tree(node.pid)) - used_s
    watch.look()
    count = report.received if plan.consumers else report.published
    cpu_us = used_s / count * 1e6 if count else None
    return Figure(report.messages_per_s, cpu_us, report.limit, memory_bytes=watch.most.all_bytes), report


CURVES: Final = (
    Curve(
        "size",
        "body size (auto-ack)",
        "bytes of a body",
        (16, 128, 1024, 8192, 65_536, 262_144, 1_048_576),
        (16, 128, 1024, 8192, 65_536, 262_144, 1_048_576),
        _size,
    ),
    Curve("queues", "queues (16 B, one pair for all of them)", "queues", (1, 10, 100, 1_000, 10_000), (1, 10, 100, 1_000), _queues),
    Curve(
        "connections",
        "idle connections beside a loaded pair (16 B)",
        "idle connections",
        (1, 10, 100, 1_000, 10_000),
        (1, 10, 100, 1_000),
        _connections,
    ),
    Curve(
        "pairs", "loaded pairs (16 B, a queue for each)", "publishers, and as many consumers", (1, 2, 4, 8, 16), (1, 2, 4, 8, 16), _pairs
    ),
    *(
        Curve(
            f"bindings_{kind}",
            f"bindings of a {kind} exchange (16 B)",
            "bindings",
            (1, 10, 100, 1_000, 10_000, 100_000),
            (1, 10, 100, 1_000, 10_000),
            partial(_bindings, kind),
        )
        for kind in ("topic", "direct")
    ),
    Curve(
        "depth",
        f"depth of the queue ({DEEP_SIZE} B, persistent, confirms and acks)",
        "messages in the queue",
        (0, 1_000, 10_000, 100_000, 1_000_000, 10_000_000),
        (0, 1_000, 10_000, 100_000),
        _depth,
        parts=("publish", "consume"),
    ),
    Curve("workers", "workers (16 B, a loaded pair for each core)", "workers", tuple(range(1, _CORES + 1)), (), _cores_pairs, workers=True),
)
