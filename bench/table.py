"""The results in the terminal: rows side by side with their goals, latencies, and the curves' points. A goal that is missed is red."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from bench import wording
from bench.results import Document


def tables(told: Document) -> Iterator[Table]:
    """As many as there is something to show in."""
    if told["rows"]:
        yield rows(told)
    if any(figure["latency"] for row in told["rows"] for figure in row["figures"].values()):
        yield latencies(told)
    for curve in told["curves"]:
        yield points(curve)


def rows(told: Document) -> Table:
    """Rates, ratios, CPU and memory."""
    names = [node["name"] for node in told["nodes"]]
    shown = Table(title=" and ".join(node["label"] for node in told["nodes"]), title_justify="left", header_style="bold")
    shown.add_column("work")
    for name in names:
        shown.add_column(name, justify="right")
    shown.add_column("ratio", justify="right")
    shown.add_column("goal", justify="right")
    for name in names:
        shown.add_column(f"{name}\nCPU us", justify="right")
    shown.add_column("ratio", justify="right")
    shown.add_column("goal", justify="right")
    shown.add_column("memory MB\n" + " / ".join(names), justify="right")
    shown.add_column("limited by", justify="left")
    shown.add_column("fsync before confirm?", max_width=14)
    for row in told["rows"]:
        figures = [row["figures"].get(name) for name in names]
        met = row["met"]
        limits = ", ".join(f"{name}: {figure['limit']}" for name, figure in row["figures"].items() if figure["limit"])
        memory = " / ".join(filter(None, map(wording.memory, figures)))
        if row["goals"]["memory_max"]:
            memory += f" ({wording.memory_goal(row)})"
        shown.add_row(
            row["title"],
            *(wording.value(row, figure) for figure in figures),
            _marked(wording.rate_ratio(row), met["rate"]),
            wording.rate_goal(row),
            *(wording.cpu(figure) for figure in figures),
            _marked(wording.cpu_ratio(row), met["cpu"]),
            wording.cpu_goal(row),
            _marked(memory, met["memory"]),
            limits,
            wording.fsync(row, told["nodes"]),
        )
    return shown


def latencies(told: Document) -> Table:
    """What `bench.latency` found."""
    names = [node["name"] for node in told["nodes"]]
    shown = Table(title="Latency at half of each broker's own rate: p50 / p99 / p99.9 in ms", title_justify="left", header_style="bold")
    shown.add_column("work")
    for name in names:
        shown.add_column(f"{name}\nmsg/s", justify="right")
        shown.add_column(f"{name}\nms", justify="right")
    shown.add_column("goal", justify="right")
    shown.add_column("", justify="right")
    for row in told["rows"]:
        if not any(figure["latency"] for figure in row["figures"].values()):
            continue
        cells = []
        for name in names:
            figure = row["figures"].get(name)
            latency = figure and figure["latency"]
            cells += [f"{latency['asked']:,.0f}" if latency else "", wording.percentiles(figure)]
        shown.add_row(row["title"], *cells, wording.latency_goal(row), _marked("", row["met"]["latency"]))
    return shown


def points(curve: dict[str, Any]) -> Table:
    """One curve: a line for each point of its axis."""
    series = list(dict.fromkeys((point["broker"], point["part"]) for point in curve["points"]))
    title = f"Throughput against {curve['title']}"
    shown = Table(title=title, title_justify="left", header_style="bold", min_width=len(title))
    shown.add_column(curve["axis"], justify="right")
    for broker, part in series:
        shown.add_column(f"{broker} {part}".strip() + "\nmsg/s", justify="right")
        shown.add_column("CPU us", justify="right")
    at = {(point["x"], point["broker"], point["part"]): point for point in curve["points"]}
    for x in sorted({point["x"] for point in curve["points"]}):
        cells = []
        for broker, part in series:
            point = at.get((x, broker, part))
            failed = point is not None and point["faults"] and not point["value"]
            cells += ["" if point is None else "failed" if failed else f"{point['value']:,.0f}", wording.cpu(point)]
        shown.add_row(f"{x:,}", *cells)
    return shown


def _marked(text: str, met: bool | None) -> Text:
    style = "" if met is None else "green" if met else "bold red"
    return Text(f"{text} {wording.mark(met)}".strip(), style=style)
