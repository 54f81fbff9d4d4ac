"""What the machine, or the container around us, lets the node use: memory, cores, open files.

Read by the supervisor at start, from /proc and /sys, whose places are parameters so that tests can hand in folders. A container's limit
counts, not the machine's memory behind it: RabbitMQ was long bitten by that (rabbitmq/rabbitmq-server#10974).
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

# cgroup v1 writes "no limit" as the largest whole page below 2^63.
_UNLIMITED_BYTES = 1 << 60


def memory_total_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """The smallest of the machine's memory and the limits of every control group above us, version 1 or 2."""
    limits = [limit for folder, v2 in _groups("memory", proc, cgroups) for limit in _memory_limits(folder, v2)]
    return min([_machine_memory_bytes(proc), *limits])


def cores(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Cores that we may use, at least 1: our affinity mask, and the control groups' quota rounded up."""
    allowed = len(os.sched_getaffinity(0))
    for folder, v2 in _groups("cpu", proc, cgroups):
        if (quota := _cpu_quota(folder, v2)) is not None:
            allowed = min(allowed, math.ceil(quota))
    return max(1, allowed)


def raise_open_files_limit() -> int:
    """Lift the soft limit of open files to the hard one; children inherit it. Returns the limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _machine_memory_bytes(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{proc / 'meminfo'} has no line MemTotal")


def _groups(controller: str, proc: Path, cgroups: Path) -> Iterator[tuple[Path, bool]]:
    """Folders of our control groups that may limit `controller`, innermost first, and whether they are of version 2.

    A line of /proc/self/cgroup is `id:controllers:path`, version 2's being `0::path`. Inside a container the path is often that of the
    host, which is not to be seen; its folders are then missing and the walk ends at the root, which is the container's own group.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root, v2 = cgroups, True
        elif controller in controllers.split(","):
            root, v2 = cgroups / controller, False
            if not root.is_dir():
                root = cgroups / controllers  # mounted together, as "cpu,cpuacct"
        else:
            continue
        folder = root / path.lstrip("/")
        while folder != root and root in folder.parents:
            yield folder, v2
            folder = folder.parent
        yield root, v2


def _memory_limits(folder: Path, v2: bool) -> Iterator[int]:
    for name in ("memory.max", "memory.high") if v2 else ("memory.limit_in_bytes",):
        text = _read(folder / name)
        if text is not None and text.isdecimal() and int(text) < _UNLIMITED_BYTES:
            yield int(text)


def _cpu_quota(folder: Path, v2: bool) -> float | None:
    """Cores' worth of time per period, or None without a quota."""
    if v2:
        quota, _, period = (_read(folder / "cpu.max") or "max").partition(" ")
    else:
        quota, period = _read(folder / "cpu.cfs_quota_us") or "-1", _read(folder / "cpu.cfs_period_us") or ""
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
