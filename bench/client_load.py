"""Load by clients that nobody here wrote: programs as users write them, several processes of one kind, watched for a while.

The client is the bottleneck, so what counts is the broker's CPU per message. Each process runs `python -m MODULE WHAT URI QUEUE`, connects,
says so by a line, and is told two moments of the monotonic clock (`span`). It works until the second, counts what it did between them, and
prints that as JSON (`{"count": …}`). `pika_load` and `aio_pika_load` are such modules; both publish and consume the same way, so their
figures can be compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import pika
from leveret.perf.fleet import Fleet
from leveret.perf.plan import Plan
from leveret.perf.process_tree import cpu_s, process_tree

from bench.figures import Figure
from bench.load import Timing
from bench.memory import MemoryWatch
from bench.node import Node

QUEUE: Final = "bench-clients"
SIZE: Final = 1024
PREFETCH: Final = 100
PROCESSES: Final = "LEVERET_BENCH_CLIENTS"  # how many processes of a client publish or consume, in the environment; `--clients`
PROCESSES_MAX: Final = 64
_CONSUMED_PER_S_MAX: Final = 100_000  # of all processes together: how far a queue is filled ahead of them


def processes() -> int:
    return int(os.environ.get(PROCESSES, "2"))


def publishing(module: str, node: Node, timing: Timing) -> Figure:
    """Several publishers into one queue, `SIZE` bytes each, no confirms."""
    with queue_of_our_own(node) as queue:
        return measured(node, timing, module, "publish", queue, processes())


def consuming(module: str, node: Node, timing: Timing) -> Figure:
    """Several consumers from one queue, filled beforehand by `leveret perf`, one ack for each message."""
    with queue_of_our_own(node) as queue:
        messages = int(_CONSUMED_PER_S_MAX * (timing.warmup_s + timing.seconds))
        with Fleet(Plan(uri=node.uri, consumers=0, size=SIZE, messages=messages, queue=queue, keep=True)) as fleet:
            fleet.run()
        return measured(node, timing, module, "consume", queue, processes())


@contextlib.contextmanager
def queue_of_our_own(node: Node, *, durable: bool = False) -> Iterator[str]:
    """A queue that goes away with the load."""
    with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
        connection.channel().queue_declare(QUEUE, durable=durable)
    try:
        yield QUEUE
    finally:
        with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
            connection.channel().queue_delete(QUEUE)


def measured(node: Node, timing: Timing, module: str, what: str, queue: str, count: int) -> Figure:
    """Run `count` processes of `bench.<module>` and count for `timing.seconds`. The first one's JSON is in the figure's details."""
    command = [sys.executable, "-m", f"bench.{module}", what, node.uri + "%2F", queue]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    watch = MemoryWatch(node)
    try:
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()  # connected, or ended
        begin_s = time.monotonic() + timing.warmup_s
        end_s = begin_s + timing.seconds
        for process in running:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has failed: what it told shows that
                process.stdin.write(f"{begin_s} {end_s}\n".encode())
                process.stdin.flush()
        sleep_until(begin_s)
        sampled_s, used_s = time.monotonic(), cpu_s(process_tree(node.pid))
        sleep_until(end_s)
        sampled_s, used_s = time.monotonic() - sampled_s, cpu_s(process_tree(node.pid)) - used_s
        watch.look()
        told: list[dict[str, Any]] = [json.loads(process.communicate(timeout=30.0)[0] or b"{}") for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    faults = () if all("count" in part for part in told) else (f"a process of bench.{module} failed",)
    rate = sum(part.get("count", 0) for part in told) / timing.seconds
    details = {"processes": count, "size": SIZE} | told[0]
    cpu_us = used_s / sampled_s / rate * 1e6 if rate else None
    return Figure(rate, cpu_us, "generator", faults, memory_bytes=watch.most.all_bytes, details=details)


def span() -> tuple[float, float]:
    """Of a process of the load, once it is connected: from when to when it is to count, on the monotonic clock, in seconds."""
    print("connected", flush=True)
    begin_s, end_s = sys.stdin.readline().split()
    return float(begin_s), float(end_s)


def sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))
