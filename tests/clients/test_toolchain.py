"""Missing toolchains: what a test says, and that .ci/run would install the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.clients import toolchain

LIST = """\
# a comment
here      sh            dash
here      /etc/passwd   base-passwd
lacks     /nowhere/at   some-library-dev
lacks     no-such-tool  some-tool
lacks     sh            dash
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "debian-packages"
    path.write_text(LIST)
    monkeypatch.setattr(toolchain, "PACKAGES", path)
    monkeypatch.delenv("CI", raising=False)
    return path


def test_a_test_is_skipped_and_names_the_packages(packages: Path) -> None:
    toolchain.require("here")
    with pytest.raises(Skipped, match=r"the lacks tests need: apt-get install --no-install-recommends some-library-dev some-tool$"):
        toolchain.require("lacks")


def test_in_ci_it_fails(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(Failed, match="some-library-dev some-tool"):
        toolchain.require("lacks")


def test_a_language_that_is_not_in_the_list_is_a_mistake(packages: Path) -> None:
    with pytest.raises(AssertionError, match="cobol"):
        toolchain.require("cobol")


def test_ci_installs_what_the_tests_would_miss(packages: Path) -> None:
    script = shutil.copy(toolchain.ROOT / ".ci" / "lacking", packages.parent / "lacking")
    printed = subprocess.run([script], capture_output=True, text=True, check=True, timeout=30).stdout
    assert printed.split() == toolchain.lacking("here", "lacks")


def test_the_list_names_every_package_once() -> None:
    rows = [line.split() for line in toolchain.PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    assert {len(row) for row in rows} == {3}
    names = [package for _, _, package in rows]
    assert len(names) == len(set(names))


def test_work_is_done_once_and_again_when_a_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "BUILD", tmp_path / "build")
    source = tmp_path / "source"
    source.write_text("1")
    count = ["sh", "-c", "echo made >>log"]
    log = tmp_path / "build" / "thing" / "log"
    for made, change in ((1, "1"), (1, "1"), (2, "2"), (2, "2")):
        source.write_text(change)
        assert toolchain.Workshop("thing").make([source], count) == log.parent
        assert log.read_text().count("made") == made
    with pytest.raises(AssertionError, match="no room"):
        toolchain.Workshop("thing").make([source], ["sh", "-c", "echo no room; exit 1"])
    toolchain.Workshop("thing").make([source], count)
    assert log.read_text().count("made") == 3 - 1  # the last good run was of these
