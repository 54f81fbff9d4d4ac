"""The soak: what counts as growth, what is sampled, and that its clients leave nothing behind that could be taken for a leak."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.leveret_node import LeveretNode
from bench.soak import LOWS_S, NOISE_BYTES, SMOOTHED_S, Churner, Series, Watch, growth, lows_percent, parts_of, read_api, table
from tests.deadline import eventually

MB = 1_000_000
LENGTH = 20 * SMOOTHED_S


def rising(start_mb: float, percent: float) -> list[float]:
    """A straight line that ends so much higher."""
    return [start_mb * MB * (1 + percent / 100 * at / (LENGTH - 1)) for at in range(LENGTH)]


@pytest.mark.parametrize(
    ("values", "grows"),
    [
        ([100 * MB] * LENGTH, False),
        (rising(100, 2.5), False),
        (rising(100, 4.0), True),
        (rising(100, -10.0), False),
        (rising(4, 8.0), False),  # 320 KB: within the noise of malloc's pages
        (rising(4, 20.0), True),
        ([100 * MB] * (LENGTH // 2) + [104 * MB] * (LENGTH // 2), True),  # a step is growth too
        ([100 * MB if at % 100 else 300 * MB for at in range(LENGTH)], False),  # a moment's full queue is none
    ],
)
def test_three_per_cent_over_the_run_is_growth(values: list[float], grows: bool) -> None:
    assert growth(values).is_growing is grows


def test_growth_tells_both_ends_and_the_halves_peaks() -> None:
    found = growth([10 * MB] * LENGTH + [20 * MB] * LENGTH)
    assert found.peaks_percent == pytest.approx(100.0)
    assert found.first_bytes < 10 * MB < 20 * MB < found.last_bytes


@pytest.mark.parametrize("high_mb", [55, 90])
def test_the_lows_of_a_saw_rise_only_with_what_is_in_use(high_mb: int) -> None:
    length = 10 * LOWS_S
    teeth = [50 * MB + (high_mb - 50) * MB * (at / length) * (at % 13) / 12 for at in range(length)]
    assert lows_percent(teeth) == pytest.approx(0.0)
    assert lows_percent([value * (1 + 0.1 * (at // LOWS_S) / 9) for at, value in enumerate(teeth)]) == pytest.approx(10.0)
    assert lows_percent(teeth[: 2 * LOWS_S - 1]) is None


def test_a_run_that_is_too_short_shows_no_growth_at_all() -> None:
    with pytest.raises(ValueError, match="too few"):
        growth([1.0] * SMOOTHED_S)


def test_only_a_growing_heap_fails_and_files_are_told_apart() -> None:
    flat, steep = [50 * MB] * LENGTH, [int(value) for value in rising(50, 50.0)]
    _, growing = table({"worker 0": Series(flat, steep), "worker 1": Series(steep, flat)})
    assert len(growing) == 1
    assert growing[0].startswith("worker 1: its heap grows, from 5")


def test_heap_and_pages_of_files_are_read_apart() -> None:
    anon, _ = parts_of(os.getpid())
    block = bytearray(b"x" * 64 * MB)
    more, _ = parts_of(os.getpid())
    assert more - anon > len(block) - NOISE_BYTES


def test_a_process_that_has_ended_is_told() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        parts_of(process.pid)


def test_every_process_is_watched_and_clients_leave_nothing_behind() -> None:
    with LeveretNode(2) as node:
        read_api(node, "overview")
        watch = Watch(node)
        assert sorted(watch.series) == ["management", "router", "supervisor", "worker 0", "worker 1"]
        watch.look()
        assert all(series.anon[0] > MB for series in watch.series.values())
        churner = Churner(node.uri + "%2F", seed=1)
        for _ in range(12):
            churner.step()
        assert churner.clients == 12
        watch.look()
        assert not watch.faults
        eventually(lambda: not read_api(node, "connections"))
        eventually(lambda: not read_api(node, "queues"))
        assert not [row for row in read_api(node, "exchanges") if row["name"].startswith("soak-")]
