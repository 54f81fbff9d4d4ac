"""The copies of shards that are being made for a backup: each on a thread of its own, beside the commits, which do not wait for it.

Called by the worker for management's requests. It only reads: a copy is the shard as of one commit, and what is committed meanwhile is not
in it. A copy cannot be broken off.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from leveret.storage.environment import StoreError


class Copied(Protocol):
    """What is copied: a shard's commit log (`leveret.storage.commit_log`)."""

    def copy_to(self, directory: Path) -> None: ...


def shard_directory(data_dir: Path, number: int) -> Path:
    """Where a data folder, or a backup, has a shard."""
    return data_dir / "shards" / str(number)


class ShardCopies:
    """`under_way` holds the numbers of the shards that are being copied, whether or not somebody still waits for it."""

    def __init__(self) -> None:
        self.under_way: set[int] = set()

    async def copy(self, number: int, log: Copied, backup_dir: Path) -> dict[str, Any]:
        """Copy a shard into its place below `backup_dir`, which is there.

        Returns {"bytes": size of the file}, or {"refused": a sentence} when it is being copied already, when something is in its place, or
        when the copy could not be written.
        """
        if number in self.under_way:
            return {"refused": f"shard {number} is being copied already; wait for the end of that backup"}
        directory = shard_directory(backup_dir, number)
        self.under_way.add(number)
        copied: Future[dict[str, Any]] = Future()
        copied.set_running_or_notify_cancel()  # from here on nobody can cancel it
        copied.add_done_callback(lambda _: self.under_way.discard(number))

        def copy() -> None:
            try:
                copied.set_result(_copy(log, directory))
            except BaseException as error:  # noqa: BLE001 (raised below, by whoever waits)
                copied.set_exception(error)

        # A daemon: a copy of minutes must not keep a process that is told to stop.
        threading.Thread(target=copy, name=f"copy-{number}", daemon=True).start()
        return await asyncio.wrap_future(copied)


def _copy(log: Copied, directory: Path) -> dict[str, Any]:
    try:
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(mode=0o700)
        log.copy_to(directory)
        return {"bytes": sum(path.stat().st_size for path in directory.iterdir())}
    except FileExistsError:
        return {"refused": f"{directory} is there already; a backup goes into an empty folder"}
    except OSError as error:
        return {"refused": f"{directory} cannot be written: {error.strerror}"}
    except StoreError as error:
        return {"refused": str(error)}
