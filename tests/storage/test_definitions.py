"""The definitions environment: what was committed is there after a kill, and what is not ours is refused in a sentence."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.router.entries import RECORDS_VERSION, SHARDS_ID, bring_forward
from leveret.storage import environment
from leveret.storage.definitions import Definitions
from leveret.storage.environment import DiskFull, ForeignStore, StoreFailed

RECORD = {"kind": "queue", "name": "caf\u00e9", "arguments": b"\x00\xff", "durable": True, "tags": ["a"], "nested": {"n": 1}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "definitions"


def test_an_empty_directory_becomes_a_store_with_nothing_in_it(directory: Path) -> None:
    store = Definitions(directory, 1)
    assert store.load() == ({}, 1)
    assert directory.stat().st_mode & 0o777 == 0o700
    store.close()


def test_what_was_committed_is_there_when_opened_again(directory: Path) -> None:
    store = Definitions(directory, 1)
    store.commit({1: RECORD, 2**32 - 1: {"kind": "x"}, 5: {"kind": "gone"}}, 9)
    store.commit({5: None, 6: None, 1: {**RECORD, "durable": False}}, 10)
    store.close()
    again = Definitions(directory, 1)
    assert again.load() == ({1: {**RECORD, "durable": False}, 2**32 - 1: {"kind": "x"}}, 10)
    again.close()


def test_a_name_that_is_no_utf8_comes_back_as_it_went(directory: Path) -> None:
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    store = Definitions(directory, 1)
    store.commit({1: {"name": name}}, 2)
    assert store.load()[0] == {1: {"name": name}}
    store.close()


def test_a_store_has_an_identity_of_its_own_for_good(tmp_path: Path) -> None:
    one, other = Definitions(tmp_path / "one", 1), Definitions(tmp_path / "other", 1)
    assert re.fullmatch("[0-9a-f]{32}", one.identity)
    assert one.identity != other.identity
    one.commit({1: RECORD}, 2)
    one.close()
    other.close()
    again = Definitions(tmp_path / "one", 1)
    assert again.identity == one.identity
    again.close()


FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "definitions-1"


@pytest.fixture
def old(directory: Path) -> Path:
    """Definitions as the first version of the format and of the records left them: two vhosts, a queue on worker 1, one on worker 2."""
    return Path(shutil.copytree(FORMAT_1, directory))


def test_the_format_before_is_brought_forward_with_its_records(old: Path) -> None:
    store = Definitions(old, RECORDS_VERSION, bring_forward)
    records, next_id = store.load()
    queues = {record["name"]: record["shard"] for record in records.values() if record["kind"] == "queue"}
    assert queues == {"durable": 1, "third": 2}
    assert records[SHARDS_ID] == {"kind": "shards", "count": 3}
    assert next_id > max(records)
    store.close()
    again = Definitions(old, RECORDS_VERSION)  # nothing is left to bring forward
    assert (again.load(), again.identity) == ((records, next_id), store.identity)
    again.close()


def test_the_format_alone_can_be_old(old: Path) -> None:
    store = Definitions(old, 1)
    assert re.fullmatch("[0-9a-f]{32}", store.identity)
    assert [record["worker"] for record in store.load()[0].values() if record["kind"] == "queue"] == [1, 2]
    store.close()


def test_records_that_nobody_can_bring_forward_are_refused_and_left_alone(old: Path) -> None:
    before = (old / "data.mdb").read_bytes()
    for forwarder in (None, lambda version, records: None):
        with pytest.raises(ForeignStore, match="have records version 1, this broker reads version 9"):
            Definitions(old, 9, forwarder)
    assert (old / "data.mdb").read_bytes() == before


def test_without_room_the_old_form_stays_and_is_brought_forward_later(old: Path) -> None:
    def too_much(version: int, records: Mapping[int, dict[str, Any]]) -> dict[int, Any]:
        return {number: {"filler": b"x" * 2000} for number in range(100, 300)}

    with pytest.raises(DiskFull):
        Definitions(old, RECORDS_VERSION, too_much, map_bytes=1 << 17)
    store = Definitions(old, RECORDS_VERSION, bring_forward)
    assert store.load()[0][SHARDS_ID]["count"] == 3
    store.close()


CHILD = """
import os, sys
from pathlib import Path
from leveret.storage.definitions import Definitions
store = Definitions(Path(sys.argv[1]), 1, durable=sys.argv[2] == "durable")
for number in range(1, 51):
    store.commit({number: {"number": number}}, number + 1)
