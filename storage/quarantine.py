"""A shard's quarantine: a store that cannot be used gets another name, so that its shard begins empty and the others serve.

Called by the worker that owns the shard, when opening it raised `ForeignStore`, and for the status pages. Nothing in such a directory is
ever read, changed or removed here: what can be saved from it is for whoever looks at it, and the space is given back by whoever removes it.

    <data folder>/shards/3                                    the shard
    <data folder>/shards/3.corrupt-20261124T093000Z           what it was until then (UTC); a second one of that second ends in -2
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

from leveret.storage.environment import StoreFailed, synchronise

_ASIDE: Final = re.compile(r"\d+\.corrupt-\d{8}T\d{6}Z(-\d+)?", re.ASCII)
_NAMES_MAX: Final = 1000


def set_aside(directory: Path, at_s: float | None = None) -> Path:
    """Give the shard's directory its other name, for good even if the power fails; the new path.

    at_s: the moment that the name tells, seconds since the epoch; None is now. The environment in it must not be open. Raises
    `StoreFailed` if that cannot be done, and then nothing has changed.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_s))
    try:
        aside = _free_name(directory, f"{directory.name}.corrupt-{stamp}")
        directory.rename(aside)
        synchronise(directory.parent)
    except OSError as error:
        raise StoreFailed(f"{directory} cannot be used, and not be set aside either: {error.strerror}") from error
    return aside


def _free_name(directory: Path, name: str) -> Path:
    for number in range(1, _NAMES_MAX):
        path = directory.with_name(name if number == 1 else f"{name}-{number}")
        if not os.path.lexists(path):
            return path
    raise FileExistsError(0, f"there are {_NAMES_MAX} of them already")


def shard_of(aside: Path) -> int:
    """The number of the shard that one of the paths of `in_quarantine` was."""
    return int(aside.name.partition(".")[0])


def in_quarantine(shards_dir: Path) -> list[Path]:
    """What has been set aside in the folder of the shards, oldest first; nothing if there is no such folder or it may not be read."""
    try:
        found = [path for path in shards_dir.iterdir() if _ASIDE.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: (path.name.partition(".corrupt-")[2], path.name))
