"""The log with its write-ahead file: one flush a commit, everything there after a kill at any moment, and nothing needed after a stop.

A kill is tried by opening a copy of the files as they lie there: what a process that is gone has written is what the next one finds.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from leveret.storage import ahead_file, environment, local_log
from leveret.storage.ahead_file import AHEAD_NAME
from leveret.storage.ahead_record import BLOCK_BYTES
from leveret.storage.commit_log import Operation, Table
from leveret.storage.environment import DiskFull, ForeignStore, StoreFailed
from leveret.storage.local_log import AHEAD_BATCH_BYTES, AHEAD_BYTES, RESERVE_BYTES, LocalLog
from leveret.storage.verify import verify_directory

WITHIN_S = 20.0
SMALL = 8 * BLOCK_BYTES


def segment(number: int, value: bytes | None = b"value") -> Operation:
    return (int(Table.SEGMENTS), number.to_bytes(12, "big"), value)


def numbers(log: LocalLog) -> list[int]:
    return [int.from_bytes(key, "big") for key, _ in log.scan(Table.SEGMENTS)]


def left_by_a_kill(directory: Path, place: Path) -> Path:
    """The files of a log as a kill now would leave them."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("data.mdb", AHEAD_NAME):
        if (directory / name).exists():
            shutil.copy(directory / name, place / name)
    return place


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    """With one commit, number 0, in the tables, and a write-ahead file from then on."""
    made = LocalLog(tmp_path / "log", ahead_bytes=SMALL)
    made.commit([segment(0)])
    yield made
    made.close()


