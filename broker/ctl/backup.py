"""`leveret backup DIR`: a running node copies its definitions and its shards into a new data folder, part by part.

The node's own processes copy, because nobody else may open their files; this asks them over the control socket and shows how far they are
by the size of the file that grows. See `leveret.management.resources.backup` for the steps and what they promise.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leveret.ctl.control_client import ControlClient
from leveret.ctl.status import size
from leveret.refusal import INTERRUPTED, Refusal
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TransferSpeedColumn

BACKUP_PATH = "/api/control/backup"
_LOOK_S = 0.1  # between two looks at the size of the file that grows


def backup_node(data_dirs: Sequence[Path], directory: Path, timeout_s: float) -> str:
    """Back the node up that uses one of `data_dirs`; what to print.

    directory: absolute; made by the broker's processes, so on their machine and with their rights. timeout_s: for one part. Raises
    `Refusal`: 69 if no node runs, 65 if the folder is not empty or cannot be used, 75 after the time-out; the folder then holds a part of a
    backup that no node takes for a whole one.
    """
    client = ControlClient(data_dirs, timeout_s)
    began_s = time.monotonic()
    body = {"directory": str(directory)}
    shards: list[dict[str, Any]] = client.post(BACKUP_PATH, body)["shards"]
    incomplete = f"The backup in {directory} is not complete: remove it."
    copied_bytes = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=sum(int(shard["used_bytes"]) for shard in shards))
        try:
            for shard in shards:
                number = int(shard["number"])
                progress.update(bar, description=f"shard {number}")
                growing = directory / "shards" / str(number) / "data.mdb"
                copied = _watched(lambda: client.post(f"{BACKUP_PATH}/shards/{number}", body), growing, progress, bar, copied_bytes)  # noqa: B023
                copied_bytes += int(copied["bytes"])
            progress.update(bar, description="definitions")
            copied_bytes += int(client.post(f"{BACKUP_PATH}/definitions", body)["bytes"])
        except Refusal as refusal:
            raise Refusal(f"{refusal.sentence}\n{incomplete}", refusal.exit_code) from None
        except KeyboardInterrupt:
            raise Refusal(f"stopped; the broker still ends the part that it had begun\n{incomplete}", INTERRUPTED) from None
    noun = "shard" if len(shards) == 1 else "shards"
    return (
        f"Backed up {client.facts['node_name']} to {directory}: its definitions and {len(shards)} {noun}, {size(copied_bytes)} "
        f"in {time.monotonic() - began_s:.1f} s.\nIt is a data folder: `leveret verify {directory}` checks it, "
        f"`leveret start --data-dir {directory}` serves it.\n"
    )


def _watched(work: Callable[[], dict[str, Any]], file: Path, progress: Progress, bar: TaskID, before_bytes: int) -> dict[str, Any]:
    """The result of `work`, done on a thread while the bar follows the size of `file`. Raises what it raises."""
    results: list[dict[str, Any]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 (raised below, by whoever waits)
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)  # Ctrl-C must not wait for it
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(OSError):  # not there yet, or not for our eyes
            progress.update(bar, completed=before_bytes + file.stat().st_size)
        thread.join(_LOOK_S)
    if errors:
        raise errors[0]
    return results[0]
