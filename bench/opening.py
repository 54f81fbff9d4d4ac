"""`python -m bench.opening`: what opening and closing a connection cost each process of the broker, in microseconds of CPU.

Connections with one channel are opened one after the other, each with its round trips, then closed politely. Times are the scheduler's own
nanoseconds (`/proc/<pid>/task/*/schedstat`): the clock ticks of `/proc/<pid>/stat` are too coarse for a hundred milliseconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Final

from leveret.perf.plan import Plan
from leveret.perf.process_tree import process_tree
from leveret.perf.session import Session
from rich.console import Console
from rich.table import Table

from bench.leveret_node import LeveretNode
from bench.node import Node

CONNECTIONS: Final = 400
REST_S: Final = 0.5


def cpu_ns(root_pid: int) -> dict[str, int]:
    """Nanoseconds of CPU that each process of the tree has used, by name; several of one name are told apart by number."""
    used: dict[str, int] = {}
    for usage in process_tree(root_pid):
        tasks = Path(f"/proc/{usage.pid}/task").glob("*/schedstat")
        name = usage.name.removeprefix("leveret.")
        number = sum(1 for other in used if other.partition(" ")[0] == name)
        used[f"{name} {number}"] = sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks)
    return used


def spent_us(before: dict[str, int], after: dict[str, int], times: int) -> dict[str, float]:
    """Microseconds of each process for each of `times` operations."""
    return {name: (after[name] - before[name]) / times / 1000 for name in after if name in before}


def one_by_one(node: Node, connections: int) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds by process of an open with a channel, and of a close."""
    sessions: list[Session] = []
    with_one = Session(Plan(uri=node.uri).target, "bench opening")  # what the first one alone costs is not per connection
    time.sleep(REST_S)  # what the node still has to do; there is no event to wait for
    try:
        before = cpu_ns(node.pid)
        for number in range(connections):
            sessions.append(Session(Plan(uri=node.uri).target, f"bench opening {number}"))
        opened = cpu_ns(node.pid)
        time.sleep(REST_S)
        rested = cpu_ns(node.pid)
    finally:
        for session in sessions:
            session.close()
        closed = cpu_ns(node.pid)
        with_one.close()
    return spent_us(before, opened, connections), spent_us(rested, closed, connections)


def main() -> None:
    """Prints a table; exits with 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.opening", description="CPU of the broker to open and close a connection.")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"how many a round ({CONNECTIONS})")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5); the median is told")
    parser.add_argument("--workers", type=int, default=0, help="workers (as many as cores)")
    options = parser.parse_args()
    with LeveretNode(options.workers) as node:
        rounds = [one_by_one(node, options.connections) for _ in range(options.rounds)]
    table = Table("CPU us", "open", "close")
    for name in rounds[0][0]:
        table.add_row(name, *(f"{median(sorted(part[name] for part in parts)):.1f}" for parts in zip(*rounds, strict=True)))
    table.add_row("all", *(f"{median(sorted(sum(part.values()) for part in parts)):.1f}" for parts in zip(*rounds, strict=True)))
    Console().print(table)


def median(ordered: list[float]) -> float:
    return ordered[len(ordered) // 2]


if __name__ == "__main__":
    main()
