"""What every hostile test ends with: no process of the node has died, and none has called anything a bug."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import PEER, MakeNode
from tests.hostile.complaints import complaints
from tests.node import Broker, Node

pytestmark = pytest.mark.not_on_peer("asks for Leveret's processes, memory and log")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PEER is not None:
        for item in items:
            if "tests/hostile/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason="looks at Leveret's processes, memory and log"))


@pytest.fixture
def victim(broker: Broker) -> Iterator[Node]:
    """The shared node, three workers, for attacks that leave nothing behind."""
    assert isinstance(broker, Node)
    yield from watched(broker)


@pytest.fixture
def small_victim(fresh_node: MakeNode) -> Iterator[Node]:
    """A node of the test's own with one worker: its memory is the attack's, and everybody is in the attacker's way."""
    yield from watched(fresh_node(workers=1))


def watched(node: Node) -> Iterator[Node]:
    """The node; afterwards, all its processes are the same and its log has no complaint."""
    before = node.processes()
    logged = node.log_path.stat().st_size
    yield node
    assert node.processes() == before
    assert complaints(node, logged) == []
