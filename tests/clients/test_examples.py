"""The programs under `examples/`, run as a newcomer runs them: as processes, told of the broker by `AMQP_URL`, judged by their output.

The same six lessons stand there in Python, Go and JavaScript, with the same names and the same output, so each test is run on all three.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.go_workshop import go_build
from tests.clients.node_packages import node_environment
from tests.node import Broker

pytestmark = pytest.mark.timeout(300)  # the first test of a language compiles or installs

EXAMPLES = Path(__file__).parents[2] / "examples"
LINE_WITHIN_S = 30.0


def command(language: str, path: str) -> tuple[list[str], dict[str, str]]:
    """How an example is run: the command, and what it needs in its environment. Skips the test without the language's toolchain."""
    if language == "go":
        folder = EXAMPLES / "go"
        before = [["cp", "-r", f"{folder}/.", "."]]  # so that build/ alone is written to
        made = go_build("go-examples", folder.rglob("*.go"), ["./..."], "./bin/", before=before)
        return [str(made / "bin" / Path(path).name)], {}
    if language == "javascript":
        return ["node", str(EXAMPLES / "javascript" / f"{path}.js")], node_environment()
    return [sys.executable, str(EXAMPLES / f"{path}.py")], {}


class Program:
    """A running example. Its lines are read as they come; `stop()` is Ctrl-C."""

    def __init__(self, broker: Broker, language: str, path: str, *arguments: str) -> None:
        self.path = path
        self._lines: queue.Queue[str | None] = queue.Queue()
        run, environment = command(language, path)
        self.process = subprocess.Popen(
            [*run, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"AMQP_URL": broker.url} | environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self) -> str:
        """The next line of its output; `AssertionError` when it ends or keeps silent."""
        try:
            line = self._lines.get(timeout=LINE_WITHIN_S)
        except queue.Empty:
            raise AssertionError(f"{self.path} printed nothing within {LINE_WITHIN_S} s") from None
        assert line is not None, f"{self.path} ended with status {self.process.wait()}"
        return line

    def lines(self, count: int) -> list[str]:
        """The next `count` lines."""
        return [self.line() for _ in range(count)]

    def stop(self) -> list[str]:
        """Ctrl-C; gives the lines it had still printed. `AssertionError` unless it ends well."""
        self.process.send_signal(signal.SIGINT)
        rest = self._rest()
        assert self.process.wait(LINE_WITHIN_S) == 0, rest
        return rest

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _rest(self) -> list[str]:
        rest: list[str] = []
        deadline = time.monotonic() + LINE_WITHIN_S
        while (line := self._lines.get(timeout=max(deadline - time.monotonic(), 0.01))) is not None:
            rest.append(line)
        return rest


