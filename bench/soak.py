"""`python -m bench.soak --seconds 1200`: full load with churn, and memory that must not grow with time. `make soak`.

Two loads by `leveret perf` (one steady, one that changes every ten seconds: durable, fan-out, large bodies, acks), and clients that come
and go with channels, exchanges, queues, bindings, consumers and unacked messages, half of them without a goodbye; beside them somebody
reads the HTTP API. Rates are as high as consumers that share two cores with all of this keep up with: a queue that fills is no leak.

Every second the memory of each of the node's processes is read from `/proc/<pid>/smaps_rollup`: anonymous pages (the heap) and pages of
files (LMDB's maps, libraries), of which a shared one counts a share. After the warm-up the heap must stay flat: a straight line through it
rises by at most 3 % over the run, and the second half's highest point lies at most 3 % above the first's. For the reader the table tells
the line through each minute's lowest point too: a heap is a saw between what is in use and what bursts need, and its lows are the former.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pika
from leveret.perf.process_tree import cpu_s, process_tree
from pika.exceptions import AMQPError, ChannelClosedByBroker
from rich.console import Console
from rich.table import Table

from bench.leveret_node import LeveretNode
from bench.node import NodeFailed

GROWTH_MAX_PERCENT: Final = 3.0
NOISE_BYTES: Final = 512 * 1024  # of a process: growth below is a few more pages of malloc's, whatever per cent of a small process it is
WARMUP_SHARE: Final = 0.2
SMOOTHED_S: Final = 15  # a moment's queue is no growth: a point is the median of so many seconds
LOWS_S: Final = 60  # in so long freed memory has gone back several times
SAMPLE_EVERY_S: Final = 1.0
CHURNERS: Final = 2
STEADY: Final = ("-e", "topic", "--ack", "each", "--prefetch", "500", "--rate", "30000")
CHANGING: Final = (
    ("--durable", "--persistent", "--confirms", "1000", "--ack", "each", "--prefetch", "500", "-s", "1024", "--rate", "10000"),
    ("-e", "fanout", "--queues", "10", "-y", "2", "-s", "256", "--rate", "2000"),
    ("-s", "65536", "--confirms", "100", "--ack", "each", "--prefetch", "50", "--rate", "500"),
    ("-x", "2", "-y", "2", "--queues", "2", "--ack", "multiple:50", "--prefetch", "500", "--rate", "20000"),
)
CHANGE_EVERY_S: Final = 10.0
_LIMIT_ANON: Final = "Pss_Anon"
_LIMIT_FILE: Final = "Pss_File"


# --- what is measured


@dataclass(slots=True)
class Series:
    """One process, a value each second: bytes of its heap, and of pages of files."""

    anon: list[int] = field(default_factory=list)
    file: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one series after the warm-up. first_bytes, last_bytes: the straight line's ends; peaks_percent: second half's highest point
    against the first's."""

    first_bytes: float
    last_bytes: float
    peaks_percent: float

    @property
    def percent(self) -> float:
        return 100.0 * (self.last_bytes - self.first_bytes) / self.first_bytes

    @property
    def is_growing(self) -> bool:
        if self.last_bytes - self.first_bytes <= NOISE_BYTES:
            return False
        return self.percent > GROWTH_MAX_PERCENT or self.peaks_percent > GROWTH_MAX_PERCENT


def growth(values: Sequence[float], smoothed: int = SMOOTHED_S) -> Growth:
    """The growth of a series that has at least two points of `smoothed` values. ValueError for a shorter one."""
    points = [statistics.median(values[at : at + smoothed]) for at in range(0, len(values) - smoothed + 1, smoothed)]
    if len(points) < 2:
        raise ValueError(f"{len(values)} values are too few to see growth in")
    line = statistics.linear_regression(range(len(points)), points)
    half = len(points) // 2
    peaks = 100.0 * (max(points[half:]) / max(points[:half]) - 1.0)
    return Growth(line.intercept, line.intercept + line.slope * (len(points) - 1), peaks)


