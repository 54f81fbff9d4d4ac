"""The side-by-side bench's own reckoning: medians, ratios, goals, and that its rows are loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import disk, pika_load
from bench.figures import Figure, median
from bench.rows import ALL_ON_ONE_WORKER, ON_ANOTHER_WORKER, ON_PUBLISHERS_WORKER, ROWS, Row, Timing, misplaced
from bench.run import Verdict, table, to_json


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


def test_a_failed_row_misses_nothing_by_dividing() -> None:
    verdict = Verdict(Row("row", "Row", never, rate_goal=8), {"Leveret": Figure(0.0, None), "RabbitMQ": Figure(5.0, 1.0)})
    assert (verdict.rate, verdict.cpu) == (None, None)


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
    ],
)
def test_a_row_says_when_its_queue_is_elsewhere(placement: str, where: dict[str, int], right: bool) -> None:
    assert (misplaced(placement, where) == ()) is right


def test_rows_have_names_of_their_own_and_goals() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [row.name for row in ROWS if not (row.rate_goal or row.cpu_goal or row.value_max or row.cpu_us_max)] == []


def test_every_row_is_shown_and_written() -> None:
    class FakeNode:
        name, label, start_s, fsyncs_before_confirm = "Leveret", "Leveret 1", 0.1, False

    results = {row.name: {"Leveret": Figure(1.0, 2.0)} for row in ROWS}
    node: Any = FakeNode()
    assert table(ROWS, results, [node]).row_count == len(ROWS)
    told = to_json(ROWS, results, [node], 1, Timing(1.0, 0.0))
    assert [row["name"] for row in told["rows"]] == [row.name for row in ROWS]


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
