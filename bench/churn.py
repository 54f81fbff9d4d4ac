"""`python -m bench.churn --seconds 3600`: mixed sizes come and go at constant depth, and the store's files must not grow with time.

Persistent messages of 1 B to 8 MB (each power of two as likely as the next) go through durable queues of very different pace: a busy one
turns over many times while a slow one keeps what it got between the busy one's messages, which is what tears holes into a store. Some of
what was got is acknowledged late and out of order. Every message that comes back is compared with what was sent, in order. The figure is
the size of all `data.mdb` against the bodies that are live. The tests run a shorter one (`tests/perf/test_churn.py`).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import pika
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.leveret_node import LeveretNode
from bench.node import NodeFailed

SIZE_MAX: Final = 8 * 1024 * 1024
QUEUES: Final = 6  # each half as busy as the one before
UNACKED_MAX: Final = 8
RATIO_MAX: Final = 3.0
_LOOK_EVERY_BYTES: Final = 8 * 1024 * 1024  # published between two looks at the files


class WrongMessage(Exception):
    """A message was not what was due: lost, out of order, twice, or changed."""


@dataclass(slots=True)
class Sizes:
    """Bytes of bodies that are published and not acknowledged, and of the files, now; the largest of their ratios so far."""

    live_bytes: int = 0
    file_bytes: int = 0
    ratio_max: float = 0.0


@dataclass(slots=True)
class _Lane:
    """One queue: what is in it, as (offset, size) of the block that all bodies are cut from, oldest first."""

    name: str
    waiting: deque[tuple[int, int]] = field(default_factory=deque)


class Churn:
    """A client that keeps `depth_bytes` of bodies in the node's queues, whatever it publishes. `seed` decides all of it.

    Use as a context manager. Raises pika's own errors if the broker fails, WrongMessage if it gives back what it should not.
    """

    def __init__(self, node: LeveretNode, depth_bytes: int, seed: int) -> None:
        self.sizes = Sizes()
        self.messages = 0
        self.published_bytes = 0
        self._node = node
        self._depth_bytes = depth_bytes
        self._dice = random.Random(seed)
        self._block = self._dice.randbytes(2 * SIZE_MAX)
        self._lanes = [_Lane(f"bench-churn-{number}") for number in range(QUEUES)]
        self._unacked: list[tuple[int, int]] = []  # delivery tag, size
        self._looked_bytes = 0
        self._full = False
        self._connection = pika.BlockingConnection(pika.URLParameters(node.uri + "%2F"))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()
        for lane in self._lanes:
            self._channel.queue_declare(lane.name, durable=True)

    def __enter__(self) -> Churn:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.is_open:
            self._connection.close()

    def step(self) -> None:
        """Publish one message and take as much out as came in, once the depth is reached."""
        size = min(SIZE_MAX, int(2 ** self._dice.uniform(0, SIZE_MAX.bit_length())))
        offset = self._dice.randrange(SIZE_MAX)
        lane = self._lane(self._lanes)
        body = self._block[offset : offset + size]
        self._channel.basic_publish("", lane.name, body, pika.BasicProperties(delivery_mode=2))
        lane.waiting.append((offset, size))
        self.messages += 1
        self.published_bytes += size
        self.sizes.live_bytes += size
        while self.sizes.live_bytes > self._depth_bytes:
            self._full = True
            self._take()
        if self._full and self.published_bytes - self._looked_bytes > _LOOK_EVERY_BYTES:
            self.look()

    def look(self) -> None:
        """Compare the files with what is live."""
        self._looked_bytes = self.published_bytes
        self.sizes.file_bytes = sum(file.stat().st_size for file in (self._node.data_dir / "shards").glob("*/data.mdb"))
        self.sizes.ratio_max = max(self.sizes.ratio_max, self.sizes.file_bytes / self.sizes.live_bytes)

    def drain(self) -> None:
        """Take everything that is left. Raises WrongMessage if that is less, or more."""
        while any(lane.waiting for lane in self._lanes) or self._unacked:
            self._take()
        for lane in self._lanes:
            if self._channel.basic_get(lane.name)[0] is not None:
                raise WrongMessage(f"{lane.name} holds more than was published")

    def _lane(self, lanes: list[_Lane]) -> _Lane:
        return self._dice.choices(lanes, [0.5 ** self._lanes.index(lane) for lane in lanes])[0]

    def _take(self) -> None:
        """Get a message, and acknowledge one of those that were got."""
        if filled := [lane for lane in self._lanes if lane.waiting]:
            lane = self._lane(filled)
            method, _, body = self._channel.basic_get(lane.name)
            offset, size = lane.waiting.popleft()
            if method is None:
                raise WrongMessage(f"{lane.name} is empty and should hold a message of {size:,} bytes")
            if body != self._block[offset : offset + size]:
                raise WrongMessage(f"{lane.name} gave a message of {len(body):,} bytes that is not the next one, of {size:,} bytes")
            self._unacked.append((method.delivery_tag, size))
        if len(self._unacked) > UNACKED_MAX or not filled:
            tag, size = self._unacked.pop(self._dice.randrange(len(self._unacked)))
            self._channel.basic_ack(tag)
            self.sizes.live_bytes -= size


def verify(node: LeveretNode) -> str:
    """What `leveret verify` says of the data of a node that was halted: "" if all is well."""
    told: Any = subprocess.run(
        [sys.executable, "-m", "leveret", "verify", str(node.data_dir)],
        env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "" if told.returncode == 0 else told.stdout


def main() -> None:
    """Exit codes: 0 the files stayed within the goal; 1 they did not, or the broker did something wrong; 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench.churn", description="Messages of 1 B to 8 MB at constant depth.")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long (300)")
    parser.add_argument("--depth-mb", type=float, default=200.0, help="bodies kept in the queues (200)")
    parser.add_argument("--workers", type=int, default=0, help="Leveret's workers (as many as cores)")
    parser.add_argument("--seed", type=int, default=None, help="of sizes and order; printed")
    options = parser.parse_args()
    if options.seconds <= 0 or options.depth_mb < 16 or options.workers < 0:
        parser.error("--seconds must be positive, --depth-mb at least 16, --workers not negative")
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"--seed {seed}")
    try:
        with LeveretNode(options.workers) as node:
            with Churn(node, int(options.depth_mb * 1e6), seed) as churn:
                _run(churn, options.seconds, console)
                sizes, turned_over = churn.sizes, churn.published_bytes / churn.sizes.live_bytes
                console.print(
                    f"{churn.messages:,} messages, {churn.published_bytes / 1e9:,.1f} GB: the depth of {sizes.live_bytes / 1e6:,.0f} MB "
                    f"turned over {turned_over:,.0f} times; files {sizes.file_bytes / 1e6:,.0f} MB"
                )
                churn.drain()
            node.halt()
            fault = verify(node)
    except (NodeFailed, WrongMessage, pika.exceptions.AMQPError) as error:
        console.print(str(error) or type(error).__name__, style="bold red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    if fault:
        console.print(fault, style="bold red", markup=False)
    met = sizes.ratio_max <= RATIO_MAX
    style = "green" if met else "bold red"
    console.print(
        f"files at most {sizes.ratio_max:.2f} times the live bodies, goal {RATIO_MAX:g}: {'met' if met else 'MISSED'}", style=style
    )
    sys.exit(0 if met and not fault else 1)


def _run(churn: Churn, seconds: float, console: Console) -> None:
    began_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=seconds)
        while (passed_s := time.monotonic() - began_s) < seconds:
            churn.step()
            sizes = churn.sizes
            told = f"live {sizes.live_bytes / 1e6:,.0f} MB, files {sizes.file_bytes / 1e6:,.0f} MB, at most {sizes.ratio_max:.2f} times"
            bar.update(task, completed=passed_s, description=told)
    churn.look()


if __name__ == "__main__":
    main()