def lows_percent(values: Sequence[float], over: int = LOWS_S) -> float | None:
    """How much the line through the lowest of each `over` values rises over the series; None if it is too short for two of them."""
    lows = [min(values[at : at + over]) for at in range(0, len(values) - over + 1, over)]
    if len(lows) < 2:
        return None
    line = statistics.linear_regression(range(len(lows)), lows)
    return 100.0 * line.slope * (len(lows) - 1) / line.intercept


def parts_of(pid: int) -> tuple[int, int]:
    """Bytes of anonymous and of file pages. ProcessLookupError when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    lines = {line.partition(":")[0]: line.split() for line in text.splitlines()}
    return int(lines[_LIMIT_ANON][1]) * 1024, int(lines[_LIMIT_FILE][1]) * 1024


class Watch:
    """The memory of every process of a node, by name. A process that ends while it is watched is a fault."""

    def __init__(self, node: LeveretNode) -> None:
        self.series: dict[str, Series] = {}
        self.faults: list[str] = []
        numbers: dict[str, Iterator[int]] = {}
        self._pids: dict[int, str] = {}
        for usage in process_tree(node.pid):
            kind = usage.name.removeprefix("leveret.")
            kind = "supervisor" if kind == "leveret" else kind
            name = f"{kind} {next(numbers.setdefault(kind, itertools.count()))}" if kind == "worker" else kind
            self._pids[usage.pid] = name
            self.series[name] = Series()

    def look(self) -> None:
        """One sample of all."""
        for pid, name in self._pids.items():
            try:
                anon, file = parts_of(pid)
            except ProcessLookupError:
                self.faults.append(f"{name} (pid {pid}) has ended")
                return
            self.series[name].anon.append(anon)
            self.series[name].file.append(file)

    def without_warmup(self) -> dict[str, Series]:
        """Of each process, and `all` of them together."""
        count = min(len(series.anon) for series in self.series.values())
        skipped = int(count * WARMUP_SHARE)
        kept = {name: Series(series.anon[skipped:count], series.file[skipped:count]) for name, series in self.series.items()}
        anons, files = ([getattr(series, part) for series in kept.values()] for part in ("anon", "file"))
        kept["all"] = Series([sum(each) for each in zip(*anons, strict=True)], [sum(each) for each in zip(*files, strict=True)])
        return kept


# --- clients that come and go


class Churner:
    """One client after the other. `seed` decides what each does. Everything it makes goes: by deletion, by its rules or with its maker."""

    def __init__(self, uri: str, seed: int) -> None:
        self._parameters = pika.URLParameters(uri)
        self._dice = random.Random(seed)
        self._name = f"soak-{seed}"
        self.clients = 0

    def step(self) -> None:
        """One client's life."""
        self.clients += 1
        connection = pika.BlockingConnection(self._parameters)
        channels = [connection.channel() for _ in range(self._dice.randrange(1, 6))]
        for channel in channels:
            self._dice.choice((self._work, self._work, self._work, self._err))(channel)
        if self._dice.random() < 0.5:
            connection.close()
        else:
            self._hang_up(connection)

    def _work(self, channel: Any) -> None:
        """Exchange, queues, bindings, messages, a consumer, and settled, given back and unsettled deliveries."""
        dice = self._dice
        exchange = f"{self._name}-x-{self.clients}-{dice.randrange(1 << 30)}"
        channel.exchange_declare(exchange, dice.choice(("direct", "topic", "fanout")), auto_delete=True)
        if dice.random() < 0.5:
            channel.confirm_delivery()
        queues = [self._queue(channel) for _ in range(dice.randrange(1, 4))]
        for queue in queues:
            for number in range(dice.randrange(1, 8)):
                channel.queue_bind(queue, exchange, f"key.{number}.{self.clients}")
        properties = pika.BasicProperties(delivery_mode=dice.choice((1, 2)), headers={"number": self.clients})
        for _ in range(dice.randrange(1, 30)):
            body = bytes(int(2 ** dice.uniform(0, 17)))
            channel.basic_publish(exchange, f"key.{dice.randrange(8)}.{self.clients}", body, properties)
        channel.basic_qos(prefetch_count=dice.choice((0, 1, 50)))
        taken = []
        tag = channel.basic_consume(queues[0], lambda _channel, method, *_: taken.append(method.delivery_tag))
        channel.connection.process_data_events(0)
        for delivery_tag in taken:
            dice.choice((channel.basic_ack, channel.basic_ack, channel.basic_nack, lambda _tag: None))(delivery_tag)
        for queue in queues[1:]:
            channel.basic_get(queue, auto_ack=True)
        if dice.random() < 0.5:
            channel.basic_cancel(tag)
        for queue in queues:
            channel.queue_delete(queue)

    def _queue(self, channel: Any) -> str:
        """Of one of the ways in which a queue can go by itself, if its maker dies before it deletes it."""
        name = f"{self._name}-q-{self._dice.randrange(1 << 40)}"
        kind: dict[str, Any] = self._dice.choice(
            (
                {"exclusive": True},
                {"durable": True, "arguments": {"x-expires": 5000}},
                {"arguments": {"x-expires": 5000, "x-max-length": 10}},
            )
        )
        channel.queue_declare(name, **kind)
        return name

    def _err(self, channel: Any) -> None:
        """What closes a channel."""
        with contextlib.suppress(ChannelClosedByBroker):
            channel.queue_declare(f"{self._name}-missing", passive=True)

    def _hang_up(self, connection: Any) -> None:
        """As a client that is killed: no close, just a socket that ends."""
        raw = connection._impl._transport._sock if hasattr(connection._impl, "_transport") else None
        if isinstance(raw, socket.socket):
            raw.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(AMQPError):
            connection.close()


