"""The loads that workers share: each sees what the others write, and what is on the way counts once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from leveret.worker.loads import Loads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "loads"


def test_what_one_worker_tells_the_others_see_at_once(path: Path) -> None:
    first, second, third = (Loads(path, index, 3) for index in range(3))
    second.set_connections(70_000)
    second.set_busy_percent(63)
    for each in (first, second, third):
        assert [each.connections(worker) for worker in range(3)] == [0, 70_000, 0]
        assert [each.busy_percent(worker) for worker in range(3)] == [0, 63, 0]


def test_what_is_on_the_way_counts_for_its_sender_until_it_has_come(path: Path) -> None:
    first, second = Loads(path, 0, 2), Loads(path, 1, 2)
    first.passed_on(1)
    first.passed_on(1)
    assert first.connections(1) == 2
    second.set_connections(1)
    second.taken_from(0)
    assert first.connections(1) == 2
    assert second.connections(1) == 1
    second.set_connections(2)
    second.taken_from(0)
    second.set_connections(1)
    assert first.connections(1) == 1


def test_a_successor_begins_with_nothing_and_what_was_on_the_way_to_the_one_before_is_lost(path: Path) -> None:
    first, second = Loads(path, 0, 2), Loads(path, 1, 2)
    first.set_connections(5)
    first.passed_on(1)
    second.set_connections(3)
    second.set_busy_percent(90)
    second.passed_on(0)
    successor = Loads(path, 1, 2)
    assert [first.connections(worker) for worker in range(2)] == [5, 0]
    assert first.busy_percent(1) == 0
    assert successor.connections(0) == 6, "still on its way to a worker that lives"
    first.passed_on(1)
    assert first.connections(1) == 1


def test_the_file_is_for_nobody_else(path: Path) -> None:
    Loads(path, 0, 1)
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_room_for_it_there_is_an_error_and_not_a_signal_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        assert (offset, size) == (0, 2 * 6 * 8)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Loads(path, 1, 2)
