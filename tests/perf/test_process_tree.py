"""A process tree is found whole, by parentage alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from leveret.perf.process_tree import MachineTime, cpu_s, process_tree, pss_bytes, pss_parts, rss_bytes

# A shell whose child has a child; the innermost says its pid when it has burnt 100 ms of CPU, and waits for its input to end.
BURN = "import os, sys, time\nwhile time.process_time() < 0.1: pass\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n"


def test_descendants_count_and_strangers_do_not() -> None:
    command = ["sh", "-c", f"sh -c '{sys.executable} -c \"$BURN\"; true'; true"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"BURN": BURN}) as process:
        assert process.stdout is not None
        innermost = int(process.stdout.readline())
        tree = process_tree(process.pid)
        assert tree[0].pid == process.pid
        assert len(tree) == 3
        assert innermost in {usage.pid for usage in tree}
        assert os.getpid() not in {usage.pid for usage in tree}
        assert cpu_s(tree) >= 0.05
        assert 0 < pss_bytes(process.pid) <= rss_bytes(tree)
        everything, anonymous = pss_parts(process.pid, "Pss", "Pss_Anon")
        assert 0 < anonymous < everything <= rss_bytes(tree)
    # What the ended children used stays with whoever waited for them: with us.
    assert process_tree(process.pid) == []
    assert process_tree(os.getpid())[0].cpu_s >= 0.05


def test_a_machine_is_busy_while_a_process_burns() -> None:
    before = MachineTime.now()
    began_s = time.process_time()
    while time.process_time() - began_s < 0.2:
        pass
    cores = os.cpu_count() or 1
    after = MachineTime.now()
    assert 0 < after.busy_share_since(before) <= 1.0
    # Our 0.2 s are in it, less a tick or two.
    assert after.busy_share_since(before) * (after.total_s - before.total_s) >= 0.17
    assert after.total_s - before.total_s >= 0.17 * cores
    assert before.busy_share_since(before) == 0.0


def test_a_process_is_named_by_the_module_that_it_runs() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "timeit", "-n", "1", "-s", "print(flush=True)", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process_tree(process.pid)[0].name == "timeit"
