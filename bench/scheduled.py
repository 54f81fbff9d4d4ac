"""CPU time of a broker's processes by the scheduler's own clock, in nanoseconds (`/proc/<pid>/task/*/schedstat`).

For measures of some hundred milliseconds: the figures of `/proc/<pid>/stat` are whole clock ticks, up to 10 ms less for each process than
it has used, and a broker has five or more. It counts threads, because a process's own schedstat is that of its first thread alone; what a
thread that has ended meanwhile has used since `before` is not seen.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from leveret.perf.process_tree import process_tree


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Nanoseconds by thread (process, thread), and what each process is called; those of one name have numbers: "worker 0", "worker 1"."""

    by_thread: dict[tuple[int, int], int]
    names: dict[int, str]

    @classmethod
    def of(cls, root_pid: int) -> Scheduled:
        """So far, of a process with all of its living descendants."""
        by_thread: dict[tuple[int, int], int] = {}
        names: dict[int, str] = {}
        numbers: dict[str, int] = {}
        for usage in process_tree(root_pid):
            name = usage.name.removeprefix("leveret.")
            names[usage.pid] = f"{name} {numbers.get(name, 0)}"
            numbers[name] = numbers.get(name, 0) + 1
            for task in Path(f"/proc/{usage.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):  # it has ended
                    by_thread[usage.pid, int(task.parent.name)] = int(task.read_text(encoding="ascii").split()[0])
        return cls(by_thread, names)

    def since(self, before: Scheduled) -> dict[str, int]:
        """Nanoseconds that each process has used since then, by its name."""
        used = dict.fromkeys(self.names.values(), 0)
        for (pid, thread), ns in self.by_thread.items():
            used[self.names[pid]] += ns - before.by_thread.get((pid, thread), 0)
        return used
