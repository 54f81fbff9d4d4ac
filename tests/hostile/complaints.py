"""A node's complaints: lines of its log that tell of a bug, not of a client's mistake."""

from __future__ import annotations

from tests.node import Node

SIGNS = (
    "a bug while serving",
    "error while serving",
    "Traceback (most recent call last)",
    "a task failed",
    "[error]",
    "could not be formatted",
)


def complaints(node: Node, since: int = 0) -> list[str]:
    """Such lines behind the byte `since` of its log, with what follows them."""
    with node.log_path.open("rb") as log:
        log.seek(since)
        lines = log.read().decode("utf-8", "backslashreplace").splitlines()
    return ["\n".join(lines[at : at + 30]) for at, line in enumerate(lines) if any(sign in line for sign in SIGNS)]


def log_since(node: Node, since: int) -> str:
    """The log behind that byte."""
    with node.log_path.open("rb") as log:
        log.seek(since)
        return log.read().decode("utf-8", "backslashreplace")
