"""The watermark's rule, and reading a process's memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from leveret.supervisor.memory import (
    FILLED_BYTES_PER_S,
    SAMPLE_MAX_S,
    SAMPLE_MIN_S,
    LowDisk,
    MemoryGauge,
    Watermark,
    cpu_time,
    watermark_bytes,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("watermark", "total", "expected"),
    [(0.6, 1000, 600), (0.0, 1000, 0), (1.0, 1000, 1000), (500.0, 1000, 500), (5000.0, 1000, 1000)],
)
def test_watermark_is_a_share_or_a_size_but_never_more_than_there_is(watermark: float, total: int, expected: int) -> None:
    assert watermark_bytes(watermark, total) == expected


def test_memory_alarm_goes_on_at_the_limit_and_off_only_below_95_per_cent() -> None:
    watermark = Watermark(limit_bytes=1000)
    samples = [999, 1000, 1000, 999, 951, 950, 949, 950, 999, 1001, 0]
    alarms = []
    changes = []
    for used in samples:
        changes.append(watermark.sample(used))
        alarms.append(watermark.alarm)
    assert alarms == [False, True, True, True, True, True, False, False, False, True, False]
    assert changes == [False, True, False, False, False, False, True, False, False, True, True]


def test_memory_alarm_with_a_limit_of_zero_stands_always() -> None:
    watermark = Watermark(limit_bytes=0)
    assert watermark.sample(1)
    assert not watermark.sample(0)
    assert watermark.alarm


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_memory_is_sampled_before_all_workers_together_could_have_filled_it(workers: int) -> None:
    watermark = Watermark(limit_bytes=16 << 30)
    waits = []
    for used in range(0, watermark.limit_bytes, 1 << 28):
        waits.append(watermark.next_sample_s(used, workers))
        could_come = waits[-1] * FILLED_BYTES_PER_S * workers
        assert waits[-1] == SAMPLE_MIN_S or used + could_come <= watermark.limit_bytes
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == SAMPLE_MIN_S
    assert max(waits) <= SAMPLE_MAX_S


def test_memory_is_sampled_often_while_the_alarm_stands() -> None:
    watermark = Watermark(limit_bytes=16 << 30)
    assert watermark.next_sample_s(0, 1) == SAMPLE_MAX_S
    watermark.sample(watermark.limit_bytes)
    assert watermark.next_sample_s(0, 1) == SAMPLE_MIN_S


def test_disk_alarm_goes_on_below_the_limit_and_off_only_from_105_per_cent() -> None:
    disk = LowDisk(limit_bytes=1000)
    alarms = []
    for free in [1000, 999, 1000, 1049, 1050, 1000, 0]:
        disk.sample(free)
        alarms.append(disk.alarm)
    assert alarms == [False, True, True, True, False, False, True]


def test_disk_alarm_with_a_limit_of_zero_never_comes() -> None:
    disk = LowDisk(limit_bytes=0)
    assert not disk.sample(0)
    assert not disk.alarm


def test_gauge_sees_memory_grow_and_reads_zero_when_the_process_is_gone() -> None:
    code = "import sys; print('begun', flush=True); input(); held = bytearray(b'x') * (64 << 20); print('grown', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        gauge = MemoryGauge(process.pid)
        resident, own = gauge.read()
        assert 0 < own < resident
        process.stdin.write("\n")
        assert process.stdout.readline() == "grown\n"
        grown_resident, grown_own = gauge.read()
        assert 60 * MIB < grown_own - own < 80 * MIB
        assert grown_resident - resident >= 60 * MIB
        process.kill()
        process.wait()
    assert gauge.read() == (0, 0)
    gauge.close()
    assert gauge.read() == (0, 0)


def test_cpu_time_is_the_process_s_own() -> None:
    before = cpu_time(os.getpid())
    while sum(os.times()[:2]) < before.user_s + before.system_s + 0.05:
        pass
    after = cpu_time(os.getpid())
    used = sum(os.times()[:2])
    assert before.user_s + before.system_s < after.user_s + after.system_s <= used + 0.02
    assert (cpu_time(2**22 + 1).user_s, cpu_time(2**22 + 1).system_s) == (0.0, 0.0)
