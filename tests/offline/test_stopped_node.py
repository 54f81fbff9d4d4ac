"""The lock on a stopped node's data: no broker beside it, and none where one runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from leveret.offline.stopped_node import StoppedNode
from leveret.refusal import DATA, UNAVAILABLE, Refusal
from leveret.supervisor.runtime import LOCK_NAME, DataDir

from tests.node import Node

MakeNode = Callable[..., Node]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "definitions").mkdir(parents=True)
    return tmp_path / "data"


def test_no_broker_starts_while_the_data_is_worked_on(folder: Path) -> None:
    with StoppedNode(folder), pytest.raises(Refusal, match="in use by another broker"):
        DataDir(folder)
    DataDir(folder).close()


@pytest.mark.timeout(120)
def test_data_of_a_running_broker_is_refused(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=1)
    assert node.process is not None
    with pytest.raises(Refusal) as refused:
        StoppedNode(node.data_dir)
    assert refused.value.exit_code == UNAVAILABLE
    assert f"is in use by a broker (process {node.process.pid}); stop it first with `leveret stop`" in refused.value.sentence


def test_a_dead_holder_is_waited_for(folder: Path) -> None:
    """As after the death of a supervisor whose children still hold its lock for a moment."""
    code = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(fd, fcntl.LOCK_EX);"
        "gone = os.fork(); os._exit(0) if not gone else os.waitpid(gone, 0); os.write(fd, b'%d' % gone);"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(folder / LOCK_NAME)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    holder.stdin.close()  # it ends by itself now
    with StoppedNode(folder) as node:
        assert node.data_dir == folder
    holder.wait(30)
    holder.stdout.close()


@pytest.mark.parametrize("place", ["", "nowhere", "file"])
def test_what_is_no_data_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="is no data folder of a broker: there are no definitions in it") as refused:
        StoppedNode(tmp_path / place)
    assert refused.value.exit_code == DATA
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "and nothing was made there"


def test_shards_are_listed_by_number_without_what_is_none(folder: Path) -> None:
    with StoppedNode(folder) as node:
        assert node.shards() == {}
        for name in ("10", "9", "0.corrupt-20261124T093000Z", "x", "1"):
            (folder / "shards" / name).mkdir(parents=True)
        (folder / "shards" / "7").write_text("a file")
        assert list(node.shards().items()) == [(number, folder / "shards" / str(number)) for number in (1, 9, 10)]


def test_data_on_a_read_only_file_system_needs_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: object, flags: int, mode: int = 0) -> int:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(os, "open", read_only)
    with StoppedNode(folder) as node:
        assert node.definitions.is_dir()
    monkeypatch.undo()
    shutil.rmtree(folder)
