"""The command line as its users meet it: output, exit codes, one sentence for what is wrong. Against a stand-in for the HTTP API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leveret
import pytest
from leveret.ctl.main import run
from leveret.refusal import DATA, NO_PERMISSION, OK, SOFTWARE, TEMPORARY, UNAVAILABLE, USAGE

from tests.ctl.unix_http import StandInApi

PROCESS = {
    "name": "worker-0",
    "kind": "worker",
    "pid": 4242,
    "state": "running",
    "running": True,
    "cpu_user_s": 1.5,
    "cpu_system_s": 0.25,
    "cpu_utilisation": 0.125,
    "mem_used": 10 << 20,
    "mem_resident": 21 << 20,
    "fd_used": 17,
    "restarts": 3,
    "uptime": 3_723_000,
    "link_backlog_bytes": 2048,
}
NODE = {
    "name": "leveret@test",
    "uptime": 90_061_000,
    "mem_used": 123 << 20,
    "mem_limit": 4 << 30,
    "mem_alarm": False,
    "disk_free": 9 << 30,
    "disk_free_limit": 50_000_000,
    "disk_free_alarm": False,
    "durability": "os",
    "processes": [PROCESS, PROCESS | {"name": "router", "pid": None, "state": "restarting", "running": False}],
}
QUEUE = {
    "vhost": "/",
    "name": "tasks",
    "messages_ready": 1234567,
    "messages_unacknowledged": 89,
    "consumers": 2,
    "worker": 1,
    "state": "running",
    "message_stats": {"publish_details": {"rate": 5000.4}, "deliver_get_details": {"rate": 4999.6}},
}
CONNECTION = {"name": "127.0.0.1:1 -> 127.0.0.1:2", "user": "guest", "vhost": "/", "state": "running", "channels": 1, "worker": 0}
OVERVIEW = {
    "object_totals": {"connections": 1, "channels": 1, "consumers": 2, "exchanges": 7, "queues": 41},
    "queue_totals": {"messages": 1234656, "messages_ready": 1234567, "messages_unacknowledged": 89},
    "message_stats": {"publish_details": {"rate": 5000.4}, "deliver_get_details": {"rate": 10.0}},
    "processes_silent": [],
}


def answers(**changes: Any) -> dict[str, tuple[int, Any]]:
    return {
        "GET /api/overview": (200, changes.get("overview", OVERVIEW)),
        "GET /api/nodes": (200, [changes.get("node", NODE)]),
        "GET /api/queues": (200, {"items": changes.get("queues", [QUEUE])}),
        "GET /api/connections": (200, {"items": changes.get("connections", [CONNECTION])}),
    }


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def api(data_dir: Path) -> Iterator[StandInApi]:
    served = StandInApi(data_dir, answers())
    yield served
    served.close()


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for name in list(os.environ):
        if name.startswith("LEVERET_"):
            monkeypatch.delenv(name)


def test_status_shows_node_processes_queues_and_connections(api: StandInApi, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--data-dir", str(data_dir)]) == OK
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "node leveret@test, Leveret 0.1.0, up 1 d 1 h",
        "AMQP port 5672 on ::",
        "memory 123.0 MiB used, publishers held back above 4.0 GiB",
        "messages 1,234,656 in queues: 1,234,567 ready, 89 unacked",
        "rates 5,000/s published, 10/s delivered",
        "objects 1 connections, 1 channels, 2 consumers, 7 exchanges, 41 queues",
        "durability os: a confirm waits for the operating system only",
        "alarms none",
        "worker-0 4242 running 1.75 12.5 21.0 MiB 17 3 1 h 2 min 2.0 KiB",
        "router - restarting",
        "queues (1 of 41; --top shows more)",
        "/ tasks 1,234,567 89 2 1 5,000 5,000",
        "127.0.0.1:1 -> 127.0.0.1:2 guest / running 1 0 0 B 0 B",
    ):
        assert text in shown
    assert "silent" not in shown


def test_status_asks_for_the_largest_queues_only(api: StandInApi, data_dir: Path) -> None:
    assert run(["status", "--data-dir", str(data_dir), "--top", "7"]) == OK
    assert "GET /api/queues?page=1&page_size=7&sort=messages&sort_reverse=true" in api.asked
    api.asked.clear()
    assert run(["status", "--data-dir", str(data_dir), "--top", "0"]) == OK
    assert api.asked == ["GET /api/nodes", "GET /api/overview"]


def test_status_as_json_is_what_the_api_said(api: StandInApi, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--data-dir", str(data_dir), "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == {
        "overview": OVERVIEW,
        "node": NODE,
        "queues": [QUEUE],
        "connections": [CONNECTION],
    }


def test_status_tells_alarms_and_who_does_not_answer(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api = StandInApi(data_dir, answers(node=NODE | {"mem_alarm": True}, overview=OVERVIEW | {"processes_silent": ["worker-1"]}))
    try:
        assert run(["status", "--data-dir", str(data_dir)]) == OK
    finally:
        api.close()
    shown = " ".join(capsys.readouterr().out.split())
    assert "alarms memory" in shown
    assert "silent worker-1 (not answering: numbers are incomplete)" in shown


def test_status_tells_of_shards_that_were_set_aside(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api = StandInApi(data_dir, answers(node=NODE | {"shards_set_aside": ["/data/shards/1.corrupt-20261124T093000Z"]}))
    assert run(["status", "--data-dir", str(data_dir)]) == OK
    api.close()
    shown = " ".join(capsys.readouterr().out.split())
    assert "set aside /data/shards/1.corrupt-20261124T093000Z (a shard that could not be used; its messages are not served)" in shown


def test_status_shows_hostile_names_harmlessly(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;owned\x07[red]x[/red]\n\u202e"
    api = StandInApi(
        data_dir, answers(queues=[QUEUE | {"name": hostile}, QUEUE | {"name": "n" * 255}], connections=[CONNECTION | {"user": hostile}])
    )
    try:
        assert run(["status", "--data-dir", str(data_dir)]) == OK
    finally:
        api.close()
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert shown.count(r"\x1b]0;owned\x07[red]x[/red]\n\u202e") == 2
    assert "n" * 59 + "…" in shown


def test_status_of_nothing(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--data-dir", str(data_dir)]) == UNAVAILABLE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"leveret: no broker is running on {data_dir}; start one with `leveret start`, or name its folder with --data-dir\n"
    )


def test_status_of_a_killed_broker_is_that_none_runs(api: StandInApi, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.close()
    assert (data_dir / "node.json").exists()
    for command in ("status", "stop"):
        assert run([command, "--data-dir", str(data_dir)]) == UNAVAILABLE
        assert "no broker is running on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "exit_code", "sentence"),
    [
        (
            (503, {"reason": "the router process does not answer"}),
            UNAVAILABLE,
            "503 Service Unavailable: the router process does not answer",
        ),
        ((401, {"error": "not_authorised"}), NO_PERMISSION, "401 Unauthorized"),
        ((404, None), DATA, "404 Not Found"),
        ((500, b"<html>"), SOFTWARE, "500 Internal Server Error"),
        ((200, b"<html>"), SOFTWARE, "is not JSON"),
    ],
)
def test_status_when_the_api_says_no(
    data_dir: Path, capsys: pytest.CaptureFixture[str], answer: tuple[int, Any], exit_code: int, sentence: str
) -> None:
    api = StandInApi(data_dir, answers() | {"GET /api/overview": answer})
    try:
        assert run(["status", "--data-dir", str(data_dir)]) == exit_code
    finally:
        api.close()
    output = capsys.readouterr()
    assert output.out == ""
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_status_gives_up_after_its_time(api: StandInApi, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered = threading.Event()
    api.on_request = lambda request: bool(answered.wait(20))
    try:
        assert run(["status", "--data-dir", str(data_dir), "--timeout", "0.2"]) == TEMPORARY
    finally:
        answered.set()
    assert capsys.readouterr().err == "leveret: the broker did not answer within 0.2 s\n"


class _Sleeper:
    """A process that ends on SIGTERM, standing in for a supervisor."""

    def __init__(self, *, ignores: bool = False) -> None:
        code = "import signal, sys; print('up', flush=True); sys.stdin.read()"
        if ignores:
            code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + code
        self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("status", [202, 500])
def test_stop_asks_the_api_or_else_the_process_and_waits_for_its_end(
    data_dir: Path, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    supervisor = _Sleeper()
    api = StandInApi(data_dir, {"POST /api/control/stop": (status, None)}, pid=supervisor.process.pid)
    if status == 202:
        api.on_request = lambda request: supervisor.process.kill()
    try:
        assert run(["stop", "--data-dir", str(data_dir)]) == OK
        assert supervisor.process.wait(30) == (-signal.SIGKILL if status == 202 else -signal.SIGTERM)
        assert api.asked == ["POST /api/control/stop"]
    finally:
        api.close()
        supervisor.close()
    assert capsys.readouterr().out == "Stopped leveret@test.\n"


def test_stop_of_a_broker_that_does_not_end(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = _Sleeper(ignores=True)
    api = StandInApi(data_dir, {"POST /api/control/stop": (202, None)}, pid=supervisor.process.pid)
    try:
        assert run(["stop", "--data-dir", str(data_dir), "--timeout", "0.2"]) == TEMPORARY
    finally:
        api.close()
        supervisor.close()
    assert "was asked to stop but is still there after 0.2 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["start", "--frobnicate"],
        ["start", "--port"],
        ["start", "--port", "x"],
        ["start", "extra"],
        ["status", "--top", "-1"],
    ],
)
def test_wrong_command_line_is_a_sentence_and_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("leveret: ")
    assert "Traceback" not in output.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == USAGE
    shown = capsys.readouterr().out
    for command in ("start", "status", "stop", "perf", "version"):
        assert f"\n  {command} " in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == OK
    assert capsys.readouterr().out == f"Leveret {leveret.__version__}\n"


def test_help_of_start_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    from leveret.config import OPTIONS

    assert run(["start", "--help"]) == OK
    shown = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert option.flag in shown
        assert option.variable in shown


def test_ready_descriptor_that_is_not_open(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    assert run(["start", "--data-dir", str(data_dir), "--ready-fd", "999"]) == USAGE
    assert capsys.readouterr().err == "leveret: --ready-fd must be an open file descriptor; 999 is none\n"
    assert not data_dir.exists()


def test_bug_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise LookupError("oops")

    monkeypatch.setattr("leveret.ctl.status.status_text", broken)
    assert run(["status"]) == SOFTWARE
    assert capsys.readouterr().err == "leveret: unexpected error: LookupError: oops (set LEVERET_DEBUG=1 for where)\n"


def test_reader_that_goes_away_is_no_error(api: StandInApi, data_dir: Path) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    done = subprocess.run(
        [sys.executable, "-m", "leveret", "status", "--data-dir", str(data_dir)],
        stdout=write_fd,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write_fd)
    assert (done.returncode, done.stderr) == (OK, b"")
