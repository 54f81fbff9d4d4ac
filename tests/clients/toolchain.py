"""Toolchains of other languages: are they here, and what they make, made once.

Owns `require` (skips a test and names what to install; in CI, where .ci/run installs it, the test fails instead) and `Workshop`, a folder
below `build/clients/` in which compilers and package managers leave their results for all test processes and later runs. It never installs
a Debian package: the list is `.ci/debian-packages`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".ci" / "debian-packages"
BUILD = ROOT / "build" / "clients"
MAKE_WITHIN_S = 280  # Go's standard library is compiled with the first program, on a machine that has other work


def lacking(*languages: str) -> list[str]:
    """The Debian packages that this machine lacks for these languages; `AssertionError` for a language that the list does not have."""
    rows = [line.split() for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    assert set(languages) <= {language for language, _, _ in rows}, f"not in {PACKAGES}: {languages}"
    return [package for language, wanted, package in rows if language in languages and not _is_here(wanted)]


def require(*languages: str) -> None:
    """Skip the test, saying what to install, when this machine lacks something for one of `languages`; in CI, fail."""
    if packages := lacking(*languages):
        message = f"the {' and '.join(languages)} tests need: apt-get install --no-install-recommends {' '.join(packages)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


class Workshop:
    """The folder `build/clients/<name>/`, filled by `make` and used by every test process."""

    def __init__(self, name: str) -> None:
        self.folder = BUILD / name

    def make(self, sources: Iterable[Path], *commands: Sequence[str], environment: Mapping[str, str] | None = None) -> Path:
        """Run `commands` in the folder unless the last good run was of the same sources and commands; gives the folder.

        `sources` are files whose contents matter. One process makes, the others wait for it. `AssertionError` with what a command printed
        when it fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        seal = hashlib.sha256(repr((commands, environment)).encode())
        for path in sorted(sources):
            seal.update(str(path).encode() + path.read_bytes())
        stamp = self.folder / ".made"
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if stamp.exists() and stamp.read_text() == seal.hexdigest():
                return self.folder
            for command in commands:
                done = subprocess.run(
                    command,
                    cwd=self.folder,
                    env=os.environ | dict(environment or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=MAKE_WITHIN_S,
                    check=False,
                )
                assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"
            stamp.write_text(seal.hexdigest())
        return self.folder


def _is_here(wanted: str) -> bool:
    return Path(wanted).exists() if wanted.startswith("/") else shutil.which(wanted) is not None
