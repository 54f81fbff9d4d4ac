"""SIGKILL of any process, at random moments under load, again and again: nothing confirmed is lost, nothing settled comes back.

`make crash` does a thousand rounds, the suite some. Variables: `LEVERET_CRASH_ROUNDS` (how many) and `LEVERET_CRASH_SEED` (what is killed
when; printed, and told with every finding). The same seed does the same harm at the same places of the load; what the machine makes of it
is never quite the same.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.crash.laboratory import EPOCH_ROUNDS, Laboratory, tell
from tests.node import Node

ROUNDS = int(os.environ.get("LEVERET_CRASH_ROUNDS", "25"))
SEED = int(os.environ.get("LEVERET_CRASH_SEED") or random.SystemRandom().randrange(10**6))
WORKERS = 2


@pytest.mark.needs("message store")
@pytest.mark.timeout(300 + 15 * ROUNDS)
def test_nothing_confirmed_is_lost_whoever_is_killed(tmp_path: Path) -> None:
    tell(f"{ROUNDS} rounds, LEVERET_CRASH_SEED={SEED}")
    with Laboratory(Node(tmp_path / "data", workers=WORKERS), SEED) as laboratory:
        while laboratory.rounds < ROUNDS:
            laboratory.begin_epoch()
            for _ in range(min(EPOCH_ROUNDS, ROUNDS - laboratory.rounds)):
                what = laboratory.round()
                tell(f"round {laboratory.rounds}: killed {what}")
            laboratory.end_epoch()
            tell(f"epoch {laboratory.epoch}: {laboratory.confirmed} confirmed messages in all, none lost")
        assert laboratory.bugs() == []
