"""What the bench shows of canned results: the terminal's tables, the page and its pictures, and files that are no results."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from bench import plots, report, results, wording
from bench import table as terminal
from bench.figures import Figure
from bench.latency import Latency
from bench.load import Load
from bench.results import Document, NotResults
from bench.rows import Row
from bench.verdict import Verdict


def never(*_: object) -> Figure:
    raise AssertionError("not to be measured")


ROWS: dict[str, tuple[Row, dict[str, Figure]]] = {
    "fine": (
        Row("fine", "16 B <fast>", Load(), rate_goal=8, cpu_goal=25),
        {
            "RabbitMQ": Figure(100_000.0, 10.0, "machine", memory_bytes=900_000_000, latency=Latency(0.5, 20.0, 30.0, 50_000.0, 50_000.0)),
            "Leveret": Figure(1_234_567.0, 0.3, memory_bytes=150_000_000, latency=Latency(0.1, 4.9, 5.5, 617_000.0, 617_283.0)),
        },
    ),
    "slow": (
        Row("slow", "1 KB slow", Load(), rate_goal=8, cpu_goal=25, confirms=True, durable=True),
        {
            "RabbitMQ": Figure(10_000.0, 50.0, latency=Latency(0.5, 4.0, 30.0, 5_000.0, 5_000.0)),
            "Leveret": Figure(70_000.0, 3.0, latency=Latency(1.0, 77.0, 99.0, 20_000.0, 35_000.0)),
        },
    ),
    "start": (
        Row("start", "start", never, "s", value_max=0.5, higher_is_better=False),
        {"RabbitMQ": Figure(5.0, None), "Leveret": Figure(0.61, None)},
    ),
    "deep": (
        Row("deep", "deep queue", never, "s", value_max=3, memory_max=500e6, higher_is_better=False, ours_only=True),
        {"Leveret": Figure(0.4, 1.3, memory_bytes=501_000_000)},
    ),
    "broken": (
        Row("broken", "broken", Load(), rate_goal=8),
        {"RabbitMQ": Figure(10.0, 1.0), "Leveret": Figure(0.0, None, faults=("connection <refused>",))},
    ),
}


def points(name: str, parts: tuple[str, ...], xs: tuple[int, ...]) -> dict[str, Any]:
    """A curve of a document; RabbitMQ takes part in all points but the last."""
    found = [
        {"x": x, "broker": broker, "part": part, "value": 1e6 / (x + 1), "cpu_us": 0.3, "limit": "", "faults": [], "memory_bytes": 2e8}
        | {"latency": None, "details": {}}
        for broker, mine in (("RabbitMQ", xs[:-1]), ("Leveret", xs))
        for x in mine
        for part in parts
    ]
    return {"name": name, "title": f"{name} of it", "axis": f"{name}s", "parts": list(parts), "points": found}


@pytest.fixture(scope="module")
def told() -> Document:
    """Results that no test changes."""
    rows = [results._row(row, figures) for row, figures in ROWS.values()]
    nodes = [
        {"name": "RabbitMQ", "label": "RabbitMQ 3.10.8 (no fsync before a confirm)", "start_s": 5.0, "fsyncs_before_confirm": False},
        {"name": "Leveret", "label": "Leveret 0.1.0 (durability disk)", "start_s": 0.4, "fsyncs_before_confirm": True},
    ]
    machine = {"cores": 2, "processor": "Some <CPU>", "memory_bytes": 25e9, "kernel": "6.1", "python": "3.11.7"}
    return {
        "version": results.VERSION,
        "at": "2026-11-24T12:00:00Z",
        "commit": "abc1234+",
        "machine": machine | {"disk_us": {"p50": 90.0, "p99": 400.0}, "congestion_control": "bbr"},
        "versions": {"leveret": "0.1.0", "pika": ""},
        "nodes": nodes,
        "rounds": 3,
        "seconds": 4.0,
        "rows": rows,
        "curves": [points("size", ("",), (16, 1024, 1_048_576)), points("depth", ("publish", "consume"), (0, 1_000, 10_000_000))],
    }


class Page(HTMLParser):
    """Cells of the page by kind, with their text; every address that it would load from; and how many pictures it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str]] = []
        self.rows: list[str] = []
        self.loaded: list[str] = []
        self.pictures = 0
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "td":
            self.cells.append((given.get("class") or "", ""))
            self._in_cell = True
        if tag == "tr":
            self.rows.append(given.get("class") or "")
        if tag in {"script", "link", "img", "iframe"}:
            self.loaded.append(tag)
        self.pictures += tag == "svg"

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            kind, text = self.cells[-1]
            self.cells[-1] = (kind, text + data)

    def of(self, kind: str) -> list[str]:
        return [text for given, text in self.cells if given == kind]


@pytest.fixture(scope="module")
def text(told: Document) -> str:
    """Their page: drawing it takes a second or more."""
    return report.page(told)


def test_what_is_missed_is_red_on_the_page_and_nothing_else_is(text: str) -> None:
    page = Page(text)
    assert page.of("missed") == [
        "7.0x MISSED>= 8x",
        "1/16.7 MISSED<= 1/25",
        "1.00 / 77 / 99, behind MISSEDp99 < 5 ms",
        "8.2x MISSED<= 0.5 s",
        "501 MISSED<= 500",
        "MISSED>= 8x",
    ]
    assert page.of("met") == ["12.3x met>= 8x", "1/33.3 met<= 1/25", "0.10 / 4.90 / 5.50 metp99 < 5 ms", "met<= 3 s"]
    assert page.rows == ["", "", "falls-short", "falls-short", "falls-short", "falls-short"]


