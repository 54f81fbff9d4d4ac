"""Every system call of a commit as the worker's last one, and as one that fails: nothing is confirmed that is not on disk, and all is back.

The calls are not believed but counted, under the load itself: those on the write-ahead file, and those that bring what is there into the
tables. Then strace kills the worker at its first, second, … of each kind, or gives EIO or ENOSPC for it. `LEVERET_CRASH_CALLS` is how many
of each kind are tried.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from leveret.storage.ahead_file import AHEAD_NAME

from tests.crash.laboratory import Laboratory, environment_of, tell
from tests.crash.tracer import CANDIDATES, Tracer, require_strace
from tests.deadline import eventually
from tests.node import Node

CALLS = int(os.environ.get("LEVERET_CRASH_CALLS", "3"))
SEED = int(os.environ.get("LEVERET_CRASH_SEED") or random.SystemRandom().randrange(10**6))
COMMITTING = {"pwrite64", "pwritev", "pwritev2", "fdatasync"}  # of which each file must see at least a write and a sync


def calls_of_a_commit(laboratory: Laboratory, path: Path, log: Path) -> list[str]:
    """The kinds of call that worker 0 makes on this file under the load."""
    assert laboratory.load is not None
    with Tracer(laboratory.node.workers()[0], [path], CANDIDATES, log) as tracer:
        laboratory.load.ledger.wait_for_confirms(300)
        eventually(lambda: len(COMMITTING & set(tracer.seen())) >= 2, what=f"calls of a commit on {path.name}")
        seen = tracer.seen()
    tell(f"calls on {path.name} while 300 messages were confirmed: {dict(seen)}")
    return sorted(seen)


@pytest.mark.timeout(300 + 60 * CALLS)
@pytest.mark.parametrize("name", ["data.mdb", AHEAD_NAME])
@pytest.mark.parametrize("harm", ["killed", "EIO", "ENOSPC"])
def test_each_call_of_a_commit_may_be_the_last_or_fail(tmp_path: Path, harm: str, name: str) -> None:
    require_strace()
    tell(f"LEVERET_CRASH_SEED={SEED}")
    with Laboratory(Node(tmp_path / "data", workers=2), SEED) as laboratory:
        load = laboratory.begin_epoch()
        load.ledger.wait_for_confirms(100)
        path = environment_of(laboratory.node, 0).with_name(name)
        for call in calls_of_a_commit(laboratory, path, tmp_path / "count.strace"):
            for number in range(1, CALLS + 1):
                laboratory.fail_call(path, call, number, harm, tmp_path / f"{call}-{number}.strace")
                tell(f"{call} {number} {harm}")
                load.ledger.wait_for_confirms(30)
            laboratory.restart()  # the supervisor would wait longer and longer with a worker that dies again and again
        laboratory.end_epoch()
