"""Ruby's bunny, by feature. What is done and checked stands in `tests/clients/ruby/client.rb`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import feature_program
from tests.clients.toolchain import require
from tests.node import Broker

PROGRAM = Path(__file__).parent / "ruby" / "client.rb"


@pytest.mark.parametrize("feature", feature_program.features([PROGRAM]))
def test_bunny(broker: Broker, feature: str) -> None:
    require("ruby")
    feature_program.run(["ruby", str(PROGRAM)], feature, broker)
