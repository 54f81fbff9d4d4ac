"""The supervisor with stand-in children: start, restart, stop, and what happens when it is killed itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from leveret.refusal import CONFIG, OK, SOFTWARE, UNAVAILABLE, USAGE

from tests.supervisor.stand_in_node import STAND_IN, StandInNode, has_ended

MakeNode = Callable[..., StandInNode]


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[MakeNode]:
    """A function that starts a node on the test's data folder: `make_node(behaviour={…}, workers="1", …)`."""
    nodes: list[StandInNode] = []

    def make(folder: str = "data", **options: object) -> StandInNode:
        nodes.append(StandInNode(tmp_path / folder, **options))  # type: ignore[arg-type]
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


def test_ready_line_and_node_file_tell_where_the_node_is_and_go_with_it(make_node: MakeNode) -> None:
    node = make_node()
    facts = node.ready()
    assert facts["pid"] == node.process.pid
    assert facts["workers"] == 2
    assert json.loads((node.data_dir / "node.json").read_text()) == facts
    assert (node.data_dir / "node.json").stat().st_mode & 0o777 == 0o600
    for port in (facts["amqp_port"], facts["http_port"]):
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    runtime_dir = Path(facts["runtime_dir"])
    assert runtime_dir.stat().st_mode & 0o777 == 0o700
    assert node.stop() == OK
    assert not (node.data_dir / "node.json").exists()
    assert not runtime_dir.exists()


def test_children_get_their_sockets_and_are_named_and_hide_the_password(make_node: MakeNode) -> None:
    node = make_node(behaviour={"management": "stop-node"}, default_pass="not-for-other-eyes")
    children = node.children(3)
    assert set(children) == {"router", "worker-0", "worker-1"}
    for pid in children.values():
        process = Path(f"/proc/{pid}")
        assert b"not-for-other-eyes" not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert Path(f"/proc/{children['worker-1']}/comm").read_text() == "leveret-wrk-1\n"
    assert node.wait() == OK
    facts = json.loads((node.data_dir / "facts.json").read_text())
    by_name = {process["name"]: process for process in facts["processes"]}
    assert by_name["worker-0"]["facts"]["listeners"] == ["amqp"]
    assert by_name["management"]["facts"]["listeners"] == ["control", "http"]
    assert {process["facts"]["run_id"] for name, process in by_name.items() if name != "supervisor"} == {facts["run_id"]}


def test_node_facts_tell_every_process_and_the_stop_asked_for_by_a_child_is_graceful(make_node: MakeNode) -> None:
    node = make_node(behaviour={"management": "stop-node"}, node_name="n1", memory_watermark="3 GiB")
    node.ready()
    assert node.wait() == OK
    log = "\n".join(node.rest_of_log())
    assert "supervisor stopping: the stand-in asks for it" in log
    assert "worker-0 told to end: shutdown" in log
    facts = json.loads((node.data_dir / "facts.json").read_text())
    assert facts["name"] == "n1"
    assert facts["pid"] == node.process.pid
    assert facts["memory"]["limit_bytes"] == 3 << 30
    assert facts["memory"]["alarm"] is False
    assert facts["alarms"] == {"memory": False, "disk": False}
    assert facts["disk"]["free_bytes"] > 0
    assert [(process["name"], process["state"]) for process in facts["processes"]] == [
        ("supervisor", "running"),
        ("router", "running"),
        ("worker-0", "running"),
        ("worker-1", "running"),
        ("management", "running"),
    ]
    for process in facts["processes"]:
        assert process["rss_bytes"] > process["private_bytes"] > 0
        assert process["cpu_user_s"] + process["cpu_system_s"] > 0
        assert process["restarts"] == 0
        assert 0 < process["uptime_s"] < 60
    assert facts["memory"]["used_bytes"] > 0
    assert {(listener["name"], listener["address"]) for listener in facts["listeners"]} == {
        ("amqp", "127.0.0.1"),
        ("http", "127.0.0.1"),
        ("control", facts["runtime_dir"] + "/control.sock"),
    }


def test_stop_ends_management_then_workers_then_router(make_node: MakeNode) -> None:
    node = make_node()
    node.children()
    assert node.stop() == OK
    told = [line.split()[3] for line in node.rest_of_log() if "told to end: shutdown" in line]
    assert told[0] == "management"
    assert set(told[1:3]) == {"worker-0", "worker-1"}
    assert told[3] == "router"


