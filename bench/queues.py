"""The queue core alone, in nanoseconds an operation: `python -m bench.queues [NAME …] [--rounds N] [--json]`.

No socket, no process: messages of C memory into `leveret.queue.queue.Queue` and out to consumers that only count. Each bench says what one
operation is. Loops are in C (`queue_loops.pyx`); a figure is the median of the rounds, with the fastest beside it.
(Not named `queue.py`: run as a script from this folder, it would stand in for the standard library's `queue`.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from leveret.queue.queue import Queue

from bench import queue_loops as loops

Bench = Callable[[], tuple[float, int]]
BENCHES: dict[str, Bench] = {}


def bench(measure: Bench) -> Bench:
    """Register under the function's name; it returns (seconds, operations)."""
    BENCHES[measure.__name__] = measure
    return measure


def queue_with(count: int = 1, **settings: object) -> tuple[Queue, list[loops.CountingConsumer]]:
    """A queue and `count` active consumers with these settings."""
    queue = Queue(1, "bench", "/")
    consumers = [loops.CountingConsumer(b"bench", **settings) for _ in range(count)]
    for consumer in consumers:
        queue.add_consumer(consumer)
        consumer.activate()
    return queue, consumers


def timed(run: Callable[[], object], operations: int) -> tuple[float, int]:
    started_ns = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started_ns) / 1e9, operations


def filled(count: int) -> tuple[Queue, loops.CountingConsumer]:
    """A queue whose one, now silent, consumer holds `count` unacked messages."""
    queue, (consumer,) = queue_with()
    loops.publish_same(queue, count)
    consumer.deactivate()
    return queue, consumer


@bench
def publish_deliver_no_ack() -> tuple[float, int]:
    """One message published and handed to the one waiting consumer, no acknowledgement."""
    queue, _ = queue_with(no_ack=True)
    return timed(lambda: loops.publish_same(queue, 2_000_000), 2_000_000)


@bench
def publish_deliver_no_ack_made() -> tuple[float, int]:
    """The same with a 16-byte message made and freed for each: the allocator's part."""
    queue, _ = queue_with(no_ack=True)
    return timed(lambda: loops.publish_new(queue, 2_000_000, 16), 2_000_000)


@bench
def publish_deliver_no_ack_10_consumers() -> tuple[float, int]:
    """Ten consumers taking turns."""
    queue, _ = queue_with(10, no_ack=True)
    return timed(lambda: loops.publish_same(queue, 2_000_000), 2_000_000)


@bench
def publish_deliver_no_ack_1000_blocked() -> tuple[float, int]:
    """One consumer that takes beside a thousand whose prefetch is full."""
    queue, _ = queue_with(1000, prefetch=1)
    loops.publish_same(queue, 1000)
    free = loops.CountingConsumer(b"free", no_ack=True)
    queue.add_consumer(free)
    free.activate()
    return timed(lambda: loops.publish_same(queue, 2_000_000), 2_000_000)


@bench
def publish_deliver_ack() -> tuple[float, int]:
    """Published, delivered, acked at once."""
    queue, (consumer,) = queue_with()
    return timed(lambda: loops.publish_and_ack(queue, consumer, 2_000_000), 2_000_000)


@bench
def publish_deliver_ack_500_unacked() -> tuple[float, int]:
    """Published, delivered, and the oldest of 500 unacked acked."""
    queue, (consumer,) = queue_with()
    return timed(lambda: loops.publish_and_ack_window(queue, consumer, 2_000_000, 500), 2_000_000)


@bench
def publish_deliver_ack_prefetch_1() -> tuple[float, int]:
    """With 100,000 waiting and prefetch 1: each ack brings the next."""
    queue, (consumer,) = queue_with(prefetch=1)
    loops.publish_same(queue, 100_000)
    return timed(lambda: loops.ack_each(queue, consumer, 1, 100_000), 100_000)


@bench
def publish_only() -> tuple[float, int]:
    """Into a ring that grows to a million entries."""
    queue, _ = queue_with(0)
    return timed(lambda: loops.publish_same(queue, 1_000_000), 1_000_000)


@bench
def drain_no_ack() -> tuple[float, int]:
    """A million waiting messages pumped to one consumer."""
    queue, _ = queue_with(0)
    loops.publish_same(queue, 1_000_000)
    consumer = loops.CountingConsumer(b"drain", no_ack=True)
    queue.add_consumer(consumer)
    consumer.activate()
    return timed(lambda: loops.pump_all(queue), 1_000_000 - 1000)


@bench
def get_no_ack() -> tuple[float, int]:
    queue, _ = queue_with(0)
    loops.publish_same(queue, 1_000_000)
    getter = loops.CountingConsumer(b"", no_ack=True)
    queue.add_getter(getter)
    return timed(lambda: loops.get_each(queue, getter, 1_000_000), 1_000_000)


@bench
def ack_multiple_100k() -> tuple[float, int]:
    """One ack for 100,000 messages; an operation is one message."""
    queue, consumer = filled(100_000)
    return timed(lambda: loops.settle_all(queue, consumer, False), 100_000)


@bench
def requeue_100k() -> tuple[float, int]:
    """100,000 given back at once before 100,000 newer ones; an operation is one message."""
    queue, consumer = filled(100_000)
    loops.publish_same(queue, 100_000)
    return timed(lambda: loops.settle_all(queue, consumer, True), 100_000)


@bench
def requeue_1m() -> tuple[float, int]:
    """The same with a million: as much for each, or it is not linear."""
    queue, consumer = filled(1_000_000)
    loops.publish_same(queue, 1_000_000)
    return timed(lambda: loops.settle_all(queue, consumer, True), 1_000_000)


@bench
def requeue_each_100k() -> tuple[float, int]:
    """100,000 given back one by one, oldest first."""
    queue, consumer = filled(100_000)
    loops.publish_same(queue, 100_000)
    return timed(lambda: loops.requeue_each(queue, consumer, 1, 100_000, 1), 100_000)


@bench
def requeue_scattered_100k() -> tuple[float, int]:
    """100,000 given back one by one in a scattered order: the heap's case."""
    queue, consumer = filled(100_000)
    loops.publish_same(queue, 100_000)
    return timed(lambda: loops.requeue_each(queue, consumer, 1, 100_000, 7919), 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.queues", description="The queue core alone, in ns an operation.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; default all: {', '.join(BENCHES)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    results = {}
    for name in options.names or BENCHES:
        rounds_ns = [seconds * 1e9 / operations for seconds, operations in (BENCHES[name]() for _ in range(options.rounds))]
        results[name] = {"median_ns": round(statistics.median(rounds_ns), 2), "min_ns": round(min(rounds_ns), 2)}
        if not options.json:
            print(f"{name:40} {results[name]['median_ns']:9.2f} ns  (fastest {results[name]['min_ns']:.2f})", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
