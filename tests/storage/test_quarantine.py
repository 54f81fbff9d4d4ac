"""Setting a shard aside: the old files keep their content under another name, and the place is free."""

from __future__ import annotations

from pathlib import Path

import pytest
from leveret.storage.environment import StoreFailed
from leveret.storage.quarantine import in_quarantine, set_aside, shard_of

AT_S = 1_795_512_600.9  # 2026-11-24 09:30:00 UTC and a bit


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder with the shards 0 and 3."""
    for name in ("0", "3"):
        (tmp_path / "shards" / name).mkdir(parents=True)
        (tmp_path / "shards" / name / "data.mdb").write_bytes(b"of shard " + name.encode())
    return tmp_path / "shards"


def test_a_shard_is_renamed_with_all_that_is_in_it(shards: Path) -> None:
    aside = set_aside(shards / "3", AT_S)
    assert aside == shards / "3.corrupt-20261124T093000Z"
    assert (aside / "data.mdb").read_bytes() == b"of shard 3"
    assert sorted(path.name for path in shards.iterdir()) == ["0", "3.corrupt-20261124T093000Z"]


def test_nothing_set_aside_is_ever_written_over(shards: Path) -> None:
    names = []
    for round_no in range(3):
        names.append(set_aside(shards / "3", AT_S).name)
        (shards / "3").mkdir()
        (shards / "3" / "data.mdb").write_bytes(b"%d" % round_no)
    assert names == ["3.corrupt-20261124T093000Z", "3.corrupt-20261124T093000Z-2", "3.corrupt-20261124T093000Z-3"]
    assert [(shards / name / "data.mdb").read_bytes() for name in names] == [b"of shard 3", b"0", b"1"]


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ([], []),
        (["3.corrupt-20261124T093000Z"], ["3.corrupt-20261124T093000Z"]),
        (
            ["10.corrupt-20261124T093000Z", "0.corrupt-20270101T000000Z", "0.corrupt-20261124T093000Z-2"],
            ["10.corrupt-20261124T093000Z", "0.corrupt-20261124T093000Z-2", "0.corrupt-20270101T000000Z"],
        ),
        (["x.corrupt-20261124T093000Z", "3.corrupt-", "3.corrupt-20261124T093000Z.bak", "3.old"], []),
    ],
)
def test_what_lies_aside_is_found_oldest_first(shards: Path, made: list[str], found: list[str]) -> None:
    for name in made:
        (shards / name).mkdir()
    assert [path.name for path in in_quarantine(shards)] == found
    assert [shard_of(path) for path in in_quarantine(shards)] == [int(name.split(".")[0]) for name in found]


def test_a_folder_that_is_not_there_has_nothing_aside(tmp_path: Path) -> None:
    assert in_quarantine(tmp_path / "shards") == []


def test_what_cannot_be_renamed_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match=r"shards/7 cannot be used, and not be set aside either: No such file or directory"):
        set_aside(tmp_path / "shards" / "7")
