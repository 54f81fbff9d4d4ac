"""`leveret backup`: what the command says, and that a node serves what was backed up from another that went on publishing."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from leveret.ctl.main import run
from leveret.refusal import DATA, INTERRUPTED, OK, TEMPORARY, UNAVAILABLE, USAGE

from tests.ctl.test_node import leveret
from tests.ctl.unix_http import StandInApi
from tests.node import Node

MakeNode = Callable[..., Node]

BEGUN = {"shards": [{"number": 0, "worker": 0, "used_bytes": 1000}, {"number": 1, "worker": 1, "used_bytes": 2000}]}


def answers(**changes: tuple[int, Any]) -> dict[str, tuple[int, Any]]:
    return {
        "POST /api/control/backup": changes.get("begun", (201, BEGUN)),
        "POST /api/control/backup/shards/0": (201, {"bytes": 4096}),
        "POST /api/control/backup/shards/1": changes.get("shard_1", (201, {"bytes": 8192})),
        "POST /api/control/backup/definitions": (201, {"bytes": 2048}),
    }


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., StandInApi]]:
    apis: list[StandInApi] = []

    def serve(**changes: tuple[int, Any]) -> StandInApi:
        apis.append(StandInApi(tmp_path / "data", answers(**changes)))
        return apis[-1]

    yield serve
    for api in apis:
        api.close()


def backup(tmp_path: Path, *flags: str) -> int:
    return run(["backup", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "data"), *flags])


def test_each_part_is_copied_and_the_definitions_last(
    served: Callable[..., StandInApi], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = served()
    assert backup(tmp_path) == OK
    assert api.asked == [
        "POST /api/control/backup",
        "POST /api/control/backup/shards/0",
        "POST /api/control/backup/shards/1",
        "POST /api/control/backup/definitions",
    ]
    assert [json.loads(body) for body in api.bodies] == [{"directory": str(tmp_path / "backup")}] * 4
    told = capsys.readouterr().out
    assert told.startswith(f"Backed up leveret@test to {tmp_path}/backup: its definitions and 2 shards, 14.0 KiB in ")
    assert told.endswith(f"`leveret start --data-dir {tmp_path}/backup` serves it.\n")


def test_a_folder_that_is_refused_is_not_to_be_removed(
    served: Callable[..., StandInApi], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served(begun=(400, {"reason": "/x is not empty"}))
    assert backup(tmp_path) == DATA
    assert capsys.readouterr().err == "leveret: the broker answered POST /api/control/backup with 400 Bad Request: /x is not empty\n"


def test_a_part_that_fails_leaves_a_backup_that_says_what_it_is(
    served: Callable[..., StandInApi], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = served(shard_1=(503, {"reason": "the worker-1 process went away"}))
    assert backup(tmp_path) == UNAVAILABLE
    error = capsys.readouterr().err
    assert "503 Service Unavailable: the worker-1 process went away\n" in error
    assert error.endswith(f"The backup in {tmp_path}/backup is not complete: remove it.\n")
    assert "POST /api/control/backup/definitions" not in api.asked


def test_a_part_that_takes_too_long_is_given_up(
    served: Callable[..., StandInApi], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = served()
    answered = threading.Event()
    api.on_request = lambda path: bool(path.endswith("/shards/1") and answered.wait(20))
    try:
        assert backup(tmp_path, "--timeout", "1.5") == TEMPORARY
    finally:
        answered.set()
    assert "the broker did not answer within 1.5 s\nThe backup in" in capsys.readouterr().err


def test_ctrl_c_leaves_a_backup_that_says_what_it_is(
    served: Callable[..., StandInApi], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = served()
    answered = threading.Event()

    def interrupt(path: str) -> None:
        if path.endswith("/shards/1"):
            signal.raise_signal(signal.SIGINT)  # the main thread gets it
            answered.wait(20)

    api.on_request = interrupt
    try:
        assert backup(tmp_path) == INTERRUPTED
    finally:
        answered.set()
    assert capsys.readouterr().err.endswith(f"\nThe backup in {tmp_path}/backup is not complete: remove it.\n")


def test_without_a_broker_or_a_folder_there_is_no_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backup(tmp_path) == UNAVAILABLE
    assert "no broker is running on" in capsys.readouterr().err
    assert run(["backup", "", "--data-dir", str(tmp_path)]) == USAGE
    assert capsys.readouterr().err == "leveret: a folder's path is wanted, not ''\n"


class Publisher(threading.Thread):
    """Publishes persistent numbers, one confirm at a time, to two queues in turn until told to stop. `confirmed` grows as it goes."""

    def __init__(self, node: Node, queues: list[str]) -> None:
        super().__init__(daemon=True)
        self.confirmed = 0
        self.stopping = threading.Event()
        self.enough = threading.Event()
        self._node, self._queues = node, queues

    def run(self) -> None:
        with self._node.connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            while not self.stopping.is_set():
                body = b"%d" % self.confirmed
                queue = self._queues[self.confirmed % len(self._queues)]
                channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
                self.confirmed += 1
                if self.confirmed == 300:
                    self.enough.set()


def drained(node: Node, queue: str) -> list[int]:
    with node.connect() as connection:
        channel = connection.channel()
        bodies = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            bodies.append(int(got[2]))
    return bodies


def test_a_node_serves_the_backup_of_another_that_went_on(fresh_node: MakeNode, tmp_path: Path) -> None:
    node = fresh_node(workers=2)
    # One queue on each worker, hence on each shard.
    queues = ["a", "b"]
    with node.connect() as connection:
        channel = connection.channel()
        for queue in queues:
            channel.queue_declare(queue, durable=True, arguments={"x-queue-leader-locator": "balanced"})
        channel.queue_declare("transient", auto_delete=False)
        channel.exchange_declare("events", "topic", durable=True)
        channel.queue_bind("a", "events", "a.#")
    assert {row["worker"] for row in node.api("queues") if row["name"] in queues} == {0, 1}
    publisher = Publisher(node, queues)
    publisher.start()
    assert publisher.enough.wait(60)
    at_least = publisher.confirmed

    done = leveret("backup", str(tmp_path / "backup"), "--data-dir", str(node.data_dir))
    assert (done.returncode, done.stderr) == (OK, "")
    at_most = publisher.confirmed + 1
    publisher.stopping.set()
    publisher.join(20)
    node.kill()

    restored = Node(tmp_path / "backup", workers=1)
    try:
        restored.start()
        rows = {row["name"]: row for row in restored.api("queues")}
        assert set(rows) == {"a", "b"}
        assert [row["routing_key"] for row in restored.api("queues/%2F/a/bindings") if row["source"] == "events"] == ["a.#"]
        for offset, queue in enumerate(queues):
            numbers = drained(restored, queue)
            assert numbers == list(range(offset, offset + 2 * len(numbers), 2)), "without a gap and in order"
            assert at_least - 2 <= 2 * len(numbers) <= at_most + 2
        assert "was set aside" not in restored.log_path.read_text()
    finally:
        restored.kill()
