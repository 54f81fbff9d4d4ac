"""Copies of shards beside everything else: what comes of each, and what must not be closed meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from leveret.storage.environment import DiskFull, StoreFailed
from leveret.worker.shard_copies import ShardCopies

WITHIN_S = 20.0


class Log:
    """A log whose copy is 1,000 bytes, or fails, and takes until `go_on` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self._error = error

    def copy_to(self, directory: Path) -> None:
        self.begun.set()
        assert self.go_on.wait(WITHIN_S)
        if self._error is not None:
            raise self._error
        (directory / "data.mdb").write_bytes(b"x" * 1000)


def copied(log: Log, folder: Path, number: int = 3) -> dict[str, Any]:
    return asyncio.run(asyncio.wait_for(ShardCopies().copy(number, log, folder), WITHIN_S))


def test_a_copy_lies_where_a_data_folder_has_the_shard(tmp_path: Path) -> None:
    assert copied(Log(), tmp_path) == {"bytes": 1000}
    assert copied(Log(), tmp_path, 4) == {"bytes": 1000}
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("data.mdb")) == [
        "shards/3/data.mdb",
        "shards/4/data.mdb",
    ]
    assert (tmp_path / "shards" / "3").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("error", [DiskFull("no room for a copy of shard 3"), StoreFailed("shard 3 cannot be copied")])
def test_a_copy_that_fails_is_told_in_the_stores_words(tmp_path: Path, error: Exception) -> None:
    assert copied(Log(error), tmp_path) == {"refused": str(error)}


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "shards" / "3"
    place.mkdir(parents=True)
    (place / "data.mdb").write_bytes(b"precious")
    assert copied(Log(), tmp_path) == {"refused": f"{place} is there already; a backup goes into an empty folder"}
    assert (place / "data.mdb").read_bytes() == b"precious"


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    refused = copied(Log(), tmp_path / "nowhere")
    assert refused == {"refused": f"{tmp_path}/nowhere/shards/3 cannot be written: No such file or directory"}


def test_a_bug_below_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        copied(Log(ZeroDivisionError()), tmp_path)


def test_one_copy_of_a_shard_at_a_time_and_the_loop_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        copies, log = ShardCopies(), Log()
        log.go_on.clear()
        first = asyncio.ensure_future(copies.copy(3, log, tmp_path))
        assert await loop.run_in_executor(None, log.begun.wait, WITHIN_S)
        assert copies.under_way == {3}
        refused = await copies.copy(3, log, tmp_path)
        assert refused == {"refused": "shard 3 is being copied already; wait for the end of that backup"}
        assert await copies.copy(4, Log(), tmp_path) == {"bytes": 1000}, "another shard need not wait"
        log.go_on.set()
        assert await asyncio.wait_for(first, WITHIN_S) == {"bytes": 1000}
        assert copies.under_way == set()

    asyncio.run(main())


def test_a_copy_whose_asker_has_gone_is_under_way_until_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        copies, log = ShardCopies(), Log()
        log.go_on.clear()
        asking = asyncio.ensure_future(copies.copy(3, log, tmp_path))
        assert await loop.run_in_executor(None, log.begun.wait, WITHIN_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert copies.under_way == {3}
        log.go_on.set()
        thread = next(thread for thread in threading.enumerate() if thread.name == "copy-3")
        await loop.run_in_executor(None, thread.join, WITHIN_S)
        assert copies.under_way == set()
        assert (tmp_path / "shards" / "3" / "data.mdb").exists()

    asyncio.run(main())
