"""Percentiles of the histogram against a sorted list of the same values."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.perf.histogram import Histogram

BEYOND_LAST_SLOT = 1 << 40
values_ns = st.lists(
    st.one_of(st.integers(0, 300), st.integers(0, 1 << 20), st.integers(0, BEYOND_LAST_SLOT - 1)), min_size=1, max_size=200
)


def filled(samples: list[int]) -> Histogram:
    histogram = Histogram()
    for value_ns in samples:
        histogram.record(value_ns)
    return histogram


@given(values_ns, st.floats(0.001, 1.0))
def test_a_percentile_is_never_too_small_and_at_most_a_slot_too_large(samples: list[int], share: float) -> None:
    exact = sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]
    told = filled(samples).percentile_ns(share)
    assert exact <= told <= exact + exact // 128


@given(values_ns)
def test_the_whole_is_the_largest_sample(samples: list[int]) -> None:
    histogram = filled(samples)
    assert histogram.percentile_ns(1.0) == histogram.max_ns == max(samples)
    assert histogram.total == len(samples)
    assert histogram.mean_ns == pytest.approx(sum(samples) / len(samples))


@given(values_ns, values_ns)
def test_merged_histograms_are_as_one_filled_with_all(left: list[int], right: list[int]) -> None:
    merged = filled(left)
    merged.merge(filled(right))
    assert merged.dump() == filled(left + right).dump()


@given(values_ns)
def test_a_dump_survives_json(samples: list[int]) -> None:
    histogram = filled(samples)
    restored = Histogram.restore(json.loads(json.dumps(histogram.dump())))
    assert restored.dump() == histogram.dump()
    assert restored.total == histogram.total


def test_values_beyond_the_last_slot_keep_their_maximum() -> None:
    histogram = filled([5, BEYOND_LAST_SLOT * 7])
    assert histogram.percentile_ns(1.0) == BEYOND_LAST_SLOT * 7
    assert histogram.percentile_ns(0.5) == 5


def test_a_sample_may_count_many_times() -> None:
    histogram = Histogram()
    histogram.record(10, 99)
    histogram.record(1000)
    assert (histogram.percentile_ns(0.99), histogram.total) == (10, 100)
    assert histogram.percentile_ns(0.991) >= 1000


def test_without_samples_everything_is_zero() -> None:
    histogram = filled([7])
    histogram.reset()
    assert (histogram.percentile_ns(0.5), histogram.mean_ns, histogram.max_ns, histogram.total) == (0, 0.0, 0, 0)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_a_share_outside_its_bounds_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        filled([1]).percentile_ns(share)


@pytest.mark.parametrize("slot", [-1, 1 << 20])
def test_a_dump_with_a_slot_that_does_not_exist_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match=f"no slot {slot}"):
        Histogram.restore({"slots": [[slot, 1]], "sum_ns": 0, "max_ns": 0})
