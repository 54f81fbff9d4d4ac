"""`data_dir`: the data folder of a node that has stopped. Two workers, a durable queue on each shard, with ten messages in each queue."""

from __future__ import annotations

import shutil
from pathlib import Path

import pika
import pytest

from tests.node import Node


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original: made once, not to be changed."""
    data_dir = tmp_path_factory.mktemp("stopped") / "data"
    node = Node(data_dir, workers=2)
    node.start()
    try:
        with node.connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for queue in ("a", "b"):
                channel.queue_declare(queue, durable=True, arguments={"x-queue-leader-locator": "balanced"})
                for number in range(10):
                    channel.basic_publish("", queue, b"%d" % number * 1000, pika.BasicProperties(delivery_mode=2))
        assert {row["worker"] for row in node.api("queues")} == {0, 1}
        node.stop()
    finally:
        node.kill()
    return data_dir


@pytest.fixture
def data_dir(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "data"))
