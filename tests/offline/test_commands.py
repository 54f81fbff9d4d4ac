"""`leveret verify` and `leveret compact` as their users run them: output, exit codes, and a node on what they leave."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pika
import pytest
from leveret.ctl.main import run
from leveret.refusal import CANNOT_CREATE, DATA, OK, UNAVAILABLE, USAGE
from leveret.storage import compaction
from leveret.storage.environment import DiskFull

from tests.node import Node

MakeNode = Callable[..., Node]


def test_verify_tells_of_each_part(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(data_dir)]) == OK
    assert capsys.readouterr() == (
        "definitions   good: 1 vhost, 7 exchanges, 2 queues on 2 shards\n"
        "shard 0       good: 10 messages of 1 queue\n"
        "shard 1       good: 10 messages of 1 queue\n"
        f"{data_dir} is sound.\n",
        "",
    )


def test_verify_tells_of_damage(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data_dir / "shards" / "1" / "data.mdb").write_bytes(b"")
    assert run(["verify", str(data_dir)]) == DATA
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert lines[0] == f"leveret: {data_dir}: 1 of 3 parts are damaged"
    assert lines[2:4] == ["shard 0       good: 10 messages of 1 queue", "shard 1       DAMAGED"]
    assert lines[4].startswith(f"    {data_dir}/shards/1/data.mdb: ")


def test_compact_tells_sizes_and_a_node_serves_what_it_leaves(fresh_node: MakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node = fresh_node(workers=1)
    with node.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        for number in range(60):
            channel.basic_publish("", "q", bytes([number]) * 200_000, pika.BasicProperties(delivery_mode=2))
        for _ in range(58):
            channel.basic_get("q", auto_ack=True)
    node.stop()
    assert run(["compact", str(node.data_dir)]) == OK
    output = capsys.readouterr()
    assert output.err == ""
    found = re.fullmatch(r"definitions   .* -> .*\nshard 0       ([0-9.]+) MiB -> ([0-9.]+) KiB\n", output.out)
    assert found is not None, output.out
    assert float(found[1]) > 1
    assert run(["verify", str(node.data_dir)]) == OK
    assert "shard 0       good: 2 messages of 1 queue" in capsys.readouterr().out
    node.start()
    with node.connect() as connection:
        channel = connection.channel()
        assert [channel.basic_get("q", auto_ack=True)[2] for _ in range(2)] == [bytes([number]) * 200_000 for number in (58, 59)]


def test_compact_stops_at_what_it_cannot_do(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    copy_environment = compaction.copy_environment

    def full(environment: object, directory: Path, what: str) -> None:
        if what == "shard 1":
            raise DiskFull(f"no room for a copy of {what} in {directory}")
        copy_environment(environment, directory, what)

    monkeypatch.setattr(compaction, "copy_environment", full)
    assert run(["compact", str(data_dir)]) == CANNOT_CREATE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"leveret: no room for a copy of shard 1 in {data_dir}/shards/1/compact.new; it is as it was"
    assert [line.split("  ")[0] for line in lines[1:]] == ["definitions", "shard 0"]
    monkeypatch.undo()
    assert run(["verify", str(data_dir)]) == OK

    (data_dir / "shards" / "0" / "data.mdb").write_bytes(b"spoiled" * 5000)
    capsys.readouterr()
    assert run(["compact", str(data_dir)]) == DATA
    assert "shard 0 in" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "compact"])
def test_a_running_broker_is_left_alone(fresh_node: MakeNode, capsys: pytest.CaptureFixture[str], command: str) -> None:
    node = fresh_node(workers=1)
    assert run([command, str(node.data_dir)]) == UNAVAILABLE
    assert "is in use by a broker" in capsys.readouterr().err
    with node.connect() as connection:
        connection.channel().queue_declare("it serves on")


@pytest.mark.parametrize("command", ["verify", "compact"])
def test_a_folder_must_be_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command]) == USAGE
    assert run([command, ""]) == USAGE
    assert run([command, str(tmp_path)]) == DATA
    assert "Traceback" not in capsys.readouterr().err
