"""The environments of a data directory, checked while nobody has them open: LMDB's pages, and the records in a shard's.

`verify_environments` is called by the laboratory whenever a node, or the worker that owns an environment, is down; `verify_as_user` runs
the command `leveret verify` on a stopped node. Both change nothing that matters.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from leveret.storage.environment import page_problems
from leveret.storage.verify import verify_directory

SCRATCH, SHARDS = "scratch", "shards"
VERIFY_WITHIN_S = 120.0


def environments(data_dir: Path) -> list[Path]:
    """The directory of each environment, in order; none of those whose content promises nothing and is wiped at the next start."""
    found = [path.parent for path in data_dir.rglob("data.mdb")]
    return sorted(path for path in found if SCRATCH not in path.relative_to(data_dir).parts)


def verify_environments(data_dir: Path) -> int:
    """Check every environment below `data_dir`; gives their number, `AssertionError` with all problems otherwise."""
    found = environments(data_dir)
    problems = [f"{path}: {problem}" for path in found for problem in problems_of(path)]
    assert not problems, "\n".join(problems)
    return len(found)


def problems_of(directory: Path) -> list[str]:
    """What is wrong with one environment; a file without a first commit has nothing to be wrong."""
    if (directory / "data.mdb").stat().st_size == 0:
        return []
    if directory.parent.name != SHARDS:
        return page_problems(directory)
    if not directory.name.isdecimal():
        return ["the broker has set it aside"]
    return [f"{finding.where}: {finding.what}" for finding in verify_directory(directory)]


def verify_as_user(data_dir: Path) -> None:
    """`leveret verify` on the data of a stopped node; `AssertionError` with what it says unless it ends with 0."""
    done = subprocess.run(
        [sys.executable, "-m", "leveret", "verify", str(data_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=VERIFY_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"leveret verify: exit status {done.returncode}\n{done.stdout}"
