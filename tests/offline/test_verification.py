"""The check of a stopped node's data: what is sound is told as such, and each kind of damage is found and named."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import pytest
from leveret.offline.stopped_node import StoppedNode
from leveret.offline.verification import FINDINGS_MAX, Checked, verify_node
from leveret.storage.definitions import Definitions
from leveret.storage.quarantine import set_aside

DEFINITIONS_1 = Path(__file__).parents[1] / "fixtures" / "definitions-1"


def checked(data_dir: Path) -> dict[str, Checked]:
    with StoppedNode(data_dir) as node:
        return {part.name: part for part in verify_node(node)}


def findings(data_dir: Path) -> dict[str, tuple[str, ...]]:
    return {name: part.findings for name, part in checked(data_dir).items() if part.findings}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("data.mdb")}


def test_a_stopped_nodes_data_is_sound_and_is_left_as_it_is(data_dir: Path) -> None:
    before = contents(data_dir)
    progress: list[tuple[str, int, int]] = []
    with StoppedNode(data_dir) as node:
        parts = list(verify_node(node, lambda *told: progress.append(told)))
    assert parts == [
        Checked("definitions", (), "1 vhost, 7 exchanges, 2 queues on 2 shards"),
        Checked("shard 0", (), "10 messages of 1 queue"),
        Checked("shard 1", (), "10 messages of 1 queue"),
    ]
    assert [name for name, done, total in progress if (done, total) == (0, 0)][:2] == ["definitions", "shard 0"]
    assert all(0 <= done <= total for _, done, total in progress)
    assert {name for name, done, total in progress if done == total > 0} == {"shard 0", "shard 1"}
    assert contents(data_dir) == before


def test_definitions_of_the_version_before_are_sound_and_stay_of_it(tmp_path: Path) -> None:
    shutil.copytree(DEFINITIONS_1, tmp_path / "data" / "definitions")
    before = contents(tmp_path)
    assert checked(tmp_path / "data") == {"definitions": Checked("definitions", (), "2 vhosts, 15 exchanges, 2 queues on 3 shards")}
    assert contents(tmp_path) == before


def test_what_was_set_aside_is_told_and_is_no_damage(data_dir: Path) -> None:
    aside = set_aside(data_dir / "shards" / "1")
    parts = checked(data_dir)
    assert list(parts) == ["definitions", "shard 0", aside.name]
    assert parts[aside.name] == Checked(aside.name, (), "set aside earlier; not served, and not checked")


def edit(directory: Path, change: Callable[[Any, dict[bytes, Any]], None], *names: bytes) -> None:
    """Change an environment by hand."""
    environment = lmdb.open(str(directory), map_size=1 << 30, max_dbs=8)
    databases = {name: environment.open_db(name, create=False) for name in names}
    with environment.begin(write=True) as txn:
        change(txn, databases)
    environment.close()


def drop_first(directory: Path, table: bytes) -> None:
    def change(txn: Any, databases: dict[bytes, Any]) -> None:
        cursor = txn.cursor(databases[table])
        assert cursor.first()
        cursor.delete()

    edit(directory, change, table)


def drop_index(data_dir: Path) -> None:
    drop_first(data_dir / "shards" / "0", b"index")


def drop_segment(data_dir: Path) -> None:
    drop_first(data_dir / "shards" / "0", b"segments")


def swap_shards(data_dir: Path) -> None:
    (data_dir / "shards" / "0").rename(data_dir / "shards" / "x")
    (data_dir / "shards" / "1").rename(data_dir / "shards" / "0")
    (data_dir / "shards" / "x").rename(data_dir / "shards" / "1")


def one_shard_too_many(data_dir: Path) -> None:
    records = stored(data_dir)
    store_record(data_dir, 0, records[0] | {"count": 1})
    for record_id, record in records.items():
        if record["kind"] == "queue":
            store_record(data_dir, record_id, record | {"shard": 0})


def other_definitions(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "definitions")
    Definitions(data_dir / "definitions", 2).close()


def zero_page(data_dir: Path) -> None:
    file = data_dir / "shards" / "1" / "data.mdb"
    content = bytearray(file.read_bytes())
    content[-4096:] = bytes(4096)
    file.write_bytes(content)


def cut_short(data_dir: Path) -> None:
    file = data_dir / "shards" / "1" / "data.mdb"
    file.write_bytes(file.read_bytes()[:8192])


def no_file(data_dir: Path) -> None:
    (data_dir / "shards" / "1" / "data.mdb").unlink()


def spoiled_definitions(data_dir: Path) -> None:
    (data_dir / "definitions" / "data.mdb").write_bytes(b"spoiled" * 5000)


def strange_record(data_dir: Path) -> None:
    store_record(data_dir, 7, {"kind": "shovel"})


def unreadable_record(data_dir: Path) -> None:
    edit(data_dir / "definitions", lambda txn, dbs: txn.put(struct.pack(">Q", 7), b"\xc1", db=dbs[b"records"]), b"records")


def low_next_id(data_dir: Path) -> None:
    edit(data_dir / "definitions", lambda txn, dbs: txn.put(b"next_id", struct.pack(">Q", 3), db=dbs[b"meta"]), b"meta")


def future_records(data_dir: Path) -> None:
    edit(data_dir / "definitions", lambda txn, dbs: txn.put(b"records", struct.pack(">I", 9), db=dbs[b"meta"]), b"meta")


def future_format(data_dir: Path) -> None:
    edit(data_dir / "definitions", lambda txn, dbs: txn.put(b"format", struct.pack(">I", 9), db=dbs[b"meta"]), b"meta")


def stored(data_dir: Path) -> dict[int, dict[str, Any]]:
    store = Definitions(data_dir / "definitions", 2)
    records, _ = store.load()
    store.close()
    return records


def store_record(data_dir: Path, record_id: int, record: dict[str, Any]) -> None:
    value = msgpack.packb(record)
    edit(data_dir / "definitions", lambda txn, dbs: txn.put(struct.pack(">Q", record_id), value, db=dbs[b"records"]), b"records")


@pytest.mark.parametrize(
    ("ruin", "part", "sentence"),
    [
        (drop_index, "shard 0", "it has no index record"),
        (drop_segment, "shard 0", "its index record has no value beside it"),
        (swap_shards, "shard 0", "holds the messages of shard 1, not of shard 0"),
        (one_shard_too_many, "shard 1", "the definitions know of 1 shard only: nobody would serve it"),
        (one_shard_too_many, "shard 1", "lives on shard 0, and has messages here"),
        (other_definitions, "shard 0", "belong to another node's queues"),
        (zero_page, "shard 1", "data.mdb: "),
        (cut_short, "shard 1", "data.mdb: "),
        (no_file, "shard 1", "there are no messages of a shard"),
        (spoiled_definitions, "definitions", "not an LMDB data file"),
        (strange_record, "definitions", "unknown kind: shovel"),
        (unreadable_record, "definitions", "are damaged after 7 good records"),
        (low_next_id, "definitions", "their next id is 3, and there is a record"),
        (future_records, "definitions", "their records have version 9, this broker reads version 2 and those before"),
        (future_format, "definitions", "have format version 9, this broker reads 2"),
    ],
)
def test_each_kind_of_damage_is_found_where_it_is(data_dir: Path, ruin: Callable[[Path], None], part: str, sentence: str) -> None:
    ruin(data_dir)
    found = findings(data_dir)
    assert part in found, found
    assert any(sentence in finding for finding in found[part]), found[part]


def test_shards_are_checked_although_the_definitions_are_spoiled(data_dir: Path) -> None:
    spoiled_definitions(data_dir)
    parts = checked(data_dir)
    assert parts["shard 0"] == Checked("shard 0", (), "10 messages of 1 queue; whose they are is not known without definitions")


def test_messages_of_a_deleted_queue_are_no_damage(data_dir: Path) -> None:
    [(record_id, shard)] = [(record_id, record["shard"]) for record_id, record in stored(data_dir).items() if record.get("name") == "b"]
    edit(data_dir / "definitions", lambda txn, dbs: txn.delete(struct.pack(">Q", record_id), db=dbs[b"records"]), b"records")
    part = checked(data_dir)[f"shard {shard}"]
    assert part == Checked(f"shard {shard}", (), "10 messages of 1 queue, 10 of them of deleted queues (dropped at the next start)")


def test_endless_findings_are_bounded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leveret.offline.verification.page_problems", lambda directory: [f"page {n}" for n in range(500)])
    told = checked(data_dir)["definitions"].findings
    assert told == (*(f"page {n}" for n in range(FINDINGS_MAX)), f"... and {500 - FINDINGS_MAX} more")
