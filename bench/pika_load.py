"""Load with pika, in several processes: programs as users write them, by a client that nobody here wrote.

pika is the bottleneck, so what counts is the broker's CPU per message. Each process tells what it did in the measured time, which begins
and ends for all at the same moments of the monotonic clock.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pika
from leveret.perf.fleet import Fleet
from leveret.perf.plan import Plan
from leveret.perf.process_tree import cpu_s, process_tree

from bench import disk
from bench.figures import Figure

if TYPE_CHECKING:
    from bench.node import Node
    from bench.rows import Timing

PROCESSES: Final = 2
SIZE: Final = 1024
PREFETCH: Final = 100
_CONSUMED_PER_S_MAX: Final = 40_000  # of both processes together: how far a queue is filled ahead of them
_CONNECT_S: Final = 1.5


def publishing(node: Node, timing: Timing) -> Figure:
    """`PROCESSES` pika publishers into one queue, `SIZE` bytes each, no confirms."""
    queue = "bench-pika-publish"
    _declare(node, queue)
    try:
        return _measured(node, timing, "publish", queue)
    finally:
        _delete(node, queue)


def consuming(node: Node, timing: Timing) -> Figure:
    """`PROCESSES` pika consumers from one queue, filled beforehand by `leveret perf`, one ack for each message."""
    queue = "bench-pika-consume"
    _declare(node, queue)
    try:
        messages = int(_CONSUMED_PER_S_MAX * (timing.warmup_s + timing.seconds + _CONNECT_S))
        with Fleet(Plan(uri=node.uri, consumers=0, size=SIZE, messages=messages, queue=queue, keep=True)) as fleet:
            fleet.run()
        return _measured(node, timing, "consume", queue)
    finally:
        _delete(node, queue)


def confirming(share: float) -> Callable[[Node, Timing], Figure]:
    """The measuring of one pika publisher that waits for each confirm of a persistent message, `SIZE` bytes, into a durable queue.

    Its figure is the time within which `share` of the publishes were confirmed, as a multiple of the same share's write + fdatasync.
    """

    def measure(node: Node, timing: Timing) -> Figure:
        queue = "bench-pika-confirm"
        _declare(node, queue, durable=True)
        try:
            before = disk.measure()
            figure = _measured(node, timing, "confirm", queue, processes=1)
            reference = before + disk.measure()
        finally:
            _delete(node, queue)
        return in_disk_times(figure, figure.details["confirm_us"], reference, share)

    return measure


def in_disk_times(figure: Figure, confirm_us: dict[str, float] | None, reference: disk.DiskTime, share: float) -> Figure:
    """The figure whose value is the p50 or p99 (share 0.5 or 0.99) of `confirm_us` in times of the disk's own."""
    label = "p99" if share == 0.99 else "p50"
    of_disk_us = {"p50": reference.p50_us, "p99": reference.p99_us}
    value = confirm_us[label] / of_disk_us[label] if confirm_us else 0.0
    details = figure.details | {"disk_us": of_disk_us, "messages_per_s": figure.value}
    return dataclasses.replace(figure, value=value, details=details)


def _measured(node: Node, timing: Timing, what: str, queue: str, processes: int = PROCESSES) -> Figure:
    begin_s = time.monotonic() + _CONNECT_S + timing.warmup_s
    end_s = begin_s + timing.seconds
    command = [sys.executable, "-m", "bench.pika_load", what, node.uri + "%2F", queue, str(begin_s), str(end_s)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        _sleep_until(begin_s)
        sampled_s, used_s = time.monotonic(), cpu_s(process_tree(node.pid))
        _sleep_until(end_s)
        sampled_s, used_s = time.monotonic() - sampled_s, cpu_s(process_tree(node.pid)) - used_s
        told: list[dict[str, Any]] = [json.loads(process.communicate(timeout=30.0)[0] or b"{}") for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    faults = () if all("count" in part for part in told) else ("a pika process failed",)
    rate = sum(part.get("count", 0) for part in told) / timing.seconds
    details: dict[str, Any] = {"processes": processes, "size": SIZE, "confirm_us": told[0].get("confirm_us")}
    return Figure(rate, used_s / sampled_s / rate * 1e6 if rate else None, "generator", faults, details)


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))


def _declare(node: Node, queue: str, *, durable: bool = False) -> None:
    with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
        connection.channel().queue_declare(queue, durable=durable)


def _delete(node: Node, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
        connection.channel().queue_delete(queue)


def _publish(channel: Any, queue: str, begin_s: float, end_s: float) -> dict[str, Any]:
    body = bytes(SIZE)
    properties = pika.BasicProperties(delivery_mode=1)
    count = 0
    while (now_s := time.monotonic()) < end_s:
        for _ in range(20):
            channel.basic_publish("", queue, body, properties)
        if now_s >= begin_s:
            count += 20
    return {"count": count}


def _confirm(channel: Any, queue: str, begin_s: float, end_s: float) -> dict[str, Any]:
    body = bytes(SIZE)
    properties = pika.BasicProperties(delivery_mode=2)
    channel.confirm_delivery()
    taken_us = []
    while (now_s := time.perf_counter()) < end_s:
        channel.basic_publish("", queue, body, properties)  # returns when the broker has confirmed, raises if it has refused
        if now_s >= begin_s:
            taken_us.append((time.perf_counter() - now_s) * 1e6)
    taken_us.sort()
    if not taken_us:
        return {"count": 0}
    return {"count": len(taken_us), "confirm_us": {"p50": taken_us[len(taken_us) // 2], "p99": taken_us[int(len(taken_us) * 0.99)]}}


def _consume(channel: Any, queue: str, begin_s: float, end_s: float) -> dict[str, Any]:
    count = 0

    def on_message(channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        nonlocal count
        channel.basic_ack(method.delivery_tag)
        now_s = time.monotonic()
        if now_s >= end_s:
            channel.stop_consuming()
        elif now_s >= begin_s:
            count += 1

    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(queue, on_message)
    # An emptied queue calls nobody back: stop then too, and let the count show it.
    channel.connection.call_later(max(0.0, end_s - time.monotonic()), channel.stop_consuming)
    channel.start_consuming()
    return {"count": count}


_WORK: Final = {"publish": _publish, "consume": _consume, "confirm": _confirm}


def main() -> None:
    """`publish|consume|confirm URI QUEUE BEGIN_S END_S`: one process of the load; tells its count as JSON."""
    what, uri, queue, begin_s, end_s = sys.argv[1:]
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        print(json.dumps(_WORK[what](connection.channel(), queue, float(begin_s), float(end_s))))


if __name__ == "__main__":
    main()
