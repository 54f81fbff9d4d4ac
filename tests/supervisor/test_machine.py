"""Limits of the machine and of control groups, from folders that look like /proc and /sys/fs/cgroup."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from leveret.supervisor.machine import cores, memory_total_bytes

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712\n"


class Machine:
    """A made-up machine: `files` maps paths below proc/ and cgroup/ to their content."""

    def __init__(self, root: Path, self_cgroup: str, files: dict[str, str], memory_gib: int = 16) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        everything = {"proc/meminfo": f"MemTotal:       {memory_gib * 1024 * 1024} kB\nMemFree: 1 kB\n", "proc/self/cgroup": self_cgroup}
        for path, content in (everything | files).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)

    @property
    def memory(self) -> int:
        return memory_total_bytes(self.proc, self.cgroups)

    @property
    def cores(self) -> int:
        return cores(self.proc, self.cgroups)


@pytest.mark.parametrize(
    ("self_cgroup", "files", "expected_gib"),
    [
        pytest.param("0::/\n", {}, 16, id="no limit anywhere"),
        pytest.param("0::/a/b\n", {"cgroup/a/b/memory.max": f"{2 * GIB}\n"}, 2, id="v2"),
        pytest.param(
            "0::/a/b\n", {"cgroup/a/b/memory.max": "max\n", "cgroup/a/memory.max": f"{3 * GIB}\n"}, 3, id="v2, limit of the parent"
        ),
        pytest.param(
            "0::/a\n", {"cgroup/a/memory.max": f"{4 * GIB}\n", "cgroup/a/memory.high": f"{3 * GIB}\n"}, 3, id="v2, throttled at high"
        ),
        pytest.param("0::/a\n", {"cgroup/a/memory.max": f"{64 * GIB}\n"}, 16, id="v2, limit above the machine"),
        pytest.param("0::/host/path\n", {"cgroup/memory.max": f"{GIB}\n"}, 1, id="v2 in a container that sees its group as the root"),
        pytest.param("0::/../../x\n", {"cgroup/memory.max": f"{GIB}\n"}, 1, id="v2, path outside our cgroup namespace"),
        pytest.param("5:memory:/a\n0::/\n", {"cgroup/memory/a/memory.limit_in_bytes": f"{2 * GIB}\n"}, 2, id="v1"),
        pytest.param("5:memory:/a\n", {"cgroup/memory/a/memory.limit_in_bytes": UNLIMITED_V1}, 16, id="v1, no limit"),
        pytest.param(
            "5:memory:/docker/0123\n",
            {"cgroup/memory/memory.limit_in_bytes": f"{GIB}\n"},
            1,
            id="v1 in a container, host's path not to be seen",
        ),
        pytest.param(
            "5:cpu,memory:/a\n", {"cgroup/cpu,memory/a/memory.limit_in_bytes": f"{GIB}\n"}, 1, id="v1, controllers mounted together"
        ),
        pytest.param("5:memory:/a\n", {"cgroup/memory/a/memory.limit_in_bytes": "rubbish\n"}, 16, id="v1, not a number"),
    ],
)
def test_memory_is_the_smallest_limit_above_us(tmp_path: Path, self_cgroup: str, files: dict[str, str], expected_gib: int) -> None:
    assert Machine(tmp_path, self_cgroup, files).memory == expected_gib * GIB


def test_memory_without_control_groups_is_the_machine_s(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "", {})
    (machine.proc / "self/cgroup").unlink()
    assert machine.memory == 16 * GIB


@pytest.mark.parametrize(
    ("self_cgroup", "files", "expected"),
    [
        pytest.param("0::/\n", {}, 8, id="no quota"),
        pytest.param("0::/a\n", {"cgroup/a/cpu.max": "150000 100000\n"}, 2, id="v2, one and a half cores"),
        pytest.param("0::/a\n", {"cgroup/a/cpu.max": "max 100000\n"}, 8, id="v2, no quota"),
        pytest.param("0::/a\n", {"cgroup/a/cpu.max": "10000 100000\n"}, 1, id="v2, a tenth of a core"),
        pytest.param("0::/a\n", {"cgroup/a/cpu.max": "9900000 100000\n"}, 8, id="v2, more than the machine has"),
        pytest.param(
            "4:cpu,cpuacct:/a\n",
            {"cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n", "cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            3,
            id="v1",
        ),
        pytest.param(
            "4:cpu:/a\n", {"cgroup/cpu/a/cpu.cfs_quota_us": "-1\n", "cgroup/cpu/a/cpu.cfs_period_us": "100000\n"}, 8, id="v1, no quota"
        ),
    ],
)
def test_cores_are_the_affinity_or_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, self_cgroup: str, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert Machine(tmp_path, self_cgroup, files).cores == expected


def test_this_machine_can_be_read() -> None:
    assert 1 <= cores() <= os.cpu_count()  # type: ignore[operator]
    assert 64 << 20 < memory_total_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_open_files_are_raised_to_the_hard_limit() -> None:
    """In a process of its own, since a limit cannot be handed back."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource; from leveret.supervisor.machine import raise_open_files_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))\n"
        "print(raise_open_files_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(hard)] * 3
