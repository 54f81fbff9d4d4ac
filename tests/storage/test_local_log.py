"""The log on LMDB: what it promises is there after a kill, and what is not ours is refused in a sentence."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import lmdb
import pytest
from leveret.storage import environment, local_log
from leveret.storage.commit_log import CommitLog, Table
from leveret.storage.definitions import Definitions
from leveret.storage.environment import DiskFull, ForeignStore, StoreFailed
from leveret.storage.faulty_log import FaultyLog
from leveret.storage.layout import SEGMENT_KEY
from leveret.storage.local_log import RESERVE_BYTES, Durability, LocalLog
from leveret.storage.memory_log import MemoryLog
from leveret.storage.resident import ResidentPages

SEGMENT = [SEGMENT_KEY.pack(number, 0) for number in range(10)]


@pytest.fixture(params=["memory", "local", "faulty"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> CommitLog:
    """Each of the three, which must not differ."""
    if request.param == "memory":
        return MemoryLog()
    local = LocalLog(tmp_path / "log", "os")
    return local if request.param == "local" else FaultyLog(local, 0, DiskFull())


def test_operations_are_applied_in_order(log: CommitLog) -> None:
    log.commit(
        [
            (Table.SEGMENTS, SEGMENT[3], b"three"),
            (Table.SEGMENTS, SEGMENT[1], b"one"),
            (Table.SEGMENTS, SEGMENT[5], b"five"),
            (Table.QUEUES, b"q", b"1"),
            (Table.QUEUES, b"q", b"2"),
            (Table.SEGMENTS, SEGMENT[3], None),
            (Table.SEGMENTS, SEGMENT[9], None),
            (Table.SEGMENTS, SEGMENT[5], b"five again"),
        ]
    )
    assert list(log.scan(Table.SEGMENTS)) == [(SEGMENT[1], b"one"), (SEGMENT[5], b"five again")]
    assert list(log.scan(Table.SEGMENTS, SEGMENT[2])) == [(SEGMENT[5], b"five again")]
    assert (log.get(Table.SEGMENTS, SEGMENT[3]), log.get(Table.QUEUES, b"q"), log.get(Table.INDEX, b"q")) == (None, b"2", None)
    sizes = log.sizes()
    assert 0 < sizes.used_bytes <= sizes.file_bytes
    log.close()


def test_the_highest_key_may_come_back_after_it_was_removed(log: CommitLog) -> None:
    """New keys are appended without a search; that must not depend on what was once the highest."""
    log.commit([(Table.SEGMENTS, SEGMENT[8], b"high")])
    log.commit([(Table.SEGMENTS, SEGMENT[8], None), (Table.SEGMENTS, SEGMENT[2], b"low")])
    log.commit([(Table.SEGMENTS, SEGMENT[5], b"middle"), (Table.SEGMENTS, SEGMENT[9], b"higher"), (Table.SEGMENTS, SEGMENT[8], b"again")])
    assert [value for _, value in log.scan(Table.SEGMENTS)] == [b"low", b"middle", b"again", b"higher"]
    log.close()


@pytest.mark.parametrize("fail_at", [1, 2, 3])
@pytest.mark.parametrize("applied", [False, True])
def test_the_faulty_log_applies_all_or_nothing(fail_at: int, applied: bool) -> None:
    log = FaultyLog(MemoryLog(), fail_at, StoreFailed("broken"), applied=applied)
    operations = [(int(Table.QUEUES), bytes([number]), b"x") for number in range(3)]
    with pytest.raises(StoreFailed, match="broken"):
        log.commit(operations)
    assert len(list(log.scan(Table.QUEUES))) == (3 if applied else 0)
    log.commit(operations[:1])
    assert (len(list(log.scan(Table.QUEUES))), log.failures) == (3 if applied else 1, 1)


CHILD = """
import os, sys
from pathlib import Path
from leveret.storage.local_log import LocalLog
log = LocalLog(Path(sys.argv[1]), sys.argv[2], identity=b"node", shard=4)
for number in range(100):
    log.commit([(1, number.to_bytes(12, "big"), bytes(number * 500)), (2, number.to_bytes(8, "big"), b"index")])
