"""The memory watermark: how much the node's processes hold together, and whether publishers are to be held back for it.

`Watermark` is the pure rule; `MemoryGauge` reads one process. The supervisor samples all of its children (a `pread` of some 2 us each), as
often as the limit could be reached from where they are, and tells them when the alarm changes. Nothing here frees memory: consumers do
that by draining queues.

What counts is each process's memory of its own (resident minus file-backed and shared): pages of LMDB's map and of program files are the
kernel's to drop, and would be counted once per process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CLEAR_SHARE = 0.95
SAMPLE_MIN_S = 0.1  # between two samples, while the limit is near or the alarm stands
SAMPLE_MAX_S = 1.0
FILLED_BYTES_PER_S = 4_000_000_000  # more than one worker can take in


def watermark_bytes(watermark: float, memory_total_bytes: int) -> int:
    """The option `memory_watermark` in bytes: up to 1 it is a share of `memory_total_bytes`, above it a size, never more than there is."""
    return int(watermark * memory_total_bytes) if watermark <= 1 else min(int(watermark), memory_total_bytes)


@dataclass(slots=True)
class Watermark:
    """Goes on at `limit_bytes` and off again below 95 % of it, so that a level at the edge does not block and unblock clients in turn."""

    limit_bytes: int
    alarm: bool = False

    def sample(self, used_bytes: int) -> bool:
        """Take one sample; True if the alarm changed."""
        before = self.alarm
        self.alarm = used_bytes >= (int(self.limit_bytes * CLEAR_SHARE) if before else self.limit_bytes)
        return self.alarm != before

    def next_sample_s(self, used_bytes: int, workers: int) -> float:
        """How long the next sample may wait, seconds: no longer than so many workers (> 0) would take to fill what is left."""
        if self.alarm:
            return SAMPLE_MIN_S
        return min(max((self.limit_bytes - used_bytes) / (FILLED_BYTES_PER_S * workers), SAMPLE_MIN_S), SAMPLE_MAX_S)


@dataclass(slots=True)
class LowDisk:
    """The same for free space on disk: on below `limit_bytes`, off from 105 % of it. A limit of 0 is never reached."""

    limit_bytes: int
    alarm: bool = False

    def sample(self, free_bytes: int) -> bool:
        """Take one sample; True if the alarm changed."""
        before = self.alarm
        self.alarm = free_bytes < (self.limit_bytes + self.limit_bytes // 20 if before else self.limit_bytes)
        return self.alarm != before


class MemoryGauge:
    """Reads one process's memory through one descriptor kept open, which also pins the process: a reused pid reads as gone."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self._descriptor = os.open(proc / str(pid) / "statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> tuple[int, int]:
        """(resident, own) bytes; (0, 0) once the process is gone."""
        if self._descriptor < 0:
            return 0, 0
        try:
            content = os.pread(self._descriptor, 128, 0).split()
        except OSError:  # ESRCH
            return 0, 0
        if len(content) < 3:
            return 0, 0
        resident, shared = int(content[1]), int(content[2])
        return resident * PAGE_BYTES, max(0, resident - shared) * PAGE_BYTES

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Processor time that a process has used, in seconds."""

    user_s: float
    system_s: float


def cpu_time(pid: int, proc: Path = Path("/proc")) -> CpuTime:
    """Of all threads of `pid` so far; zero for a process that is gone."""
    try:
        # proc(5): the name in parentheses may hold anything; fields 14 and 15 are utime and stime in clock ticks.
        after_name = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return CpuTime(0.0, 0.0)
    ticks = os.sysconf("SC_CLK_TCK")
    return CpuTime(int(after_name[11]) / ticks, int(after_name[12]) / ticks)
