"""Making the file of one environment smaller: its live pages are copied into a new file, which takes the place of the old one.

For environments that nobody has open; the caller sees to that. An environment's file never shrinks by itself: what was deleted leaves pages
that later commits use.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

import lmdb
from leveret.storage.environment import DATA_NAME, ForeignStore, StoreFailed, copy_environment, page_problems, synchronise

LOCK_NAME: Final = "lock.mdb"
_NEW: Final = "compact.new"


class Compacted(NamedTuple):
    """Sizes of the file before and after."""

    before_bytes: int
    after_bytes: int


def compact(directory: Path, what: str) -> Compacted:
    """Rewrite the environment in `directory`, of which `what` names the contents in errors. A kill leaves the old file or the new one.

    Its pages are walked first. Needs room for the new file beside the old one. Raises `ForeignStore`, `DiskFull` or `StoreFailed`, and then
    the old file is as it was.
    """
    data, new = directory / DATA_NAME, directory / _NEW
    if data.exists() and (problems := page_problems(directory)):
        # LMDB believes what it reads: a file that was cut short would end this process.
        raise ForeignStore(f"{what} in {directory} cannot be read: {problems[0]}; `leveret verify` tells more")
    try:
        before_bytes = data.stat().st_size
        shutil.rmtree(new, ignore_errors=True)  # of one that was killed
        environment = lmdb.open(str(directory), readonly=True, lock=False, max_dbs=0)
    except OSError as error:
        raise StoreFailed(f"{what} in {directory} cannot be read: {error.strerror}") from error
    except lmdb.Error as error:
        raise ForeignStore(f"{what} in {directory} cannot be read: {error}") from error
    try:
        copy_environment(environment, new, what)
        _check_copy(new, _entries(environment), what)
        after_bytes = (new / DATA_NAME).stat().st_size
        environment.close()
        (new / DATA_NAME).replace(data)
        (directory / LOCK_NAME).unlink(missing_ok=True)  # its table of readers is about the old file
        synchronise(directory)
    except lmdb.Error as error:
        raise ForeignStore(f"{what} in {directory} cannot be read: {error}") from error
    except OSError as error:
        raise StoreFailed(f"the new file of {what} cannot take its place in {directory}: {error.strerror}") from error
    finally:
        environment.close()
        shutil.rmtree(new, ignore_errors=True)
    return Compacted(before_bytes, after_bytes)


def _entries(environment: lmdb.Environment) -> int:
    with environment.begin() as txn:
        return int(txn.stat()["entries"])


def _check_copy(directory: Path, entries: int, what: str) -> None:
    """Nothing takes the old file's place that cannot be opened itself."""
    copy = lmdb.open(str(directory), readonly=True, lock=False, max_dbs=0)
    try:
        if _entries(copy) != entries:
            raise StoreFailed(f"the copy of {what} in {directory} is not like the original")
    finally:
        copy.close()
