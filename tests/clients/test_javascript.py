"""Node's two libraries, amqplib and @cloudamqp/amqp-client, by feature. What is done and checked stands in `tests/clients/javascript/`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import feature_program
from tests.clients.node_packages import node_environment
from tests.node import Broker

PROGRAMS = Path(__file__).parent / "javascript"

pytestmark = pytest.mark.timeout(300)  # the first test installs


@pytest.mark.parametrize("feature", feature_program.features([PROGRAMS / "amqplib.js"]))
def test_amqplib(broker: Broker, feature: str) -> None:
    feature_program.run(["node", str(PROGRAMS / "amqplib.js")], feature, broker, **node_environment())


@pytest.mark.parametrize("feature", feature_program.features([PROGRAMS / "cloudamqp.js"], beyond_peer=["flow", "confirms and returns"]))
def test_cloudamqp(broker: Broker, feature: str) -> None:
    feature_program.run(["node", str(PROGRAMS / "cloudamqp.js")], feature, broker, **node_environment())
