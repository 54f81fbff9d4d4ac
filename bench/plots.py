"""Pictures of the results, as SVG text: ratios with their goals, latencies, growth curves. `bench.report` makes a page of them.

matplotlib draws them, because what it writes needs no script: it can be looked at offline and stand in a README. Reads a results
document and nothing else. A missed goal is red.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from bench import wording
from bench.results import Document

MET: Final = "#0f766e"
MISSED: Final = "#dc2626"
NO_GOAL: Final = "#94a3b8"
INK: Final = "#1f2937"
BROKERS: Final = {"Leveret": MET, "RabbitMQ": "#ea7317"}
_DECADE: Final = 10
_LINE_STYLES: Final = ("-", "--", ":")
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "leveret",  # the same figures give the same file
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#cbd5e1",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "grid.color": "#e5e7eb",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def ratios(told: Document) -> str:
    """How many times better than RabbitMQ each row is, in rate and in CPU, with its goal as a mark; "" when nothing was compared."""
    rows = [row for row in told["rows"] if row["rate_ratio"] or row["cpu_ratio"]]
    if not rows:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, max(2.5, 1.2 + 0.3 * len(rows))), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, rows, "rate", "Rate: times RabbitMQ's")
        _bars(right, rows, "cpu", "CPU per message: times less")
        figure.legend(handles=_goal_legend(), loc="outside lower center", ncols=4)
        return _svg(figure)


def _bars(axes: Axes, rows: Sequence[dict[str, Any]], what: str, title: str) -> None:
    for place, row in enumerate(reversed(rows)):
        ratio, goal, met = row[f"{what}_ratio"], row["goals"][what], row["met"][what]
        if ratio is None:
            continue
        axes.barh(place, ratio, color=NO_GOAL if met is None else MET if met else MISSED, height=0.62)
        axes.text(ratio * 1.06, place, f"{ratio:.1f}", va="center", fontsize=8, color=MISSED if met is False else INK)
        if goal:
            axes.plot([goal, goal], [place - 0.42, place + 0.42], color=INK, linewidth=1.8)
    axes.set_yticks(range(len(rows)), [row["title"] for row in reversed(rows)])
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=0.8)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), high * 1.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    axes.grid(visible=False, axis="y")
    axes.set_title(title)


def _goal_legend() -> list[Line2D]:
    def square(color: str, label: str) -> Line2D:
        return Line2D([], [], color=color, marker="s", linestyle="", markersize=8, label=label)

    goal = Line2D([], [], color=INK, marker="|", linestyle="", markersize=12, markeredgewidth=1.8, label="goal")
    return [square(MET, "met"), square(MISSED, "missed"), square(NO_GOAL, "no goal"), goal]


def latencies(told: Document) -> str:
    """p50, p99 and p99.9 of each broker at half of its own rate, in ms, with the goal as a line; "" without any."""
    rows = [row for row in told["rows"] if any(figure["latency"] for figure in row["figures"].values())]
    if not rows:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, max(2.5, 1.4 + 0.42 * len(rows))), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(reversed(rows)):
            for offset, (name, color) in zip((0.16, -0.16), BROKERS.items(), strict=True):
                latency = (row["figures"].get(name) or {}).get("latency")
                if not latency:
                    continue
                if name == "Leveret" and row["met"]["latency"] is False:
                    color = MISSED
                steps = [latency["p50_ms"], latency["p99_ms"], latency["p999_ms"]]
                axes.plot(steps, [place + offset] * 3, color=color, linewidth=1.4)
                for step, mark in zip(steps, "o|x", strict=True):
                    axes.plot(step, place + offset, mark, color=color, markersize=6, markeredgewidth=1.8)
        axes.set_yticks(range(len(rows)), [row["title"] for row in reversed(rows)])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} ms"))
        axes.grid(visible=False, axis="y")
        for goal in {row["goals"]["p99_max_ms"] for row in rows if row["goals"]["p99_max_ms"]}:
            axes.axvline(goal, color=INK, linewidth=1, linestyle="--")
            axes.text(goal, len(rows) - 0.45, f" {wording.latency_goal(rows[0])}", fontsize=8)
        handles = [Line2D([], [], color=color, linewidth=2, label=name) for name, color in BROKERS.items()]
        handles += [
            Line2D([], [], color=INK, marker=mark, linestyle="", markeredgewidth=1.8, label=label)
            for mark, label in zip("o|x", ("p50", "p99", "p99.9"), strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
        return _svg(figure)


def curve(told: dict[str, Any]) -> str:
    """One curve of a document: rate, CPU per message and memory against its axis, on logarithmic scales where they span decades."""
    panels = (
        ("value", "messages/s", 1.0),
        ("cpu_us", "broker CPU, us per message", 1.0),
        ("memory_bytes", "broker memory at most, MB", 1e6),
    )
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 3.0), layout="constrained")
        for axes, (name, title, unit) in zip(figure.subplots(1, 3), panels, strict=True):
            _lines(axes, told, name, unit)
            axes.set_title(title)
            axes.set_xlabel(told["axis"])
        handles = [
            Line2D([], [], color=color, linestyle=style, linewidth=2, label=f"{broker} {part}".strip())
            for broker, color in BROKERS.items()
            for style, part in zip(_LINE_STYLES, told["parts"], strict=False)
            if any((point["broker"], point["part"]) == (broker, part) for point in told["points"])
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return _svg(figure)


def _lines(axes: Axes, told: dict[str, Any], name: str, unit: float) -> None:
    for broker, color in BROKERS.items():
        for style, part in zip(_LINE_STYLES, told["parts"], strict=False):
            points = sorted(
                (point["x"], point[name] / unit)
                for point in told["points"]
                if (point["broker"], point["part"]) == (broker, part) and point[name]
            )
            if points:
                axes.plot(*zip(*points, strict=True), style, color=color, marker="o", markersize=3.5, linewidth=1.6)
    drawn = [point[name] / unit for point in told["points"] if point[name]]
    if drawn and max(drawn) > _DECADE * min(drawn):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)  # within a decade a logarithmic scale has hardly a tick, and makes much of little
    xs = {point["x"] for point in told["points"]}
    if 0 in xs:
        least = min(xs - {0}, default=1)
        axes.set_xscale("symlog", linthresh=least)
        axes.set_xticks(sorted(xs))
        axes.set_xlim(-least / 4, max(xs) * 1.5)
    elif max(xs) > 16:
        axes.set_xscale("log")
    else:
        axes.set_xticks(sorted(xs))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.minorticks_off()


def _short(value: float) -> str:
    """3 significant figures with k or M: what fits under a tick."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _svg(figure: Figure) -> str:
    """The drawing as an `<svg>` element that takes the width it is given, without date and document head."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
