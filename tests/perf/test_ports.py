"""Spare ports: each is given once, to one process, and to no client of the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.ports import LEAST, ROOM_MIN, spare_port

ROOT = Path(__file__).parents[2]
MANY = 9600  # of some 22,000: two processes that did not heed each other would meet


def test_a_port_is_given_to_one_process_while_it_lives() -> None:
    mine = [spare_port() for _ in range(40)]
    assert len(set(mine)) == 40
    code = f"from bench.ports import spare_port; print(*(spare_port() for _ in range({MANY})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    theirs = [int(port) for port in done.stdout.split()]
    assert len(set(theirs)) == MANY
    assert not set(mine) & set(theirs)


def test_no_client_is_given_one() -> None:
    least, most = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if least < LEAST + ROOM_MIN and most > 0xFFFF - ROOM_MIN:
        pytest.skip(f"the system gives nearly all ports to clients here, {least} to {most}")
    assert not any(least <= spare_port() <= most for _ in range(100))
