"""The side-by-side bench's own reckoning: medians, ratios, goals, latencies, and that its rows are loads."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from leveret.perf.fleet import LoadFailed
from leveret.perf.histogram import Histogram
from leveret.perf.plan import Plan
from rich.console import Console
from rich.progress import Progress

from bench import disk, pika_load, run
from bench.curves import CURVES, Curve
from bench.figures import Figure, median
from bench.latency import Latency, median_latency
from bench.leveret_node import LeveretNode
from bench.load import ALL_ON_ONE_WORKER, ANYWHERE, ON_ANOTHER_WORKER, ON_PUBLISHERS_WORKER, Load, Timing, misplaced, watched
from bench.rows import ROWS, Row
from bench.verdict import Verdict
from tests.deadline import eventually


def never(*_: object) -> Figure:
    raise AssertionError("not to be measured")


def test_the_median_takes_each_field_for_itself_and_keeps_every_fault() -> None:
    rounds = [Figure(3.0, 10.0, "generator"), Figure(1.0, 30.0, "", ("lost one",)), Figure(2.0, 20.0, "generator", ("lost one", "slow"))]
    taken = median(rounds)
    assert (taken.value, taken.cpu_us, taken.limit, taken.faults) == (2.0, 20.0, "generator", ("lost one", "slow"))
    assert [one["value"] for one in taken.details["rounds"]] == [3.0, 1.0, 2.0]


def test_a_round_without_cpu_time_is_left_out_of_its_median() -> None:
    assert median([Figure(0.0, None), Figure(1.0, 4.0)]).cpu_us == 4.0
    assert median([Figure(0.0, None)]).cpu_us is None


@pytest.mark.parametrize(
    ("goals", "ours", "theirs", "rate_met", "cpu_met"),
    [
        ({"rate_goal": 8, "cpu_goal": 25}, (800.0, 0.4), (100.0, 10.0), True, True),
        ({"rate_goal": 8, "cpu_goal": 25}, (799.0, 0.41), (100.0, 10.0), False, False),
        ({"rate_goal": 8}, (800.0, None), (100.0, None), True, None),
        ({"cpu_us_max": 8}, (1.0, 8.0), (100.0, 50.0), None, True),
        ({"cpu_us_max": 8}, (1.0, 8.1), (100.0, 50.0), None, False),
        ({"value_max": 0.5, "higher_is_better": False}, (0.5, None), (5.0, None), True, None),
        ({"value_max": 0.5, "higher_is_better": False}, (0.6, None), (5.0, None), False, None),
        ({"rate_goal": 8, "cpu_goal": 25}, (800.0, 0.4), (0.0, None), None, None),
    ],
)
def test_a_goal_is_met_or_missed(
    goals: dict[str, Any], ours: tuple[float, float | None], theirs: tuple[float, float | None], rate_met: bool | None, cpu_met: bool | None
) -> None:
    verdict = Verdict(Row("row", "Row", never, **goals), {"Leveret": Figure(*ours), "RabbitMQ": Figure(*theirs)})
    assert (verdict.rate_met, verdict.cpu_met) == (rate_met, cpu_met)


def test_where_less_is_better_the_ratio_is_turned_round() -> None:
    row = Row("start", "Start", never, "s", value_max=1, higher_is_better=False)
    assert Verdict(row, {"Leveret": Figure(0.5, None), "RabbitMQ": Figure(5.0, None)}).rate == 10.0


@pytest.mark.parametrize("goals", [{"rate_goal": 8}, {"value_max": 0.5, "higher_is_better": False}])
def test_a_row_that_failed_misses_its_goal_without_dividing(goals: dict[str, Any]) -> None:
    failed = Figure(0.0, None, faults=("connection refused",))
    verdict = Verdict(Row("row", "Row", never, **goals), {"Leveret": failed, "RabbitMQ": Figure(5.0, 1.0)})
    assert (verdict.rate, verdict.cpu, verdict.rate_met, verdict.missed) == (None, None, False, True)


@pytest.mark.parametrize(("used", "met"), [(500_000_000, True), (500_000_001, False), (None, None)])
def test_memory_has_a_goal_of_its_own(used: int | None, met: bool | None) -> None:
    row = Row("row", "Row", never, memory_max=500e6)
    assert Verdict(row, {"Leveret": Figure(1.0, None, memory_bytes=used)}).memory_met is met


@pytest.mark.parametrize(("p99_ms", "rate", "met"), [(4.99, 1000.0, True), (5.0, 1000.0, False), (1.0, 970.0, False)])
def test_latency_has_a_goal_and_falling_behind_misses_it(p99_ms: float, rate: float, met: bool) -> None:
    latency = Latency(0.1, p99_ms, 9.0, rate, asked=1000.0)
    verdict = Verdict(Row("row", "Row", Load()), {"Leveret": Figure(2000.0, None, latency=latency)})
    assert (verdict.latency_met, verdict.missed) == (met, not met)


def test_percentiles_are_those_of_the_load_in_milliseconds() -> None:
    arrivals, confirms = Histogram(), Histogram()
    for us, times in ((100, 500), (2_000, 490), (7_000, 9), (50_000, 1)):
        arrivals.record(us * 1000, times)
    confirms.record(3_000_000, 10)
    report: Any = SimpleNamespace(latency=arrivals, confirm_latency=confirms, messages_per_s=495.0)
    told = Latency.of(report, 500.0)
    found = (told.p50_ms, told.p99_ms, told.p999_ms, told.confirm_p99_ms)
    assert found == pytest.approx((0.1, 2.0, 7.0, 3.0), rel=1 / 100)
    assert told.kept_up
    assert not dataclasses.replace(told, rate=489.0).kept_up


def test_a_load_in_which_nothing_arrived_has_no_latency() -> None:
    report: Any = SimpleNamespace(latency=Histogram(), confirm_latency=Histogram(), messages_per_s=0.0)
    with pytest.raises(ValueError, match="no message arrived"):
        Latency.of(report, 500.0)


def test_the_latency_of_several_rounds_is_their_median_field_by_field() -> None:
    rounds = [Latency(1.0, 30.0, 50.0, 100.0, 100.0), Latency(3.0, 10.0, 70.0, 90.0, 100.0, 4.0), Latency(2.0, 20.0, 60.0, 95.0, 100.0)]
    assert median_latency(rounds) == Latency(2.0, 20.0, 60.0, 95.0, 100.0, 4.0)


@pytest.mark.parametrize(
    ("options", "has"),
    [({}, True), ({"consumers": 0}, False), ({"size": 7}, False), ({"exchange_kind": "fanout", "queues": 10}, True)],
)
def test_a_load_whose_messages_arrive_with_a_stamp_has_a_latency(options: dict[str, Any], has: bool) -> None:
    assert Load(options).has_latency is has
    assert Row("row", "Row", Load(options)).p99_max_ms == (5.0 if has else None)


@pytest.mark.parametrize(
    ("options", "rate"), [({}, 500.0), ({"publishers": 2, "consumers": 2}, 250.0), ({"exchange_kind": "fanout", "queues": 10}, 50.0)]
)
def test_half_of_the_rate_is_shared_out_among_publishers_and_copies(
    options: dict[str, Any], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def run(_self: Load, _node: object, plan: Plan, *_: object) -> tuple[Any, dict[str, int]]:
        plans.append(plan)
        arrivals = Histogram()
        arrivals.record(1_000_000)
        return SimpleNamespace(latency=arrivals, confirm_latency=Histogram(), messages_per_s=500.0), {}

    monkeypatch.setattr(Load, "_run", run)
    node: Any = SimpleNamespace(uri="amqp://localhost/")
    told = Load(options).latency(node, Timing(1.0, 0.0), 1000.0)
    assert [plan.rate for plan in plans] == [rate]
    assert (told.asked, told.kept_up) == (500.0, True)


@pytest.mark.parametrize(("watched_s", "right"), [(4.0, True), (2.0, True), (1.9, False), (None, False)])
def test_a_broker_that_was_hardly_watched_has_no_cpu_time(watched_s: float | None, right: bool) -> None:
    use = None if watched_s is None else SimpleNamespace(elapsed_s=watched_s)
    report: Any = SimpleNamespace(broker=use, plan=Plan(seconds=4.0))
    assert watched(report) is right


@pytest.mark.parametrize(
    ("placement", "where", "right"),
    [
        (ON_PUBLISHERS_WORKER, {"queue": 0, "publisher 0": 0, "consumer 0": 1}, True),
        (ON_PUBLISHERS_WORKER, {"queue": 1, "publisher 0": 0, "consumer 0": 1}, False),
        (ON_ANOTHER_WORKER, {"queue": 1, "publisher 0": 0, "consumer 0": 1}, True),
        (ON_ANOTHER_WORKER, {"queue": 0, "publisher 0": 0, "consumer 0": 1}, False),
        (ALL_ON_ONE_WORKER, {"queue": 1, "publisher 0": 1, "consumer 0": 1}, True),
        (ALL_ON_ONE_WORKER, {"queue": 1, "publisher 0": 1, "consumer 0": 0}, False),
        (ON_PUBLISHERS_WORKER, {"queue": 0, "publisher 0": 0}, True),  # nobody consumes
        (ON_ANOTHER_WORKER, {"queue": 0, "publisher 0": 0, "consumer 0": 0}, True),  # a node with one worker has no other
        (ON_ANOTHER_WORKER, {}, True),  # RabbitMQ
        (ON_PUBLISHERS_WORKER, {"queue": 1, "consumer 0": 0}, True),  # not told of the publisher in time
        (ANYWHERE, {"queue": 1, "publisher 0": 0, "consumer 0": 0}, True),
    ],
)
def test_a_row_says_when_its_queue_is_elsewhere(placement: str, where: dict[str, int], right: bool) -> None:
    assert (misplaced(placement, where) == ()) is right


def test_rows_and_curves_have_names_of_their_own_and_rows_have_goals() -> None:
    assert len({one.name for one in (*ROWS, *CURVES)}) == len(ROWS) + len(CURVES)
    assert [row.name for row in ROWS if not (row.rate_goal or row.cpu_goal or row.value_max or row.cpu_us_max)] == []


def test_curves_reach_as_far_as_they_should_and_rabbitmq_takes_part_in_some_of_their_points() -> None:
    reach = {curve.name: (min(curve.points), max(curve.points)) for curve in CURVES if not curve.workers}
    assert reach == {
        "size": (16, 1_048_576),
        "queues": (1, 10_000),
        "connections": (1, 10_000),
        "pairs": (1, 16),
        "bindings_topic": (1, 100_000),
        "bindings_direct": (1, 100_000),
        "depth": (0, 10_000_000),
    }
    assert [curve.name for curve in CURVES if not set(curve.peer_points) <= set(curve.points)] == []


def test_the_disk_is_told_sample_by_sample(tmp_path: Path) -> None:
    told = disk.measure(tmp_path, 7) + disk.measure(tmp_path, 4)
    assert len(told.samples_us) == 11
    assert 0 < told.p50_us <= told.p99_us == max(told.samples_us)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.99, 3.0)])
def test_what_waits_for_the_disk_is_told_in_its_times(share: float, value: float) -> None:
    reference = disk.DiskTime((100.0,) * 97 + (900.0,) * 3)
    figure = pika_load.in_disk_times(Figure(5000.0, 12.0, "generator"), {"p50": 200.0, "p99": 2700.0}, reference, share)
    assert (figure.value, figure.cpu_us, figure.limit) == (value, 12.0, "generator")
    assert figure.details == {"disk_us": {"p50": 100.0, "p99": 900.0}, "messages_per_s": 5000.0}


def test_a_load_without_a_single_confirm_has_no_time() -> None:
    assert pika_load.in_disk_times(Figure(0.0, None), None, disk.DiskTime((100.0,)), 0.5).value == 0.0


def test_the_bench_measures_one_row_and_writes_figures_and_page(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "--quick", "--only", "leveret", "--workers", "2", "--json", str(file), "auto_ack_16"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    (row,) = json.loads(file.read_text())["rows"]
    ours = row["figures"]["Leveret"]
    assert (ours["faults"], ours["value"] > 0, ours["memory_bytes"] > 1e6) == ([], True, True)
    assert 0 < ours["latency"]["p50_ms"] <= ours["latency"]["p99_ms"] <= ours["latency"]["p999_ms"]
    assert ours["latency"]["asked"] == pytest.approx(ours["value"] / 2)
    page = file.with_suffix(".html")
    assert str(page) in told.stdout
    assert f"{ours['value']:,.0f}" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "rows", "curves"),
    [
        ([], [row.name for row in ROWS], []),
        (["--curves"], [row.name for row in ROWS], [curve.name for curve in CURVES]),
        (["size"], [], ["size"]),
        (["auto_ack_16", "depth", "start"], ["start", "auto_ack_16"], ["depth"]),  # what a fresh node alone can tell comes first
        (["celery", "--curves"], ["celery"], [curve.name for curve in CURVES]),
    ],
)
def test_the_command_line_says_which_rows_and_curves(
    arguments: list[str], rows: list[str], curves: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    chosen = run._options()
    assert [row.name for row in chosen.rows] == rows
    assert [curve.name for curve in chosen.drawn] == curves


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["auto_ack_17"], "no row or curve auto_ack_17"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--workers", "-1"], "--workers not negative"),
        (["--clients", "65"], "--clients must lie between 1 and 64"),
    ],
)
def test_wrong_arguments_are_told_of(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        run._options()
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


class Peerless(LeveretNode):
    """A Leveret that is never started."""

    def __init__(self) -> None:
        self.label = "Leveret"


def bench_of(nodes: list[Any], rounds: int) -> run.Bench:
    return run.Bench(nodes, rounds, Timing(1.0, 0.0), Progress(console=Console(file=io.StringIO())))


def test_brokers_take_turns_and_their_latency_is_asked_at_the_median_of_their_own_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"RabbitMQ": [100.0, 300.0, 200.0], "Leveret": [1000.0, 3000.0, 2000.0]}
    turns: list[tuple[str, float]] = []

    def measure(_self: Load, node: Any, _timing: Timing) -> Figure:
        turns.append((node.name, 0.0))
        return Figure(rates[node.name].pop(0), 1.0)

    def latency(_self: Load, node: Any, _timing: Timing, rate: float) -> Latency:
        turns.append((node.name, rate))
        return Latency(1.0, float(len(turns)), 9.0, rate / 2, rate / 2)

    monkeypatch.setattr(Load, "__call__", measure)
    monkeypatch.setattr(Load, "latency", latency)
    figures = bench_of([SimpleNamespace(name="RabbitMQ"), Peerless()], 3).rows([Row("row", "Row", Load())])["row"]
    assert turns == [("RabbitMQ", 0.0), ("Leveret", 0.0)] * 3 + [("RabbitMQ", 200.0), ("Leveret", 2000.0)] * 3
    assert {name: figure.latency.p99_ms for name, figure in figures.items() if figure.latency} == {"RabbitMQ": 9.0, "Leveret": 10.0}


def test_a_row_that_gives_up_is_a_fault_and_the_others_go_on() -> None:
    def refused(node: Any, _: Timing) -> Figure:
        if node.name == "RabbitMQ":
            raise LoadFailed("publisher 0", "channel", 404, "NOT_FOUND")
        return Figure(5.0, 1.0)

    rows = [Row("refused", "Refused", refused, rate_goal=1), Row("ours", "Ours", lambda *_: Figure(7.0, None), ours_only=True, rate_goal=1)]
    figures = bench_of([SimpleNamespace(name="RabbitMQ"), Peerless()], 1).rows(rows)
    assert figures["refused"]["RabbitMQ"].faults == ("the broker closed the channel of publisher 0: 404 NOT_FOUND",)
    assert (figures["refused"]["RabbitMQ"].value, figures["refused"]["Leveret"].value) == (0.0, 5.0)
    assert {name: figure.value for name, figure in figures["ours"].items()} == {"Leveret": 7.0}


def test_every_point_of_a_curve_has_each_part_even_where_it_failed() -> None:
    def measure(_node: Any, _timing: Timing, x: int) -> tuple[Figure, ...]:
        if x == 10:
            raise RuntimeError("out of files")
        return Figure(1.0 * x, None), Figure(2.0 * x, None)

    curve = Curve("curve", "curve", "xs", (1, 10), (), measure, parts=("publish", "consume"))
    started: list[int] = []

    def start(workers: int) -> Any:
        started.append(workers)
        return contextlib.nullcontext(Peerless())

    points = bench_of([Peerless()], 1).curve(curve, start, quick=False)
    assert [(point.x, point.broker, point.part, point.figure.value, point.figure.faults) for point in points] == [
        (1, "Leveret", "publish", 1.0, ()),
        (1, "Leveret", "consume", 2.0, ()),
        (10, "Leveret", "publish", 0.0, ("out of files",)),
        (10, "Leveret", "consume", 0.0, ("out of files",)),
    ]
    assert started == [0]
    bench_of([Peerless()], 1).curve(dataclasses.replace(curve, workers=True), start, quick=False)
    assert started == [0, 1, 10]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_bench_that_is_ended_leaves_no_broker_behind(number: signal.Signals, tmp_path: Path) -> None:
    def workers() -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):  # a process that ended while it was looked at
            return [one for one in started.children(recursive=True) if "leveret.worker" in one.cmdline()]
        return []

    command = [
        sys.executable,
        "-m",
        "bench",
        "--only",
        "leveret",
        "--workers",
        "2",
        "--json",
        str(tmp_path / "results.json"),
        "auto_ack_16",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        started = psutil.Process(process.pid)
        try:
            eventually(lambda: len(workers()) == 2, what="the node's workers run")
            children = started.children(recursive=True)
        finally:
            process.send_signal(number)
        assert process.wait(60.0) == 128 + number
    assert psutil.wait_procs(children, timeout=20.0)[1] == []
