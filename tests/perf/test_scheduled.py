"""CPU time by the scheduler's clock: exact, of every thread, and by the name of its process."""

from __future__ import annotations

import subprocess
import sys

from bench.scheduled import Scheduled

# A child that tells what it has used itself, in a second thread, each time that it is asked.
CHILD = """
import sys, threading, time
def burn():
    until = time.thread_time() + 0.03
    while time.thread_time() < until:
        pass
done = threading.Event()
go = threading.Event()
def main():
    while True:
        go.wait()
        go.clear()
        burn()
        done.set()
threading.Thread(target=main, daemon=True).start()
print(flush=True)
for line in sys.stdin:
    done.clear()
    go.set()
    done.wait()
    print(time.process_time_ns(), flush=True)
"""


def test_what_a_childs_second_thread_uses_is_counted_to_the_microsecond() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()

        def ask() -> int:
            child.stdin.write("\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
            return int(child.stdout.readline())  # type: ignore[union-attr]

        told_ns = ask()
        before = Scheduled.of(child.pid)
        told_ns = ask() - told_ns
        (used_ns,) = Scheduled.of(child.pid).since(before).values()
        child.stdin.close()
    assert told_ns >= 30_000_000
    # Between the child's look at its own clock and ours it writes a line and waits for the next: no tick of 10 ms.
    assert abs(used_ns - told_ns) < 5_000_000


def test_processes_of_one_name_are_told_apart_and_nothing_is_used_by_those_that_rest() -> None:
    command = [sys.executable, "-m", "timeit", "-n", "1", "-s", "print(flush=True)", "input()"]
    script = "import subprocess, sys; [subprocess.Popen(sys.argv[1:]) for _ in range(2)]; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        for _ in range(2):
            parent.stdout.readline()
        before = Scheduled.of(parent.pid)
        used = Scheduled.of(parent.pid).since(before)
        assert {"timeit 0", "timeit 1"} < set(used)
        assert len(used) == 3
        assert 0 <= sum(used.values()) < 5_000_000
        parent.communicate()


def test_a_thread_that_was_not_there_before_counts_whole() -> None:
    now = Scheduled({(7, 7): 50, (7, 8): 20, (9, 9): 3}, {7: "worker 0", 9: "router 0"})
    assert now.since(Scheduled({(7, 7): 30}, {7: "worker 0"})) == {"worker 0": 40, "router 0": 3}
