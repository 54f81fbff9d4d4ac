"""Log lines: one line an event, on standard error, from every process of the node alike.

`set_up` is called once by each process (the supervisor in `leveret.ctl`, its children in `leveret.supervisor.child`); after that everybody
uses the standard `logging` module. A line is one `write` to the descriptor, so that lines of different processes never mix. Names given by
clients come through here, therefore everything that could end a line, move a cursor or reorder text is escaped: a queue called
"x\\n2026-… [error] …" stays inside its own line. It writes no files and rotates nothing; that is systemd's or the container's work.

    text    2026-11-24 12:00:00.123 [info] worker-0 connection 127.0.0.1:50000 opened user=guest vhost=/
    json    {"time": "2026-11-24T12:00:00.123+01:00", "level": "info", "process": "worker-0", "pid": 7, "message": "…", "user": "guest"}
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from datetime import datetime
from typing import Any

# C0 with DEL, C1, line and paragraph separators, marks that reorder text, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NEEDS_QUOTES = re.compile(r"[\s\"=]|^$")
LINE_CHARACTERS_MAX = 8192


def escaped(text: str) -> str:
    """`text` with every character that could leave its line or disturb a terminal written as `\\x1b` or `\\u2028`."""
    if text.isprintable():  # no such character is; the search costs more than all the rest of a line
        return text
    return _UNSAFE.sub(lambda found: _code(found[0]), text)


def _code(char: str) -> str:
    number = ord(char)
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def fields(**values: object) -> dict[str, Any]:
    """For `log.info("…", extra=fields(user=…, vhost=…))`: named values, `key=value` in text and members of their own in JSON."""
    return {"fields": values}


def shortened(line: str) -> str:
    """At most `LINE_CHARACTERS_MAX` of it, and how many more there were."""
    over = len(line) - LINE_CHARACTERS_MAX
    return f"{line[:LINE_CHARACTERS_MAX]}… ({over} characters more)" if over > 0 else line


def _level(record: logging.LogRecord) -> str:
    return "error" if record.levelno >= logging.ERROR else record.levelname.lower()


def _traceback(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] is not None else ""


class TextFormatter(logging.Formatter):
    """Lines for people. A traceback (a bug of ours) follows on lines that begin with two spaces and a bar."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._second = (0, "")  # that which is written about, and its text: it has many lines when clients come and go

    def line(self, created_s: float, level: str, message: str) -> str:
        """A line without fields. created_s: seconds since 1970."""
        return shortened(self._whole(created_s, level, message))

    def _whole(self, created_s: float, level: str, message: str) -> str:
        second, text = self._second
        if int(created_s) != second:
            second = int(created_s)
            text = f"{datetime.fromtimestamp(second):%Y-%m-%d %H:%M:%S}"
            self._second = second, text
        return f"{text}.{int((created_s - second) * 1000):03d} [{level}] {self._process} {escaped(message)}"

    def format(self, record: logging.LogRecord) -> str:
        line = self._whole(record.created, _level(record), record.getMessage())
        for key, value in getattr(record, "fields", {}).items():
            text = str(value)
            line += f" {key}={json.dumps(text) if _NEEDS_QUOTES.search(text) or _UNSAFE.search(text) else text}"
        line = shortened(line)
        for row in _traceback(record, self).splitlines():
            line += f"\n  | {escaped(row)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII only, so nothing in it can leave the line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._pid = os.getpid()

    def line(self, created_s: float, level: str, message: str) -> str:
        """A line without fields. created_s: seconds since 1970."""
        return json.dumps(self._entry(created_s, level, message))

    def _entry(self, created_s: float, level: str, message: str) -> dict[str, object]:
        return {
            "time": datetime.fromtimestamp(created_s).astimezone().isoformat(timespec="milliseconds"),
            "level": level,
            "process": self._process,
            "pid": self._pid,
            "message": message[:LINE_CHARACTERS_MAX],
        }

    def format(self, record: logging.LogRecord) -> str:
        entry = self._entry(record.created, _level(record), record.getMessage())
        for key, value in getattr(record, "fields", {}).items():
            entry.setdefault(key, value)
        if traceback := _traceback(record, self):
            entry["traceback"] = traceback
        return json.dumps(entry, default=str)


class DescriptorHandler(logging.Handler):
    """Writes each line with one `write` to a file descriptor."""

    def __init__(self, descriptor: int, form: TextFormatter | JsonFormatter) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._form = form
        self.setFormatter(form)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (a log call with wrong arguments must not end a connection)
            line = f"a log line could not be formatted: {record.msg!r} at {record.pathname}:{record.lineno}"
        self._write(line)

    def tell(self, text: str) -> None:
        """Write a line of level info without a record."""
        self._write(self._form.line(time.time(), "info", text))

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError):  # standard error is closed or its disk is full: there is nobody left to tell
            os.write(self._descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))


def tell(log: logging.Logger, text: str) -> None:
    """`log.info(text)` at a fifth of what it costs, for lines that every client causes.

    A record that travels through loggers and handlers is most of what a line costs. Where something other than `set_up` listens to the
    log, it gets its record all the same.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], DescriptorHandler):
        handlers[0].tell(text)
    else:
        log.info("%s", text)


def set_up(process: str, level: str = "info", format: str = "text", descriptor: int | None = None) -> None:
    """Send this process's log lines to `descriptor` (standard error unless told), from `level` upwards, as "text" or "json".

    `process` is how the lines name it: "supervisor", "router", "worker-0", "management".
    """
    handler = DescriptorHandler(
        sys.__stderr__.fileno() if descriptor is None and sys.__stderr__ is not None else descriptor or 2,
        JsonFormatter(process) if format == "json" else TextFormatter(process),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # Facts of a record that no line shows.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # They tell what only their own developers need; a broker's log at `info` must stay readable.
    for name in ("asyncio", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
