"""`python -m bench.depth`: a deep durable queue (ten million messages): memory while it fills and stands, time to be back, drain rate.

Four questions, each with its goal: how much memory all processes use together, how soon after the start of the process the first message
is got from the whole queue, how fast it drains, and how soon a node with 1,000 durable queues is back. The tests run a smaller one
(`tests/perf/test_depth.py`) through the same functions, where a figure is held against the number of messages. RabbitMQ is not asked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pika
from leveret.perf.fleet import Fleet
from leveret.perf.plan import Plan
from leveret.perf.process_tree import cpu_s, process_tree
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from bench.figures import Figure
from bench.leveret_node import LeveretNode
from bench.memory import Memory, MemoryWatch
from bench.node import NodeFailed

QUEUE: Final = "bench-depth"
MEMORY_MAX: Final = 500e6
RESTART_MAX_S: Final = 3.0
QUEUES_RESTART_MAX_S: Final = 1.0

Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Filled:
    """messages/s of confirmed publishes; CPU microseconds of the broker per message; the most memory meanwhile, and what stays."""

    per_s: float
    cpu_us: float
    most: Memory
    after: Memory


@dataclass(frozen=True, slots=True)
class Restarted:
    """Seconds from the command to the first handshake answered, and to the first message got (None: there was none to get)."""

    ready_s: float
    first_message_s: float | None
    memory: Memory


@dataclass(frozen=True, slots=True)
class Drained:
    """messages/s that a consumer with an ack for each was given in the measured time; the broker's CPU per message then; the most memory.

    received, left: of the whole queue, for what is left after the measured time is drained too (within 70 s).
    """

    per_s: float
    cpu_us: float | None
    most: Memory
    received: int
    left: int | None


def fill(node: LeveretNode, messages: int, size: int, told: Told = lambda _: None) -> Filled:
    """Publish so many persistent messages of `size` bytes into the durable queue and wait for all confirms; `told(published so far)`.

    Raises LoadFailed, BrokerRefused or BrokerUnreachable. A message that is missing afterwards is a RuntimeError.
    """
    watch = MemoryWatch(node, lambda progress: told(progress.published))
    plan = Plan(
        uri=node.uri, consumers=0, size=size, messages=messages, queue=QUEUE, durable=True, persistent=True, confirms=1000, keep=True
    )
    began_s, used_s = time.monotonic(), cpu_s(process_tree(node.pid))
    with Fleet(plan, on_progress=watch) as fleet:
        report = fleet.run()
    took_s, used_s = time.monotonic() - began_s, cpu_s(process_tree(node.pid)) - used_s
    if report.confirmed != messages or report.faults:
        raise RuntimeError(f"{report.confirmed:,} of {messages:,} messages were confirmed. {' '.join(report.faults)}")
    return Filled(messages / took_s, used_s / messages * 1e6, watch.most, Memory.of(node))


def restart(node: LeveretNode, *, kill: bool = False, cold: bool = False, queue: str | None = QUEUE) -> Restarted:
    """Stop the node or kill it, start it again and get one message of `queue`, which goes back. cold: nothing of its files in memory."""
    node.halt(kill=kill)
    if cold:
        for file in node.data_dir.rglob("*.mdb"):
            forget_pages(file)
    began_s = time.monotonic()
    node.start()
    first_s = None
    if queue is not None:
        with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
            method, _, _ = connection.channel().basic_get(queue)
            first_s = time.monotonic() - began_s if method is not None else None
    return Restarted(node.start_s, first_s, Memory.of(node))


def ready(node: LeveretNode, wanted: int) -> int:
    """How many messages wait in the queue: `wanted`, or what is there after 10 s. A message that was got comes back a little later."""
    deadline_s = time.monotonic() + 10.0
    with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
        channel = connection.channel()
        while True:
            count: int = channel.queue_declare(QUEUE, passive=True).method.message_count
            if count == wanted or time.monotonic() > deadline_s:
                return count
            connection.sleep(0.05)


def forget_pages(file: Path) -> None:
    """Have the kernel drop what it keeps of a file in memory."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def drain(node: LeveretNode, seconds: float, size: int, told: Told = lambda _: None) -> Drained:
    """Consume, one ack for each message, prefetch 1,000, and measure for so long."""
    watch = MemoryWatch(node, lambda progress: told(progress.received))
    plan = Plan(
        uri=node.uri,
        publishers=0,
        ack="each",
        prefetch=1000,
        size=size,
        queue=QUEUE,
        durable=True,
        seconds=seconds,
        warmup_s=0.2,
        keep=True,
    )
    with Fleet(plan, broker_pid=node.pid, on_progress=watch) as fleet:
        report = fleet.run()
    return Drained(report.received_per_s, report.broker_cpu_us, watch.most, report.received, report.left_in_queues)