def churn_until(uri: str, seed: int, end_s: float) -> int:
    """Clients until that moment of the monotonic clock; how many there were."""
    churner = Churner(uri, seed)
    while time.monotonic() < end_s:
        churner.step()
    return churner.clients


# --- the run


class Load:
    """A `leveret perf` process, and after its end the next. Its figures are looked at for faults."""

    def __init__(self, node: LeveretNode, seconds: Callable[[], float], kinds: Sequence[Sequence[str]]) -> None:
        self.received = 0
        self.faults: list[str] = []
        self._node = node
        self._seconds = seconds
        self._kinds = itertools.cycle(kinds)
        self._process: subprocess.Popen[str] | None = None

    def look(self) -> None:
        """Start it, or the next one, if there is none and time for one."""
        if self._process is not None and self._process.poll() is None:
            return
        self.take_in()
        seconds = self._seconds()
        if seconds < 2.0:
            return
        command = [sys.executable, "-m", "leveret", "perf", "--uri", self._node.uri, "--quiet", "--json", "-", "-t", f"{seconds:.0f}"]
        self._process = subprocess.Popen(
            [*command, *next(self._kinds)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
        )

    def take_in(self) -> None:
        """What the process that has ended, or ends now, has told."""
        if self._process is None:
            return
        process, self._process = self._process, None
        told, _ = process.communicate(timeout=60.0)
        if process.returncode:
            self.faults.append(f"leveret perf ended with {process.returncode}: {told[-500:].strip()}")
            return
        self.received += json.loads(told[told.index("{") :])["counts"]["received"]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def soak(node: LeveretNode, seconds: float, seed: int, console: Console) -> tuple[Watch, list[str]]:
    """Load the node for so long; what was seen, and what went wrong beside it, in sentences."""
    read_api(node, "overview")  # the management process answers, so all of them are there
    end_s = time.monotonic() + seconds
    watch = Watch(node)
    loads = [
        Load(node, lambda: end_s - time.monotonic(), [STEADY]),
        Load(node, lambda: min(CHANGE_EVERY_S, end_s - time.monotonic()), CHANGING),
    ]
    churners = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.soak", "--churn", node.uri + "%2F", "--seed", str(seed + number), "--until", str(end_s)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(CHURNERS)
    ]
    faults: list[str] = []
    used_s = cpu_s(process_tree(node.pid))
    try:
        next_s = time.monotonic()
        pages = itertools.cycle(("overview", "queues", "connections"))
        while time.monotonic() < end_s and not watch.faults:
            for load in loads:
                load.look()
            read_api(node, next(pages))
            watch.look()
            next_s += SAMPLE_EVERY_S
            time.sleep(max(0.0, next_s - time.monotonic()))
        used_s = cpu_s(process_tree(node.pid)) - used_s
        for load in loads:
            load.take_in()
            faults += load.faults
        clients = 0
        for churner in churners:
            told, _ = churner.communicate(timeout=60.0)
            if churner.returncode:
                faults.append(f"a client failed (its traceback stands above), status {churner.returncode}")
            else:
                clients += int(told)
        received = sum(load.received for load in loads)
        console.print(f"{received:,} messages received, {clients:,} clients came and went; the node used {used_s / seconds:.2f} cores")
    finally:
        for load in loads:
            load.kill()
        for churner in churners:
            churner.kill()
            churner.wait()
    return watch, watch.faults + faults


