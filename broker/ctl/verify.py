"""`leveret verify`: checks the data folder of a stopped node, or a backup, and says what is in it and what is wrong."""

from __future__ import annotations

from pathlib import Path

from leveret.logs import escaped
from leveret.offline.stopped_node import StoppedNode
from leveret.offline.verification import Checked, verify_node
from leveret.refusal import DATA, Refusal
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def verify_data(data_dir: Path) -> str:
    """Check everything in `data_dir`; the report.

    Raises `Refusal`: 65 with the report if something is wrong, or if it is no data folder; 69 if a broker runs on it.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    checked: list[Checked] = []
    with StoppedNode(data_dir) as node, Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)

        def on_progress(name: str, done: int, total: int) -> None:
            progress.update(bar, description=name, completed=done, total=total or None)

        for part in verify_node(node, on_progress):
            checked.append(part)
    report = "".join(line(part) + "\n" for part in checked)
    bad = sum(bool(part.findings) for part in checked)
    if bad:
        raise Refusal(f"{data_dir}: {bad} of {len(checked)} parts are damaged\n{report}".rstrip(), DATA)
    return f"{report}{data_dir} is sound.\n"


def line(part: Checked) -> str:
    """A part in a line, and one for each finding."""
    if not part.findings:
        return escaped(f"{part.name:<13} good: {part.told}")
    return "\n".join([f"{part.name:<13} DAMAGED", *(f"    {escaped(finding)}" for finding in part.findings)])