def test_the_page_tells_how_many_goals_are_missed_and_what_went_wrong(text: str) -> None:
    assert "<b>4 of 10</b>goals met" in text
    assert "<b>6</b>goals missed" in text
    assert "<li>Leveret, broken: connection &lt;refused&gt;</li>" in text
    assert "commit abc1234+; medians of 3 rounds of 4 s" in text


def test_the_page_needs_no_other_file_and_escapes_what_it_is_told(text: str) -> None:
    page = Page(text)
    assert page.loaded == []
    assert page.pictures == 4  # ratios, latencies, two curves
    assert "16 B &lt;fast&gt;" in text and "<fast>" not in text and "Some &lt;CPU&gt;" in text


def test_the_page_tells_how_the_machine_sends(told: Document, text: str) -> None:
    """What was written before this was noted has a page too."""
    assert "<dt>TCP sends by</dt><dd>bbr</dd>" in text
    before = {name: fact for name, fact in told["machine"].items() if name != "congestion_control"}
    assert "<dt>TCP sends by</dt><dd>what was not told</dd>" in report.page(told | {"machine": before, "rows": [], "curves": []})


def test_a_page_of_curves_alone_has_no_goals(told: Document) -> None:
    text = report.page(told | {"rows": []})
    assert "goals met" not in text
    assert "Throughput against size of it" in text
    assert Page(text).pictures == 2


def test_bars_are_red_where_a_goal_is_missed(told: Document) -> None:
    fill = f"fill: {plots.MISSED}"
    fine = plots.ratios(told | {"rows": told["rows"][:1]})
    # `slow` misses both of its goals, `start` its only one: three bars and their three numbers. The legend has red anyway.
    assert plots.ratios(told).count(fill) - fine.count(fill) == 6
    assert plots.ratios(told | {"rows": told["rows"][3:4]}) == ""  # RabbitMQ was not asked


def test_the_same_results_make_the_same_picture(told: Document) -> None:
    assert plots.ratios(told) == plots.ratios(copy.deepcopy(told))


def shown(table: Table) -> str:
    console = Console(width=400, color_system=None)
    with console.capture() as taken:
        console.print(table)
    return taken.get()


def test_the_terminal_shows_rows_latencies_and_every_curve(told: Document) -> None:
    tables = list(terminal.tables(told))
    assert [table.row_count for table in tables] == [len(ROWS), 2, 3, 3]
    rows = {
        name: line for name in ("slow", "deep", "broken") for line in shown(tables[0]).splitlines() if f"│ {ROWS[name][0].title}" in line
    }
    assert "7.0x MISSED" in rows["slow"] and "RabbitMQ no," in rows["slow"]
    assert "501 (<= 500) MISSED" in rows["deep"]
    assert "failed" in rows["broken"]
    assert "77 / 99, behind" in shown(tables[1]) and "p99 < 5 ms │ MISSED" in shown(tables[1])
    last = next(line for line in shown(tables[3]).splitlines() if "10,000,000" in line)
    assert [cell.strip() for cell in last.split("│")[1:-1]] == ["10,000,000", "", "", "", "", "0", "0.30", "0", "0.30"]


def test_a_missed_goal_is_red_in_the_terminal(told: Document) -> None:
    console = Console(width=400, color_system="truecolor", force_terminal=True)
    with console.capture() as taken:
        console.print(next(terminal.tables(told)))
    styled = {re.sub(r"\x1b\[[0-9;]*m", "", text).strip(): style for style, text in re.findall(r"\x1b\[([0-9;]+)m([^\x1b]+)", taken.get())}
    assert (styled["7.0x MISSED"], styled["12.3x met"]) == ("1;31", "32")


@pytest.mark.parametrize(("value_ms", "text"), [(0.1234, "0.12"), (9.99, "9.99"), (10.4, "10"), (1234.5, "1,234")])
def test_milliseconds_keep_two_digits_where_they_count(value_ms: float, text: str) -> None:
    assert wording.milliseconds(value_ms) == text


def test_of_several_results_the_later_row_counts(told: Document) -> None:
    later = copy.deepcopy(told)
    later["rows"] = [later["rows"][1] | {"title": "measured again"}]
    later["curves"] = []
    later["at"] = "2026-11-25T12:00:00Z"
    both = results.merged([told, later])
    assert [row["title"] for row in both["rows"]] == ["16 B <fast>", "measured again", "start", "deep queue", "broken"]
    assert [curve["name"] for curve in both["curves"]] == ["size", "depth"]
    assert both["at"] == later["at"]


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file"), ("{", "holds no JSON"), ("[]", "holds no results"), ('{"version": 1}', "holds no results of this version")],
)
def test_a_file_that_holds_no_results_is_told_of(tmp_path: Path, content: str | None, text: str) -> None:
    file = tmp_path / "results.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NotResults, match=text):
        results.read(file)


def test_the_command_writes_page_and_picture(told: Document, text: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results.write(file, told)
    command = [sys.executable, "-m", "bench.report", str(file), "--picture", str(tmp_path / "picture.svg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "results.html")), done.stderr
    assert (tmp_path / "results.html").read_text() == text
    assert "12.3" in (tmp_path / "picture.svg").read_text()


def test_the_command_says_what_is_no_results_file(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"rows": []}))
    done = subprocess.run([sys.executable, "-m", "bench.report", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "holds no results" in done.stderr and "Traceback" not in done.stderr


def test_a_verdict_without_leveret_judges_nothing() -> None:
    row, figures = ROWS["fine"]
    assert set(Verdict(row, {"RabbitMQ": figures["RabbitMQ"]}).to_json().values()) == {None}
