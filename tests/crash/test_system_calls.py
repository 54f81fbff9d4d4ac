"""Every system call of a commit as the worker's last one, and as one that fails: nothing is confirmed that is not on disk, and all is back.

The calls are not believed but counted, under the load itself. Then strace kills the worker at its first, second, … of each kind, or gives
EIO or ENOSPC for it. `LEVERET_CRASH_CALLS` is how many of each kind are tried.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.crash.laboratory import Laboratory, environment_of, tell
from tests.crash.tracer import CANDIDATES, Tracer, require_strace
from tests.deadline import eventually
from tests.node import Node

CALLS = int(os.environ.get("LEVERET_CRASH_CALLS", "3"))
SEED = int(os.environ.get("LEVERET_CRASH_SEED") or random.SystemRandom().randrange(10**6))
COMMITTING = {"pwrite64", "pwritev", "fdatasync"}  # of which LMDB must use at least a write and a sync


def calls_of_a_commit(laboratory: Laboratory, folder: Path) -> list[str]:
    """The kinds of call that commits of worker 0 make on its environment under the load."""
    assert laboratory.load is not None
    node = laboratory.node
    with Tracer(node.workers()[0], environment_of(node, 0), CANDIDATES, folder / "count.strace") as tracer:
        laboratory.load.ledger.wait_for_confirms(300)
        seen = eventually(tracer.seen, what="calls of a commit")
    tell(f"calls on the environment while 300 messages were confirmed: {dict(seen)}")
    assert len(COMMITTING & set(seen)) >= 2, seen
    return sorted(seen)


@pytest.mark.timeout(300 + 60 * CALLS)
@pytest.mark.parametrize("harm", ["killed", "EIO", "ENOSPC"])
def test_each_call_of_a_commit_may_be_the_last_or_fail(tmp_path: Path, harm: str) -> None:
    require_strace()
    tell(f"LEVERET_CRASH_SEED={SEED}")
    with Laboratory(Node(tmp_path / "data", workers=2), SEED) as laboratory:
        load = laboratory.begin_epoch()
        load.ledger.wait_for_confirms(100)
        for call in calls_of_a_commit(laboratory, tmp_path):
            for number in range(1, CALLS + 1):
                laboratory.fail_call(call, number, harm, tmp_path / f"{call}-{number}.strace")
                tell(f"{call} {number} {harm}")
                load.ledger.wait_for_confirms(30)
            laboratory.restart()  # the supervisor would wait longer and longer with a worker that dies again and again
        laboratory.end_epoch()
