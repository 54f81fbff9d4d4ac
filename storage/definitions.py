"""The definitions environment: small records that must come back after a restart, in one LMDB environment of their own.

It owns one directory, knows records (maps) under integer ids, and no more of them. The router opens it, loads everything at start, and from
then on only commits; one thread makes all commits, since LMDB's writer lock belongs to a thread. It is opened after exec and never crosses
a fork. Nobody else opens it while a node runs: management and tools ask the router. `read_definitions` looks into one that lies still.

Layout, format version 2 (all numbers big-endian, so that keys sort by number):

    named database   key                      value
    meta             b"format"                u32   FORMAT_VERSION
    meta             b"records"               u32   version of what the records hold; the router's, compared for equality
    meta             b"next_id"               u64   no id from here on has been given out
    meta             b"identity"              16 random bytes, made once: which store this is
    records          u64 id                   msgpack map

    1   without the identity
    2   with it

The identity says whose ids these are. The shards' environments carry it too, so that one that was made under other definitions, where the
same ids meant other queues, is never taken for this node's.

To change the format: raise FORMAT_VERSION; teach `_bring_forward` to take the version before into the new form, in its one transaction
and before anything is read; add the version to the list above with what is different; keep a directory written by the old version as a
fixture under `tests/fixtures/` and a test that opens it. Never change what a version means. The version of the records is raised in the
same way by whoever makes them (`leveret.router.entries`), who gives the function that brings them forward.

What a commit promises: when `commit` returns, the batch is on the disk as a whole (`durable=True`), or outlives the process but not the
machine (`durable=False`, for the session). When it raises `DiskFull`, nothing of it is there and a later commit may work. When it raises
`StoreFailed`, the process must end: after a failed fdatasync the next one reports success for pages that never arrived.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb
import msgpack
from leveret.storage.environment import (
    MAP_BYTES,
    DiskFull,
    ForeignStore,
    StoreError,
    StoreFailed,
    commit_failure,
    copy_environment,
    open_environment,
)

__all__ = ["FORMAT_VERSION", "Definitions", "DiskFull", "ForeignStore", "Forwarder", "StoreError", "StoreFailed"]

log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 2
IDENTITY_BYTES: Final = 16

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")

# From records of an older version (and that version) to what must be written to make them ours; None: that version is not known.
Forwarder = Callable[[int, Mapping[int, dict[str, Any]]], Mapping[int, Mapping[str, Any] | None] | None]


class Definitions:
    """One open environment.

    directory: made if it is not there (mode 0700); records_version: 0..2**32 - 1; bring_forward: makes older records ours, without it only
    that version is read; durable: whether a commit waits for the disk; map_bytes: address space, halved down to MAP_BYTES_LEAST where the
    system does not give that much. `identity` is the store's own, 32 hexadecimal digits. Raises `ForeignStore` if what is there cannot be
    used, `StoreFailed` if nothing can be made there, `DiskFull` if there is no room to make it or to bring it forward.
    """

    def __init__(
        self,
        directory: Path,
        records_version: int,
        bring_forward: Forwarder | None = None,
        *,
        durable: bool = True,
        map_bytes: int = MAP_BYTES,
    ) -> None:
        self.directory = directory
        self.durable = durable
        self._env = open_environment(directory, "definitions", max_dbs=2, map_bytes=map_bytes, sync=durable, metasync=durable)
        try:
            self._env.reader_check()
            if not self._find_databases():
                self._make_databases(records_version)
            self._check_format(records_version, bring_forward)
            self.identity = self._read_identity()
        except lmdb.Error as error:
            self._env.close()
            raise ForeignStore(f"the definitions in {directory} cannot be read: {error}") from error
        except StoreError:
            self._env.close()
            raise

    def _find_databases(self) -> bool:
        """Open the two databases; False if there is nothing at all yet."""
        with self._env.begin() as txn:
            if not txn.stat()["entries"]:
                return False
        try:
            self._meta = self._env.open_db(b"meta", create=False)
            self._records = self._env.open_db(b"records", create=False)
        except (lmdb.NotFoundError, lmdb.IncompatibleError):
            raise ForeignStore(f"{self.directory} does not hold definitions of this broker: it holds something else") from None
        return True

    def _make_databases(self, records_version: int) -> None:
        """All in one transaction: a process killed in the middle leaves nothing at all, and a slow disk is waited for once."""
        try:
            with self._env.begin(write=True) as txn:
                self._meta = self._env.open_db(b"meta", txn=txn)
                self._records = self._env.open_db(b"records", txn=txn)
                txn.put(b"format", _U32.pack(FORMAT_VERSION), db=self._meta)
                txn.put(b"records", _U32.pack(records_version), db=self._meta)
                txn.put(b"next_id", _U64.pack(1), db=self._meta)
                txn.put(b"identity", os.urandom(IDENTITY_BYTES), db=self._meta)
        except lmdb.Error as error:
            raise commit_failure(error, self.directory, "definitions", 0) from error

    def _check_format(self, records_version: int, bring_forward: Forwarder | None) -> None:
        with self._env.begin() as txn:
            format_version, found = (txn.get(key, db=self._meta) for key in (b"format", b"records"))
        if format_version is None or found is None or len(format_version) != 4 or len(found) != 4:
            raise ForeignStore(f"{self.directory} does not hold definitions of this broker: they have no version")
        (stored_format,), (stored_records,) = _U32.unpack(format_version), _U32.unpack(found)
        if not 1 <= stored_format <= FORMAT_VERSION:
            raise self._foreign_version("format", stored_format, FORMAT_VERSION)
        changes: Mapping[int, Mapping[str, Any] | None] = {}
        if stored_records != records_version:
            forward = bring_forward(stored_records, self.load()[0]) if bring_forward is not None else None
            if forward is None:
                raise self._foreign_version("records", stored_records, records_version)
            changes = forward
        if (stored_format, stored_records) != (FORMAT_VERSION, records_version):
            self._bring_forward(stored_format, records_version, changes)
            log.info(
                "the definitions in %s were brought from format %d, records %d to format %d, records %d; older brokers cannot read them",
                *(self.directory, stored_format, stored_records, FORMAT_VERSION, records_version),
            )

    def _foreign_version(self, what: str, version: int, ours: int) -> ForeignStore:
        return ForeignStore(
            f"the definitions in {self.directory} have {what} version {version}, this broker reads version {ours}: "
            "use the version of the broker that wrote them, or export them there and import them here"
        )

    def _bring_forward(self, stored_format: int, records_version: int, changes: Mapping[int, Mapping[str, Any] | None]) -> None:
        """All in one transaction: a kill leaves the old form or the new one."""
        size = 0
        try:
            with self._env.begin(write=True) as txn:
                if stored_format < 2:
                    txn.put(b"identity", os.urandom(IDENTITY_BYTES), db=self._meta)
                size = self._put_records(txn, changes)
                txn.put(b"format", _U32.pack(FORMAT_VERSION), db=self._meta)
                txn.put(b"records", _U32.pack(records_version), db=self._meta)
        except lmdb.Error as error:
            raise commit_failure(error, self.directory, "definitions", size) from error

    def _read_identity(self) -> str:
        with self._env.begin() as txn:
            identity = txn.get(b"identity", b"", db=self._meta)
        if len(identity) != IDENTITY_BYTES:
            raise ForeignStore(f"the definitions in {self.directory} are damaged: their identity is not {IDENTITY_BYTES} bytes")
        return bytes(identity).hex()

    def load(self) -> tuple[dict[int, dict[str, Any]], int]:
        """Every record, and the next id. Raises `ForeignStore` at the first that cannot be read."""
        return _load(self._env, self._meta, self._records, self.directory)

    def commit(self, changes: Mapping[int, Mapping[str, Any] | None], next_id: int) -> None:
        """Write (a map) and remove (None) records, all or nothing, and wait until they are safe. Always from the same thread."""
        size = 0
        try:
            with self._env.begin(write=True) as txn:
                size = self._put_records(txn, changes)
                txn.put(b"next_id", _U64.pack(next_id), db=self._meta)
        except lmdb.Error as error:
            raise commit_failure(error, self.directory, "definitions", size) from error

    def _put_records(self, txn: lmdb.Transaction, changes: Mapping[int, Mapping[str, Any] | None]) -> int:
        """Returns the bytes that were put."""
        size = 0
        for record_id, record in changes.items():
            key = _U64.pack(record_id)
            if record is None:
                txn.delete(key, db=self._records)
            else:
                value = msgpack.packb(record, unicode_errors="surrogateescape")
                size += len(value)
                txn.put(key, value, db=self._records)
        return size

    def copy_to(self, directory: Path) -> None:
        """Write a compact copy, as of one commit, into an empty directory; it is on the disk when this returns.

        May run beside commits, in any thread. Raises `DiskFull` or `StoreFailed`.
        """
        copy_environment(self._env, directory, "the definitions")

    def close(self) -> None:
        """Close the environment; nothing is pending."""
        self._env.close()


class StoredDefinitions(NamedTuple):
    """What an environment holds, as `Definitions` and whoever made the records know it. identity: "" in format 1, which has none."""

    format_version: int
    records_version: int
    identity: str
    records: dict[int, dict[str, Any]]
    next_id: int


def read_definitions(directory: Path) -> StoredDefinitions:
    """What is in an environment that nobody has open, of any version up to ours; nothing is changed. Raises `ForeignStore`."""
    try:
        environment = lmdb.open(str(directory), readonly=True, lock=False, max_dbs=2)
    except lmdb.Error as error:
        raise ForeignStore(f"{directory} does not hold definitions of this broker: {error}") from error
    try:
        meta, records = environment.open_db(b"meta", create=False), environment.open_db(b"records", create=False)
        with environment.begin() as txn:
            versions = [txn.get(key, b"", db=meta) for key in (b"format", b"records")]
            identity = txn.get(b"identity", b"", db=meta)
        format_version, records_version = (int(_U32.unpack(version)[0]) for version in versions)
        if not 1 <= format_version <= FORMAT_VERSION:
            raise ForeignStore(f"the definitions in {directory} have format version {format_version}, this broker reads {FORMAT_VERSION}")
        if len(identity) != (IDENTITY_BYTES if format_version > 1 else 0):
            raise ForeignStore(f"the definitions in {directory} are damaged: their identity is not {IDENTITY_BYTES} bytes")
        loaded, next_id = _load(environment, meta, records, directory)
    except (lmdb.Error, struct.error) as error:
        raise ForeignStore(f"{directory} does not hold definitions of this broker: {error}") from error
    finally:
        environment.close()
    return StoredDefinitions(format_version, records_version, identity.hex(), loaded, next_id)


def _load(environment: lmdb.Environment, meta: Any, records: Any, directory: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """Every record, and the next id. Raises `ForeignStore` at the first that cannot be read."""
    loaded: dict[int, dict[str, Any]] = {}
    try:
        with environment.begin() as txn:
            for key, value in txn.cursor(records):
                (record_id,) = _U64.unpack(key)
                record = msgpack.unpackb(value, unicode_errors="surrogateescape")
                if not isinstance(record, dict):
                    raise ValueError("it is no map")
                loaded[record_id] = record
            (next_id,) = _U64.unpack(txn.get(b"next_id", b"", db=meta))
    except (lmdb.Error, msgpack.UnpackException, ValueError, struct.error) as error:
        raise ForeignStore(f"the definitions in {directory} are damaged after {len(loaded)} good records: {error}") from error
    return loaded, int(next_id)