@pytest.mark.parametrize("name", ["router", "worker-0", "management"])
def test_killed_child_comes_back_and_the_others_stay(make_node: MakeNode, name: str) -> None:
    node = make_node()
    children = node.children()
    os.kill(children[name], signal.SIGKILL)
    node.line(rf"\[error\] supervisor {name}, process {children[name]}, ended unexpectedly: signal SIGKILL")
    again = node.children(1)
    assert list(again) == [name]
    assert again[name] != children[name]
    for other, pid in children.items():
        if other != name:
            os.kill(pid, 0)  # raises if it is gone
    assert node.stop() == OK
    assert sum("ended unexpectedly" in line for line in node.rest_of_log()) == 1


def test_child_that_keeps_dying_is_started_again_ever_later(make_node: MakeNode) -> None:
    node = make_node()
    pid = node.children()["worker-0"]
    for delay in (None, "0.1", "0.2"):
        os.kill(pid, signal.SIGKILL)
        node.line(f"worker-0, process {pid}, ended unexpectedly")
        if delay is not None:
            node.line(rf"worker-0 is started again in {delay} s")
        pid = node.children(1)["worker-0"]
    assert node.stop() == OK


def test_supervisor_killed_leaves_no_child_and_the_data_folder_is_free_again(make_node: MakeNode) -> None:
    node = make_node()
    children = node.children()
    pidfds = [os.pidfd_open(pid) for pid in children.values()]
    os.kill(children["worker-1"], signal.SIGSTOP)  # it cannot notice anything by itself: the kernel has to end it
    node.signal(signal.SIGKILL)
    try:
        assert has_ended(pidfds)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)
    node.wait()
    successor = make_node()
    assert successor.ready()["pid"] == successor.process.pid
    assert successor.stop() == OK


def test_orphans_of_a_killed_supervisor_are_waited_for(make_node: MakeNode) -> None:
    """The lock is free only when the last child is gone; a successor started at once waits for that and is not refused."""
    node = make_node()
    node.children()
    node.signal(signal.SIGKILL)
    successor = make_node()
    assert successor.ready()["workers"] == 2
    assert successor.stop() == OK


def test_second_broker_on_the_same_data_folder_is_refused(make_node: MakeNode) -> None:
    node = make_node()
    facts = node.ready()
    second = make_node(runtime_dir=f"/tmp/leveret-test-second-{os.getpid()}")
    assert second.wait() == UNAVAILABLE
    refusal = next(line for line in second.rest_of_log() if line.startswith("refused: "))
    assert str(node.data_dir) in refusal
    assert f"in use by another broker (process {facts['pid']})" in refusal
    assert json.loads((node.data_dir / "node.json").read_text()) == facts
    assert node.stop() == OK


