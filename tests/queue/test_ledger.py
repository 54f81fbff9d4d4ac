"""The ledger against a dict, and its bounds: a slot that nobody settles must not make the rest cost anything."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.queue.structures import OpenLedger

HOLES_MAX = 64


class LedgerMachine(RuleBasedStateMachine):
    """Keys with gaps and without, ranges that hit, miss and overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = OpenLedger()
        self.model: dict[int, int] = {}
        self.next_key = 1

    @rule(count=st.integers(1, 120), step=st.sampled_from([1, 1, 1, 2, 50]))
    def append(self, count: int, step: int) -> None:
        for _ in range(count):
            self.ledger.append(self.next_key, self.next_key * 3)
            self.model[self.next_key] = self.next_key * 3
            self.next_key += step

    @rule(data=st.data(), width=st.integers(0, 40))
    def erase_range(self, data: st.DataObject, width: int) -> None:
        first = data.draw(st.integers(0, self.next_key + 1))
        expected = [number for key, number in self.model.items() if first <= key <= first + width]
        assert self.ledger.erase(first, first + width) == expected
        self.model = {key: number for key, number in self.model.items() if not first <= key <= first + width}

    @rule(data=st.data())
    def erase_all_but_one_in_seven(self, data: st.DataObject) -> None:
        kept = data.draw(st.integers(0, 6))
        for key in [key for key in self.model if key % 7 != kept]:
            assert self.ledger.erase(key, key) == [self.model.pop(key)]

    @rule()
    def erase_everything(self) -> None:
        assert self.ledger.erase(0, 2**64 - 1) == list(self.model.values())
        self.model.clear()

    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        key = data.draw(st.integers(0, self.next_key + 1))
        assert self.ledger.find(key) == self.model.get(key)

    @invariant()
    def agree(self) -> None:
        assert self.ledger.keys() == list(self.model)
        assert len(self.ledger) == len(self.model)
        assert self.ledger.span <= 2 * len(self.model) + HOLES_MAX


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase


def test_one_slot_that_stays_costs_nothing_while_a_million_go() -> None:
    ledger = OpenLedger()
    ledger.append(1, 1)
    for key in range(2, 1_000_002):
        ledger.append(key, key)
        assert ledger.erase(key, key) == [key]
        assert ledger.span <= 1 + 1 + HOLES_MAX + 1
    assert ledger.capacity <= 256
    assert ledger.find(1) == 1


def test_a_steady_window_keeps_its_block() -> None:
    """500 outstanding, the oldest settled each time: the slots slide down in the block instead of growing it."""
    ledger = OpenLedger()
    for key in range(1, 501):
        ledger.append(key, key)
    for key in range(501, 100_001):
        ledger.append(key, key)
        assert ledger.erase(key - 500, key - 500) == [key - 500]
    assert ledger.capacity <= 2048


@pytest.mark.parametrize("newest_first", [False, True])
def test_an_emptied_ledger_gives_its_memory_back(newest_first: bool) -> None:
    ledger = OpenLedger()
    for key in range(1, 100_001):
        ledger.append(key, key)
    assert ledger.capacity >= 100_000
    for key in range(100_000, 0, -1) if newest_first else range(1, 100_001):
        assert ledger.erase(key, key) == [key]
    assert ledger.capacity <= 256
    assert (ledger.span, len(ledger)) == (0, 0)
