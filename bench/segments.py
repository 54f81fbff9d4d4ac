"""The segment store alone, in nanoseconds a message: `python -m bench.segments [NAME …] [--rounds N] [--directory D] [--json]`.

No socket, no queue, no process. Each bench says what one operation is; loops are in C (`segment_loops.pyx`). A figure is the median of the
rounds, with the fastest and the processor time beside it: what a commit waits for the disk is in the first and not in the last.
`commit_…` benches write to LMDB in `--directory` with a flush a commit; the others to a log in memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from leveret.storage.commit_log import CommitLog
from leveret.storage.local_log import LocalLog
from leveret.storage.memory_log import MemoryLog
from leveret.storage.queue_index import QueueIndex

from bench import segment_loops as loops

BATCH = 1000
# (seconds, processor seconds, operations)
Figures = tuple[float, float, int]
Bench = Callable[[Path], Figures]
BENCHES: dict[str, Bench] = {}


def bench(measure: Bench) -> Bench:
    """Register under the function's name."""
    BENCHES[measure.__name__] = measure
    return measure


def timed(run: Callable[[], object], operations: int) -> Figures:
    cpu_ns, started_ns = time.process_time_ns(), time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started_ns) / 1e9, (time.process_time_ns() - cpu_ns) / 1e9, operations


def empty(log: CommitLog | None = None) -> tuple[loops.CountingStore, QueueIndex]:
    store = loops.CountingStore(log or MemoryLog())
    return store, store.open_queue(1)


def commit(store: loops.CountingStore) -> None:
    batch = store.take_batch()
    store.log.commit(batch.operations)
    store.batch_done(batch)


def filled(messages: int, data: bytes, log: CommitLog | None = None) -> tuple[loops.CountingStore, QueueIndex]:
    """A store with committed messages, in batches of a thousand."""
    store, queue = empty(log)
    for first in range(1, messages + 1, BATCH):
        loops.add_many(store, queue, data, first, BATCH)
        commit(store)
    return store, queue


@bench
def add(_: Path) -> Figures:
    """One message joins the open batch, which grows to a thousand."""
    store, queue = empty()
    loops.add_many(store, queue, b"x" * 16, 1, BATCH)
    commit(store)
    seconds = cpu = 0.0
    for first in range(BATCH + 1, 500 * BATCH, BATCH):
        took, took_cpu, _operations = timed(lambda first=first: loops.add_many(store, queue, b"x" * 16, first, BATCH), BATCH)  # type: ignore[misc]
        seconds, cpu = seconds + took, cpu + took_cpu
        loops.settle_many(store, queue, 16, first, first + BATCH - 1)
        commit(store)
    return seconds, cpu, 499 * BATCH


@bench
def add_settle_unwritten(_: Path) -> Figures:
    """One message joins the open batch and is settled before the batch is taken."""
    store, queue = empty()

    def run() -> None:
        for first in range(1, 1_000_001, BATCH):
            loops.add_many(store, queue, b"x" * 16, first, BATCH)
            loops.settle_many(store, queue, 16, first, first + BATCH - 1)
            commit(store)

    return timed(run, 1_000_000)


@bench
def settle_stored(_: Path) -> Figures:
    """One committed message settled, in order."""
    store, queue = filled(1_000_000, b"x" * 16)
    return timed(lambda: loops.settle_many(store, queue, 16, 1, 1_000_000), 1_000_000)


def encode(size: int) -> Figures:
    store, queue = empty()
    data = b"x" * size
    loops.add_many(store, queue, data, 1, BATCH)
    commit(store)
    seconds = cpu = 0.0
    for first in range(BATCH + 1, 200 * BATCH, BATCH):
        loops.add_many(store, queue, data, first, BATCH)
        started_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        batch = store.take_batch()
        seconds += (time.perf_counter_ns() - started_ns) / 1e9
        cpu += (time.process_time_ns() - cpu_ns) / 1e9
        store.batch_done(batch)
        loops.settle_many(store, queue, size, first, first + BATCH - 1)
    return seconds, cpu, 199 * BATCH


@bench
def encode_16(_: Path) -> Figures:
    """A thousand messages of 16 bytes taken as a batch, and the thousand before dropped; an operation is one message."""
    return encode(16)


@bench
def encode_1024(_: Path) -> Figures:
    """The same with 1 KB."""
    return encode(1024)


def commits(directory: Path, size: int, batch: int, count: int, settle: bool) -> Figures:
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        log = LocalLog(Path(folder))
        store, queue = empty(log)
        data = b"x" * size

        def run() -> None:
            for first in range(1, count * batch + 1, batch):
                loops.add_many(store, queue, data, first, batch)
                commit(store)
                if settle:
                    loops.settle_many(store, queue, size, first, first + batch - 1)

        figures = timed(run, count * batch)
        log.close()
        return figures


@bench
def commit_16(directory: Path) -> Figures:
    """A thousand messages of 16 bytes added and committed, the thousand before settled; an operation is one message."""
    return commits(directory, 16, BATCH, 200, True)


@bench
def commit_1024(directory: Path) -> Figures:
    """The same with 1 KB."""
    return commits(directory, 1024, BATCH, 200, True)


@bench
def commit_1024_growing(directory: Path) -> Figures:
    """1 KB, and nothing is settled."""
    return commits(directory, 1024, BATCH, 200, False)


@bench
def commit_one_by_one(directory: Path) -> Figures:
    """One message of 16 bytes a commit, the one before settled."""
    return commits(directory, 16, 1, 2000, True)


@bench
def commit_trickle(directory: Path) -> Figures:
    """One message of 16 bytes a commit, and nothing is settled: small segments are merged as they pile up."""
    return commits(directory, 16, 1, 4000, False)


def read(directory: Path, size: int, messages: int) -> Figures:
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        log = LocalLog(Path(folder), "scratch")
        store, queue = filled(messages, b"x" * size, log)
        figures = timed(lambda: loops.read_by_runs(store, queue), messages)
        log.close()
        return figures


@bench
def read_16(directory: Path) -> Figures:
    """One message of 16 bytes read back from LMDB, a run at a time."""
    return read(directory, 16, 1_000_000)


@bench
def read_1024(directory: Path) -> Figures:
    """One of 1 KB."""
    return read(directory, 1024, 100_000)


@bench
def load_10m(directory: Path) -> Figures:
    """The index of ten million messages of 16 bytes read at start; an operation is one message."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        log = LocalLog(Path(folder), "scratch")
        filled(10_000_000, b"x" * 16, log)
        again = loops.CountingStore(log)
        figures = timed(again.load, 10_000_000)
        log.close()
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.segments", description="The segment store alone, in ns a message.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; default all: {', '.join(BENCHES)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (3)")
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="where LMDB writes: its disk is what is measured"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is no directory")
    results = {}
    for name in options.names or BENCHES:
        rounds = [BENCHES[name](options.directory) for _ in range(options.rounds)]
        rounds_ns = [seconds * 1e9 / operations for seconds, _, operations in rounds]
        results[name] = {
            "median_ns": round(statistics.median(rounds_ns), 1),
            "min_ns": round(min(rounds_ns), 1),
            "cpu_ns": round(statistics.median(cpu * 1e9 / operations for _, cpu, operations in rounds), 1),
        }
        if not options.json:
            row = results[name]
            print(f"{name:24} {row['median_ns']:11.1f} ns  (fastest {row['min_ns']:.1f}, processor {row['cpu_ns']:.1f})", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
