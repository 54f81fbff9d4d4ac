"""The link layer alone, between two processes: `python -m bench.links [NAME …] [--rounds N] [--json]`.

ENQUEUE packets through `leveret.link.link.Link` over a Unix socket, written and counted in C (`link_loops.pyx`), and control packets
through asyncio. What an operation costs is CPU of both processes together, because on a busy machine that is what a link takes away from
others; packets per second stand beside it. A figure is the median of the rounds, with the best beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop
from leveret.link.link import Hello, LinkClosed
from leveret.link.poller import Poller

from bench.link_loops import LoadLink

TURN_BYTES = 64 * 1024  # what a loaded worker writes to a link in one turn
SOCKET_BUFFER_BYTES = 1 << 20  # as the links of a node ask for


@dataclass(frozen=True, slots=True)
class Round:
    """One round: wall-clock seconds, CPU seconds of both processes, operations."""

    elapsed_s: float
    cpu_s: float
    operations: int


class Ends:
    """This process's end of the link. The other process counts what comes and answers `expect`, `load` and `used`."""

    link: LoadLink

    def on_link_open(self, link: Any) -> None:
        pass

    def on_notice(self, link: Any, verb: str, body: Any) -> None:
        pass

    def on_link_closed(self, link: Any) -> None:
        pass

    def on_request(self, link: Any, verb: str, body: Any) -> Any:
        raise AssertionError(f"the other side asks nothing, not {verb!r}")

    async def send(self, count: int) -> None:
        """Send `count` packets, a turn's worth at a time, as fast as the other side takes them."""
        loop = asyncio.get_running_loop()
        while count:
            count -= self.link.send(count, TURN_BYTES)
            if self.link.is_congested:
                drained = loop.create_future()
                self.link.drained = lambda waiting=drained: waiting.done() or waiting.set_result(None)
                await drained
            else:
                await asyncio.sleep(0)


class Counter:
    """The other process's side: what it is asked for, and the future of all packets expected."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_link_open(self, link: LoadLink) -> None:
        pass

    def on_notice(self, link: LoadLink, verb: str, body: Any) -> None:
        pass

    def on_link_closed(self, link: LoadLink) -> None:
        self.ended.set_result(None)

    def on_request(self, link: LoadLink, verb: str, body: Any) -> Any:
        if verb == "used":
            return own_cpu_s()
        if verb == "echo":
            return body
        assert verb == "expect"
        all_came: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        link.count = 0
        link.expected = body
        link.all_came = lambda: all_came.set_result(body)
        return all_came


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def timed(ends: Ends, operations: int, work: Callable[[], Awaitable[object]]) -> Round:
    cpu_s = own_cpu_s() + await ends.link.request("used")
    began_ns = time.perf_counter_ns()
    await work()
    elapsed_s = (time.perf_counter_ns() - began_ns) / 1e9
    return Round(elapsed_s, own_cpu_s() + await ends.link.request("used") - cpu_s, operations)


async def one_way(ends: Ends, body_size: int, count: int) -> Round:
    ends.link.load(body_size)

    async def work() -> None:
        all_came = ends.link.ask("expect", count)
        await ends.send(count)
        await all_came

    return await timed(ends, count, work)


async def enqueue_16(ends: Ends) -> Round:
    """One ENQUEUE packet with a 16-byte message, 64 KB a turn."""
    return await one_way(ends, 16, 2_000_000)


async def enqueue_1k(ends: Ends) -> Round:
    """The same with 1 KB."""
    return await one_way(ends, 1024, 400_000)


async def enqueue_64k(ends: Ends) -> Round:
    """The same with 64 KB."""
    return await one_way(ends, 65_536, 20_000)


async def request_one(ends: Ends) -> Round:
    """One control request answered at once, one at a time: a round trip."""

    async def work() -> None:
        for _ in range(10_000):
            await ends.link.request("echo", {"queue": "name"})

    return await timed(ends, 10_000, work)


async def request_100(ends: Ends) -> Round:
    """The same with a hundred under way."""

    async def work() -> None:
        for _ in range(200):
            await asyncio.gather(*(ends.link.ask("echo", {"queue": "name"}) for _ in range(100)))

    return await timed(ends, 20_000, work)


BENCHES: dict[str, Callable[[Ends], Awaitable[Round]]] = {
    bench.__name__: bench for bench in (enqueue_16, enqueue_1k, enqueue_64k, request_one, request_100)
}


def make_link(descriptor: int, kind: str, receiver: Any) -> LoadLink:
    poller = Poller(asyncio.get_running_loop())
    poller.attach()
    return LoadLink(poller, socket.socket(fileno=descriptor), Hello(kind, 0, os.getpid()), receiver)


async def count_until_closed(descriptor: int) -> None:
    """The other process."""
    counter = Counter()
    link = make_link(descriptor, "router", counter)
    link.load(0)
    await counter.ended


async def run(descriptor: int, names: list[str], rounds: int) -> dict[str, list[Round]]:
    """The rounds of each named bench, over the link to the other process."""
    ends = Ends()
    ends.link = make_link(descriptor, "worker", ends)
    try:
        await ends.link.opened
        return {name: [await BENCHES[name](ends) for _ in range(rounds)] for name in names}
    finally:
        ends.link.close("the bench is over")


def run_beside_other(names: list[str], rounds: int) -> dict[str, list[Round]]:
    """Start the other process and run the named benches with it. Raises LinkClosed when it goes."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    command = [sys.executable, "-m", "bench.links", "--count-on", str(theirs.fileno())]
    other = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    try:
        return uvloop.run(run(ours.detach(), names, rounds))
    finally:
        other.wait(10.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.links", description="The link layer alone: CPU of both processes an operation.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; default all: {', '.join(BENCHES)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--count-on", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count_on is not None:
        uvloop.run(count_until_closed(options.count_on))
        return
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    results = {}
    try:
        measured = run_beside_other(options.names or list(BENCHES), options.rounds)
    except LinkClosed as error:
        sys.exit(f"the other process has gone: {error}")
    for name, rounds in measured.items():
        cpu_ns = [one.cpu_s * 1e9 / one.operations for one in rounds]
        per_s = [one.operations / one.elapsed_s for one in rounds]
        results[name] = {
            "median_ns": round(statistics.median(cpu_ns), 2),
            "min_ns": round(min(cpu_ns), 2),
            "median_per_s": round(statistics.median(per_s)),
        }
        if not options.json:
            told = results[name]
            print(f"{name:40} {told['median_ns']:9.2f} ns  (fastest {told['min_ns']:.2f})  {told['median_per_s']:>12,}/s", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
