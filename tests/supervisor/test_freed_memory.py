"""What is given back, and when: the rule on a heap that the test fills and empties by the test's clock, and the C library's own heap."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from leveret.supervisor.freed_memory import (
    ALARM_FIRST_S,
    ALARM_MAX_S,
    AT_ONCE_BYTES,
    COST_SHARE,
    OFTEN_S,
    SELDOM_S,
    SPARE_BYTES,
    SPARE_S,
    FreedMemory,
)

MIB = 1 << 20


@dataclass
class FakeHeap:
    """Numbers instead of memory, and a clock that a look and waiting turn on. `given_back`: when.

    free: bytes that are free and have pages. other: what else has pages.
    look_s: a look's processor time. kept_waiting_s: how much longer it lasts, since others have the processor.
    """

    in_use: int = 0
    free: int = 0
    other: int = 0
    look_s: float = 0.0
    kept_waiting_s: float = 0.0
    cpu_s: float = 0.0
    now_s: float = 100.0
    given_back: list[float] = field(default_factory=list)

    def look(self) -> tuple[int, int]:
        self.cpu_s += self.look_s
        self.now_s += self.look_s + self.kept_waiting_s
        return self.in_use, self.in_use + self.free + self.other

    def give_back(self) -> None:
        self.free = 0
        self.given_back.append(self.now_s)

    def clock_s(self) -> float:
        return self.now_s

    def cost_clock_s(self) -> float:
        return self.cpu_s

    def take(self, count: int) -> None:
        """So many bytes more come into use: from what is free, then by growth."""
        from_free = min(count, self.free)
        self.free -= from_free
        self.in_use += count

    def release(self, count: int) -> None:
        self.in_use -= count
        self.free += count


def made(**numbers: float) -> tuple[FakeHeap, FreedMemory]:
    heap = FakeHeap(**numbers)  # type: ignore[arg-type]
    return heap, FreedMemory(heap, heap.clock_s, heap.cost_clock_s)


def passes(heap: FakeHeap, memory: FreedMemory, seconds: float) -> int:
    """Let that time pass, with the looks that come due in it. How often memory was given back."""
    before, end_s = len(heap.given_back), heap.now_s + seconds
    while heap.now_s < end_s:
        heap.now_s += memory.look()
    return len(heap.given_back) - before


def test_what_nobody_needed_for_some_seconds_goes_back_once() -> None:
    heap, memory = made(in_use=10 * MIB, free=SPARE_BYTES)
    assert passes(heap, memory, SPARE_S) == 0
    assert passes(heap, memory, SPARE_S + 2 * SELDOM_S) == 1
    assert passes(heap, memory, 10 * SPARE_S) == 0


def test_a_little_is_kept() -> None:
    heap, memory = made(in_use=10 * MIB, free=SPARE_BYTES - 1)
    assert passes(heap, memory, 10 * SPARE_S) == 0


def test_what_is_used_again_and_again_is_kept() -> None:
    """Each message of a load takes it and frees it: every look but some finds it free, and it is needed all the same."""
    heap, memory = made(in_use=10 * MIB, free=0)
    for _ in range(20):
        heap.take(20 * MIB)
        passes(heap, memory, SELDOM_S)
        heap.release(20 * MIB)
        passes(heap, memory, SPARE_S - 2 * SELDOM_S)
    assert heap.given_back == []
    assert passes(heap, memory, 3 * SPARE_S) == 1


def test_what_was_given_back_is_spare_again_when_it_was_used_and_freed() -> None:
    heap, memory = made(in_use=10 * MIB, free=20 * MIB)
    assert passes(heap, memory, 3 * SPARE_S) == 1
    heap.take(20 * MIB)
    passes(heap, memory, SELDOM_S)
    heap.release(20 * MIB)
    assert passes(heap, memory, 3 * SPARE_S) == 1


def test_what_a_burst_between_two_looks_has_left_goes_back() -> None:
    heap, memory = made(in_use=10 * MIB, free=20 * MIB)
    assert passes(heap, memory, 3 * SPARE_S) == 1
    heap.take(20 * MIB)
    heap.release(20 * MIB)
    assert passes(heap, memory, 3 * SPARE_S) == 1


def test_pages_that_are_no_free_ones_are_tried_once() -> None:
    heap, memory = made(in_use=10 * MIB, other=20 * MIB)
    assert passes(heap, memory, 10 * SPARE_S) == 1
    heap.other += MIB
    assert passes(heap, memory, 10 * SPARE_S) == 1
    heap.release(5 * MIB)
    assert passes(heap, memory, 3 * SPARE_S) == 1
    assert heap.free == 0


def test_a_queue_that_is_drained_fast_gives_back_in_bounded_steps() -> None:
    step = AT_ONCE_BYTES // 4
    heap, memory = made(in_use=10 * MIB + 20 * step, free=0)
    most = spare = 0
    for _ in range(20):
        wait_s = memory.look()
        assert wait_s <= OFTEN_S  # for so much is in use
        heap.now_s += wait_s
        heap.release(step)
        spare = spare + step if len(heap.given_back) == most else step
        most = len(heap.given_back)
        assert spare <= AT_ONCE_BYTES + step
    assert len(heap.given_back) >= 20 * step // (AT_ONCE_BYTES + step)


def test_a_small_heap_is_looked_at_seldom() -> None:
    _, memory = made(in_use=AT_ONCE_BYTES - MIB, free=0)
    assert memory.look() == SELDOM_S


def test_looks_at_a_heap_full_of_holes_take_a_thousandth_of_the_time() -> None:
    heap, memory = made(in_use=100 * MIB, free=MIB, look_s=0.01)
    began_s, looks = heap.now_s, 0
    while heap.now_s < began_s + 1000:
        heap.now_s += memory.look()
        looks += 1
    assert looks * heap.look_s <= 1000 / COST_SHARE + heap.look_s


def test_a_look_that_had_to_wait_for_the_processor_does_not_put_off_the_next() -> None:
    _, memory = made(in_use=100 * MIB, free=MIB, look_s=OFTEN_S / COST_SHARE, kept_waiting_s=0.05)
    assert memory.look() == pytest.approx(OFTEN_S)


def test_all_goes_back_while_the_alarm_stands_ever_more_seldom() -> None:
    heap, memory = made(in_use=10 * MIB, free=MIB, look_s=0.01)  # slow enough to be looked at every ten seconds only
    memory.look()
    began_s = heap.now_s
    memory.set_alarm(True)
    passes(heap, memory, 60.0)
    waits = [round(later - earlier) for earlier, later in zip([began_s, *heap.given_back], heap.given_back, strict=False)]
    assert waits[:5] == [ALARM_FIRST_S, 2, 4, 8, ALARM_MAX_S]
    assert set(waits[4:]) == {ALARM_MAX_S}
    memory.set_alarm(False)
    assert passes(heap, memory, 60.0) == 0


def test_the_c_librarys_heap_is_emptied_below_a_block_that_stays() -> None:
    """In a process of its own, whose heap nobody else uses."""
    code = """
import ctypes, json
from leveret.supervisor.freed_memory import CHeap, keep_freed_memory

keep_freed_memory()
heap, library = CHeap(), ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
pieces = [library.malloc(4000) for _ in range(16384)]
for piece in pieces:
    ctypes.memset(piece, 1, 4000)
in_use = heap.look()[0]
for piece in pieces[:-1]:
    library.free(ctypes.c_void_p(piece))
still, own = heap.look()
heap.give_back()
print(json.dumps({"freed": in_use - still, "spare": own - still, "given_back": own - heap.look()[1]}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    assert told["freed"] >= 60 * MIB
    assert told["spare"] >= 60 * MIB
    assert told["given_back"] >= 60 * MIB
