"""`leveret compact`: makes the files of a stopped node as small as what is in them."""

from __future__ import annotations

from pathlib import Path

from leveret.ctl.status import size
from leveret.offline.compaction import compact_node
from leveret.offline.stopped_node import StoppedNode
from leveret.refusal import Refusal
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def compact_data(data_dir: Path) -> str:
    """Compact everything in `data_dir`; the report.

    Raises `Refusal`: 65 if it is no data folder or a file is damaged, 69 if a broker runs on it, 73 without room for a new file beside the
    old one. What was made smaller before that stays so, and the rest is as it was.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    report = ""
    with StoppedNode(data_dir) as node, Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        try:
            for part in compact_node(node, lambda name: progress.update(task, description=name)):
                report += f"{part.name:<13} {size(part.before_bytes)} -> {size(part.after_bytes)}\n"
        except Refusal as refusal:
            raise Refusal(f"{refusal.sentence}; it is as it was\n{report}".rstrip(), refusal.exit_code) from None
    return report
