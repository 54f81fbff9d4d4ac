"""The ring and the heap against sorted lists."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.queue.structures import OpenHeap, OpenRing, flags_returned

positions_st = st.lists(st.integers(1, 200), unique=True, min_size=1, max_size=80)


@given(st.lists(st.sampled_from(["back", "front", "pop"]), max_size=300))
def test_a_ring_is_a_double_ended_list(commands: list[str]) -> None:
    ring = OpenRing()
    model: list[int] = []
    for number, command in enumerate(commands, start=1):
        if command == "back":
            ring.push_back(1000 + number)
            model.append(1000 + number)
        elif command == "front":
            ring.push_front(1000 - number)
            model.insert(0, 1000 - number)
        elif model:
            assert ring.pop_front() == model.pop(0)
        assert ring.positions() == model


@given(positions_st, st.data(), st.integers(0, 40))
def test_a_merged_run_lies_in_order_and_costs_what_was_foretold(positions: list[int], data: st.DataObject, turned: int) -> None:
    """`turned`: how far the ring's start has wandered, so that its entries wrap around the end of the block."""
    run = sorted(data.draw(st.lists(st.sampled_from(positions), unique=True, min_size=1)))
    there = sorted(set(positions) - set(run))
    ring = OpenRing()
    for number in range(turned):
        ring.push_back(number + 1)
        ring.pop_front()
    for position in there:
        ring.push_back(position)
    cost = ring.merge(run)
    assert ring.positions() == sorted(positions)
    assert cost == min(sum(p < run[-1] for p in there), sum(p > run[0] for p in there))


def test_a_ring_gives_memory_back_as_it_empties() -> None:
    ring = OpenRing()
    for position in range(1, 100_001):
        ring.push_back(position)
    assert 100_000 <= ring.capacity <= 200_000
    for expected in range(1, 100_001):
        assert ring.pop_front() == expected
        assert ring.capacity <= max(16, 16 * (100_001 - expected)) or expected < 90_000
    assert ring.capacity == 16


def test_a_ring_is_not_resized_back_and_forth_at_one_length() -> None:
    """Growing doubles, shrinking waits for an eighth: a length that swings by one resizes at most once."""
    ring = OpenRing()
    for position in range(1, 4097):
        ring.push_back(position)
    capacities = set()
    for position in range(4097, 6000):
        ring.push_back(position)
        ring.pop_front()
        capacities.add(ring.capacity)
    assert capacities == {8192}


@given(st.lists(st.one_of(st.none(), st.integers(0, 10_000)), max_size=300))
def test_a_heap_gives_the_oldest_first(commands: list[int | None]) -> None:
    heap = OpenHeap()
    model: list[int] = []
    for command in commands:
        if command is not None and command not in model:
            heap.push(command)
            heapq.heappush(model, command)
        elif model:
            assert heap.pop() == heapq.heappop(model)
        assert len(heap) == len(model)
    while model:
        assert heap.pop() == heapq.heappop(model)
    assert heap.capacity == 0


def test_a_heap_of_many_comes_out_sorted() -> None:
    positions = list(range(50_000))
    random.Random(7).shuffle(positions)
    heap = OpenHeap()
    for position in positions:
        heap.push(position)
    assert [heap.pop() for _ in positions] == sorted(positions)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(0, 0x101), (0x101, 0x201), (0xFFFFFE01, 0xFFFFFF01), (0xFFFFFF01, 0xFFFFFF01)],
)
def test_coming_back_is_counted_up_to_24_bits(flags: int, expected: int) -> None:
    assert flags_returned(flags) == expected
