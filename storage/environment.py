"""One LMDB environment: how it is opened and copied, and what its failures mean. `definitions` and `local_log` stand on it; nobody else.

It never knows what is stored. An environment is opened after exec by the one process that owns it, and never crosses a fork.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import lmdb

log = logging.getLogger(__name__)

DATA_NAME: Final = "data.mdb"
MAP_BYTES: Final = 1 << 40  # address space only; the file grows as it is used
MAP_BYTES_LEAST: Final = 1 << 28
UNKNOWN_BYTES: Final = 1 << 40  # free space of a disk that does not say
SPARE_BYTES: Final = 1 << 20  # with less than this left beside the batch, a failed commit is a full disk's
MOUNTS: Final = Path("/proc/self/mountinfo")
REMOTE_FILE_SYSTEMS: Final = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "lustre"}


class StoreError(Exception):
    """Something about a store, told in a sentence that names its directory."""


class ForeignStore(StoreError):
    """The directory holds something else, another version, or something broken. Nothing was changed in it."""


class DamagedSegment(StoreError):
    """A stored segment does not hold what its index record says: its messages are lost, all others are as they were."""


class DiskFull(StoreError):
    """There is no room for the batch; nothing of it was written."""


class StoreFailed(StoreError):
    """A commit or a read failed for another reason: what is on the disk is unknown until the environment is opened anew."""


def open_environment(
    directory: Path,
    what: str,
    *,
    max_dbs: int,
    map_bytes: int = MAP_BYTES,
    sync: bool = True,
    metasync: bool = True,
    readahead: bool = True,
    spare_txns: int = 0,
) -> lmdb.Environment:
    """The environment in `directory`, made (mode 0700) if it is not there; `what` names its contents in errors.

    map_bytes: address space, halved down to MAP_BYTES_LEAST where the system does not give that much. Raises `ForeignStore` if what is
    there cannot be used, `StoreFailed` if nothing can be made there.
    """
    try:
        made = _make_directory(directory)
    except OSError as error:
        raise StoreFailed(f"the directory of {what}, {directory}, cannot be made: {error.strerror}") from error
    remote = _remote_file_system(directory)
    if remote is not None:
        raise StoreFailed(
            f"{directory} lies on a file system over the network ({remote}), where {what} would not be safe: use a local disk"
        )
    wanted = map_bytes
    while True:
        try:
            environment = lmdb.open(
                str(directory),
                map_size=map_bytes,
                max_dbs=max_dbs,
                mode=0o600,
                max_spare_txns=spare_txns,
                sync=sync,
                metasync=metasync,
                readahead=readahead,
            )
        except (lmdb.MemoryError, MemoryError) as error:
            if map_bytes // 2 < MAP_BYTES_LEAST:
                raise StoreFailed(f"not enough address space for {what} in {directory}: {error}") from error
            map_bytes //= 2
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
            raise ForeignStore(f"{directory} does not hold {what} of this broker: {error}") from error
        except lmdb.Error as error:
            raise StoreFailed(f"{what} in {directory} cannot be opened: {error}") from error
        else:
            if _is_cut_short(environment, directory):
                environment.close()
                raise ForeignStore(f"{what} in {directory} cannot be read: the file was cut short")
            if sync:
                _keep_names(directory, made)
            if map_bytes < wanted:
                log.warning("%s in %s may grow to %d MiB only: the system gives no more address space", what, directory, map_bytes >> 20)
            return environment


def _make_directory(directory: Path) -> list[Path]:
    """Make it and what is missing above it (mode 0700); those that were made."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    return missing


def _keep_names(directory: Path, made: list[Path]) -> None:
    """A synced file is lost all the same when the power fails before its name, or that of a directory above it, is on the disk."""
    for path in (directory, *(folder.parent for folder in made)):
        with contextlib.suppress(OSError):  # a file system that cannot sync a directory keeps its names in another way
            synchronise(path)


def _remote_file_system(directory: Path) -> str | None:
    """The kind of file system if it is one over the network. LMDB's locks and maps do not hold there."""
    try:
        device = directory.stat().st_dev
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None  # where the system does not say, it is not refused
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2].split(" ", 1)[0] for line in lines if line.split(" ", 3)[2] == number]
    return next((kind for kind in kinds if kind in REMOTE_FILE_SYSTEMS), None)


def _is_cut_short(environment: lmdb.Environment, directory: Path) -> bool:
    """Whether pages that are in use lie beyond the end of the file: to read one would end the process (SIGBUS).

    LMDB may have given the last pages back without ever writing them, so only a walk over all of them tells. Nothing has been read yet.
    """
    end = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    return (directory / "data.mdb").stat().st_size < end and bool(page_problems(directory))


def page_problems(directory: Path) -> list[str]:
    """What is wrong with the pages of any environment, by LMDB's own walk over them: every page is reached once or free. It takes a byte of
    memory for each page, and stops after some 200 problems.
    """
    import lmdb.verify  # only where something is wrong, or a tool asks

    walk: Callable[..., list[object]] = lmdb.verify.verify
    try:
        return [str(problem) for problem in walk(str(directory), subdir=True)]
    except (lmdb.verify.VerifyError, OSError) as error:
        return [str(error)]


def commit_failure(error: lmdb.Error, directory: Path, what: str, size_bytes: int) -> StoreError:
    """What a failed commit of `size_bytes` means. LMDB says EIO for a full disk too: only the file system can tell."""
    if isinstance(error, lmdb.MapFullError):
        return DiskFull(f"{what} in {directory} have reached their largest size")
    if free_bytes(directory) < size_bytes + SPARE_BYTES:
        return DiskFull(f"no room for {what}: the disk of {directory} is full")
    return StoreFailed(f"{what} in {directory} could not be written: {error}")


def free_bytes(directory: Path) -> int:
    """What the file system of `directory` has left for us; a plausible lie if it does not say, since unknown is not proven full."""
    try:
        state = os.statvfs(directory)
    except OSError:
        return UNKNOWN_BYTES
    return state.f_bavail * state.f_frsize


def copy_environment(environment: lmdb.Environment, directory: Path, what: str) -> None:
    """Write a compact copy of all that is committed into `directory`, made (mode 0700) if it is not there.

    It is on the disk when this returns. May run beside commits, in any thread; the environment must not be closed meanwhile. Raises
    `DiskFull` or `StoreFailed`; a part of the copy may then be there.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment.copy(str(directory), compact=True)
        for path in (directory / DATA_NAME, directory, directory.parent):
            synchronise(path)
    except lmdb.DiskError as error:
        raise DiskFull(f"no room for a copy of {what} in {directory}") from error
    except lmdb.Error as error:
        raise StoreFailed(f"{what} cannot be copied to {directory}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room for a copy of {what} in {directory}") from error
        raise StoreFailed(f"{what} cannot be copied to {directory}: {error.strerror}") from error


def synchronise(path: Path) -> None:
    """Have the disk take what was written to a file, or what was made, renamed and removed in a directory. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
