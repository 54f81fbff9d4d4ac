"""RabbitMQ's client for Java, by feature. What is done and checked stands in `tests/clients/java/Client.java`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import feature_program
from tests.clients.toolchain import Workshop, require
from tests.node import Broker

SOURCE = Path(__file__).parent / "java" / "Client.java"
LIBRARIES = "/usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar:/usr/share/java/slf4j-nop.jar"

pytestmark = pytest.mark.timeout(300)  # the first test compiles


@pytest.mark.parametrize("feature", feature_program.features([SOURCE], beyond_peer=["publish with confirms"]))
def test_java_client(broker: Broker, feature: str) -> None:
    require("java")
    compile_ = ["javac", "-encoding", "UTF-8", "-Xlint:all", "-Werror", "-cp", LIBRARIES, "-d", ".", str(SOURCE)]
    folder = Workshop("java").make([SOURCE], compile_)
    # The options make the virtual machine start quickly, which is most of a feature's time.
    command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp", f"{LIBRARIES}:{folder}", "Client"]
    feature_program.run(command, feature, broker)
