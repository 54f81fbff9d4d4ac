"""The results of a bench as one JSON document: what was measured, on which machine, with which versions, and which goals are met.

`bench.run` makes it and writes it to a file; the terminal's table (`bench.table`), the pictures (`bench.plots`) and the page
(`bench.report`) read nothing else, so each can be made anew from the file at any time.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from leveret.supervisor.machine import memory_total_bytes

from bench import disk
from bench.curves import Curve
from bench.figures import Figure
from bench.load import Timing
from bench.node import Node
from bench.rows import Row
from bench.verdict import Figures, Verdict

VERSION: Final = 2
_CONGESTION_CONTROL: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_PACKAGES: Final = ("leveret", "uvloop", "lmdb", "pika", "aio-pika", "celery", "kombu")

Document = dict[str, Any]


class NotResults(ValueError):
    """A file that holds no results of a version that is known here; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve: what `broker` did where the axis says `x`. part: as in `Curve.parts`."""

    x: int
    broker: str
    part: str
    figure: Figure


def document(
    nodes: Sequence[Node],
    rounds: int,
    timing: Timing,
    *,
    rows: Sequence[Row] = (),
    figures: Mapping[str, Figures] | None = None,
    curves: Sequence[Curve] = (),
    points: Mapping[str, Sequence[Point]] | None = None,
) -> Document:
    """Everything. figures: by row's name; points: by curve's name."""
    return {
        "version": VERSION,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "nodes": [
            {"name": node.name, "label": node.label, "start_s": node.start_s, "fsyncs_before_confirm": node.fsyncs_before_confirm}
            for node in nodes
        ],
        "rounds": rounds,
        "seconds": timing.seconds,
        "rows": [_row(row, (figures or {})[row.name]) for row in rows],
        "curves": [_curve(curve, (points or {})[curve.name]) for curve in curves],
    }


def _row(row: Row, figures: Figures) -> dict[str, Any]:
    verdict = Verdict(row, figures)
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "higher_is_better": row.higher_is_better,
        "confirms": row.confirms,
        "durable": row.durable,
        "goals": {
            "rate": row.rate_goal,
            "cpu": row.cpu_goal,
            "value_max": row.value_max,
            "cpu_us_max": row.cpu_us_max,
            "memory_max": row.memory_max,
            "p99_max_ms": row.p99_max_ms,
        },
        "rate_ratio": verdict.rate,
        "cpu_ratio": verdict.cpu,
        "met": verdict.to_json(),
        "figures": {name: _figure(figure) for name, figure in figures.items()},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "value": figure.value,
        "cpu_us": figure.cpu_us,
        "limit": figure.limit,
        "faults": list(figure.faults),
        "memory_bytes": figure.memory_bytes,
        "latency": figure.latency.to_json() if figure.latency else None,
        "details": figure.details,
    }


def _curve(curve: Curve, points: Iterable[Point]) -> dict[str, Any]:
    return {
        "name": curve.name,
        "title": curve.title,
        "axis": curve.axis,
        "parts": list(curve.parts),
        "points": [{"x": point.x, "broker": point.broker, "part": point.part} | _figure(point.figure) for point in points],
    }


def faults(told: Document) -> list[str]:
    """What a broker did wrong anywhere, each with its name first: "Leveret, durable_16: 3 messages are missing"."""
    found = [
        f"{name}, {row['name']}: {fault}" for row in told["rows"] for name, figure in row["figures"].items() for fault in figure["faults"]
    ]
    for curve in told["curves"]:
        found += [
            f"{point['broker']}, {curve['name']} at {point['x']:,}: {fault}" for point in curve["points"] for fault in point["faults"]
        ]
    return found


def merged(documents: Sequence[Document]) -> Document:
    """One document with the rows and curves of all (at least one); of two with one name the later document's. Its head is the last's."""
    last = documents[-1]
    rows = {row["name"]: row for one in documents for row in one["rows"]}
    curves = {curve["name"]: curve for one in documents for curve in one["curves"]}
    nodes = {node["name"]: node for one in documents for node in one["nodes"]}
    return last | {"rows": list(rows.values()), "curves": list(curves.values()), "nodes": list(nodes.values())}


def read(file: Path) -> Document:
    """Raises NotResults for what is not there, cannot be read, or was written by another version."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotResults(f"{file}: {error.strerror}") from None
    except ValueError:
        raise NotResults(f"{file} holds no JSON") from None
    if not isinstance(told, dict) or told.get("version") != VERSION or not {"rows", "curves", "nodes", "machine"} <= told.keys():
        raise NotResults(f"{file} holds no results of this version of the bench ({VERSION})")
    return told


def write(file: Path, told: Document) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures depend on: cores that we may use, processor, memory, kernel, one 4 KB write + fdatasync of its disk, and how its TCP
    sends: "bbr" paces clients of the same machine too."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    written = disk.measure()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "memory_bytes": memory_total_bytes(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "disk_us": {"p50": written.p50_us, "p99": written.p99_us},
        "congestion_control": _CONGESTION_CONTROL.read_text(encoding="ascii").strip(),
    }


def commit() -> str:
    """Short name of the checked-out commit, with "+" when files differ from it; "" outside a checkout or without git."""
    top = Path(__file__).parents[1]
    command = ["git", "-C", str(top), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
