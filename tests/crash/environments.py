"""The LMDB environments of a data directory, walked page by page while nobody has them open.

`verify_environments` is called by the laboratory whenever a node, or the worker that owns an environment, is down. It reads only. Beside
LMDB's own walk it asks `leveret verify` where the node has that command, which knows what our records must look like.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lmdb import verify as lmdb_walk

SCRATCH = "scratch"
VERIFY_WITHIN_S = 120.0


def environments(data_dir: Path) -> list[Path]:
    """The directory of each environment, in order; none of those whose content promises nothing and is wiped at the next start."""
    found = [path.parent for path in data_dir.rglob("data.mdb")]
    return sorted(path for path in found if SCRATCH not in path.relative_to(data_dir).parts)


def verify_environments(data_dir: Path) -> int:
    """Walk every environment below `data_dir`; gives their number, `AssertionError` with all problems otherwise."""
    found = environments(data_dir)
    problems = [f"{path}: {problem}" for path in found for problem in walk(path)]
    assert not problems, "\n".join(problems)
    return len(found)


def walk(directory: Path) -> list[str]:
    """What LMDB's own verification finds wrong with one environment; a file without a first commit has nothing to be wrong."""
    if (directory / "data.mdb").stat().st_size == 0:
        return []
    try:
        return list(lmdb_walk.verify(str(directory)))
    except lmdb_walk.VerifyError as error:
        return [str(error)]


def verify_records(data_dir: Path) -> None:
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
