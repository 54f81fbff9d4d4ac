"""A stopped node: its data folder, locked so that none starts on it, and what lies in it.

Whatever works on a data folder without its node holds one of these meanwhile. It makes nothing but the lock's file, where a broker would
have made it, and knows no store.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from leveret.refusal import CONFIG, DATA, NO_PERMISSION, UNAVAILABLE, Refusal
from leveret.supervisor.runtime import LOCK_NAME, take_lock


class StoppedNode:
    """`with StoppedNode(data_dir) as node:`. Raises `Refusal`: 65 if that is no data folder, 69 if a broker uses it, 77 if we may not."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        if not self.definitions.is_dir():
            raise Refusal(f"{data_dir} is no data folder of a broker: there are no definitions in it", DATA)
        self._lock_fd = self._lock()

    @property
    def definitions(self) -> Path:
        return self.data_dir / "definitions"

    def shards(self) -> dict[int, Path]:
        """The folders of the shards by number, ascending; those that were set aside are not among them."""
        folder = self.data_dir / "shards"
        found = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()] if folder.is_dir() else []
        return dict(sorted((int(path.name), path) for path in found))

    def _lock(self) -> int:
        """A locked descriptor; -1 where nobody can write, so that no broker can start either."""
        path = self.data_dir / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno == errno.EROFS:
                return -1
            raise Refusal(f"cannot use the data folder {self.data_dir}: {path.name}: {error.strerror}", NO_PERMISSION) from None
        try:
            holder = take_lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise Refusal(f"the data folder {self.data_dir} cannot be locked: {error.strerror}", CONFIG) from None
        if holder is not None:
            os.close(descriptor)
            raise Refusal(
                f"the data folder {self.data_dir} is in use by a broker (process {holder}); stop it first with `leveret stop`, "
                "or work on a copy made with `leveret backup`",
                UNAVAILABLE,
            )
        return descriptor

    def __enter__(self) -> StoppedNode:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
