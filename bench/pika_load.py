"""Load with pika, which blocks: one process of it as a program (`bench.client_load` starts them), and the row of its confirms."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import pika

from bench import disk
from bench.client_load import PREFETCH, SIZE, measured, queue_of_our_own, span
from bench.figures import Figure
from bench.load import Timing
from bench.node import Node


def confirming(share: float) -> Callable[[Node, Timing], Figure]:
    """The measuring of one pika publisher that waits for each confirm of a persistent message, `SIZE` bytes, into a durable queue.

    Its figure is the time within which `share` of the publishes were confirmed, as a multiple of the same share's write + fdatasync.
    """

    def measure(node: Node, timing: Timing) -> Figure:
        with queue_of_our_own(node, durable=True) as queue:
            before = disk.measure()
            figure = measured(node, timing, "pika_load", "confirm", queue, 1)
            reference = before + disk.measure()
        return in_disk_times(figure, figure.details.get("confirm_us"), reference, share)

    return measure


def in_disk_times(figure: Figure, confirm_us: dict[str, float] | None, reference: disk.DiskTime, share: float) -> Figure:
    """The figure whose value is the p50 or p99 (share 0.5 or 0.99) of `confirm_us` in times of the disk's own."""
    label = "p99" if share == 0.99 else "p50"
    of_disk_us = {"p50": reference.p50_us, "p99": reference.p99_us}
    value = confirm_us[label] / of_disk_us[label] if confirm_us else 0.0
    details = figure.details | {"disk_us": of_disk_us, "messages_per_s": figure.value}
    return dataclasses.replace(figure, value=value, details=details)


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
    """`publish|consume|confirm URI QUEUE`: one process of the load; tells its count as JSON."""
    what, uri, queue = sys.argv[1:]
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        channel = connection.channel()
        print(json.dumps(_WORK[what](channel, queue, *span())))


if __name__ == "__main__":
    main()
