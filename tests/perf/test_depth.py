"""A deep durable queue, smaller than the bench's: memory, restart and what comes out of it, held against the number of messages.

Limits are far from what an idle machine shows and below what a mistake would cost: a hundred bytes of memory a message, or a start that
reads the bodies.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from bench import depth
from bench.leveret_node import LeveretNode
from bench.memory import Memory
from tests.deadline import busy_factor

MESSAGES = 1_000_000
SIZE = 100


@pytest.fixture(scope="module")
def node() -> Iterator[LeveretNode]:
    with LeveretNode(2) as started:
        yield started


@pytest.fixture(scope="module")
def filled(node: LeveretNode) -> tuple[Memory, depth.Filled]:
    """What the node used before it was filled, and how that went."""
    before = Memory.of(node)
    return before, depth.fill(node, MESSAGES, SIZE)


def test_a_deep_queue_takes_no_memory_to_speak_of(filled: tuple[Memory, depth.Filled]) -> None:
    before, after = filled
    # Each in memory would take a message's head, its body and its entry: some 200 MB. What the processes take to work at all is in it too.
    assert after.after.own_bytes - before.own_bytes < 80e6, f"{before} before, {after.after} with {MESSAGES:,} messages"
    assert after.most.all_bytes < 400e6
    assert after.after.all_bytes < 400e6


@pytest.mark.parametrize("kill", [False, True])
def test_it_is_back_at_once_with_its_first_message(node: LeveretNode, filled: tuple[Memory, depth.Filled], kill: bool) -> None:
    back = [depth.restart(node, kill=kill, cold=kill) for _ in range(3)]
    assert all(one.first_message_s is not None for one in back)
    limit_s = depth.RESTART_MAX_S * busy_factor()
    assert statistics.median(one.first_message_s or 0.0 for one in back) < limit_s
    assert back[-1].memory.own_bytes < filled[0].own_bytes + 40e6, f"{filled[0]} before, {back[-1].memory} with {MESSAGES:,} messages"


def test_all_of_it_comes_out_and_memory_stays_low(node: LeveretNode, filled: tuple[Memory, depth.Filled]) -> None:
    drained = depth.drain(node, 0.5, SIZE)
    assert (drained.received, drained.left) == (MESSAGES, 0)
    assert drained.most.own_bytes < filled[0].own_bytes + 80e6, f"{filled[0]} before, {drained.most} while draining"
    assert drained.most.all_bytes < 400e6