def figure(workers: int, durability: str, messages: int, size: int = 100, restarts: int = 3) -> Figure:
    """On a node of its own: seconds from a killed node's start to the first message of the filled queue, and the most memory in all that.

    The filling is in the details. A message that is missing after the kills is a fault. Raises what `fill` raises, and NodeFailed.
    """
    with LeveretNode(workers, durability) as node:
        filled = fill(node, messages, size)
        back = [restart(node, kill=True, cold=True) for _ in range(restarts)]
        left = ready(node, messages)
    most = filled.most
    for one in back:
        most |= one.memory
    faults = () if left == messages else (f"{left:,} of {messages:,} confirmed messages were there after the kills",)
    seconds = statistics.median(one.first_message_s or float("inf") for one in back)
    details = {"messages": messages, "size": size, "filled": asdict(filled), "restarts": [asdict(one) for one in back]}
    return Figure(seconds, filled.cpu_us, faults=faults, memory_bytes=most.all_bytes, details=details)


def many_queues(node: LeveretNode, count: int) -> None:
    """Declare so many durable queues with one persistent message in each."""
    with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for number in range(count):
            channel.queue_declare(f"{QUEUE}-{number}", durable=True)
            channel.basic_publish("", f"{QUEUE}-{number}", b"x", pika.BasicProperties(delivery_mode=2))


def main() -> None:
    """Exit codes: 0 every goal is met; 1 one is missed, or the broker failed; 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench.depth", description="A deep durable queue: memory, restart, drain.")
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--size", type=int, default=100, help="bytes of a body (100)")
    parser.add_argument("--drain-s", type=float, default=10.0, help="how long to drain (10)")
    parser.add_argument("--rounds", type=int, default=3, help="restarts of each kind (3)")
    parser.add_argument("--workers", type=int, default=0, help="Leveret's workers (as many as cores)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    if min(options.messages, options.rounds) < 1 or options.size < 0 or options.workers < 0 or options.drain_s <= 0:
        parser.error("counts and times are positive")
    console = Console(highlight=False)
    try:
        told = _measure(options, console)
    except NodeFailed as error:
        console.print(str(error), style="bold red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json:
        options.json.write_text(json.dumps(told, indent=2, default=asdict) + "\n")
    sys.exit(0 if all(told["met"].values()) else 1)


def _measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    met: dict[str, bool] = {}

    def show(what: str, value: str, goal: str = "", reached: bool | None = None) -> None:
        if reached is not None:
            met[what] = reached
        mark = "" if reached is None else f"[green]met[/] ({goal})" if reached else f"[bold red]MISSED[/] ({goal})"
        console.print(f"{what:<34} {value}  {mark}", soft_wrap=True)

    with LeveretNode(options.workers) as node:
        with Bar(TextColumn("filling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=True) as bar:
            task = bar.add_task("", total=options.messages)
            filled = fill(node, options.messages, options.size, lambda count: bar.update(task, completed=count))
        show("filled, with confirms", f"{filled.per_s:,.0f} msg/s, {filled.cpu_us:.2f} us of CPU a message")
        show("memory while filling, at most", str(filled.most), f"<= {MEMORY_MAX / 1e6:.0f} MB", filled.most.own_bytes <= MEMORY_MAX)
        show("memory with the queue filled", str(filled.after), f"<= {MEMORY_MAX / 1e6:.0f} MB", filled.after.own_bytes <= MEMORY_MAX)
        restarts: dict[str, list[Restarted]] = {}
        for kind, asked in {
            "stopped": {},
            "killed": {"kill": True},
            "killed, files not in memory": {"kill": True, "cold": True},
        }.items():
            restarts[kind] = [restart(node, **asked) for _ in range(options.rounds)]
            first_s = [one.first_message_s or float("inf") for one in restarts[kind]]
            ready_s = statistics.median(one.ready_s for one in restarts[kind])
            middle_s = statistics.median(first_s)
            value = f"{ready_s:.2f} s to a handshake, {middle_s:.2f} s to the first message, then {restarts[kind][-1].memory}"
            show(f"back after it was {kind}", value, f"<= {RESTART_MAX_S:g} s", middle_s <= RESTART_MAX_S)
        drained = drain(node, options.drain_s, options.size)
        show("drained wholly", f"{drained.received:,} messages", "every one", (drained.received, drained.left) == (options.messages, 0))
        show("drained", f"{drained.per_s:,.0f} msg/s, {drained.cpu_us or 0:.2f} us of CPU a message, at most {drained.most}")
        on_disk = sum(file.stat().st_blocks * 512 for file in node.data_dir.rglob("*.mdb"))
        show("on the disk", f"{on_disk / 1e6:,.0f} MB")
    with LeveretNode(options.workers) as node:
        many_queues(node, 1000)
        queues_s = [restart(node, queue=f"{QUEUE}-0").first_message_s or float("inf") for _ in range(options.rounds)]
        middle_s = statistics.median(queues_s)
        show("back with 1,000 durable queues", f"{middle_s:.2f} s", f"<= {QUEUES_RESTART_MAX_S:g} s", middle_s <= QUEUES_RESTART_MAX_S)
    return {
        "messages": options.messages,
        "size": options.size,
        "filled": filled,
        "restarts": restarts,
        "drained": drained,
        "on_disk_bytes": on_disk,
        "queues_restart_s": queues_s,
        "met": met,
    }


if __name__ == "__main__":
    main()
