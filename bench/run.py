"""`make bench`: Leveret and RabbitMQ take turns at the rows of `bench.rows` (and the curves of `bench.curves`), goals marked.

Both nodes are started here and run for the whole bench; a round of a row is RabbitMQ, then Leveret, and a figure is the median of the
rounds. Then as many rounds at half of each broker's median rate, for the latencies. Everything goes to a JSON file and to a page beside it.
A ratio is only as good as the machine was quiet: compare ratios, not runs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import pika
from leveret.config import DURABILITIES
from leveret.perf.fleet import LoadFailed, LoadStopped
from leveret.perf.session import BrokerRefused, BrokerUnreachable
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench import client_load, report, results, table
from bench.curves import CURVES, Curve
from bench.figures import Figure, median
from bench.latency import Latency, median_latency
from bench.leveret_node import LeveretNode
from bench.load import Timing
from bench.node import Node, NodeFailed
from bench.peer import Peer
from bench.results import Point
from bench.rows import ROWS, Row
from bench.verdict import Figures

RESULTS: Final = Path(__file__).parent / "results"
THOROUGH: Final = Timing(seconds=4.0, warmup_s=1.0)
OF_A_CURVE: Final = Timing(seconds=2.0, warmup_s=0.5)
QUICK: Final = Timing(seconds=0.8, warmup_s=0.5)
_QUICK_POINTS: Final = 3

Told = TypeVar("Told")


class Bench:
    """The measuring: of rows on nodes that run all the while, and of curves, for each of which Leveret is started anew."""

    def __init__(self, nodes: Sequence[Node], rounds: int, timing: Timing, progress: Progress) -> None:
        self._nodes = nodes
        self._rounds = rounds
        self._timing = timing
        self._progress = progress

    def rows(self, rows: Sequence[Row]) -> dict[str, Figures]:
        """Every row on every node, taking turns. A row that cannot be run on a node has a figure of 0 whose fault says why."""
        found: dict[str, Figures] = {}
        task = self._progress.add_task("", total=sum(self._steps(row) for row in rows))
        for row in rows:
            nodes = [node for node in self._nodes if not row.ours_only or isinstance(node, LeveretNode)]
            taken: dict[str, list[Figure]] = {node.name: [] for node in nodes}
            for _ in range(self._rounds_of(row)):
                for node in nodes:
                    self._progress.update(task, description=f"{row.name}: {node.name}")
                    taken[node.name].append(_or_failed(partial(row.measure, node, self._timing), _failed))
                    self._progress.advance(task)
            found[row.name] = {name: median(figures) for name, figures in taken.items()}
            if row.load is not None:
                found[row.name] = self._with_latencies(row, found[row.name])
                self._progress.advance(task, self._rounds * len(nodes))
            self._progress.console.print(_spoken(row, found[row.name]))
        self._progress.remove_task(task)
        return found

    def _rounds_of(self, row: Row) -> int:
        return 1 if row.once or row.ours_only else self._rounds

    def _steps(self, row: Row) -> int:
        rounds = self._rounds_of(row) * (1 if row.load is None else 2)
        return rounds * sum(1 for node in self._nodes if not row.ours_only or isinstance(node, LeveretNode))

    def _with_latencies(self, row: Row, figures: Figures) -> Figures:
        """The same figures with what their brokers show at half of the rate."""
        load = row.load
        assert load is not None
        taken: dict[str, list[Latency]] = {name: [] for name in figures}
        faults: dict[str, list[str]] = {name: [] for name in figures}
        for _ in range(self._rounds):
            for node in self._nodes:
                rate = figures[node.name].value
                if not rate:
                    continue
                try:
                    taken[node.name].append(load.latency(node, self._timing, rate))
                except (LoadFailed, LoadStopped, BrokerRefused, BrokerUnreachable, ValueError) as error:
                    faults[node.name].append(f"at half of the rate: {error or type(error).__name__}")
        return {
            name: dataclasses.replace(
                figure,
                latency=median_latency(taken[name]) if taken[name] else None,
                faults=figure.faults + tuple(dict.fromkeys(faults[name])),
                details=figure.details | {"latency_rounds": [one.to_json() for one in taken[name]]},
            )
            for name, figure in figures.items()
        }

    def curve(self, curve: Curve, start: Callable[[int], LeveretNode], *, quick: bool) -> list[Point]:
        """All points of one curve, on RabbitMQ if it is among the nodes, and on `start(workers)` (0: the usual) if Leveret is."""
        found: list[Point] = []
        few = _few if quick else tuple
        ours = few(curve.points) if any(isinstance(node, LeveretNode) for node in self._nodes) else ()
        theirs = [(node, x) for node in self._nodes if isinstance(node, Peer) for x in few(curve.peer_points)]
        task = self._progress.add_task("", total=len(ours) + len(theirs))

        def take(node: Node, x: int) -> None:
            self._progress.update(task, description=f"{curve.name} {x:,}: {node.name}")
            told = _or_failed(partial(curve.measure, node, self._timing, x), lambda fault: (_failed(fault),) * len(curve.parts))
            found.extend(Point(x, node.name, part, figure) for part, figure in zip(curve.parts, told, strict=True))
            self._progress.advance(task)

        for peer, x in theirs:
            take(peer, x)
        if curve.workers:
            for x in ours:
                with start(x) as node:
                    take(node, x)
        elif ours:
            with start(0) as node:
                for x in ours:
                    take(node, x)
        self._progress.remove_task(task)
        return found


def _few(points: Sequence[int]) -> tuple[int, ...]:
    return tuple(points[:_QUICK_POINTS])


def _or_failed(measure: Callable[[], Told], failed: Callable[[str], Told]) -> Told:
    """What `measure` returns, or, when the load or the broker gave up, what `failed` makes of the reason."""
    try:
        return measure()
    except (LoadFailed, LoadStopped, BrokerRefused, BrokerUnreachable, pika.exceptions.AMQPError, RuntimeError) as error:
        return failed(str(error) or type(error).__name__)


def _failed(fault: str) -> Figure:
    return Figure(0.0, None, faults=(fault,))


def _spoken(row: Row, figures: Figures) -> Text:
    """One row in a line, while the others still run."""
    parts = []
    for name, figure in figures.items():
        cpu = "" if figure.cpu_us is None else f" {figure.cpu_us:,.2f} us"
        latency = "" if figure.latency is None else f" p99 {figure.latency.p99_ms:,.2f} ms"
        parts.append(f"{name} {figure.value:,.2f} {row.unit}{cpu}{latency}")
    return Text(f"{row.name:<18} {'   '.join(parts)}", style="dim")


def _many_files() -> None:
    """As many open files as we may have: RabbitMQ and Leveret inherit it, and ten thousand connections take as many here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end(number: int, _: object) -> None:
    """Leave by an exception that nobody takes for a wish of a load's user, so that all nodes are ended."""
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    rows, curves = {row.name: row for row in ROWS}, {curve.name: curve for curve in CURVES}
    parser = argparse.ArgumentParser(prog="python -m bench", description="Leveret beside RabbitMQ, in one run on this machine.")
    what = f"which rows and curves; default all rows. Rows: {', '.join(rows)}. Curves: {', '.join(curves)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=what)
    parser.add_argument("--curves", action="store_true", help="growth curves too: some 20 minutes more")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row (3)")
    parser.add_argument("--quick", action="store_true", help="one short round, few points: to see that it works, not how fast")
    parser.add_argument("--only", choices=("leveret", "rabbitmq"), help="one broker alone, without ratios")
    parser.add_argument("--workers", type=int, default=0, help="Leveret's workers (as many as cores)")
    parser.add_argument("--durability", choices=DURABILITIES, default="disk", help="Leveret's durability (disk)")
    parser.add_argument("--clients", type=int, default=2, help="processes of pika and aio-pika that publish or consume (2)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="where the figures go (bench/results/<time>.json)")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in rows and name not in curves]:
        parser.error(f"no row or curve {', '.join(unknown)}; there are {', '.join([*rows, *curves])}")
    if options.rounds < 1 or options.workers < 0:
        parser.error("--rounds must be at least 1, --workers not negative")
    if not 1 <= options.clients <= client_load.PROCESSES_MAX:
        parser.error(f"--clients must lie between 1 and {client_load.PROCESSES_MAX}")
    asked = [rows[name] for name in options.names if name in rows]
    # A node that has just started gives the figures of these.
    options.rows = sorted(asked if options.names else ROWS, key=lambda row: not row.once)
    options.drawn = [curve for curve in CURVES if options.curves or curve.name in options.names]
    return options


def main() -> None:
    """Exit codes: 0 the bench ran; 1 a broker did not start or did something wrong; 2 wrong arguments. A missed goal is no failure."""
    options = _options()
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    os.environ[client_load.PROCESSES] = str(options.clients)
    _many_files()
    rounds, timing, curve_timing = (1, QUICK, QUICK) if options.quick else (options.rounds, THOROUGH, OF_A_CURVE)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 220)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with ExitStack() as stack, Progress(*columns, console=console, transient=True) as progress:
            nodes: list[Node] = []
            if options.only != "leveret":
                nodes.append(stack.enter_context(Peer()))
            if options.only != "rabbitmq":
                nodes.append(stack.enter_context(LeveretNode(options.workers, options.durability).settle()))
            figures = Bench(nodes, rounds, timing, progress).rows(options.rows)
            drawing = Bench(nodes, 1, curve_timing, progress)

            def start(workers: int) -> LeveretNode:
                return LeveretNode(workers or options.workers, options.durability).settle()

            points = {curve.name: drawing.curve(curve, start, quick=options.quick) for curve in options.drawn}
            told = results.document(nodes, rounds, timing, rows=options.rows, figures=figures, curves=options.drawn, points=points)
    except NodeFailed as error:
        console.print(Text(str(error), style="bold red"))
        sys.exit(1)
    file = options.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    results.write(file, told)
    for shown in table.tables(told):
        console.print(shown)
    if options.rows:
        console.print(
            f"rows: median of {rounds} round{'s' if rounds > 1 else ''} of {timing.seconds:g} s each, brokers taking turns; CPU is user +"
            " system time of the broker's whole process tree, per message; load generator and brokers share the machine"
        )
    faults = results.faults(told)
    for fault in faults:
        console.print(Text(fault, style="bold red"))
    page = file.with_suffix(".html")
    report.write(page, told)
    console.print(f"all figures: {file}\nreport: {page}")
    if any(fault.startswith("Leveret") for fault in faults):
        sys.exit(1)


if __name__ == "__main__":
    main()
