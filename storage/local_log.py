"""The commit log of one shard on this machine's disk: an LMDB environment and the write-ahead file beside it, owned by one process.

The worker makes one for each of its shards after exec. `commit` is called by one thread at a time (its committer, or the loop when nobody
else waits); everything else by the loop. Other programs never open it beside the worker: they ask for a copy.

A batch that is not large becomes a record of the write-ahead file (`ahead_file.py`), which is one flush, and is laid over the tables in
memory (`overlay.py`). When the file is full, with a large batch, and when `catch_up` is called, all that was laid over goes into the tables
in one transaction, which says up to which record they are. After a crash the records behind that one are laid over the tables again, and
the next commit writes them there. A log that was closed has all of it in the tables, and its environment is a whole shard by itself.

What a commit promises, by durability:

    "disk"     it is on the disk
    "os"       it outlives this process; a power cut may take the last commits back, but leaves the file whole: one flush, the head
               page follows with the next one. There is no write-ahead file
    "scratch"  it outlives nothing: no flush, and what is there is removed when the log is opened
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import lmdb
from leveret.storage.ahead_file import AHEAD_NAME, AheadFile
from leveret.storage.ahead_record import BLOCK_BYTES, ID_BYTES, DamagedRecord, read_records
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
from leveret.storage.layout import FORMAT_VERSION, FORMAT_VERSION_LEAST
from leveret.storage.overlay import Overlay, Unknown
from leveret.storage.resident import ResidentPages

log = logging.getLogger(__name__)

Durability = Literal["disk", "os", "scratch"]

FILES: Final = ("data.mdb", "lock.mdb", AHEAD_NAME)
_NAMES: Final = {table: table.name.lower().encode() for table in Table}
_SEGMENTS: Final = int(Table.SEGMENTS)  # compared for each operation of a commit: an IntEnum takes longer
_ASCENDING: Final = (Table.SEGMENTS, Table.INDEX)  # new keys are nearly always the highest
GIVE_BACK_S: Final = 0.05  # while a copy is made: a quick disk's 50 MB or so
PAGES_AROUND_BYTES: Final = 1 << 16  # what the kernel maps around a page that is touched
RESERVE_BYTES: Final = 4 << 20  # kept for removals, of which a thousand segments take a tenth
AHEAD_BYTES: Final = 1024 * BLOCK_BYTES  # of the write-ahead file: as many small commits, and as much memory for what is laid over
AHEAD_BATCH_BYTES: Final = 1 << 19  # a larger batch goes into the tables: its flushes hardly count, and its bytes are written once
AHEAD_AGAIN_S: Final = 60.0  # until the file is tried again where there was no room for it
_U32: Final = struct.Struct("<I")
_AHEAD: Final = struct.Struct(f"<{ID_BYTES}sQ")


class LocalLog:
    """One open environment.

    directory: made if it is not there (mode 0700). identity: says whose queue ids the records hold, compared with what is stored; shard:
    0..2**32 - 1, compared too. None for either takes whatever is there, but there must be something. map_bytes: as for `open_environment`.
    reserve_bytes: the file does not grow by messages while less is left on the disk. ahead_bytes: of the write-ahead file, a multiple of
    BLOCK_BYTES; 0: there is none. Nothing is written before the first commit.
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
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        self.directory = directory
        self.reserve_bytes = reserve_bytes
        self._ahead_bytes = ahead_bytes if durability == "disk" else 0
        self._ahead: AheadFile | None = None
        self._ahead_again_s = 0.0  # when it may be tried to make one
        self._ahead_is_named = False  # META tells of a write-ahead file, ours or that of a process that died
        self._overlay = Overlay()
        self._has_written = False
        self._is_broken = False
        self._committing = threading.Lock()
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
            self._highest: dict[int, bytes] = {table: self._highest_key(table) for table in _ASCENDING}
            self._load_ahead()
            self._resident = ResidentPages(directory / FILES[0])
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
        if not FORMAT_VERSION_LEAST <= _U32.unpack(version)[0] <= FORMAT_VERSION:
            raise ForeignStore(
                f"the messages in {self.directory} have format version {_U32.unpack(version)[0]}, this broker reads versions "
                f"{FORMAT_VERSION_LEAST} to {FORMAT_VERSION}: use the version of the broker that wrote them"
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

    def _load_ahead(self) -> None:
        """Lay over the tables what a process that died has left in the write-ahead file."""
        with self._env.begin() as txn:
            named = txn.get(b"ahead", db=self._tables[Table.META])
        if named is None:
            return
        if len(named) != _AHEAD.size:
            raise ForeignStore(f"{self.directory} does not hold messages of this broker: its write-ahead file has no name")
        file_id, sequence = _AHEAD.unpack(named)
        path = self.directory / AHEAD_NAME
        try:
            records = read_records(path.read_bytes(), file_id, sequence)
        except FileNotFoundError:
            raise ForeignStore(f"the last {self._what} in {self.directory} are lost: {AHEAD_NAME} is missing") from None
        except OSError as error:
            raise StoreFailed(f"{path} cannot be read: {error.strerror}") from error
        except DamagedRecord as error:
            raise ForeignStore(f"the last {self._what} in {path} cannot be read: {error}") from error
        for operations in records:
            self._overlay.add(operations, self._highest)
        self._ahead_is_named = True

    def commit(self, operations: Sequence[Operation]) -> None:
        """See `CommitLog`. Begins, writes and ends within the call: LMDB's writer lock belongs to a thread."""
        with self._committing:
            self._refuse_if_broken()
            size = messages_size = 0
            for table, _, value in operations:
                if value is not None:
                    size += len(value)
                    if table == _SEGMENTS:
                        messages_size += len(value)
            self._keep_reserve(messages_size)
            self._has_written = True
            if self._ahead is None or size > AHEAD_BATCH_BYTES or not self._append(self._ahead, operations):
                self._commit_to_tables(operations, size)

    def catches_up(self, size_bytes: int) -> bool:
        """See `CommitLog`."""
        if self._ahead is None:
            return self._may_make_ahead()
        return size_bytes > AHEAD_BATCH_BYTES or not self._ahead.fits(size_bytes + size_bytes // 4 + 2 * BLOCK_BYTES)

    def is_behind(self) -> bool:
        """See `CommitLog`."""
        return self._has_written and (bool(self._overlay) or (self._ahead is not None and not self._ahead.is_empty))

    def catch_up(self) -> None:
        """See `CommitLog`."""
        with self._committing:
            self._refuse_if_broken()
            self._catch_up()

    def _catch_up(self) -> None:
        if self._overlay or (self._ahead is not None and not self._ahead.is_empty):
            self._commit_to_tables((), 0)

    def _refuse_if_broken(self) -> None:
        """After a failure nobody knows what the disk has. Whatever came behind it could be lost with it."""
        if self._is_broken:
            raise StoreFailed(f"{self._what} in {self.directory} cannot be written any more after a failure")

    def _append(self, ahead: AheadFile, operations: Sequence[Operation]) -> bool:
        """Commit a batch to the write-ahead file. False: it does not fit, and nothing was written."""
        record = ahead.encode(operations)
        if not ahead.fits(len(record)):
            return False
        try:
            ahead.append(record)
        except OSError as error:
            self._is_broken = True
            raise StoreFailed(f"{self._what} in {self.directory / AHEAD_NAME} could not be written: {error.strerror}") from error
        self._overlay.add(operations, self._highest)
        return True

    def _commit_to_tables(self, operations: Sequence[Operation], size: int, *, last: bool = False) -> None:
        """What was laid over goes into the tables, and this batch after it. last: the log is closed, and needs its environment only."""
        overlay = self._overlay
        made = self._make_ahead() if not last and self._may_make_ahead() else None
        ahead = None if last else made or self._ahead
        meta: list[Operation] = []
        if made is not None:
            meta.append((Table.META, b"format", _U32.pack(FORMAT_VERSION)))
        if ahead is not None and (made is not None or not ahead.is_empty):
            meta.append((Table.META, b"ahead", _AHEAD.pack(ahead.file_id, ahead.sequence)))
        elif ahead is None and self._ahead_is_named:
            meta.append((Table.META, b"ahead", None))
        if overlay:
            # Together first, so that what the batch removes is not written: on a full disk there may be no room for it.
            together = overlay.with_added(operations, self._highest)
            operations, size = together.operations(), together.size_bytes
        try:
            with self._env.begin(write=True) as txn:
                self._write(txn, operations)
                self._write(txn, meta)
        except lmdb.Error as error:
            if made is not None:
                made.close()
            failure = commit_failure(error, self.directory, self._what, size)
            self._is_broken = isinstance(failure, StoreFailed)  # it was not before
            raise failure from error
        finally:
            # What is removed is touched too: at least a page and its neighbours each.
            self._resident.touched(size + len(operations) * PAGES_AROUND_BYTES)
        if ahead is not None:
            ahead.begin_again()
            self._ahead = ahead
        self._ahead_is_named = ahead is not None
        if overlay:
            self._overlay = Overlay()  # another one: whoever reads meanwhile finds the old one, or what is in the tables now

    def _write(self, txn: Any, operations: Iterable[Operation]) -> None:
        tables, highest = self._tables, self._highest
        for table, key, value in operations:
            if value is None:
                txn.delete(key, db=tables[table])
                continue
            if key > highest.get(table, key):
                # Pages filled to the brim, and no search. It declines where the key is not the highest after all.
                highest[table] = key
                if txn.put(key, value, db=tables[table], append=True):
                    continue
            txn.put(key, value, db=tables[table])

    def _may_make_ahead(self) -> bool:
        """Not before the tables have what a process that died has left in its file, and not while a copy is made, which must need none."""
        return (
            self._ahead_bytes > 0
            and self._ahead is None
            and not self._ahead_is_named
            and not self._copies
            and time.monotonic() >= self._ahead_again_s
        )

    def _make_ahead(self) -> AheadFile | None:
        """A write-ahead file that META does not name yet; None where there is no room for one."""
        path = self.directory / AHEAD_NAME
        why = "the disk is full"
        if path.exists() or free_bytes(self.directory) >= self._ahead_bytes + self.reserve_bytes:
            try:
                return AheadFile(path, self._ahead_bytes)
            except OSError as error:
                why = str(error.strerror)
        log.warning("%s cannot be made, commits take longer without it: %s", path, why)
        self._ahead_again_s = time.monotonic() + AHEAD_AGAIN_S
        return None

    def _keep_reserve(self, size: int) -> None:
        """Raise `DiskFull` for `size` bytes of new messages that would take the last room of the disk.

        What consumers have settled takes pages of its own to be removed, before any become free. Were there none, nothing could be removed,
        and the disk would stay full for ever. Room inside the file is as good as room on the disk.
        """
        if not size or self.durability == "scratch" or self._has_room(size):
            return
        if self._has_written:
            self._catch_up()  # what was removed makes room only then
        if not self._has_room(size):
            raise DiskFull(f"no room for {self._what}: the disk of {self.directory} is full")

    def _has_room(self, size: int) -> bool:
        size += self._overlay.size_bytes
        if free_bytes(self.directory) >= size + self.reserve_bytes:
            return True
        file_bytes, used_bytes, _ = self.sizes()
        return file_bytes - used_bytes >= 2 * size + RESERVE_BYTES

    def get(self, table: int, key: bytes) -> bytes | None:
        laid = self._overlay.get(table, key)
        if laid is not Unknown.UNKNOWN:
            return laid
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
                found = cursor.set_range(first_key)
                yield from self._overlay.over(table, first_key, iter(cursor) if found else iter(()))
        except lmdb.Error as error:
            raise StoreFailed(f"{self._what} in {self.directory} cannot be read: {error}") from error

    def sizes(self) -> Sizes:
        """See `CommitLog`. What is in use are the pages of the tables; the others are free for the next commits. The write-ahead file is no
        part of it: it neither takes more nor gives anything back."""
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
        """See `CommitLog`. The copy is compact, and on the disk when this returns. Raises `DiskFull` or `StoreFailed`.

        It is of the environment alone: what was laid over goes into the tables first, and until it is done there is no write-ahead file.
        """
        with self._lock:
            if self._closed:
                raise StoreFailed(f"{self._what} in {self.directory} are closed")
            self._copies += 1
        try:
            self._copy_to(directory)
        finally:
            with self._lock:
                self._copies -= 1
                self._close_unless_copied()

    def _copy_to(self, directory: Path) -> None:
        with self._committing:
            self._refuse_if_broken()
            self._put_ahead_away()
        done = threading.Event()
        giving_back = threading.Thread(target=self._give_back_until, args=(done,), name="copy-pages", daemon=True)
        giving_back.start()
        try:
            copy_environment(self._env, directory, self._what)
        finally:
            done.set()
            giving_back.join()  # before the map can go: what it gives back must still be ours

    def _give_back_until(self, done: threading.Event) -> None:
        """A copy is one call that touches the whole file; without this it would all count as ours."""
        while not done.wait(GIVE_BACK_S):
            self._resident.give_back()
        self._resident.give_back()

    def close(self) -> None:
        """See `CommitLog`. While a copy is being made the file stays open until its end, because reading a closed one ends the process."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with self._committing:
            try:
                if self._has_written and not self._is_broken:
                    self._put_ahead_away()
            except StoreError as error:
                log.warning("the next start has more to read: %s", error)
        with self._lock:
            self._close_unless_copied()

    def _put_ahead_away(self) -> None:
        """The environment alone has everything from now on. Raises what `commit` does; the file then counts as before."""
        if self._ahead_is_named:
            self._commit_to_tables((), 0, last=True)
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _close_unless_copied(self) -> None:
        if self._closed and not self._copies:
            self._env.close()


def _engine() -> bytes:
    major, minor, _ = lmdb.version()
    return f"{major}.{minor}".encode()
