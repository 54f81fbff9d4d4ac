"""Copies of open environments: whole, as of one commit, and safe from a log that is closed meanwhile."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from leveret.storage import environment, local_log
from leveret.storage.commit_log import Table
from leveret.storage.definitions import Definitions
from leveret.storage.environment import DiskFull, StoreFailed
from leveret.storage.local_log import LocalLog

from tests.deadline import eventually

WITHIN_S = 20.0
IDENTITY = b"0123456789abcdef"


@pytest.fixture
def log(tmp_path: Path) -> LocalLog:
    made = LocalLog(tmp_path / "log", identity=IDENTITY, shard=3)
    made.commit([(Table.QUEUES, number.to_bytes(4, "big"), b"value %d" % number) for number in range(1000)])
    return made


def test_a_copy_is_a_log_of_its_own_without_what_came_later(log: LocalLog, tmp_path: Path) -> None:
    log.copy_to(tmp_path / "backup" / "3")
    log.commit([(Table.QUEUES, b"\0\0\0\0", None)])
    log.close()
    copy = LocalLog(tmp_path / "backup" / "3", identity=IDENTITY, shard=3)
    assert [value for _, value in copy.scan(Table.QUEUES)] == [b"value %d" % number for number in range(1000)]
    copy.commit([(Table.QUEUES, b"\0\0\0\1", b"the copy's own")])
    assert copy.get(Table.QUEUES, b"\0\0\0\1") == b"the copy's own"
    copy.close()


def test_a_copy_of_definitions_has_their_identity(tmp_path: Path) -> None:
    store = Definitions(tmp_path / "definitions", 1)
    store.commit({1: {"kind": "x"}}, 2)
    (tmp_path / "copy").mkdir()
    store.copy_to(tmp_path / "copy")
    copy = Definitions(tmp_path / "copy", 1)
    assert (copy.identity, copy.load()) == (store.identity, ({1: {"kind": "x"}}, 2))
    store.close()
    copy.close()


def test_a_copy_never_writes_over_a_file(log: LocalLog, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "data.mdb").write_bytes(b"precious")
    with pytest.raises(StoreFailed, match=f"cannot be copied to {tmp_path}/taken: .*File exists"):
        log.copy_to(tmp_path / "taken")
    assert (tmp_path / "taken" / "data.mdb").read_bytes() == b"precious"
    log.close()


def test_a_place_that_cannot_be_made_is_told(log: LocalLog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match=r"cannot be copied to .*: Not a directory"):
        log.copy_to(tmp_path / "file" / "below")
    log.close()


def test_a_full_disk_is_told_as_such(log: LocalLog) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    full = Path("/dev/full")

    class Disk:
        """An environment whose copy goes to a device that is always full."""

        def copy(self, path: str, compact: bool) -> None:
            with full.open("wb", buffering=0) as device:
                log._env.copyfd(device.fileno(), compact=compact)

    disk: Any = Disk()
    with pytest.raises(DiskFull, match="no room for a copy of things"):
        environment.copy_environment(disk, log.directory, "things")
    log.close()


def resident_bytes(file: Path) -> int:
    """How much of this process's map of the file is in its resident size."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(file))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_the_pages_that_a_copy_reads_do_not_stay_the_processs_memory(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = log.directory / "data.mdb"
    log.commit([(Table.SEGMENTS, number.to_bytes(12, "big"), bytes(1 << 20)) for number in range(64)])

    def copy_and_wait(env: Any, directory: Path, what: str) -> None:
        environment.copy_environment(env, directory, what)
        for _ in log.scan(Table.SEGMENTS):
            pass
        assert eventually(lambda: resident_bytes(file) < 8 << 20, within_s=WITHIN_S), "it is given back while the copy goes on"

    monkeypatch.setattr(local_log, "copy_environment", copy_and_wait)
    log.copy_to(tmp_path / "copy")
    assert resident_bytes(file) < 8 << 20
    assert (tmp_path / "copy" / "data.mdb").stat().st_size > 64 << 20
    log.close()


def test_a_log_that_is_closed_while_it_is_copied_stays_open_until_the_copy_is_whole(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    copy_environment = environment.copy_environment

    def slow_copy(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(WITHIN_S)
        copy_environment(*arguments)

    monkeypatch.setattr(local_log, "copy_environment", slow_copy)
    copying = threading.Thread(target=log.copy_to, args=(tmp_path / "copy",))
    copying.start()
    assert begun.wait(WITHIN_S)
    log.close()
    go_on.set()
    copying.join(WITHIN_S)
    assert not copying.is_alive()
    copy = LocalLog(tmp_path / "copy", identity=IDENTITY, shard=3)
    assert sum(1 for _ in copy.scan(Table.QUEUES)) == 1000
    copy.close()
    again = LocalLog(log.directory, identity=IDENTITY, shard=3)  # it was closed at the end: a second open would be refused
    again.close()
    with pytest.raises(StoreFailed, match="are closed"):
        log.copy_to(tmp_path / "too late")
