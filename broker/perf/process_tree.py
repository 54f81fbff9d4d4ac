"""The CPU time and memory of a process with all of its descendants, read from `/proc`.

Beside it the time of the whole machine, because a figure taken on one that had no core to spare says little about anybody's speed.
Used by `leveret perf --broker-pid` and by the benches, so that both brokers are counted by one rule: user plus system time of every
process in the tree, whatever each is called, plus what ended descendants left to their parents. It only looks; it never signals anybody.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used so far. `cpu_s` counts the descendants that it has already waited for."""

    pid: int
    name: str
    cpu_s: float
    rss_bytes: int


def _stat(pid: int) -> tuple[int, str, float, int] | None:
    """Parent pid, command name, CPU seconds and resident bytes of `pid`, or None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in brackets and may hold spaces and brackets itself.
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return int(fields[1]), name, ticks / _TICKS_PER_S, int(fields[21]) * _PAGE_BYTES


def process_tree(root_pid: int) -> list[Usage]:
    """`root_pid` and every living descendant, the root first. Empty when the root is gone."""
    seen: dict[int, tuple[int, str, float, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            seen[int(entry.name)] = stat
    if root_pid not in seen:
        return []
    children: dict[int, list[int]] = {}
    for pid, stat in seen.items():
        children.setdefault(stat[0], []).append(pid)
    found: list[Usage] = []
    pending = [root_pid]
    while pending:
        pid = pending.pop()
        _, name, cpu_s, rss_bytes = seen[pid]
        found.append(Usage(pid, _title(pid, name), cpu_s, rss_bytes))
        pending.extend(sorted(children.get(pid, ()), reverse=True))
    return found


def _title(pid: int, name: str) -> str:
    """A name that tells Leveret's processes apart: the module they run, where the command line shows one."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return name
    for word, following in itertools.pairwise(words):
        if word == b"-m":
            return following.decode(errors="replace")
    return name


@dataclass(frozen=True, slots=True)
class MachineTime:
    """Seconds that all cores together have spent since the machine started: in all, and doing nothing."""

    total_s: float
    idle_s: float

    @classmethod
    def now(cls) -> MachineTime:
        ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        return cls(sum(ticks) / _TICKS_PER_S, (ticks[3] + ticks[4]) / _TICKS_PER_S)  # idle, and waiting for a disk

    def busy_share_since(self, before: MachineTime) -> float:
        """0.0 to 1.0: how much of all cores' time went to anybody."""
        passed_s = self.total_s - before.total_s
        return 1.0 - (self.idle_s - before.idle_s) / passed_s if passed_s > 0 else 0.0


def cpu_s(tree: list[Usage]) -> float:
    """CPU seconds of the whole tree."""
    return sum(usage.cpu_s for usage in tree)


def rss_bytes(tree: list[Usage]) -> int:
    """Resident bytes of the whole tree; pages shared between its processes count once for each."""
    return sum(usage.rss_bytes for usage in tree)


def pss_bytes(root_pid: int, part: str = "Pss") -> int:
    """Proportional bytes of the whole tree: a page that n processes share counts 1/n for each, so nothing counts twice.

    part: a line of `/proc/<pid>/smaps_rollup`; "Pss_Anon" leaves out what the kernel can read again from files. Falls back to the
    resident size of a process whose `smaps_rollup` may not be read.
    """
    return pss_parts(root_pid, part)[0]


def pss_parts(root_pid: int, *parts: str) -> tuple[int, ...]:
    """As `pss_bytes`, several parts at one look: the kernel walks all page tables for each look, which costs some 10 ms a gigabyte."""
    totals = [0] * len(parts)
    for usage in process_tree(root_pid):
        told: dict[str, int] = {}
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{usage.pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
            told = {words[0][:-1]: int(words[1]) * 1024 for line in text.splitlines()[1:] if len(words := line.split()) > 1}
        for index, part in enumerate(parts):
            totals[index] += told.get(part, usage.rss_bytes)
    return tuple(totals)
