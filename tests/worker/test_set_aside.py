"""A shard that cannot be used: its node starts, the others serve what they hold, and nothing is thrown away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pika
import pytest
from leveret.storage.quarantine import in_quarantine

from tests.node import Node

MakeNode = Callable[..., Node]


def fill(node: Node) -> dict[str, int]:
    """Ten durable messages in a queue on each shard; the worker of each queue."""
    with node.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for queue in ("a", "b"):
            channel.queue_declare(queue, durable=True, arguments={"x-queue-leader-locator": "balanced"})
            for number in range(10):
                channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=2))
    return {row["name"]: row["worker"] for row in node.api("queues")}


def broken(file: Path) -> bytes:
    """Overwrite the file's head, and return what it is now."""
    content = b"not a database" * 700
    file.write_bytes(content)
    return content


def cut_short(file: Path) -> bytes:
    """Leave the file a head that tells of more than there is: to read it through a map would end the process."""
    content = file.read_bytes()[:8192]
    file.write_bytes(content)
    return content


def of_another_node(file: Path) -> bytes:
    """Put a store of other definitions there, as when folders were mixed up by hand."""
    other = file.parents[3] / "other" / "shards" / file.parent.name / "data.mdb"
    content = other.read_bytes()
    file.write_bytes(content)
    return content


@pytest.mark.parametrize("ruin", [broken, cut_short, of_another_node])
def test_the_other_shards_serve_and_the_bad_one_begins_empty(fresh_node: MakeNode, tmp_path: Path, ruin: Callable[[Path], bytes]) -> None:
    node = fresh_node(workers=2)
    workers = fill(node)
    assert sorted(workers.values()) == [0, 1]
    node.stop()
    other = Node(tmp_path / "other", workers=2)
    other.start()
    fill(other)
    other.stop()
    shard = workers["b"]
    content = ruin(node.data_dir / "shards" / str(shard) / "data.mdb")

    node.start()
    with node.connect() as connection:
        channel = connection.channel()
        assert channel.queue_declare("a", passive=True).method.message_count == 10
        assert channel.queue_declare("b", passive=True).method.message_count == 0
        channel.confirm_delivery()
        channel.basic_publish("", "b", b"new", pika.BasicProperties(delivery_mode=2))
    [aside] = in_quarantine(node.data_dir / "shards")
    assert aside.name.startswith(f"{shard}.corrupt-")
    assert (aside / "data.mdb").read_bytes() == content
    assert node.api("nodes")[0]["shards_set_aside"] == [str(aside)]
    log = node.log_path.read_text()
    assert f"[error] worker-{shard} it was set aside as {aside}; the shard begins empty" in log

    node.stop()
    node.start()
    with node.connect() as connection:
        assert connection.channel().queue_declare("b", passive=True).method.message_count == 1, "and holds what came since"
    assert in_quarantine(node.data_dir / "shards") == [aside]
