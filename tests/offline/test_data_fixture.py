"""A whole data folder as the first version that stored messages left it: later versions must serve what is in it.

It is a backup of a node with two workers. When the file formats change, this one stays, and a new one is put beside it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from leveret.offline.stopped_node import StoppedNode
from leveret.offline.verification import verify_node

from tests.node import Node

DATA_1 = Path(__file__).parents[1] / "fixtures" / "data-1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA_1, tmp_path / "data"))


def test_it_is_sound(old: Path) -> None:
    with StoppedNode(old) as node:
        parts = list(verify_node(node))
    assert [part.findings for part in parts] == [(), (), ()]
    assert {part.told for part in parts[1:]} == {"18 messages of 1 queue", "2 messages of 1 queue"}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_node_serves_it_with_any_number_of_workers(old: Path, workers: int) -> None:
    node = Node(old, workers=workers)
    node.start()
    try:
        with node.connect() as connection:
            channel = connection.channel()
            got = [channel.basic_get("orders", auto_ack=True) for _ in range(19)]
            assert [body for _, _, body in got] == [b"order %d" % number for number in range(3, 20)] + [b"both", None]
            assert [method.redelivered for method, _, _ in got[:-1]] == [True] + [False] * 17, "the first was with a consumer"
            assert [properties.headers["n"] for _, properties, _ in got[:17]] == list(range(3, 20))
            assert got[0][1].content_type == "text/plain"
            assert [channel.basic_get("mail", auto_ack=True)[2] for _ in range(3)] == [b"both", bytes(range(256)) * 300, None]
            channel.confirm_delivery()
            channel.basic_publish("events", "order.mail", b"to both")
            assert [channel.basic_get(queue, auto_ack=True)[2] for queue in ("orders", "mail")] == [b"to both", b"to both"]
        assert {row["name"] for row in node.api("queues")} == {"orders", "mail"}, "the transient one was not kept"
        assert "set aside" not in node.log_path.read_text()
        node.stop()
    finally:
        node.kill()
