"""The ledger: what the topology's commands have changed is written down here before anybody is told that it is done.

It owns the router's two LMDB environments and the one thread that commits to them. While a commit runs the next batch gathers, so a burst
of declares costs a few flushes of the disk, without a timer. The durable environment holds what comes back after the node restarts. The
session holds the rest of the topology, and which process each worker was: it outlives the router, is never waited for by the disk, and
belongs to one run of the node; those of earlier runs are removed at start.

    <data folder>/definitions/         durable, one synced commit per batch
    <data folder>/session/<run id>/    not synced

A full disk is told to those who wait, and the batch is tried again with the next one, at least every second: the topology in memory is
ahead of the disk until then. Any other failure to commit must end the process (`failed`), because the next commit would lie.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from leveret.codec.errors import InternalError
from leveret.router.entries import RECORDS_VERSION, Record, Stored, bring_forward
from leveret.storage.definitions import Definitions
from leveret.storage.environment import DiskFull, ForeignStore, StoreError

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
_WORKER_RECORDS: Final = 1 << 32  # beyond every id of the topology: a worker's record is this plus its index


class Ledger:
    """Open, and loaded: `durable` and `session` are (records by id, next id), `worker_pids` the processes of this run by index.

    `identity` says which definitions these are (leveret.storage.definitions).

    run_id: letters, digits and dashes. Raises `StoreError` (a sentence) if the durable environment cannot be used; a session that cannot be
    read is begun anew.
    """

    def __init__(self, data_dir: Path, run_id: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9-]+", run_id):
            raise ValueError(f"run id {run_id!r}")
        self._definitions = Definitions(data_dir / "definitions", RECORDS_VERSION, bring_forward)
        self.identity = self._definitions.identity
        self.durable: tuple[dict[int, Record], int] = self._definitions.load()
        self._session = self._open_session(data_dir / "session", run_id)
        records, next_id = self._session.load()
        self.worker_pids: dict[int, int] = {
            record_id - _WORKER_RECORDS: records.pop(record_id)["pid"] for record_id in list(records) if record_id >= _WORKER_RECORDS
        }
        self.session: tuple[dict[int, Record], int] = (records, next_id)
        self.failed: asyncio.Future[StoreError] = asyncio.get_running_loop().create_future()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._next_id = 1
        self._gathered: tuple[dict[int, Record | None], dict[int, Record | None]] = ({}, {})
        self._waiting: asyncio.Future[None] | None = None
        self._in_flight: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None

    def _open_session(self, folder: Path, run_id: str) -> Definitions:
        for earlier in folder.iterdir() if folder.is_dir() else ():
            if earlier.name != run_id:
                shutil.rmtree(earlier, ignore_errors=True)
        try:
            session = Definitions(folder / run_id, RECORDS_VERSION, durable=False)
            session.load()
        except ForeignStore as error:
            log.error("transient queues, exchanges and bindings are lost: %s", error)
            shutil.rmtree(folder / run_id)
            session = Definitions(folder / run_id, RECORDS_VERSION, durable=False)
        return session

    def write(self, stored: Iterable[Stored], next_id: int) -> asyncio.Future[None] | None:
        """Write this down, together with whatever else has gathered.

        Returns a future of the moment when everything up to here is safe, or None when it is already. It raises `InternalError` when the
        disk is full, and never ends when the process must.
        """
        for record_id, durable, record in stored:
            self._gathered[0 if durable else 1][record_id] = record
        self._next_id = next_id
        return self._flush()

    def write_worker(self, index: int, pid: int) -> None:
        """Note which process a worker is."""
        self.worker_pids[index] = pid
        self._gathered[1][_WORKER_RECORDS + index] = {"kind": "worker", "pid": pid}
        self._flush()

    def _flush(self) -> asyncio.Future[None] | None:
        if not any(self._gathered):
            return self._in_flight if self._running is not None else None
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
            # Who only notes something does not wait; a full disk is logged below.
            self._waiting.add_done_callback(lambda waited: waited.cancelled() or waited.exception())
        if self._running is None:
            self._in_flight = self._waiting
            self._running = asyncio.get_running_loop().create_task(self._commit_all())
        return self._waiting

    async def _commit_all(self) -> None:
        """Commit until nothing is left to be."""
        try:
            while any(self._gathered) and self._waiting is not None:
                (durable, session), self._gathered = self._gathered, ({}, {})
                waiting, self._waiting = self._waiting, None
                self._in_flight = waiting
                try:
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, durable, session, self._next_id)
                except DiskFull as error:
                    log.error("%s", error)
                    # What has gathered meanwhile is newer.
                    self._gathered = ({**durable, **self._gathered[0]}, {**session, **self._gathered[1]})
                    waiting.set_exception(InternalError(f"the change is made, but not stored: {error}"))
                    if self._waiting is not None:
                        self._waiting.set_exception(InternalError(f"the change is made, but not stored: {error}"))
                        self._waiting = None
                    if self._retry is None:
                        self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)
                except StoreError as error:
                    if not self.failed.done():
                        self.failed.set_result(error)
                    return  # nothing is answered any more
                else:
                    waiting.set_result(None)
        finally:
            self._running = None

    def _try_again(self) -> None:
        self._retry = None
        self._flush()

    def _commit(self, durable: dict[int, Record | None], session: dict[int, Record | None], next_id: int) -> None:
        """On the committer thread."""
        if durable:
            self._definitions.commit(durable, next_id)
        if session:
            self._session.commit(session, next_id)

    async def copy_to(self, backup_dir: Path) -> dict[str, Any]:
        """Copy what is durable into its place below `backup_dir`, which is there.

        Returns {"bytes": size of the file}, or {"refused": a sentence} when something is in its place or the copy could not be written. The
        next commits wait for it, which takes milliseconds.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._copy, backup_dir / "definitions")

    def _copy(self, directory: Path) -> dict[str, Any]:
        """On the committer thread."""
        try:
            directory.mkdir(mode=0o700)
            self._definitions.copy_to(directory)
            return {"bytes": sum(path.stat().st_size for path in directory.iterdir())}
        except FileExistsError:
            return {"refused": f"{directory} is there already; a backup goes into an empty folder"}
        except OSError as error:
            return {"refused": f"{directory} cannot be written: {error.strerror}"}
        except StoreError as error:
            return {"refused": str(error)}

    async def close(self) -> None:
        """Wait for what is under way and close both environments."""
        if self._retry is not None:
            self._retry.cancel()
        if self._running is not None:
            await asyncio.wait([self._running])
        self._thread.shutdown()
        self._definitions.close()
        self._session.close()
