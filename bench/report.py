"""The page of a bench: one HTML file with the table, the pictures, the machine and every fault, that needs nothing else and no network.

`bench.run` writes it beside its JSON. `python -m bench.report FILE.json …` makes it anew, also from several runs at once (of a row or curve
that is in more than one, the later file's counts), and writes the picture of the README. It measures nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from bench import plots, results, wording
from bench.results import Document, NotResults

_CSS: Final = """
:root { color-scheme: light; --ink: #1f2937; --soft: #64748b; --line: #e5e7eb; --met: #0f766e; --missed: #dc2626; }
* { box-sizing: border-box; }
body { margin: 0; background: #f8fafc; color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0; letter-spacing: -0.02em; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; }
h3 { font-size: 1rem; margin: 0 0 0.5rem; }
p { max-width: 52rem; }
.soft { color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 1.5rem 0; }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 0.8rem 1.1rem; min-width: 9rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 1rem; margin-bottom: 1rem; overflow-x: auto; }
.card svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: 0.35rem 0.5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 14rem; }
th { white-space: normal; }
.falls-short td:first-child { color: var(--missed); font-weight: 600; border-left: 3px solid var(--missed); }
td .goal { display: block; color: var(--soft); font-size: 12px; font-weight: 400; white-space: normal; }
.met { color: var(--met); font-weight: 600; }
.missed { color: var(--missed); font-weight: 700; background: #fef2f2; }
.faults li { color: var(--missed); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; margin: 0; font-size: 14px; }
dt { color: var(--soft); }
dd { margin: 0; }
"""


def page(told: Document) -> str:
    """The whole page."""
    title = " beside ".join(node["name"] for node in reversed(told["nodes"]))
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_when(told))}</p>',
        *_tiles(told),
        *_section("Goals", _goals(told)),
        *_section("Beside RabbitMQ", _card(plots.ratios(told))),
        *_section("Latency at half of the maximum rate", _latencies(told)),
        *_section("Growth", _curves(told)),
        *_section("What went wrong", _faults(told)),
        *_section("Measured on", _machine(told)),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_CSS}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n' + "\n".join(parts) + "\n</main></body></html>\n"


def write(file: Path, told: Document) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(told), encoding="utf-8")


def _when(told: Document) -> str:
    commit = f", commit {told['commit']}" if told["commit"] else ""
    if not told["rows"]:
        return f"{told['at']}{commit}"
    rounds = f"medians of {told['rounds']} round{'s' if told['rounds'] > 1 else ''} of {told['seconds']:g} s, brokers taking turns"
    return f"{told['at']}{commit}; {rounds}"


def _section(title: str, parts: Iterator[str]) -> Iterator[str]:
    """Nothing at all where there are no parts."""
    filled = list(parts)
    if filled:
        yield f"<h2>{escape(title)}</h2>"
        yield from filled


def _card(content: str) -> Iterator[str]:
    if content:
        yield f'<div class="card">{content}</div>'


def _tiles(told: Document) -> Iterator[str]:
    verdicts = [met for row in told["rows"] for met in row["met"].values() if met is not None]
    if not verdicts:
        return
    missed = verdicts.count(False)
    best = max((row["rate_ratio"] for row in told["rows"] if row["rate_ratio"] and row["higher_is_better"]), default=None)
    tiles = [
        (f"{verdicts.count(True)} of {len(verdicts)}", "goals met", "met" if not missed else ""),
        (f"{missed}", "goals missed", "missed" if missed else "met"),
    ]
    if best is not None:
        tiles.append((f"{best:.0f}x", "RabbitMQ's rate, the best row", ""))
    told_tiles = "".join(f'<div class="tile {kind}"><b>{escape(figure)}</b>{escape(text)}</div>' for figure, text, kind in tiles)
    yield f'<div class="tiles">{told_tiles}</div>'


def _goals(told: Document) -> Iterator[str]:
    if not told["rows"]:
        return
    names = [node["name"] for node in told["nodes"]]
    heads = ["work", *names, "ratio", *(f"{name} CPU us" for name in names), "ratio", *(f"{name} MB" for name in names)]
    heads += ["p50 / p99 / p99.9 ms"]
    lines = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    lines += [_line(row, names, told["nodes"]) for row in told["rows"]]
    yield f'<div class="card"><table>{"".join(lines)}</table></div>'


def _line(row: dict[str, Any], names: list[str], nodes: list[dict[str, Any]]) -> str:
    figures = [row["figures"].get(name) for name in names]
    ours = row["figures"].get("Leveret")
    met = row["met"]
    cells = [f"<td>{escape(row['title'])}</td>"]
    cells += [_cell(wording.value(row, figure), _remark(row, node, figure)) for node, figure in zip(nodes, figures, strict=True)]
    cells.append(_cell(wording.rate_ratio(row), wording.rate_goal(row), met["rate"]))
    cells += [_cell(wording.cpu(figure)) for figure in figures]
    cells.append(_cell(wording.cpu_ratio(row), wording.cpu_goal(row), met["cpu"]))
    for name, figure in zip(names, figures, strict=True):
        judged = name == "Leveret"
        cells.append(_cell(wording.memory(figure), wording.memory_goal(row) if judged else "", met["memory"] if judged else None))
    cells.append(_cell(wording.percentiles(ours), wording.latency_goal(row), met["latency"]))
    kind = ' class="falls-short"' if False in met.values() else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _remark(row: dict[str, Any], node: dict[str, Any], figure: dict[str, Any] | None) -> str:
    """What has to be known of a rate: what limited it, and whether confirms waited for the disk."""
    if figure is None:
        return ""
    limit = {"machine": "all cores busy", "generator": "limited by the client"}.get(figure["limit"], "")
    fsync = "" if not row["confirms"] else "fsynced" if row["durable"] and node["fsyncs_before_confirm"] else "no fsync"
    return ", ".join(filter(None, (limit, fsync)))


def _cell(text: str, goal: str = "", met: bool | None = None) -> str:
    kind = "" if met is None else ' class="met"' if met else ' class="missed"'
    told = escape(f"{text} {wording.mark(met)}".strip())
    return f"<td{kind}>{told}" + (f'<span class="goal">{escape(goal)}</span>' if goal else "") + "</td>"


def _latencies(told: Document) -> Iterator[str]:
    if picture := plots.latencies(told):
        yield (
            "<p>Messages come due at half of the rate that the broker itself reached in this run, and a latency counts from the moment a"
            " message was due, so nobody is spared by a stall.</p>"
        )
        yield from _card(picture)


def _curves(told: Document) -> Iterator[str]:
    if told["curves"]:
        yield "<p>One round for each point. RabbitMQ takes part in those that do not take it minutes.</p>"
    for curve in told["curves"]:
        yield f'<div class="card"><h3>{escape("Throughput against " + curve["title"])}</h3>{plots.curve(curve)}</div>'


def _faults(told: Document) -> Iterator[str]:
    if found := results.faults(told):
        yield '<ul class="faults">' + "".join(f"<li>{escape(fault)}</li>" for fault in found) + "</ul>"


def _machine(told: Document) -> Iterator[str]:
    machine = told["machine"]
    facts = {
        "brokers": "; ".join(node["label"] for node in told["nodes"]),
        "processor": f"{machine['cores']} cores, {machine['processor']}; shared by brokers and load generator",
        "memory": f"{machine['memory_bytes'] / 1e9:,.1f} GB",
        "disk": f"one 4 KB write + fdatasync: p50 {machine['disk_us']['p50']:,.0f} us, p99 {machine['disk_us']['p99']:,.0f} us",
        "kernel, Python": f"{machine['kernel']}, {machine['python']}",
        "TCP sends by": machine.get("congestion_control", "what was not told"),
        "packages": ", ".join(f"{name} {version}" for name, version in told["versions"].items() if version),
        "CPU": "user + system time of the broker's whole process tree, per message",
        "memory of a broker": "the most that all its processes used together, pages that they share counted once",
    }
    yield (
        '<div class="card"><dl>'
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
        + "</dl></div>"
    )


def main() -> None:
    """Exit codes: 0 written; 2 wrong arguments or files."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="The page of one or more runs of the bench.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--page", type=Path, default=None, metavar="FILE.html", help="where the page goes (beside the last file)")
    parser.add_argument("--picture", type=Path, default=None, metavar="FILE.svg", help="write the ratios as a picture, too")
    options = parser.parse_args()
    try:
        told = results.merged([results.read(file) for file in options.files])
    except NotResults as error:
        parser.error(str(error))
    file = options.page or options.files[-1].with_suffix(".html")
    try:
        write(file, told)
        if options.picture:
            picture = plots.ratios(told)
            if not picture:
                parser.error("nothing was compared in these results, so there is no picture")
            options.picture.write_text(picture, encoding="utf-8")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    print(file)


if __name__ == "__main__":
    main()