def read_api(node: LeveretNode, path: str) -> Any:
    """As a monitoring system does. Raises NodeFailed when it gets no answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{node.http_port}/api/{path}")
    request.add_header("Authorization", "Basic " + b64encode(b"guest:guest").decode())
    try:
        with urllib.request.urlopen(request, timeout=30.0) as answer:
            return json.load(answer)
    except OSError as error:
        raise NodeFailed(f"the HTTP API gave no answer to {path}: {error}") from error


def table(series: dict[str, Series]) -> tuple[Table, list[str]]:
    """One row a process, and a sentence for each whose heap grows."""
    made = Table("process", "heap, MB", "at the end", "line", "peaks", "lows", "files, MB", "at the end")
    growing = []
    for name, each in series.items():
        heap, files, lows = growth(each.anon), growth(each.file), lows_percent(each.anon)
        if heap.is_growing:
            growing.append(
                f"{name}: its heap grows, from {heap.first_bytes / 1e6:,.1f} to {heap.last_bytes / 1e6:,.1f} MB "
                f"(line {heap.percent:+.1f} %, peaks {heap.peaks_percent:+.1f} %)"
            )
        made.add_row(
            name,
            *(f"{value / 1e6:,.1f}" for value in (heap.first_bytes, heap.last_bytes)),
            f"{heap.percent:+.1f} %",
            f"{heap.peaks_percent:+.1f} %",
            "" if lows is None else f"{lows:+.1f} %",
            *(f"{value / 1e6:,.1f}" for value in (files.first_bytes, files.last_bytes)),
            style="bold red" if heap.is_growing else None,
        )
    return made, growing


def main() -> None:
    """Exit codes: 0 memory stayed flat; 1 it grew, or something failed; 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Full load with churn: memory must not grow.")
    parser.add_argument("--seconds", type=float, default=1200.0, help="how long (1200), the first fifth of it warm-up")
    parser.add_argument("--workers", type=int, default=0, help="Leveret's workers (as many as cores)")
    parser.add_argument("--seed", type=int, default=None, help="of what the clients do; printed")
    parser.add_argument("--json", type=Path, default=None, help="write every sample here")
    parser.add_argument("--churn", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    if options.churn:
        print(churn_until(options.churn, seed, options.until))
        return
    if options.seconds < 60 or options.workers < 0:
        parser.error("--seconds must be at least 60, --workers not negative")
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"--seed {seed}, {options.seconds:g} s")
    try:
        with LeveretNode(options.workers) as node:
            watch, faults = soak(node, options.seconds, seed, console)
    except NodeFailed as error:
        console.print(str(error), style="bold red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json is not None:
        options.json.write_text(json.dumps({name: {"anon": each.anon, "file": each.file} for name, each in watch.series.items()}))
    growing: list[str] = []
    if min(len(each.anon) for each in watch.series.values()) * (1 - WARMUP_SHARE) >= 2 * SMOOTHED_S:
        made, growing = table(watch.without_warmup())
        console.print(made)
    for sentence in faults + growing:
        console.print(sentence, style="bold red", markup=False)
    if not faults and not growing:
        console.print(f"memory stayed flat within {GROWTH_MAX_PERCENT:g} %", style="green")
    sys.exit(1 if faults or growing else 0)


if __name__ == "__main__":
    main()