txn = log._env.begin(write=True)
txn.put((999).to_bytes(12, "big"), b"never committed", db=log._tables[1])
os._exit(9)
"""


@pytest.mark.parametrize("durability", get_args(Durability))
def test_what_was_committed_is_there_after_a_kill_and_no_more(tmp_path: Path, durability: Durability) -> None:
    run = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), durability], check=False, timeout=60)
    assert run.returncode == 9
    log = LocalLog(tmp_path, durability, identity=b"node", shard=4)
    expected = [] if durability == "scratch" else [(number.to_bytes(12, "big"), bytes(number * 500)) for number in range(100)]
    assert list(log.scan(Table.SEGMENTS)) == expected
    log.commit([(Table.SEGMENTS, (100).to_bytes(12, "big"), b"goes on")])
    assert log.get(Table.SEGMENTS, (100).to_bytes(12, "big")) == b"goes on"
    log.close()


def test_only_the_owner_may_look_into_the_files(tmp_path: Path) -> None:
    LocalLog(tmp_path / "a" / "log").close()
    assert (tmp_path / "a" / "log").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "log" / "data.mdb").stat().st_mode & 0o777 == 0o600


def meta(directory: Path, key: bytes, value: bytes | None) -> None:
    """Change what a log says of itself."""
    env = lmdb.open(str(directory), max_dbs=4)
    with env.begin(write=True, db=env.open_db(b"meta")) as txn:
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)
    env.close()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (b"format", struct.pack("<I", 3), "have format version 3, this broker reads versions 1 to 2"),
        (b"format", struct.pack("<I", 0), "have format version 0"),
        (b"format", b"\1", "does not say what it is"),
        (b"format", None, "does not say what it is"),
        (b"engine", b"1.0", r"written by LMDB 1\.0, this is LMDB"),
        (b"engine", b"\xff", "written by LMDB"),
        (b"identity", b"another", "belong to another node's queues"),
        (b"identity", None, "belong to another node's queues"),
        (b"shard", struct.pack("<I", 5), "holds the messages of shard 5, not of shard 4"),
        (b"shard", None, "does not say what it is"),
        (b"ahead", b"\1" * 24, r"the last messages of shard 4 in .* are lost: ahead.wal is missing"),
        (b"ahead", b"\1" * 23, "its write-ahead file has no name"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path, key: bytes, value: bytes | None, sentence: str) -> None:
    LocalLog(tmp_path, identity=b"node", shard=4).close()
    meta(tmp_path, key, value)
    before = (tmp_path / "data.mdb").read_bytes()
    with pytest.raises(ForeignStore, match=sentence) as refused:
        LocalLog(tmp_path, identity=b"node", shard=4)
    assert str(tmp_path) in str(refused.value)
    assert (tmp_path / "data.mdb").read_bytes() == before


def test_another_environment_is_refused(tmp_path: Path) -> None:
    Definitions(tmp_path, 1).close()
    with pytest.raises(ForeignStore, match="holds something else"):
        LocalLog(tmp_path)


def test_a_file_that_was_cut_short_is_refused_before_anything_beyond_its_end_is_read(tmp_path: Path) -> None:
    """To read there would end the process with SIGBUS; in a process of its own, so that it could not end this one."""
    log = LocalLog(tmp_path / "log")
    log.commit([(Table.SEGMENTS, SEGMENT[number], bytes(65_536)) for number in range(10)])
    log.close()
    path = tmp_path / "log" / "data.mdb"
    os.truncate(path, path.stat().st_size // 2)
    opening = "import sys, pathlib; from leveret.storage.local_log import LocalLog; LocalLog(pathlib.Path(sys.argv[1]))"
    tried = subprocess.run([sys.executable, "-c", opening, str(tmp_path / "log")], capture_output=True, text=True, timeout=60)
    assert tried.returncode == 1
    assert "ForeignStore" in tried.stderr
    assert "was cut short" in tried.stderr


@pytest.mark.parametrize("content", [b"not a database at all" * 1000, b"\0" * 8192], ids=["text", "zeros"])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(ForeignStore, match="does not hold messages of shard 0 of this broker"):
        LocalLog(tmp_path)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreFailed, match="cannot be made"):
        LocalLog(tmp_path / "file" / "log")
    (tmp_path / "scratch" / "data.mdb").mkdir(parents=True)
    with pytest.raises(StoreFailed, match="cannot be removed"):
        LocalLog(tmp_path / "scratch", "scratch")


@pytest.mark.parametrize("kind", sorted(environment.REMOTE_FILE_SYSTEMS))
def test_a_file_system_over_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mounts"
    line = f"36 35 {os.major(device)}:{os.minor(device)} / {tmp_path} rw,noatime shared:1 - {{kind}} server:/export rw\n"
    monkeypatch.setattr(environment, "MOUNTS", mounts)
    mounts.write_text("22 1 0:1 / /other rw - nfs4 x:/ rw\n" + line.format(kind="ext4"))
    LocalLog(tmp_path / "log").close()
    mounts.write_text(line.format(kind=kind))
    with pytest.raises(StoreFailed, match=f"over the network \\({kind}\\)"):
        LocalLog(tmp_path / "log")


def test_a_system_that_tells_no_mounts_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MOUNTS", tmp_path / "none")
    LocalLog(tmp_path / "log").close()


class FailingEnvironment:
    """Stands in for LMDB where it fails: of a full disk and of a broken one it only says EIO."""

    def begin(self, write: bool = False) -> Any:
        raise lmdb.Error("mdb_txn_commit: Input/output error")


@pytest.mark.parametrize(("free", "error"), [(0, DiskFull), (1 << 30, StoreFailed)])
def test_a_failed_commit_is_a_full_disk_only_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, error: type[Exception]
) -> None:
    log = LocalLog(tmp_path)
    real, log._env = log._env, FailingEnvironment()
    monkeypatch.setattr(environment, "free_bytes", lambda directory: free)
    with pytest.raises(error, match=str(tmp_path)):
        log.commit([(Table.QUEUES, b"k", b"v")])
    for read in (lambda: log.get(Table.QUEUES, b"k"), lambda: list(log.scan(Table.QUEUES)), log.sizes):
        with pytest.raises(StoreFailed, match="cannot be read"):
            read()
    real.close()


def test_the_last_room_of_a_disk_is_kept_for_what_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LocalLog(tmp_path)
    keys = [SEGMENT_KEY.pack(number, 0) for number in range(40)]
    log.commit([(Table.SEGMENTS, key, bytes(500_000)) for key in keys])
    monkeypatch.setattr(local_log, "free_bytes", lambda directory: RESERVE_BYTES + 60_000)
    log.commit([(Table.SEGMENTS, SEGMENT_KEY.pack(100, 0), bytes(60_000))])
    with pytest.raises(DiskFull, match=r"no room for messages of shard 0: the disk of .* is full"):
        log.commit([(Table.SEGMENTS, SEGMENT_KEY.pack(101, 0), bytes(60_001))])
    log.commit([(Table.QUEUES, b"k", b"v"), *((Table.SEGMENTS, key, None) for key in keys)])
    log.commit([(Table.SEGMENTS, SEGMENT_KEY.pack(102, 0), bytes(60_001))])  # there is room in the file now
    assert len(list(log.scan(Table.SEGMENTS))) == 2
    log.close()


def test_a_map_that_is_full_is_a_full_disk_and_works_again(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, "os", map_bytes=1 << 20)
    key = (number.to_bytes(12, "big") for number in range(10_000))
    kept = []
    with pytest.raises(DiskFull, match="have reached their largest size"):
        while True:
            operation = (int(Table.SEGMENTS), next(key), bytes(60_000))
            log.commit([operation, (Table.QUEUES, b"count", b"%d" % (len(kept) + 1))])
            kept.append(operation[1])
    assert log.get(Table.QUEUES, b"count") == b"%d" % len(kept)
    assert [found for found, _ in log.scan(Table.SEGMENTS)] == kept
    log.commit([(Table.SEGMENTS, kept[0], None), (Table.SEGMENTS, kept[1], None)])
    log.commit([(Table.SEGMENTS, next(key), b"room again")])
    assert len(list(log.scan(Table.SEGMENTS))) == len(kept) - 1
    log.close()


# --- pages that count as memory


def mapped_kib(path: Path) -> int:
    """How much of a file's map is resident in this process."""
    total = 0
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_reading_much_does_not_fill_the_process_with_pages(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, "scratch")
    keys = [number.to_bytes(12, "big") for number in range(2000)]
    for first in range(0, 2000, 100):
        log.commit([(Table.SEGMENTS, key, bytes(65_000)) for key in keys[first : first + 100]])
    bound_kib = 3 * 32 * 1024
    for key in keys:
        value = log.get(Table.SEGMENTS, key)
        assert value is not None
        assert len(value) == 65_000
    assert mapped_kib(tmp_path / "data.mdb") < bound_kib
    for first in range(0, 2000, 100):
        log.commit([(Table.SEGMENTS, key, None) for key in keys[first : first + 100]])
    assert mapped_kib(tmp_path / "data.mdb") < bound_kib
    log._resident.give_back()
    assert mapped_kib(tmp_path / "data.mdb") == 0
    assert list(log.scan(Table.SEGMENTS)) == []
    log.close()


def test_without_maps_to_read_nothing_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leveret.storage.resident.MAPS", tmp_path / "none")
    log = LocalLog(tmp_path / "log", "scratch")
    log.commit([(Table.QUEUES, b"k", b"v")])
    log._resident.give_back()
    assert log.get(Table.QUEUES, b"k") == b"v"
    log.close()
    ResidentPages(tmp_path / "log" / "data.mdb").touched(1 << 40)


def test_the_log_says_which_files_it_has(tmp_path: Path) -> None:
    """Quarantine and backup go by these names."""
    log = LocalLog(tmp_path)
    log.commit([(Table.QUEUES, b"k", b"v")])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(local_log.FILES)
    log.close()
