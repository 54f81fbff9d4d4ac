"""The commit log of one shard on this machine's disk: one LMDB environment that one process owns.

The worker makes one for each of its shards after exec. `commit` is called by one thread at a time (its committer, or the loop when nobody
else waits); everything else by the loop. Other programs never open it beside the worker: they ask for a copy.

What a commit promises, by durability:

    "disk"     it is on the disk: two flushes, the data's and the head page's
    "os"       it outlives this process; a power cut may take the last commits back, but leaves the file whole: one flush, the head
               page follows with the next one
    "scratch"  it outlives nothing: no flush, and what is there is removed when the log is opened
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import lmdb
from leveret.storage.commit_log import Operation, Sizes, Table
from leveret.storage.environment import (
    MAP_BYTES,
    DiskFull,
    ForeignStore,
    StoreError,
    StoreFailed,
    commit_failure,
    copy_environment,
    free_bytes,
    open_environment,
)
from leveret.storage.layout import FORMAT_VERSION
from leveret.storage.resident import ResidentPages

Durability = Literal["disk", "os", "scratch"]

FILES: Final = ("data.mdb", "lock.mdb")
_NAMES: Final = {table: table.name.lower().encode() for table in Table}
_ASCENDING: Final = (Table.SEGMENTS, Table.INDEX)  # new keys are nearly always the highest
GIVE_BACK_S: Final = 0.05  # while a copy is made: a quick disk's 50 MB or so
PAGES_AROUND_BYTES: Final = 1 << 16  # what the kernel maps around a page that is touched
RESERVE_BYTES: Final = 4 << 20  # kept for removals, of which a thousand segments take a tenth
_U32: Final = struct.Struct("<I")


class LocalLog:
    """One open environment.

    directory: made if it is not there (mode 0700). identity: says whose queue ids the records hold, compared with what is stored; shard:
    0..2**32 - 1, compared too. None for either takes whatever is there, but there must be something. map_bytes: as for `open_environment`.
    reserve_bytes: the file does not grow by messages while less is left on the disk.
    Raises `ForeignStore` in a sentence if what is there belongs to somebody else or another version, or cannot be read; `StoreFailed` or
    `DiskFull` if nothing can be made there.
    """

    def __init__(
        self,
        directory: Path,
        durability: Durability = "disk",
        *,
        identity: bytes | None = b"",
        shard: int | None = 0,
        map_bytes: int = MAP_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.directory = directory
        self.reserve_bytes = reserve_bytes
        self.durability = durability
        self._tables: dict[int, Any] = {}
        self._what = "messages" if shard is None else f"messages of shard {shard}"
        self._lock = threading.Lock()  # over the two that follow
        self._copies = 0
        self._closed = False
        if durability == "scratch":
            self._wipe()
        # Values are 64 KiB in one piece, so what the kernel reads ahead of a fault is what is wanted next.
        self._env = open_environment(
            directory,
            self._what,
            max_dbs=len(Table),
            map_bytes=map_bytes,
            sync=durability != "scratch",
            metasync=durability == "disk",
            readahead=True,
            spare_txns=2,
        )
        try:
            self._env.reader_check()
            if not self._find_tables():
                if identity is None or shard is None:
                    raise ForeignStore(f"{directory} does not hold messages of this broker: it is empty")
                self._make_tables(identity, shard)
            self._check_meta(identity, shard)
            self._resident = ResidentPages(directory / FILES[0])
            self._highest: dict[int, bytes] = {table: self._highest_key(table) for table in _ASCENDING}
        except lmdb.Error as error:
            self._env.close()
            raise ForeignStore(f"{self._what} in {directory} cannot be read: {error}") from error
        except StoreError:
            self._env.close()
            raise

    def _wipe(self) -> None:
        for name in FILES:
            try:
                (self.directory / name).unlink(missing_ok=True)
            except OSError as error:
                raise StoreFailed(f"old scratch file {self.directory / name} cannot be removed: {error.strerror}") from error

    def _find_tables(self) -> bool:
        """Open the tables; False if there is nothing at all yet."""
        with self._env.begin() as txn:
            if not txn.stat()["entries"]:
                return False
        try:
            self._tables = {table: self._env.open_db(name, create=False) for table, name in _NAMES.items()}
        except (lmdb.NotFoundError, lmdb.IncompatibleError):
            raise ForeignStore(f"{self.directory} does not hold messages of this broker: it holds something else") from None
        return True

    def _make_tables(self, identity: bytes, shard: int) -> None:
        """All in one transaction: a process killed in the middle leaves nothing at all."""
        try:
            with self._env.begin(write=True) as txn:
                self._tables = {table: self._env.open_db(name, txn=txn) for table, name in _NAMES.items()}
                meta = self._tables[Table.META]
                txn.put(b"format", _U32.pack(FORMAT_VERSION), db=meta)
                txn.put(b"engine", _engine(), db=meta)
                txn.put(b"identity", identity, db=meta)
                txn.put(b"shard", _U32.pack(shard), db=meta)
        except lmdb.Error as error:
            raise commit_failure(error, self.directory, self._what, 0) from error

    def _check_meta(self, identity: bytes | None, shard: int | None) -> None:
        with self._env.begin() as txn:
            found = [txn.get(name, b"", db=self._tables[Table.META]) for name in (b"format", b"engine", b"identity", b"shard")]
        version, engine, owner, number = found
        if len(version) != 4 or len(number) != 4:
            raise ForeignStore(f"{self.directory} does not hold messages of this broker: it does not say what it is")
        if version != _U32.pack(FORMAT_VERSION):
            raise ForeignStore(
                f"the messages in {self.directory} have format version {_U32.unpack(version)[0]}, this broker reads version "
                f"{FORMAT_VERSION}: use the version of the broker that wrote them"
            )
        if engine != _engine():
            raise ForeignStore(
                f"the messages in {self.directory} were written by LMDB {engine.decode('ascii', 'replace')}, "
                f"this is LMDB {_engine().decode()}: their files differ"
            )
        if identity is not None and owner != identity:
            raise ForeignStore(f"the messages in {self.directory} belong to another node's queues: data folders were mixed up")
        if shard is not None and number != _U32.pack(shard):
            raise ForeignStore(f"{self.directory} holds the messages of shard {_U32.unpack(number)[0]}, not of shard {shard}")

    def _highest_key(self, table: Table) -> bytes:
        with self._env.begin() as txn, txn.cursor(self._tables[table]) as cursor:
            return bytes(cursor.key()) if cursor.last() else b""

    def commit(self, operations: Sequence[Operation]) -> None:
        """See `CommitLog`. Begins, writes and ends within the call: LMDB's writer lock belongs to a thread."""
        size = 0
        tables, highest = self._tables, self._highest
        self._keep_reserve(sum(len(value) for table, _, value in operations if value is not None and table == Table.SEGMENTS))
        try:
            with self._env.begin(write=True) as txn:
                for table, key, value in operations:
                    if value is None:
                        txn.delete(key, db=tables[table])
                        continue
                    size += len(value)
                    if key > highest.get(table, key):
                        # Pages filled to the brim, and no search. It declines where the key is not the highest after all.
                        highest[table] = key
                        if txn.put(key, value, db=tables[table], append=True):
                            continue
                    txn.put(key, value, db=tables[table])
        except lmdb.Error as error:
            raise commit_failure(error, self.directory, self._what, size) from error
        finally:
            # What is removed is touched too: at least a page and its neighbours each.
            self._resident.touched(size + len(operations) * PAGES_AROUND_BYTES)

    def _keep_reserve(self, size: int) -> None:
        """Raise `DiskFull` for `size` bytes of new messages that would take the last room of the disk.

        What consumers have settled takes pages of its own to be removed, before any become free. Were there none, nothing could be removed,
        and the disk would stay full for ever. Room inside the file is as good as room on the disk.
        """
        if not size or self.durability == "scratch" or free_bytes(self.directory) >= size + self.reserve_bytes:
            return
        file_bytes, used_bytes, _ = self.sizes()
        if file_bytes - used_bytes < 2 * size + RESERVE_BYTES:
            raise DiskFull(f"no room for {self._what}: the disk of {self.directory} is full")

    def get(self, table: int, key: bytes) -> bytes | None:
        try:
            with self._env.begin() as txn:
                value: bytes | None = txn.get(key, db=self._tables[table])
        except lmdb.Error as error:
            raise StoreFailed(f"{self._what} in {self.directory} cannot be read: {error}") from error
        self._resident.touched(PAGES_AROUND_BYTES if value is None else len(value) + PAGES_AROUND_BYTES)
        return value

    def scan(self, table: int, first_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See `CommitLog`. A scan left half done keeps the file from reusing pages until it is dropped."""
        try:
            with self._env.begin() as txn, txn.cursor(self._tables[table]) as cursor:
                if cursor.set_range(first_key):
                    yield from cursor
        except lmdb.Error as error:
            raise StoreFailed(f"{self._what} in {self.directory} cannot be read: {error}") from error

    def sizes(self) -> Sizes:
        """See `CommitLog`. What is in use are the pages of the tables; the others are free for the next commits."""
        try:
            with self._env.begin() as txn:
                stats = [txn.stat(), *(txn.stat(table) for table in self._tables.values())]
            info = self._env.info()
        except lmdb.Error as error:
            raise StoreFailed(f"{self._what} in {self.directory} cannot be read: {error}") from error
        page = stats[0]["psize"]
        used = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return Sizes((info["last_pgno"] + 1) * page, used * page, free_bytes(self.directory))

    def copy_to(self, directory: Path) -> None:
        """See `CommitLog`. The copy is compact, and on the disk when this returns. Raises `DiskFull` or `StoreFailed`."""
        with self._lock:
            if self._closed:
                raise StoreFailed(f"{self._what} in {self.directory} are closed")
            self._copies += 1
        done = threading.Event()
        giving_back = threading.Thread(target=self._give_back_until, args=(done,), name="copy-pages", daemon=True)
        giving_back.start()
        try:
            copy_environment(self._env, directory, self._what)
        finally:
            done.set()
            giving_back.join()  # before the map can go: what it gives back must still be ours
            with self._lock:
                self._copies -= 1
                self._close_unless_copied()

    def _give_back_until(self, done: threading.Event) -> None:
        """A copy is one call that touches the whole file; without this it would all count as ours."""
        while not done.wait(GIVE_BACK_S):
            self._resident.give_back()
        self._resident.give_back()

    def close(self) -> None:
        """See `CommitLog`. While a copy is being made the file stays open until its end, because reading a closed one ends the process."""
        with self._lock:
            self._closed = True
            self._close_unless_copied()

    def _close_unless_copied(self) -> None:
        if self._closed and not self._copies:
            self._env.close()


def _engine() -> bytes:
    major, minor, _ = lmdb.version()
    return f"{major}.{minor}".encode()
