"""`make bench`: Leveret and RabbitMQ take turns at the rows of `bench.rows`; rates, ratios and broker CPU side by side, goals marked.

Both nodes are started here and run for the whole bench; a round of a row is RabbitMQ, then Leveret, and a figure is the median of the
rounds. Everything goes to a JSON file too. A ratio is only as good as the machine was quiet: compare ratios, not runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from leveret.config import DURABILITIES
from leveret.perf.fleet import LoadFailed, LoadStopped
from leveret.perf.session import BrokerRefused, BrokerUnreachable
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bench.figures import Figure, median
from bench.leveret_node import LeveretNode
from bench.node import Node, NodeFailed
from bench.peer import Peer
from bench.rows import ROWS, Row, Timing

RESULTS: Final = Path(__file__).parent / "results"
THOROUGH: Final = Timing(seconds=4.0, warmup_s=1.0)
QUICK: Final = Timing(seconds=1.5, warmup_s=0.5)

Figures = dict[str, Figure]  # by broker name


class Verdict:
    """How Leveret stands in one row: ratios to RabbitMQ, and whether each goal is met. None where there is nothing to compare."""

    def __init__(self, row: Row, figures: Figures) -> None:
        ours, theirs = figures.get("Leveret"), figures.get("RabbitMQ")
        self.rate: float | None = None
        self.cpu: float | None = None
        if ours and theirs and ours.value and theirs.value:
            self.rate = ours.value / theirs.value if row.higher_is_better else theirs.value / ours.value
        if ours and theirs and ours.cpu_us and theirs.cpu_us:
            self.cpu = theirs.cpu_us / ours.cpu_us
        self.rate_met = self._met(self.rate, row.rate_goal)
        self.cpu_met = self._met(self.cpu, row.cpu_goal)
        if ours and row.value_max is not None:
            self.rate_met = ours.value <= row.value_max
        if ours and row.cpu_us_max is not None and ours.cpu_us is not None:
            self.cpu_met = ours.cpu_us <= row.cpu_us_max

    @staticmethod
    def _met(ratio: float | None, goal: float | None) -> bool | None:
        return None if ratio is None or goal is None else ratio >= goal


def measure_all(rows: Sequence[Row], nodes: Sequence[Node], rounds: int, timing: Timing, console: Console) -> dict[str, Figures]:
    """Every row on every node, taking turns. A row that cannot be run on a node has a figure of 0 whose fault says why."""
    results: dict[str, Figures] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(1 if row.once else rounds for row in rows) * len(nodes))
        for row in rows:
            taken: dict[str, list[Figure]] = {node.name: [] for node in nodes}
            for _ in range(1 if row.once else rounds):
                for node in nodes:
                    progress.update(task, description=f"{row.name}: {node.name}")
                    taken[node.name].append(_one(row, node, timing))
                    progress.advance(task)
            results[row.name] = {name: median(figures) for name, figures in taken.items()}
            progress.console.print(_spoken(row, results[row.name]))
    return results


def _one(row: Row, node: Node, timing: Timing) -> Figure:
    try:
        return row.measure(node, timing)
    except (LoadFailed, LoadStopped, BrokerRefused, BrokerUnreachable) as error:
        return Figure(0.0, None, faults=(str(error) or type(error).__name__,))


def _spoken(row: Row, figures: Figures) -> Text:
    """One row in a line, while the others still run."""
    parts = [f"{name} {_value(figure, row)} {_cpu(figure)}" for name, figure in figures.items()]
    return Text(f"{row.name:<18} {'   '.join(parts)}", style="dim")


def table(rows: Sequence[Row], results: dict[str, Figures], nodes: Sequence[Node]) -> Table:
    """Everything side by side."""
    shown = Table(title=" and ".join(node.label for node in nodes), title_justify="left", header_style="bold")
    shown.add_column("work")
    for node in nodes:
        shown.add_column(node.name, justify="right")
    shown.add_column("ratio", justify="right")
    shown.add_column("goal", justify="right")
    for node in nodes:
        shown.add_column(f"{node.name}\nCPU us", justify="right")
    shown.add_column("ratio", justify="right")
    shown.add_column("goal", justify="right")
    shown.add_column("limited by", justify="left")
    shown.add_column("fsync before confirm?", max_width=14)
    for row in rows:
        figures = results[row.name]
        verdict = Verdict(row, figures)
        fsync = "-"
        if row.confirms:
            fsync = ", ".join(f"{node.name} {'yes' if row.durable and node.fsyncs_before_confirm else 'no'}" for node in nodes)
        limits = ", ".join(f"{name}: {figure.limit}" for name, figure in figures.items() if figure.limit)
        shown.add_row(
            row.title,
            *(_value(figures[node.name], row) for node in nodes),
            _ratio(verdict.rate, verdict.rate_met),
            f"{row.rate_goal:g}x" if row.rate_goal else f"<= {row.value_max:g} {row.unit}" if row.value_max else "",
            *(_cpu(figures[node.name]) for node in nodes),
            _ratio(verdict.cpu, verdict.cpu_met, inverse=True),
            f"1/{row.cpu_goal:g}" if row.cpu_goal else f"<= {row.cpu_us_max:g} us" if row.cpu_us_max else "",
            limits,
            fsync,
        )
    return shown


def _value(figure: Figure, row: Row) -> str:
    if figure.value == 0 and figure.faults:
        return "failed"
    return f"{figure.value:,.0f}" if row.unit == "msg/s" else f"{figure.value:,.2f} {row.unit}"


def _cpu(figure: Figure) -> str:
    return "" if figure.cpu_us is None else f"{figure.cpu_us:,.2f}"


def _ratio(ratio: float | None, met: bool | None, *, inverse: bool = False) -> Text:
    told = "" if ratio is None else f"1/{ratio:.1f}" if inverse else f"{ratio:.1f}x"
    if met is None:
        return Text(told)
    return Text(f"{told} {'met' if met else 'MISSED'}".strip(), style="green" if met else "bold red")


def to_json(rows: Sequence[Row], results: dict[str, Figures], nodes: Sequence[Node], rounds: int, timing: Timing) -> dict[str, Any]:
    """The whole bench as data: the machine, the nodes and every round."""
    told = []
    for row in rows:
        verdict = Verdict(row, results[row.name])
        told.append(
            {
                "name": row.name,
                "title": row.title,
                "unit": row.unit,
                "goals": {"rate": row.rate_goal, "cpu": row.cpu_goal, "value_max": row.value_max, "cpu_us_max": row.cpu_us_max},
                "rate_ratio": verdict.rate,
                "cpu_ratio": verdict.cpu,
                "met": {"rate": verdict.rate_met, "cpu": verdict.cpu_met},
                "figures": {
                    name: {"value": figure.value, "cpu_us": figure.cpu_us, "limit": figure.limit, "faults": figure.faults} | figure.details
                    for name, figure in results[row.name].items()
                },
            }
        )
    return {
        "version": 1,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": len(os.sched_getaffinity(0)), "kernel": platform.release(), "python": platform.python_version()},
        "nodes": [
            {"name": node.name, "label": node.label, "start_s": node.start_s, "fsyncs_before_confirm": node.fsyncs_before_confirm}
            for node in nodes
        ],
        "rounds": rounds,
        "seconds": timing.seconds,
        "rows": told,
    }


def main() -> None:
    """Exit codes: 0 the bench ran; 1 a broker did not start or did something wrong; 2 wrong arguments. A missed goal is no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Leveret beside RabbitMQ, in one run on this machine.")
    parser.add_argument("names", nargs="*", metavar="ROW", help=f"which rows; default all: {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (3)")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works, not how fast")
    parser.add_argument("--only", choices=("leveret", "rabbitmq"), help="one broker alone, without ratios")
    parser.add_argument("--workers", type=int, default=0, help="Leveret's workers (as many as cores)")
    parser.add_argument("--durability", choices=DURABILITIES, default="disk", help="Leveret's durability (disk)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="where the figures go (bench/results/<time>.json)")
    options = parser.parse_args()
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    if options.rounds < 1 or options.workers < 0:
        parser.error("--rounds must be at least 1, --workers not negative")
    rows = [known[name] for name in options.names] or list(ROWS)
    rounds, timing = (1, QUICK) if options.quick else (options.rounds, THOROUGH)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    try:
        with ExitStack() as stack:
            nodes: list[Node] = []
            if options.only != "leveret":
                nodes.append(stack.enter_context(Peer()))
            if options.only != "rabbitmq":
                nodes.append(stack.enter_context(LeveretNode(options.workers, options.durability)))
            results = measure_all(rows, nodes, rounds, timing, console)
            told = to_json(rows, results, nodes, rounds, timing)
            console.print(table(rows, results, nodes))
    except NodeFailed as error:
        console.print(Text(str(error), style="bold red"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    file = options.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told, indent=2) + "\n")
    console.print(
        f"median of {rounds} round{'s' if rounds > 1 else ''} of {timing.seconds:g} s each, brokers taking turns; all figures in {file}"
    )
    console.print("CPU is user + system time of the broker's whole process tree, per message; load generator and brokers share the machine")
    faults = [f"{name}, {row.name}: {fault}" for row in rows for name, figure in results[row.name].items() for fault in figure.faults]
    for fault in faults:
        console.print(Text(fault, style="bold red"))
    if any(fault.startswith("Leveret") for fault in faults):
        sys.exit(1)


if __name__ == "__main__":
    main()
