"""`leveret start`: this process becomes the supervisor of a node and stays it until the node stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leveret import logs
from leveret.config import load
from leveret.refusal import USAGE, Refusal

if TYPE_CHECKING:
    from leveret.supervisor.child_process import ChildCommand

log = logging.getLogger(__name__)


def start(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    config: Path | None,
    ready_fd: int | None,
    command: ChildCommand | None = None,
) -> int:
    """Run a node; the exit code. `flags` by option name, as text or None. Raises `Refusal` if it cannot start.

    `command` is how children are started, if not as usual (tests put stand-ins there).
    """
    started_at = time.monotonic()
    loaded = load(flags, environment, config)
    settings = loaded.settings
    if ready_fd is not None:
        _check_ready_fd(ready_fd)
    logs.set_up("supervisor", settings.log_level, settings.log_format)
    for warning in loaded.warnings:
        log.warning("%s", warning)

    from leveret.ctl.banner import banner
    from leveret.supervisor.child import name_process
    from leveret.supervisor.child_process import child_command
    from leveret.supervisor.supervisor import Supervisor

    def on_ready(facts: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # nobody needs to read what we print
            print(banner(facts, settings, loaded.file, time.monotonic() - started_at), flush=True)
        if ready_fd is not None:
            _tell(ready_fd, facts)

    name_process("super")
    return asyncio.run(Supervisor(settings, command=command or child_command, on_ready=on_ready).run())


def _check_ready_fd(ready_fd: int) -> None:
    try:
        os.set_inheritable(ready_fd, False)  # its end must come when we end, not when the last child does
    except OSError:
        raise Refusal(f"--ready-fd must be an open file descriptor; {ready_fd} is none", USAGE) from None


def _tell(ready_fd: int, facts: Mapping[str, Any]) -> None:
    """One line of JSON, then the end of the file."""
    try:
        os.write(ready_fd, json.dumps(facts).encode() + b"\n")
        os.close(ready_fd)
    except OSError as error:
        print(f"leveret: could not write to --ready-fd: {error.strerror}", file=sys.stderr)