txn = store._env.begin(write=True)
txn.put((99).to_bytes(8, "big"), b"never committed", db=store._records)
os._exit(9)
"""


@pytest.mark.parametrize("durability", ["durable", "session"])
def test_a_killed_process_leaves_all_its_commits_and_nothing_else(directory: Path, durability: str) -> None:
    killed = subprocess.run([sys.executable, "-c", CHILD, str(directory), durability], check=False, timeout=60)
    assert killed.returncode == 9
    store = Definitions(directory, 1)
    assert store.load() == ({number: {"number": number} for number in range(1, 51)}, 51)
    store.commit({7: None}, 51)  # and its writer lock does not stay taken
    store.close()


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(
        st.dictionaries(st.integers(1, 12), st.one_of(st.none(), st.fixed_dictionaries({"n": st.integers(0, 2**63), "b": st.binary()}))),
        max_size=8,
    )
)
def test_any_batches_leave_what_a_dict_would(tmp_path_factory: pytest.TempPathFactory, batches: list[dict[int, Any]]) -> None:
    directory = tmp_path_factory.mktemp("definitions")
    store = Definitions(directory, 1, durable=False)
    expected: dict[int, Any] = {}
    for batch in batches:
        store.commit(batch, 13)
        expected.update(batch)
    expected = {key: value for key, value in expected.items() if value is not None}
    assert store.load()[0] == expected
    store.close()


def write_raw(directory: Path, database: bytes, entries: dict[bytes, bytes]) -> None:
    environment = lmdb.open(str(directory), map_size=1 << 24, max_dbs=4)
    opened = environment.open_db(database)
    with environment.begin(write=True) as txn:
        for key, value in entries.items():
            txn.put(key, value, db=opened)
    environment.close()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (
            b"format",
            struct.pack(">I", 7),
            "have format version 7, this broker reads version 2: use the version of the broker that wrote them",
        ),
        (b"format", struct.pack(">I", 0), "have format version 0, this broker reads version 2"),
        (b"records", struct.pack(">I", 2), "have records version 2, this broker reads version 1"),
        (b"format", b"", "they have no version"),
        (b"records", b"xy", "they have no version"),
        (b"identity", b"short", "are damaged: their identity is not 16 bytes"),
    ],
)
def test_another_version_is_refused_in_a_sentence_and_left_alone(directory: Path, key: bytes, value: bytes, sentence: str) -> None:
    store = Definitions(directory, 1)
    store.commit({1: RECORD}, 2)
    store.close()
    write_raw(directory, b"meta", {key: value})
    before = (directory / "data.mdb").read_bytes()
    with pytest.raises(ForeignStore, match=sentence) as refused:
        Definitions(directory, 1)
    assert str(directory) in str(refused.value)
    assert (directory / "data.mdb").read_bytes() == before


def test_an_environment_of_another_program_is_refused(directory: Path) -> None:
    directory.mkdir()
    write_raw(directory, b"records", {b"theirs": b"value"})
    with pytest.raises(ForeignStore, match="does not hold definitions of this broker"):
        Definitions(directory, 1)


@pytest.mark.parametrize("content", [b"not a database at all" * 1000, b"\0" * 8192], ids=["text", "zeros"])
def test_a_file_that_is_no_database_is_refused(directory: Path, content: bytes) -> None:
    directory.mkdir()
    (directory / "data.mdb").write_bytes(content)
    with pytest.raises(ForeignStore, match="does not hold definitions of this broker"):
        Definitions(directory, 1)
    assert (directory / "data.mdb").read_bytes() == content


@pytest.mark.parametrize("value", [b"\xc1", b"\x05", b"\x81\xa1"], ids=["no-msgpack", "no-map", "cut"])
def test_a_damaged_record_is_refused_in_a_sentence(directory: Path, value: bytes) -> None:
    Definitions(directory, 1).close()
    write_raw(directory, b"records", {struct.pack(">Q", 3): value})
    store = Definitions(directory, 1)
    with pytest.raises(ForeignStore, match="damaged after 0 good records"):
        store.load()
    store.close()


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreFailed, match="cannot be made"):
        Definitions(tmp_path / "file" / "definitions", 1)


def test_a_full_map_is_a_full_disk_and_later_commits_work(directory: Path) -> None:
    store = Definitions(directory, 1, map_bytes=1 << 17)
    store.commit({1: RECORD}, 2)
    with pytest.raises(DiskFull):
        store.commit({number: {"filler": b"x" * 2000} for number in range(2, 200)}, 200)
    assert store.load() == ({1: RECORD}, 2), "nothing of the batch is there"
    store.commit({2: RECORD}, 3)
    assert set(store.load()[0]) == {1, 2}
    store.close()


class FailingEnvironment:
    """Stands in for LMDB where its commit fails: like a disk that is full or broken, LMDB only says EIO."""

    def begin(self, write: bool = False) -> Any:
        raise lmdb.Error("mdb_txn_commit: Input/output error")


@pytest.mark.parametrize(("free", "error"), [(0, DiskFull), (1 << 30, StoreFailed)])
def test_a_failed_commit_is_a_full_disk_only_if_the_disk_is_full(
    directory: Path, monkeypatch: pytest.MonkeyPatch, free: int, error: type[Exception]
) -> None:
    store = Definitions(directory, 1)
    real, store._env = store._env, FailingEnvironment()
    monkeypatch.setattr(environment, "free_bytes", lambda directory: free)
    with pytest.raises(error, match=str(directory)):
        store.commit({1: RECORD}, 2)
    real.close()


SMALL_ADDRESS_SPACE = """
import resource, sys, logging
from pathlib import Path
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
from leveret.storage.definitions import Definitions
store = Definitions(Path(sys.argv[1]), 1)
store.commit({1: {}}, 2)
print(store.load())
"""


def test_a_small_address_space_makes_a_smaller_map_and_a_warning(directory: Path) -> None:
    limit = 4 << 30
    assert limit < environment.MAP_BYTES
    run = subprocess.run(
        [sys.executable, "-c", SMALL_ADDRESS_SPACE, str(directory), str(limit)], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.stdout == "({1: {}}, 2)\n"
    assert "may grow to" in run.stderr