def test_port_in_use_is_one_sentence_and_no_child_is_started(make_node: MakeNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = make_node(port=str(port))
        assert node.wait() == UNAVAILABLE
    assert node.rest_of_log() == [
        f"refused: port {port} is in use by another program (wanted 127.0.0.1:{port}); choose another with --port",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_the_node(make_node: MakeNode, number: signal.Signals) -> None:
    node = make_node()
    node.ready()
    node.signal(number)
    assert node.wait() == OK
    assert any(f"stopping: {number.name} received" in line for line in node.rest_of_log())


def test_second_interrupt_kills_what_does_not_end(make_node: MakeNode) -> None:
    node = make_node(behaviour={"worker-1": "stubborn"}, shutdown_timeout_s="3600")
    children = node.children()
    node.signal(signal.SIGINT)
    node.line("worker-1 told to end")
    node.signal(signal.SIGINT)
    assert node.wait() == OK
    assert any(f"worker-1, process {children['worker-1']}, ended with signal SIGKILL while stopping" in line for line in node.rest_of_log())


def test_child_that_does_not_end_in_time_is_killed(make_node: MakeNode) -> None:
    node = make_node(behaviour={"worker-0": "stubborn"}, shutdown_timeout_s="0.2")
    children = node.children()
    assert node.stop() == OK
    assert any(f"worker-0, process {children['worker-0']}, did not end within 0.2 s" in line for line in node.rest_of_log())


def test_stop_while_starting_is_graceful(make_node: MakeNode) -> None:
    node = make_node()
    node.line("worker-1 started")
    assert node.stop() == OK


def test_stop_reaches_a_child_that_waits_for_another_to_come_up(make_node: MakeNode) -> None:
    node = make_node(behaviour={"worker-0": "wait"}, shutdown_timeout_s="3600")
    node.line("worker-0 waiting in vain")
    assert node.stop() == OK
    assert not any("SIGKILL" in line for line in node.rest_of_log())


@pytest.mark.parametrize("name", ["router", "worker-1", "management"])
def test_child_that_never_comes_up_ends_the_node_after_three_tries(make_node: MakeNode, name: str) -> None:
    node = make_node(behaviour={name: "die"})
    assert node.wait() == SOFTWARE
    log = node.rest_of_log()
    assert sum(f"{name}, process" in line and "ended unexpectedly: exit status 3" in line for line in log) == 3
    assert log[-1] == f"refused: the {name} process does not start (exit status 3); the log lines above tell why"


def test_child_that_refuses_ends_the_node_with_its_sentence(make_node: MakeNode) -> None:
    node = make_node(behaviour={"router": "refuse"})
    assert node.wait() == CONFIG
    log = node.rest_of_log()
    assert log[-1] == "refused: the stand-in will not start"
    assert sum("[error] router the stand-in will not start" in line for line in log) == 1
    assert os.read(node.ready_fd, 1) == b""  # whoever waits for the ready line learns that none will come


def test_unexpected_error_of_a_child_is_logged_whole(make_node: MakeNode) -> None:
    node = make_node(behaviour={"worker-0": "break"})
    assert node.wait() == SOFTWARE
    log = node.rest_of_log()
    assert any("[error] worker-0 unexpected error; the process ends" in line for line in log)
    assert any(line == "  | LookupError: a bug in the stand-in" for line in log)


def test_memory_alarm_reaches_the_children_and_one_that_starts_later(make_node: MakeNode) -> None:
    node = make_node(memory_watermark="0")
    node.line("memory alarm set")
    heard = {node.line(r'(\S+) heard of alarms: {"memory": true, "disk": false}')[1] for _ in range(4)}
    assert heard == {"router", "worker-0", "worker-1", "management"}
    node.ready()
    assert node.stop() == OK


def test_memory_that_consumers_freed_goes_back_to_the_system_and_clears_the_alarm(make_node: MakeNode) -> None:
    """The C library keeps freed memory; unless it is told to let go, a node that was drained would hold its publishers back for ever."""
    node = make_node(behaviour={"worker-0": "hoard"}, memory_watermark="256 MiB")
    node.line("memory alarm set")
    node.line("memory alarm cleared")
    assert node.stop() == OK


def test_disk_alarm_reaches_the_children(make_node: MakeNode) -> None:
    node = make_node(disk_free_limit_bytes=str(1 << 50))
    node.line("disk alarm set")
    node.line(r'heard of alarms: {"memory": false, "disk": true}')
    assert node.stop() == OK


def test_sigterm_to_a_child_is_left_to_the_supervisor(make_node: MakeNode) -> None:
    node = make_node()
    children = node.children()
    os.kill(children["worker-0"], signal.SIGTERM)
    node.line(r"\[warning\] worker-0 SIGTERM is left to the supervisor")
    assert node.stop() == OK
    assert not any("ended unexpectedly" in line for line in node.rest_of_log())


def test_service_manager_hears_ready_and_stopping(make_node: MakeNode, tmp_path: Path) -> None:
    address = f"@leveret-test-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:])
        manager.settimeout(30)
        node = make_node(environment={"NOTIFY_SOCKET": address})
        assert manager.recv(4096) == b"STATUS=starting"
        ready = manager.recv(4096).decode().split("\n")
        facts = node.ready()
        assert ready == ["READY=1", f"STATUS=serving AMQP on port {facts['amqp_port']}"]
        node.signal(signal.SIGTERM)
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=stopping: SIGTERM received"
        assert node.wait() == OK


def test_child_started_by_hand_says_so() -> None:
    done = subprocess.run([sys.executable, str(STAND_IN), "worker", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == USAGE
    assert done.stderr == "leveret: leveret.worker is started by `leveret start`, not by hand\n"
