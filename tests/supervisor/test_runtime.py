"""The data folder's lock and the runtime folder: who may use them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from leveret.refusal import CANNOT_CREATE, CONFIG, NO_PERMISSION, UNAVAILABLE, Refusal
from leveret.supervisor.runtime import DataDir, RuntimeDir, read_node


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A path for a runtime folder; pytest's own may be too long for Unix sockets."""
    path = Path(f"/tmp/leveret-test-{os.getpid()}-{os.urandom(4).hex()}")
    yield path
    for entry in path.iterdir() if path.is_dir() and not path.is_symlink() else ():
        entry.unlink()
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        path.rmdir()


def test_data_folder_is_made_locked_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    held = DataDir(path)
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "leveret.lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(Refusal, match="in use by another broker") as refused:
        DataDir(path)
    assert refused.value.exit_code == UNAVAILABLE
    held.close()
    DataDir(path).close()


def test_a_holder_that_is_about_to_die_is_not_taken_for_another_broker(tmp_path: Path) -> None:
    """A start right after `kill -9`: on a busy machine the killed one has had no core to die on yet."""
    held = DataDir(tmp_path)
    dying = threading.Timer(0.05, held.close)
    dying.start()
    DataDir(tmp_path).close()
    dying.join()


def test_lock_of_a_dead_holder_is_waited_for(tmp_path: Path) -> None:
    """An orphan still holds the inherited lock; when it ends, the waiting successor goes on."""
    code = (
        "import os, sys; from pathlib import Path; from leveret.supervisor.runtime import DataDir\n"
        f"held = DataDir(Path({str(tmp_path)!r}))\n"
        "if os.fork(): os._exit(0)\n"
        "print('orphan', flush=True); sys.stdin.read()\n"
    )
    orphan = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert orphan.stdin is not None and orphan.stdout is not None
    assert orphan.stdout.readline() == "orphan\n"
    orphan.wait()
    waiting = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from leveret.supervisor.runtime import DataDir; DataDir(Path({str(tmp_path)!r})); print('locked')",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    orphan.stdin.close()
    assert waiting.communicate(timeout=60)[0] == "locked\n"
    orphan.stdout.close()


def test_node_file_is_whole_private_and_gone_after_close(tmp_path: Path) -> None:
    held = DataDir(tmp_path)
    assert read_node(tmp_path) is None
    held.write_node({"pid": 1, "amqp_port": 2})
    held.write_node({"pid": 3, "amqp_port": 4})
    assert read_node(tmp_path) == {"pid": 3, "amqp_port": 4}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["leveret.lock", "node.json"]
    held.close()
    assert read_node(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x01"])
def test_broken_node_file_is_no_node(tmp_path: Path, content: str) -> None:
    (tmp_path / "node.json").write_text(content)
    assert read_node(tmp_path) is None


def test_data_folder_that_is_a_file_or_below_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Refusal) as refused:
            DataDir(path)
        assert refused.value.exit_code == CANNOT_CREATE
        assert str(path) in refused.value.sentence


def test_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "leveret.lock").symlink_to(victim)
    with pytest.raises(Refusal, match="cannot write to the data folder"):
        DataDir(tmp_path)
    assert victim.read_text() == "precious"


def test_runtime_folder_is_private_and_cleared_of_what_old_nodes_left_only(short_path: Path) -> None:
    short_path.mkdir(mode=0o755)
    (short_path / "kept.txt").write_text("")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(short_path / "router.sock"))
    (short_path / "loads").write_text("of a killed node's workers")
    folder = RuntimeDir(short_path)
    assert short_path.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in short_path.iterdir()] == ["kept.txt"]
    (short_path / "loads").write_text("of ours")
    folder.close()
    assert [entry.name for entry in short_path.iterdir()] == ["kept.txt"]
    (short_path / "kept.txt").unlink()
    folder.close()
    assert not short_path.exists()


def test_runtime_folder_whose_sockets_would_have_too_long_names() -> None:
    at_most = Path("/tmp/" + "x" * (107 - len("/handoff-63.sock") - len("/tmp/")))
    folder = RuntimeDir(at_most)
    with socket.socket(socket.AF_UNIX) as longest:
        longest.bind(str(at_most / "handoff-63.sock"))
    folder.close()
    with pytest.raises(Refusal, match="too long") as refused:
        RuntimeDir(Path(f"{at_most}x"))
    assert refused.value.exit_code == CONFIG
    assert not Path(f"{at_most}x").exists()


def test_runtime_folder_that_somebody_else_made_first(short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_path.symlink_to(tmp_path)
    with pytest.raises(Refusal, match="belongs to another user or is a link") as refused:
        RuntimeDir(short_path)
    assert refused.value.exit_code == NO_PERMISSION
    short_path.unlink()
    short_path.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Refusal, match="belongs to another user"):
        RuntimeDir(short_path)
