"""The ledger: batches, full disks, broken disks and sessions, with a store that fails on request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from leveret.codec.errors import InternalError
from leveret.router import ledger as module
from leveret.router.entries import Stored
from leveret.router.ledger import Ledger
from leveret.storage.definitions import Definitions
from leveret.storage.environment import DiskFull, StoreFailed

WITHIN_S = 20.0


class FaultyStore:
    """Stands before a ledger's durable store: fails as told, keeps what was committed, and says when."""

    def __init__(self, real: Definitions) -> None:
        self.real = real
        self.failures: list[Exception] = []
        self.batches: list[dict[int, Any]] = []
        self.committed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def commit(self, changes: Mapping[int, Any], next_id: int) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(dict(changes))
        self.real.commit(changes, next_id)
        self._loop.call_soon_threadsafe(self.committed.set)

    def close(self) -> None:
        self.real.close()


def with_faults(ledger: Ledger) -> FaultyStore:
    store = FaultyStore(ledger._definitions)
    ledger._definitions = store  # type: ignore[assignment]
    return store


def put(record_id: int, text: str = "x") -> list[Stored]:
    return [Stored(record_id, True, {"kind": "test", "text": text})]


async def safe(waited: asyncio.Future[None] | None) -> None:
    assert waited is not None
    async with asyncio.timeout(WITHIN_S):
        await asyncio.shield(waited)


def test_what_gathers_during_a_commit_is_one_batch(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger(tmp_path, "run")
        store = with_faults(ledger)
        first = ledger.write(put(1), 2)
        await asyncio.sleep(0)  # the first batch is with the committer now
        rest = [ledger.write(put(n), n + 1) for n in range(2, 50)]
        await safe(first)
        for waited in rest:
            await safe(waited)
        assert [sorted(batch) for batch in store.batches] == [[1], list(range(2, 50))]
        assert ledger.write([], 50) is None, "nothing is waited for when nothing is under way"
        await ledger.close()
        again = Ledger(tmp_path, "run")
        assert (sorted(again.durable[0]), again.durable[1]) == (list(range(1, 50)), 50)
        await again.close()

    asyncio.run(main())


def test_a_full_disk_is_told_and_tried_again_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)

    async def main() -> None:
        ledger = Ledger(tmp_path, "run")
        store = with_faults(ledger)
        store.failures = [DiskFull("no room"), DiskFull("still no room")]
        with pytest.raises(InternalError, match="the change is made, but not stored: no room"):
            await safe(ledger.write([*put(1, "old"), Stored(7, False, {"kind": "test"})], 2))
        with pytest.raises(InternalError, match="still no room"):
            await safe(ledger.write(put(1, "new"), 2))
        # Nobody asks again: the ledger does.
        async with asyncio.timeout(WITHIN_S):
            await store.committed.wait()
        await safe(ledger.write(put(2), 3))
        await ledger.close()
        again = Ledger(tmp_path, "run")
        assert again.durable[0] == {1: {"kind": "test", "text": "new"}, 2: {"kind": "test", "text": "x"}}
        assert again.session[0] == {7: {"kind": "test"}}
        await again.close()

    asyncio.run(main())


def test_a_broken_disk_ends_it_and_nobody_is_told_that_it_is_done(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger(tmp_path, "run")
        store = with_faults(ledger)
        store.failures = [StoreFailed("Input/output error")]
        waited = ledger.write(put(1), 2)
        async with asyncio.timeout(WITHIN_S):
            assert str(await ledger.failed) == "Input/output error"
        assert waited is not None and not waited.done()
        await ledger.close()

    asyncio.run(main())


def test_a_new_run_finds_no_session_and_removes_the_old_one(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger(tmp_path, "first")
        ledger.write_worker(1, 4242)
        await safe(ledger.write([Stored(5, False, {"kind": "test"}), *put(6)], 7))
        await ledger.close()
        same = Ledger(tmp_path, "first")
        assert (same.session[0], same.worker_pids) == ({5: {"kind": "test"}}, {1: 4242})
        await same.close()
        other = Ledger(tmp_path, "second")
        assert (other.session[0], other.worker_pids, list(other.durable[0])) == ({}, {}, [6])
        assert [path.name for path in (tmp_path / "session").iterdir()] == ["second"]
        await other.close()

    asyncio.run(main())


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "a b"])
def test_a_run_id_cannot_lead_out_of_the_folder(tmp_path: Path, run_id: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="run id"):
            Ledger(tmp_path, run_id)

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []
