"""Fixtures of the whole suite: the broker under test and where a test's clients stand.

`broker` is one node for all tests of a pytest process (so `-n 4` has four, each with its own ports and data directory). The variable
`LEVERET_TEST_PEER` puts another broker in its place: `rabbitmq` starts a private RabbitMQ, `amqp://user:password@host:port` takes one that
runs. The tests are checked that way, all but those marked `not_on_peer`. `fresh_node` gives nodes that a test may stop, kill and configure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

# Their asserts shall tell as much as those in test modules do; it has to be said before they are imported.
pytest.register_assert_rewrite("tests.deadline", "tests.inbox", "tests.node", "tests.placement", "tests.refusal", "tests.wire")

from tests.node import Broker, Node  # noqa: E402
from tests.pending import PENDING  # noqa: E402
from tests.placement import ANYWHERE, SPREAD, TOGETHER, Placement, Sites  # noqa: E402

PEER = os.environ.get("LEVERET_TEST_PEER")  # "rabbitmq", or an address
WORKERS = 3  # publisher, queue and consumer can each have its own

MakeNode = Callable[..., Node]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "not_on_peer(reason): not run when LEVERET_TEST_PEER names another broker")
    config.addinivalue_line("markers", "needs(*features): expected to fail while one of the features stands in tests/pending.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PEER is None:
        for item in items:
            wanted = [feature for mark in item.iter_markers("needs") for feature in mark.args if feature in PENDING]
            if wanted:
                item.add_marker(pytest.mark.xfail(strict=True, reason="; ".join(PENDING[feature] for feature in wanted)))
        return
    for item in items:
        if mark := item.get_closest_marker("not_on_peer"):
            item.add_marker(pytest.mark.skip(reason=f"not on the peer: {mark.args[0]}"))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker under test, shared: leave it as you found it, and count on nothing that another test may change."""
    if PEER == "rabbitmq":
        from bench.peer import Peer  # the benches' own, needed here for this alone

        with Peer() as peer:
            yield Broker("127.0.0.1", peer.port)
        return
    if PEER is not None:
        url = urlsplit(PEER)
        yield Broker(
            url.hostname or "127.0.0.1", url.port or 5672, None, unquote(url.username or "guest"), unquote(url.password or "guest")
        )
        return
    node = Node(tmp_path_factory.mktemp("node") / "data", workers=WORKERS).start()
    yield node
    node.stop()


@pytest.fixture
def fresh_node(tmp_path: Path) -> Iterator[MakeNode]:
    """A function that makes a started node of the test's own: `fresh_node(workers=2, **config)`. All are ended with the test."""
    if PEER is not None:
        pytest.skip("not on the peer: starts nodes of its own")
    nodes: list[Node] = []

    def make(*, workers: int = 2, **config: Any) -> Node:
        node = Node(tmp_path / f"node-{len(nodes)}", workers=workers, config=config)
        nodes.append(node)
        return node.start()

    yield make
    for node in nodes:
        node.kill()


@pytest.fixture(scope="module")
def shared_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeNode]:
    """A function that makes a node for all tests of a module: `shared_nodes(workers=2, **config).lent()` gives it to one of them."""
    if PEER is not None:
        pytest.skip("not on the peer: starts nodes of its own")
    nodes: list[Node] = []

    def make(*, workers: int = 2, **config: Any) -> Node:
        nodes.append(Node(tmp_path_factory.mktemp("shared") / "data", workers=workers, config=config))
        return nodes[-1]

    yield make
    for node in nodes:
        node.kill()


@pytest.fixture(params=[ANYWHERE] if PEER else [TOGETHER, SPREAD], ids=lambda sites: sites.name)
def placement(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Placement]:
    """Connections, queues and exchanges of one test, once with publisher, queue and consumer on one worker, once on three."""
    sites: Sites = request.param
    made = Placement(broker, sites)
    yield made
    made.close()
