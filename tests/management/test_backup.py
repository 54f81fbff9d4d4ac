"""The steps of a backup over the control socket: what is asked of whom, and the sentences for what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from leveret.management.problem import Problem

from tests.management.simulated_node import SimulatedNode

AS_JSON = {"content-type": "application/json"}


def post(node: SimulatedNode, path: str, directory: object, *, control: bool = True) -> httpx.Response:
    content = json.dumps({"directory": directory})
    return node.request("POST", f"/api/control/backup{path}", control=control, headers=AS_JSON, content=content)


@pytest.fixture
def sharded(node: SimulatedNode) -> SimulatedNode:
    """Three shards on two workers."""
    node.answers["worker", 0, "shards"] = {"shards": [{"number": 0, "used_bytes": 100}, {"number": 2, "used_bytes": 300}]}
    node.answers["worker", 1, "shards"] = {"shards": [{"number": 1, "used_bytes": 200}]}
    return node


def test_a_backup_begins_with_an_empty_folder_and_the_list_of_shards(sharded: SimulatedNode, tmp_path: Path) -> None:
    begun = post(sharded, "", str(tmp_path / "deep" / "backup"))
    assert begun.status_code == 201
    assert begun.json() == {
        "shards": [
            {"number": 0, "worker": 0, "used_bytes": 100},
            {"number": 1, "worker": 1, "used_bytes": 200},
            {"number": 2, "worker": 0, "used_bytes": 300},
        ]
    }
    assert (tmp_path / "deep" / "backup").stat().st_mode & 0o777 == 0o700
    assert post(sharded, "", str(tmp_path / "deep" / "backup")).status_code == 201, "an empty folder is as good as none"


def test_each_part_is_asked_of_its_owner(sharded: SimulatedNode) -> None:
    sharded.answers |= {("worker", 0, "backup"): {"bytes": 4096}, ("router", 0, "backup"): {"bytes": 512}}
    copied = post(sharded, "/shards/2", "/backup")
    assert (copied.status_code, copied.json()) == (201, {"bytes": 4096})
    copied = post(sharded, "/definitions", "/backup")
    assert (copied.status_code, copied.json()) == (201, {"bytes": 512})
    assert sharded.ordered == [
        ("worker", 0, "backup", {"shard": 2, "directory": "/backup"}),
        ("router", 0, "backup", {"directory": "/backup"}),
    ]


@pytest.mark.parametrize(
    ("place", "status", "sentence"),
    [
        ("full", 400, "{0}/full is not empty; a backup goes into a folder of its own"),
        ("file", 400, "{0}/file is not a folder"),
        ("file/below", 400, "the broker cannot use {0}/file/below: Not a directory"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told(sharded: SimulatedNode, tmp_path: Path, place: str, status: int, sentence: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("of somebody")
    (tmp_path / "file").write_text("")
    response = post(sharded, "", str(tmp_path / place))
    assert (response.status_code, response.json()["reason"]) == (status, sentence.format(tmp_path))
    assert sharded.ordered == []


@pytest.mark.parametrize("directory", ["relative/path", "", "/nul\0byte", 7, None, "/" + "x" * 5000, {"a": 1}])
def test_what_is_no_path_is_refused(sharded: SimulatedNode, directory: object) -> None:
    for path in ("", "/shards/0", "/definitions"):
        assert post(sharded, path, directory).status_code == 400
    assert sharded.ordered == []


def test_half_a_surrogate_pair_is_no_path(sharded: SimulatedNode) -> None:
    response = sharded.request("POST", "/api/control/backup", control=True, headers=AS_JSON, content=rb'{"directory": "/x\udcff"}')
    assert response.status_code == 400


def test_a_disk_without_room_is_told_before_anything_is_copied(
    sharded: SimulatedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded.answers["worker", 1, "shards"]["shards"][0]["used_bytes"] = 5 << 30
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    response = post(sharded, "", str(tmp_path / "backup"))
    assert response.status_code == 400
    assert response.json()["reason"] == f"the backup needs 5,120 MiB, and the disk of {tmp_path}/backup has 1,024 MiB left"


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Problem(400, "bad_request", "/backup/shards/1 is there already"), 400, "/backup/shards/1 is there already"),
        (Problem(503, "service_unavailable", "the worker-1 process went away"), 503, "the worker-1 process went away"),
    ],
)
def test_what_the_owner_says_reaches_whoever_asked(sharded: SimulatedNode, answer: Any, status: int, reason: str) -> None:
    sharded.answers["worker", 1, "backup"] = answer
    response = post(sharded, "/shards/1", "/backup")
    assert (response.status_code, response.json()["reason"]) == (status, reason)


@pytest.mark.parametrize("path", ["", "/shards/0", "/definitions"])
def test_to_the_http_port_backups_do_not_exist(sharded: SimulatedNode, path: str, tmp_path: Path) -> None:
    assert post(sharded, path, str(tmp_path / "backup"), control=False).status_code == 404
    assert not (tmp_path / "backup").exists()
    assert sharded.ordered == []
