"""The two Go libraries, amqp091-go and its ancestor streadway/amqp: every method of their Connection and Channel, against the broker.

What is done and checked stands in the Go program of `tests/clients/go/`; here it is built for both libraries and run feature by feature.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients import feature_program
from tests.clients.go_workshop import GOPATH, go_build
from tests.clients.toolchain import require
from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.node import Broker

SOURCES = sorted((Path(__file__).parent / "go").glob("*.go"))
LIBRARIES = {"amqp091": "github.com/rabbitmq/amqp091-go", "streadway": "github.com/streadway/amqp"}
ONLY_AMQP091 = Path(__file__).parent / "go" / "amqp091.go"
BLOCKED, SHUTDOWN = "connection notify blocked", "connection is told of a shutdown"
BEYOND_PEER = [
    "flow pauses deliveries",
    "flow of one channel leaves the others",
    "qos size",
    "recover to the consumer",
    "immediate is returned without a consumer",
    "immediate is delivered to a consumer",
    "exchange declare is refused",
]
MIB = 1024 * 1024

pytestmark = pytest.mark.timeout(300)  # the first test compiles


def build(library: str) -> list[str]:
    """The command that runs the program, built with one of the libraries. The sources name amqp091-go; that line alone is changed."""
    sources = [path for path in SOURCES if library == "amqp091" or path != ONLY_AMQP091]
    names = [path.name for path in sources]
    change = f"s,{LIBRARIES['amqp091']},{LIBRARIES[library]},"
    before = [["cp", *map(str, sources), "."], ["sed", "-i", change, *names]]
    return [str(go_build(f"go-{library}", sources, names, "client", before=before) / "client")]


@pytest.fixture(params=LIBRARIES)
def program(request: pytest.FixtureRequest) -> list[str]:
    return build(request.param)


@pytest.mark.parametrize(
    "feature", feature_program.features(set(SOURCES) - {ONLY_AMQP091}, beyond_peer=BEYOND_PEER, apart=[BLOCKED, SHUTDOWN])
)
def test_feature(program: list[str], broker: Broker, feature: str) -> None:
    feature_program.run(program, feature, broker)


@pytest.mark.parametrize("feature", feature_program.features([ONLY_AMQP091]))
def test_feature_of_amqp091_alone(broker: Broker, feature: str) -> None:
    feature_program.run(build("amqp091"), feature, broker)


def test_publishers_are_told_when_they_are_blocked(program: list[str], fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    eventually(lambda: node.processes())  # the management process counts too
    used = int(node.api("nodes")[0]["mem_used"])
    node.stop()
    node.config["memory_watermark"] = used + 48 * MIB
    node.config["memory_paging_ratio"] = 1  # or the queue would go to disk, and the alarm never come
    feature_program.run(program, BLOCKED, node.start())


def test_connections_are_told_of_a_shutdown(program: list[str], fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    running = feature_program.start(program, SHUTDOWN, node)
    assert running.stdout is not None
    assert running.stdout.readline() == "connected\n"
    node.stop()
    feature_program.finish(running)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_method_of_connection_and_channel_is_called(library: str) -> None:
    """The program leaves none out: the library's own exported methods, found in its sources, are all called in ours."""
    require("go")
    theirs = "".join(path.read_text() for path in (GOPATH / "src" / LIBRARIES[library]).glob("*.go") if not path.stem.endswith("_test"))
    methods = set(re.findall(r"^func \(\w+ \*(?:Channel|Connection)\) ([A-Z]\w*)\(", theirs, re.MULTILINE))
    methods |= {"Dial", "DialConfig"}
    assert len(methods) >= 40
    ours = "".join(path.read_text() for path in SOURCES)
    assert {name for name in methods if not re.search(rf"\.{name}\(", ours)} == set()