class Stage:
    """Starts examples in one language against the broker; whatever still runs at a test's end is killed."""

    def __init__(self, broker: Broker, language: str) -> None:
        self.broker = broker
        self.language = language
        self.programs: list[Program] = []

    def start(self, path: str, *arguments: str, language: str | None = None) -> Program:
        """Start an example that waits, and wait for the line in which it says so."""
        program = Program(self.broker, language or self.language, path, *arguments)
        self.programs.append(program)
        said = program.line()
        assert said.endswith("Ctrl-C to stop"), said
        return program

    def run(self, path: str, *arguments: str, status: int = 0) -> list[str]:
        """Run an example to its end; gives its lines (standard error included)."""
        run, environment = command(self.language, path)
        done = subprocess.run(
            [*run, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * LINE_WITHIN_S,
            env=os.environ | {"AMQP_URL": self.broker.url} | environment,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout.splitlines()


@pytest.fixture(params=["python", "go", "javascript"])
def stage(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(broker, request.param)
    yield made
    for program in made.programs:
        program.process.kill()
        program.process.wait()
    with broker.connect() as connection:
        channel = connection.channel()
        for name in ("hello", "tasks", "fibonacci"):
            channel.queue_delete(name)
        for name in ("announcements", "log", "events"):
            channel.exchange_delete(name)


def test_hello_world(stage: Stage) -> None:
    assert stage.run("1_hello_world/send", "before", "anyone", "waits") == ["sent: before anyone waits"]
    receiver = stage.start("1_hello_world/receive")
    assert receiver.line() == "received: before anyone waits"
    assert stage.run("1_hello_world/send") == ["sent: Hello, World!"]
    assert receiver.line() == "received: Hello, World!"
    assert receiver.stop() == ["stopped"]


def test_work_queues_share_the_work_and_survive_a_worker(stage: Stage) -> None:
    long_task = "long" + "." * 600
    busy = stage.start("2_work_queues/worker")
    assert stage.run("2_work_queues/new_task", long_task) == [f"queued: {long_task}"]
    assert busy.line() == f"working: {long_task}"
    free = stage.start("2_work_queues/worker")
    for number in range(3):
        stage.run("2_work_queues/new_task", f"task {number}")
    # One is busy for a minute; the other does all the rest, each task finished before the next.
    assert free.lines(6) == [f"{state}: task {number}" for number in range(3) for state in ("working", "done")]
    busy.process.kill()
    assert free.line() == f"working: {long_task}"


def test_publish_subscribe_reaches_everybody_who_listens(stage: Stage) -> None:
    stage.run("3_publish_subscribe/announce", "nobody hears this")
    listeners = [stage.start("3_publish_subscribe/listen") for _ in range(3)]
    assert stage.run("3_publish_subscribe/announce", "Lunch", "is", "ready") == ["announced: Lunch is ready"]
    for listener in listeners:
        assert listener.line() == "heard: Lunch is ready"
        assert listener.stop() == ["stopped"]


def test_routing_gives_each_reader_its_severities(stage: Stage) -> None:
    everything = stage.start("4_routing/read_log", "info", "warning", "error")
    errors = stage.start("4_routing/read_log", "error")
    for severity in ("info", "error", "warning", "debug"):
        assert stage.run("4_routing/emit_log", severity, "of", severity) == [f"logged: {severity}: of {severity}"]
    stage.run("4_routing/emit_log", "error", "last")
    assert everything.lines(4) == ["info: of info", "error: of error", "warning: of warning", "error: last"]
    assert errors.lines(2) == ["error: of error", "error: last"]


def test_topics_give_each_watcher_what_matches(stage: Stage) -> None:
    everything = stage.start("5_topics/watch_events", "#")
    opened = stage.start("5_topics/watch_events", "garden.*.opened", "*.*.opened", "kitchen.#")
    for topic in ("garden.gate.opened", "garden.gate.closed", "kitchen", "kitchen.tap.left.running"):
        assert stage.run("5_topics/emit_event", topic, "now") == [f"sent: {topic}: now"]
    assert everything.lines(4)[1] == "garden.gate.closed: now"
    assert opened.lines(3) == ["garden.gate.opened: now", "kitchen: now", "kitchen.tap.left.running: now"]


def test_rpc_answers_the_right_question(stage: Stage) -> None:
    server = stage.start("6_rpc/fibonacci_server")
    assert stage.run("6_rpc/fibonacci_client", "0", "10", "100", "ten") == [
        "fibonacci(0) = 0",
        "fibonacci(10) = 55",
        "fibonacci(100) = 354224848179261915075",
        "fibonacci(ten) = not a number: ten",
    ]
    assert server.lines(2) == ["fibonacci(0) = 0", "fibonacci(10) = 55"]
    server.stop()


@pytest.mark.parametrize("path", ["4_routing/read_log", "5_topics/watch_events"])
def test_a_program_that_needs_arguments_says_so(stage: Stage, path: str) -> None:
    suffix = {"python": ".py", "javascript": ".js", "go": ""}[stage.language]
    assert stage.run(path, status=1)[0].startswith(f"usage: {Path(path).name}{suffix} ")


def test_languages_understand_each_other(stage: Stage) -> None:
    """A question asked in one language, answered in another."""
    server = stage.start("6_rpc/fibonacci_server", language={"python": "go", "go": "javascript", "javascript": "python"}[stage.language])
    assert stage.run("6_rpc/fibonacci_client", "7") == ["fibonacci(7) = 13"]
    assert server.line() == "fibonacci(7) = 13"