def test_a_small_commit_is_one_write_and_one_flush(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def noted_write(descriptor: int, record: bytes, at: int) -> int:
        calls.append(("pwrite", len(record)))
        return pwrite(descriptor, record, at)

    def noted_sync(descriptor: int) -> None:
        calls.append(("fdatasync", 0))
        fdatasync(descriptor)

    monkeypatch.setattr(ahead_file.os, "pwrite", noted_write)
    monkeypatch.setattr(ahead_file.os, "fdatasync", noted_sync)
    tables = (log.directory / "data.mdb").read_bytes()
    assert not log.catches_up(2000)
    log.commit([segment(1, bytes(2000)), (Table.INDEX, b"\0" * 8, b"index"), segment(0, None)])
    assert calls == [("pwrite", BLOCK_BYTES), ("fdatasync", 0)]
    assert (log.directory / "data.mdb").read_bytes() == tables
    assert (numbers(log), log.get(Table.SEGMENTS, segment(1)[1]), log.get(Table.SEGMENTS, segment(0)[1])) == ([1], bytes(2000), None)


def test_each_commit_is_there_after_a_kill_behind_it(log: LocalLog, tmp_path: Path) -> None:
    """More of them than the file holds, so it is begun again several times, and large ones between."""
    expected = {0: b"value"}
    caught_up = 0
    for number in range(1, 60):
        value = bytes([number]) * (AHEAD_BATCH_BYTES + 1 if number % 17 == 0 else 100 * number)
        operations = [segment(number, value)]
        expected[number] = value
        for gone in ({number - 1, number - 20} & set(expected)) if number % 3 else ():
            operations.append(segment(gone, None))
            del expected[gone]
        caught_up += log.catches_up(len(value))
        log.commit(operations)
        found = LocalLog(left_by_a_kill(log.directory, tmp_path / "killed"), ahead_bytes=SMALL)
        assert {int.from_bytes(key, "big"): content for key, content in found.scan(Table.SEGMENTS)} == expected
        assert all(found.get(*segment(each)[:2]) == expected.get(each) for each in range(60))
        found.close()
    assert 5 < caught_up < 40


def test_after_a_kill_the_next_process_goes_on_and_may_be_killed_in_turn(tmp_path: Path) -> None:
    """Each process finds what all before it have committed, whatever the last one left in the file."""
    here = tmp_path / "0"
    for turn in range(6):
        log = LocalLog(here, ahead_bytes=SMALL)
        assert numbers(log) == list(range(turn * 3))
        for number in range(turn * 3, turn * 3 + 3):
            log.commit([segment(number)])
            place = left_by_a_kill(here, tmp_path / "between")
            found = LocalLog(place, ahead_bytes=SMALL)
            assert numbers(found) == list(range(number + 1))
            found.close()
        here_next = left_by_a_kill(here, tmp_path / str(turn + 1))
        log.close()
        here = here_next


def test_a_log_that_was_closed_needs_its_environment_only(log: LocalLog) -> None:
    for number in range(1, 5):
        log.commit([segment(number)])
    log.close()
    (log.directory / AHEAD_NAME).unlink()
    again = LocalLog(log.directory)
    assert numbers(again) == [0, 1, 2, 3, 4]
    again.close()
    assert list(verify_directory(log.directory)) != [], "segments without index records: it has been looked into"


def test_whoever_only_reads_changes_nothing(log: LocalLog, tmp_path: Path) -> None:
    log.commit([(Table.QUEUES, b"\0" * 4, bytes(16))])
    place = left_by_a_kill(log.directory, tmp_path / "killed")
    before = {name: (place / name).read_bytes() for name in ("data.mdb", AHEAD_NAME)}
    reader = LocalLog(place, identity=None, shard=None)
    assert reader.get(Table.QUEUES, b"\0" * 4) == bytes(16)
    assert not reader.is_behind()
    reader.close()
    list(verify_directory(place))
    assert {name: (place / name).read_bytes() for name in before} == before


def test_a_log_that_nobody_wrote_to_has_no_write_ahead_file(tmp_path: Path) -> None:
    LocalLog(tmp_path).close()
    assert not (tmp_path / AHEAD_NAME).exists()


def test_catching_up_moves_everything_into_the_tables(log: LocalLog, tmp_path: Path) -> None:
    assert not log.is_behind()
    log.commit([segment(1)])
    log.commit([segment(2), segment(1, None)])
    assert log.is_behind()
    log.catch_up()
    assert not log.is_behind()
    place = left_by_a_kill(log.directory, tmp_path / "killed")
    env = lmdb.open(str(place), max_dbs=4, readonly=True, lock=False)
    with env.begin(db=env.open_db(b"segments", create=False)) as txn:
        assert [int.from_bytes(key, "big") for key in txn.cursor().iternext(values=False)] == [0, 2]
    env.close()
    log.commit([segment(3)])
    assert numbers(log) == [0, 2, 3]


def test_what_came_and_went_never_reaches_the_tables(log: LocalLog) -> None:
    log.catch_up()
    for number in range(1, 100):
        log.commit([segment(number, bytes(8000)), segment(number - 1, None)])
    assert numbers(log) == [99]
    assert (log.directory / "data.mdb").stat().st_size < 200_000


def test_what_a_kill_left_and_the_first_batch_removes_takes_no_room(log: LocalLog, tmp_path: Path) -> None:
    """On a full disk there is none, and consumers must be able to drain it."""
    log.commit([segment(number, bytes(5000)) for number in range(1, 5)])
    place = left_by_a_kill(log.directory, tmp_path / "killed")
    size = (place / "data.mdb").stat().st_size
    found = LocalLog(place, "os")
    found.commit([segment(number, None) for number in range(1, 5)])
    assert numbers(found) == [0]
    assert (place / "data.mdb").stat().st_size <= size + 3 * 4096
    found.close()


def test_a_file_that_is_missing_or_damaged_is_refused(log: LocalLog, tmp_path: Path) -> None:
    for number in range(1, 5):
        log.commit([segment(number)])
    place = left_by_a_kill(log.directory, tmp_path / "killed")
    content = bytearray((place / AHEAD_NAME).read_bytes())
    content[BLOCK_BYTES + 60] ^= 1
    (place / AHEAD_NAME).write_bytes(content)
    with pytest.raises(ForeignStore, match=rf"the last messages of shard 0 in {place}/{AHEAD_NAME} cannot be read: record 2 is damaged"):
        LocalLog(place)
    assert ["record 2 is damaged" in finding.what for finding in verify_directory(place)] == [True]
    (place / AHEAD_NAME).unlink()
    with pytest.raises(ForeignStore, match=f"the last messages of shard 0 in {place} are lost: {AHEAD_NAME} is missing"):
        LocalLog(place)
    (place / AHEAD_NAME).mkdir()
    with pytest.raises(StoreFailed, match="cannot be read: Is a directory"):
        LocalLog(place)


def test_the_tables_of_yesterday_beside_the_file_of_today_are_refused(log: LocalLog, tmp_path: Path) -> None:
    log.commit([segment(1)])
    old = (log.directory / "data.mdb").read_bytes()
    log.catch_up()
    log.commit([segment(2)])
    place = left_by_a_kill(log.directory, tmp_path / "killed")
    (place / "data.mdb").write_bytes(old)
    with pytest.raises(ForeignStore, match="record 1 is damaged, and record 2 behind it is not"):
        LocalLog(place)


def test_another_size_of_the_file_loses_nothing(log: LocalLog, tmp_path: Path) -> None:
    log.commit([segment(1)])
    place = left_by_a_kill(log.directory, tmp_path / "killed")
    other = LocalLog(place, ahead_bytes=2 * SMALL)
    for number in range(2, 5):
        other.commit([segment(number)])
        found = LocalLog(left_by_a_kill(place, tmp_path / "again"))
        assert numbers(found) == list(range(number + 1))
        found.close()
    assert (place / AHEAD_NAME).stat().st_size == 2 * SMALL
    other.close()


def test_durability_os_reads_what_disk_has_left_and_has_no_file(log: LocalLog, tmp_path: Path) -> None:
    log.commit([segment(1)])
    place = left_by_a_kill(log.directory, tmp_path / "killed")
    other = LocalLog(place, "os")
    assert numbers(other) == [0, 1]
    assert not other.catches_up(100)
    other.commit([segment(2)])
    (place / AHEAD_NAME).unlink()
    found = LocalLog(left_by_a_kill(place, tmp_path / "again"))
    assert numbers(found) == [0, 1, 2]
    found.close()
    other.close()


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_after_a_failed_write_nothing_is_ever_written_again(log: LocalLog, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    log.commit([segment(1)])
    monkeypatch.setattr(ahead_file.os, call, fail)
    with pytest.raises(StoreFailed, match=f"messages of shard 0 in .*{AHEAD_NAME} could not be written: Input/output error"):
        log.commit([segment(2)])
    monkeypatch.undo()
    tables = (log.directory / "data.mdb").read_bytes()
    again: list[Callable[[], None]] = [
        lambda: log.commit([segment(3)]),
        lambda: log.commit([segment(3, bytes(AHEAD_BATCH_BYTES + 1))]),
        log.catch_up,
        lambda: log.copy_to(log.directory / "copy"),
    ]
    for do in again:
        with pytest.raises(StoreFailed, match="cannot be written any more after a failure"):
            do()
    log.close()
    assert (log.directory / "data.mdb").read_bytes() == tables
    found = LocalLog(log.directory)
    assert numbers(found)[:2] == [0, 1], "2 may be there or not"
    found.close()


class FailingEnvironment:
    """LMDB that cannot begin to write; it reads."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def begin(self, write: bool = False) -> Any:
        if write:
            raise lmdb.Error("mdb_txn_commit: Input/output error")
        return self.inner.begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_catching_up_on_a_full_disk_is_put_off_and_loses_nothing(log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.commit([segment(1)])
    real = log._env
    log._env = FailingEnvironment(real)
    monkeypatch.setattr(environment, "free_bytes", lambda directory: 0)
    for _ in range(2):
        with pytest.raises(DiskFull):
            log.catch_up()
        assert log.is_behind()
        assert numbers(log) == [0, 1]
        found = LocalLog(left_by_a_kill(log.directory, tmp_path / "killed"))
        assert numbers(found) == [0, 1]
        found.close()
    log.commit([segment(0, None)])  # there is room for it in the file
    log._env = real
    log.catch_up()
    assert (numbers(log), log.is_behind()) == ([1], False)


def test_catching_up_that_fails_otherwise_is_the_end(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.commit([segment(1)])
    real = log._env
    log._env = FailingEnvironment(real)
    with pytest.raises(StoreFailed, match="could not be written"):
        log.catch_up()
    log._env = real
    with pytest.raises(StoreFailed, match="any more after a failure"):
        log.commit([segment(2)])


def test_what_was_removed_makes_room_before_a_message_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LocalLog(tmp_path)
    log.commit([segment(number, bytes(500_000)) for number in range(40)])
    log.commit([segment(number, None) for number in range(40)])
    monkeypatch.setattr(local_log, "free_bytes", lambda directory: RESERVE_BYTES)
    log.commit([segment(100, bytes(60_000))])
    assert numbers(log) == [100]
    log.close()


def test_what_is_laid_over_counts_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes room in the tables yet, and must find it there."""
    log = LocalLog(tmp_path)
    log.commit([segment(0)])
    monkeypatch.setattr(local_log, "free_bytes", lambda directory: RESERVE_BYTES + 100_000)
    log.commit([segment(1, bytes(60_000))])
    monkeypatch.setattr(LocalLog, "_catch_up", lambda self: None)
    with pytest.raises(DiskFull):
        log.commit([segment(2, bytes(60_000))])
    log.commit([segment(3, bytes(40_000))])
    monkeypatch.undo()
    log.close()


def test_without_room_for_the_file_commits_go_into_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = LocalLog(tmp_path)
    assert log.catches_up(10), "the first has a file to make"
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(local_log, "free_bytes", lambda directory: RESERVE_BYTES + AHEAD_BYTES - 1)
        log.commit([segment(1)])
        log.commit([segment(2)])
        assert not log.catches_up(10)
        assert [record.getMessage() for record in caplog.records] == [
            f"{tmp_path}/{AHEAD_NAME} cannot be made, commits take longer without it: the disk is full"
        ]
        assert not (tmp_path / AHEAD_NAME).exists()
        patch.setattr(local_log, "AHEAD_AGAIN_S", 0.0)
        log._ahead_again_s = 0.0
        log.commit([segment(3)])
    log.commit([segment(4)])
    assert (tmp_path / AHEAD_NAME).stat().st_size == AHEAD_BYTES
    assert numbers(log) == [1, 2, 3, 4]
    log.close()


def test_a_copy_has_what_was_laid_over_and_commits_go_on_meanwhile(log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    copy_environment = environment.copy_environment

    def slow_copy(*arguments: Any) -> None:
        copy_environment(*arguments)
        begun.set()
        assert go_on.wait(WITHIN_S)

    monkeypatch.setattr(local_log, "copy_environment", slow_copy)
    log.commit([segment(1)])
    copying = threading.Thread(target=log.copy_to, args=(tmp_path / "copy",))
    copying.start()
    assert begun.wait(WITHIN_S)
    log.commit([segment(2)])
    assert (log.is_behind(), log.catches_up(10)) == (False, False)
    found = LocalLog(left_by_a_kill(log.directory, tmp_path / "killed"))
    assert numbers(found) == [0, 1, 2]
    found.close()
    go_on.set()
    copying.join(WITHIN_S)
    assert not copying.is_alive()
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["data.mdb"]
    copy = LocalLog(tmp_path / "copy")
    assert numbers(copy) == [0, 1]
    copy.close()
    log.commit([segment(3)])
    log.commit([segment(4)])
    assert log.is_behind(), "the file is used again"
    assert numbers(log) == [0, 1, 2, 3, 4]


def test_a_copy_of_what_a_kill_left_is_whole(log: LocalLog, tmp_path: Path) -> None:
    log.commit([segment(1)])
    killed = LocalLog(left_by_a_kill(log.directory, tmp_path / "killed"))
    killed.copy_to(tmp_path / "copy")
    killed.close()
    copy = LocalLog(tmp_path / "copy")
    assert numbers(copy) == [0, 1]
    copy.close()
