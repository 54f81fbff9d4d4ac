"""The pages of an environment's file that count as this process's memory: given back when they have become many.

LMDB reads through a memory map. Every page that was ever touched stays in the process's resident size until the kernel is short of memory,
and it maps a page's neighbours along with it: after a drain of a large store, all of its file. That is page cache, but who watches the
memory of processes, as our own alarm does, cannot tell. So the log says what it has touched, and from time to time the map is emptied; the
pages stay in the page cache, and touching one again costs a minor fault.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

TOUCHED_BYTES_MAX: Final = 32 << 20
MAPS: Final = Path("/proc/self/maps")
MADV_DONTNEED: Final = 4


class ResidentPages:
    """Those of one mapped file; the file is open already. Where the system does not tell its maps, nothing is ever given back."""

    def __init__(self, path: Path) -> None:
        self._ranges = _mapped_ranges(path)
        self._touched_bytes = 0

    def touched(self, size: int) -> None:
        """So many bytes of the file were read or written. From any thread: a count lost in a race only delays."""
        self._touched_bytes += size
        if self._touched_bytes >= TOUCHED_BYTES_MAX:
            self.give_back()

    def give_back(self) -> None:
        """Empty the map. Safe beside readers in other threads: a shared map of a file loses nothing by it."""
        self._touched_bytes = 0
        for start, end in self._ranges:
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


_libc = ctypes.CDLL(None)


def _mapped_ranges(path: Path) -> list[tuple[int, int]]:
    """(start, end) of this process's shared maps of a file, found by its inode, since names are escaped there."""
    try:
        inode = path.stat().st_ino
        lines = MAPS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    ranges = []
    for line in lines:
        span, rights, _, _, number, *_ = line.split(maxsplit=5)
        if rights == "r--s" and int(number) == inode:
            start, end = (int(address, 16) for address in span.split("-"))
            ranges.append((start, end))
    return ranges
