"""`python -m bench.opening`: what opening and closing a connection cost each process of the broker, in microseconds of CPU.

Connections with one channel are opened one after the other, each with its round trips, then closed politely. The row `idle` of the
side-by-side bench measures both brokers by the same function.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Final

from leveret.perf.plan import Plan
from leveret.perf.process_tree import pss_bytes
from leveret.perf.session import Session
from rich.console import Console
from rich.table import Table

from bench.leveret_node import LeveretNode
from bench.node import Node
from bench.scheduled import Scheduled

CONNECTIONS: Final = 400  # RabbitMQ opens no more than some 900 under the usual limit of 1,024 files
ROUNDS: Final = 5
REST_S: Final = 0.5
OWN_PAGES: Final = "Pss_Anon"


@dataclass(frozen=True, slots=True)
class Opening:
    """One round, each figure for one connection: CPU microseconds by process, bytes of all processes while all of them were open.

    Bytes are of pages of their own: of a file's page each counts a share, which grows when somebody else who had it mapped ends.

    opened_s: how long all of them took to open.
    """

    open_us: dict[str, float]
    close_us: dict[str, float]
    bytes_each: float
    opened_s: float

    @property
    def all_open_us(self) -> float:
        return sum(self.open_us.values())

    @property
    def all_close_us(self) -> float:
        return sum(self.close_us.values())


def one_by_one(node: Node, connections: int = CONNECTIONS, rest_s: float = REST_S) -> Opening:
    """Open so many connections with a channel each, one after the other, and close them. rest_s: for the broker before each of both."""
    sessions: list[Session] = []
    with_one = Session(Plan(uri=node.uri).target, "bench opening")  # what the first one alone costs is not per connection
    time.sleep(rest_s)  # what the node still has to do; there is no event to wait for
    try:
        bytes_before, before, began_s = pss_bytes(node.pid, OWN_PAGES), Scheduled.of(node.pid), time.monotonic()
        for number in range(connections):
            sessions.append(Session(Plan(uri=node.uri).target, f"bench opening {number}"))
        opened_s = time.monotonic() - began_s
        opened = Scheduled.of(node.pid)
        bytes_used = pss_bytes(node.pid, OWN_PAGES) - bytes_before
        time.sleep(rest_s)
        rested = Scheduled.of(node.pid)
    finally:
        for session in sessions:
            session.close()
        closed = Scheduled.of(node.pid)
        with_one.close()
    open_us, close_us = _each_us(opened.since(before), connections), _each_us(closed.since(rested), connections)
    return Opening(open_us, close_us, bytes_used / connections, opened_s)


def _each_us(ns: dict[str, int], times: int) -> dict[str, float]:
    return {name: used / times / 1000 for name, used in ns.items()}


def main() -> None:
    """Prints a table; exits with 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.opening", description="CPU of the broker to open and close a connection.")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"how many a round ({CONNECTIONS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds ({ROUNDS}); the median is told")
    parser.add_argument("--workers", type=int, default=0, help="workers (as many as cores)")
    options = parser.parse_args()
    with LeveretNode(options.workers).settle() as node:
        rounds = [one_by_one(node, options.connections) for _ in range(options.rounds)]
    table = Table("CPU us", "open", "close")
    median = statistics.median
    for name in rounds[0].open_us:
        table.add_row(name, f"{median(one.open_us[name] for one in rounds):.1f}", f"{median(one.close_us[name] for one in rounds):.1f}")
    table.add_row("all", f"{median(one.all_open_us for one in rounds):.1f}", f"{median(one.all_close_us for one in rounds):.1f}")
    Console().print(table)
    Console().print(f"memory of each, first round: {rounds[0].bytes_each / 1000:.1f} KB")


if __name__ == "__main__":
    main()
