"""Log lines: their form, and that nothing a client is called can leave its line."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret import logs

Emit = Callable[..., list[str]]


@pytest.fixture
def emit() -> Iterator[Emit]:
    """A function that logs once through a fresh set-up and gives back the lines written."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def emit(format: str, message: str, *arguments: object, at: int = logging.INFO, least: str = "info", **more: object) -> list[str]:
        read_fd, write_fd = os.pipe()
        logs.set_up("worker-0", least, format, write_fd)
        logging.getLogger("leveret.test").log(at, message, *arguments, **more)  # type: ignore[arg-type]
        os.close(write_fd)
        with os.fdopen(read_fd, encoding="utf-8", newline="\n") as lines:
            return lines.read().split("\n")[:-1]

    yield emit
    root.handlers[:] = before
    root.setLevel(level)


def test_text_line_has_time_level_process_message_and_fields(emit: Emit) -> None:
    (line,) = emit("text", "connection %s opened", "1.2.3.4:5", extra=logs.fields(user="guest", vhost="/", note="two words", empty=""))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[info\] worker-0 connection 1\.2\.3\.4:5 opened"
        r' user=guest vhost=/ note="two words" empty=""',
        line,
    )


def test_json_line_is_one_object(emit: Emit) -> None:
    (line,) = emit("json", "queue %s declared", "q\n\x1b[31mé", at=logging.WARNING, extra=logs.fields(user="guest", message="not this"))
    entry = json.loads(line)
    assert line.isascii()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", entry.pop("time"))
    assert entry == {
        "level": "warning",
        "process": "worker-0",
        "pid": os.getpid(),
        "message": "queue q\n\x1b[31mé declared",
        "user": "guest",
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\n2026-01-01 00:00:00.000 [error] supervisor gone", r"a\n2026-01-01 00:00:00.000 [error] supervisor gone"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        ("grün 木", "grün 木"),
    ],
)
def test_name_chosen_by_a_client_stays_inside_its_line(emit: Emit, name: str, shown: str) -> None:
    (line,) = emit("text", "queue %s", name)
    assert line.endswith(f"worker-0 queue {shown}")
    (line,) = emit("text", "queue", extra=logs.fields(name=name))
    assert "\x1b" not in line and "\r" not in line and line.isprintable()


@given(st.text())
def test_escaped_text_is_printable_or_space_like_and_one_line(text: str) -> None:
    shown = logs.escaped(text)
    assert len(shown.splitlines()) <= 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", shown)
    assert logs.escaped(shown) == shown


def test_endless_line_is_cut_and_says_so(emit: Emit) -> None:
    (line,) = emit("text", "%s", "x" * 1_000_000)
    assert len(line) < logs.LINE_CHARACTERS_MAX + 100
    assert line.endswith("characters more)")


@pytest.mark.parametrize("format", ["text", "json"])
def test_traceback_of_a_bug_is_kept_and_cannot_forge_lines(emit: Emit, format: str) -> None:
    try:
        raise LookupError("no\n2026-01-01 00:00:00.000 [info] forged")
    except LookupError as error:
        lines = emit(format, "failed", at=logging.ERROR, exc_info=error)
    if format == "json":
        (line,) = lines
        assert "LookupError" in json.loads(line)["traceback"]
    else:
        assert " [error] worker-0 failed" in lines[0]
        assert all(line.startswith("  | ") for line in lines[1:])
        assert "  | LookupError: no" in lines


def test_lines_below_the_level_are_not_written(emit: Emit) -> None:
    assert emit("text", "detail", at=logging.DEBUG) == []
    assert len(emit("text", "detail", at=logging.DEBUG, least="debug")) == 1
    assert emit("text", "news", at=logging.INFO, least="error") == []


def test_wrong_arguments_of_a_log_call_are_a_line_and_not_an_error(emit: Emit) -> None:
    (line,) = emit("text", "%d messages", "many")
    assert "could not be formatted" in line


def test_closed_descriptor_is_survived(emit: Emit) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    os.close(write_fd)
    logs.set_up("worker-0", descriptor=write_fd)
    logging.getLogger("leveret.test").error("into the void")  # raises if it is not survived


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_line_told_without_a_record_is_the_one_that_a_record_makes(emit: Emit, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "opened connection a\n\x1b[31m " + "é" * logs.LINE_CHARACTERS_MAX
    log = logging.getLogger("leveret.test")
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    (usual,) = emit(format, "%s", message)
    assert emit_told(log, message, format) == [usual]
    assert emit_told(log, message, format, "warning") == []


def emit_told(log: logging.Logger, text: str, format: str, least: str = "info") -> list[str]:
    read_fd, write_fd = os.pipe()
    logs.set_up("worker-0", least, format, write_fd)
    logs.tell(log, text)
    os.close(write_fd)
    with os.fdopen(read_fd, encoding="utf-8", newline="\n") as lines:
        return lines.read().split("\n")[:-1]


def test_whoever_else_listens_to_the_log_hears_what_is_told(emit: Emit, caplog: pytest.LogCaptureFixture) -> None:
    emit("text", "set up")
    logging.getLogger().addHandler(caplog.handler)
    logs.tell(logging.getLogger("leveret.test"), "100 % of it")
    assert [record.getMessage() for record in caplog.records if record.name == "leveret.test"] == ["100 % of it"]


def test_a_line_told_to_a_descriptor_that_is_closed_is_lost_and_no_more(emit: Emit) -> None:
    emit("text", "set up")  # and closes its end
    logs.tell(logging.getLogger("leveret.test"), "nobody hears it")
