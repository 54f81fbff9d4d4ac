"""Compaction of one environment: smaller, with the same in it, and the old file until the new one is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from leveret.storage import compaction
from leveret.storage.commit_log import Table
from leveret.storage.compaction import compact
from leveret.storage.environment import DiskFull, ForeignStore, StoreFailed
from leveret.storage.local_log import LocalLog

IDENTITY = b"0123456789abcdef"


def opened(directory: Path) -> LocalLog:
    return LocalLog(directory, identity=IDENTITY, shard=3)


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A log that was 8 MB and has 20 records left; each commit straight into the tables."""
    log = LocalLog(tmp_path / "log", identity=IDENTITY, shard=3, ahead_bytes=0)
    for batch in range(20):
        log.commit([(Table.QUEUES, (batch * 100 + number).to_bytes(4, "big"), b"x" * 4000) for number in range(100)])
    log.commit([(Table.QUEUES, number.to_bytes(4, "big"), None) for number in range(2000) if number % 100])
    log.close()
    return tmp_path / "log"


def kept(directory: Path) -> list[int]:
    log = opened(directory)
    numbers = [int.from_bytes(key, "big") for key, value in log.scan(Table.QUEUES) if value == b"x" * 4000]
    log.close()
    return numbers


def test_the_file_shrinks_and_holds_what_it_held(sparse: Path) -> None:
    before = (sparse / "data.mdb").stat().st_size
    sizes = compact(sparse, "messages")
    assert sizes == (before, (sparse / "data.mdb").stat().st_size)
    assert sizes.before_bytes > 8_000_000
    assert sizes.after_bytes < 300_000
    assert kept(sparse) == list(range(0, 2000, 100))
    assert [path.name for path in sparse.iterdir() if path.name != "lock.mdb"] == ["data.mdb"]
    log = opened(sparse)
    log.commit([(Table.QUEUES, b"\0\0\0\1", b"x" * 4000)])
    log.close()
    assert kept(sparse)[:2] == [0, 1]


def test_what_a_killed_one_left_is_no_obstacle(sparse: Path) -> None:
    (sparse / "compact.new").mkdir()
    (sparse / "compact.new" / "data.mdb").write_bytes(b"half of it")
    compact(sparse, "messages")
    assert kept(sparse) == list(range(0, 2000, 100))
    assert not (sparse / "compact.new").exists()


@pytest.mark.parametrize("error", [DiskFull("no room"), StoreFailed("broken"), KeyboardInterrupt()])
def test_when_the_copy_fails_the_old_file_stays(sparse: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(environment: Any, directory: Path, what: str) -> None:
        directory.mkdir()
        (directory / "data.mdb").write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(compaction, "copy_environment", fail)
    before = (sparse / "data.mdb").read_bytes()
    with pytest.raises(type(error)):
        compact(sparse, "messages")
    assert (sparse / "data.mdb").read_bytes() == before
    assert not (sparse / "compact.new").exists()


def test_a_copy_that_is_not_like_the_original_does_not_take_its_place(sparse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_another(environment: Any, directory: Path, what: str) -> None:
        LocalLog(directory, identity=IDENTITY, shard=3).close()
        monkeypatch.setattr(compaction, "_entries", lambda environment: next(counts))

    counts = iter((4, 3))
    monkeypatch.setattr(compaction, "copy_environment", copy_another)
    before = (sparse / "data.mdb").read_bytes()
    with pytest.raises(StoreFailed, match="is not like the original"):
        compact(sparse, "messages")
    assert (sparse / "data.mdb").read_bytes() == before


def test_a_file_that_was_cut_short_is_refused_and_left_alone(sparse: Path) -> None:
    file = sparse / "data.mdb"
    file.write_bytes(file.read_bytes()[:-4096])
    before = file.read_bytes()
    with pytest.raises(ForeignStore, match=r"messages in .* cannot be read: .*; `leveret verify` tells more"):
        compact(sparse, "messages")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (b"no database" * 1000, ForeignStore, "messages in .* cannot be read"),
        (None, StoreFailed, "messages in .* cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, error: type[Exception], sentence: str) -> None:
    if content is not None:
        (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(error, match=sentence):
        compact(tmp_path, "messages")
    assert content is None or (tmp_path / "data.mdb").read_bytes() == content
