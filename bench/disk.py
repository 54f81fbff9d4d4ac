"""`python -m bench.disk`: how long one 4 KB write with its fdatasync takes, the yardstick of every figure that waits for the disk.

Rows whose goal is a multiple of it call `measure` right before and after their own load, since a disk's speed drifts within minutes. The
file is as long as it will ever be before the first sample, so a sample is what a database does in place: data alone, no change of size.
It measures the file system of a folder, not a broker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 4096
_FILE_BLOCKS: Final = 1024
SAMPLES: Final = 400


@dataclass(frozen=True, slots=True)
class DiskTime:
    """Microseconds of one write with fdatasync, each sample for itself."""

    samples_us: tuple[float, ...]

    @property
    def p50_us(self) -> float:
        return statistics.median(self.samples_us)

    @property
    def p99_us(self) -> float:
        return sorted(self.samples_us)[min(len(self.samples_us) - 1, int(0.99 * len(self.samples_us)))]

    def __add__(self, other: DiskTime) -> DiskTime:
        return DiskTime(self.samples_us + other.samples_us)


def measure(folder: Path | None = None, samples: int = SAMPLES) -> DiskTime:
    """`samples` writes of 4 KB, each followed by fdatasync, into a file of 4 MB in `folder` (where temporary files go: the brokers' data).

    Raises OSError where nothing can be written.
    """
    block = os.urandom(BLOCK_BYTES)
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        descriptor = file.fileno()
        for number in range(_FILE_BLOCKS):
            os.pwrite(descriptor, block, number * BLOCK_BYTES)
        os.fsync(descriptor)
        for number in range(samples):
            began_ns = time.perf_counter_ns()
            os.pwrite(descriptor, block, number % _FILE_BLOCKS * BLOCK_BYTES)
            os.fdatasync(descriptor)
            taken.append((time.perf_counter_ns() - began_ns) / 1e3)
    return DiskTime(tuple(taken))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.disk", description="One 4 KB write with fdatasync: what waiting for the disk costs."
    )
    parser.add_argument("folder", nargs="?", type=Path, help="on which file system (that of temporary files)")
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    if options.samples < 1:
        parser.error("--samples must be at least 1")
    try:
        told = measure(options.folder, options.samples)
    except OSError as error:
        parser.error(f"{options.folder or tempfile.gettempdir()} cannot be written: {error.strerror}")
    print(f"4 KB write + fdatasync: p50 {told.p50_us:,.0f} us, p99 {told.p99_us:,.0f} us ({len(told.samples_us):,} samples)")


if __name__ == "__main__":
    main()
