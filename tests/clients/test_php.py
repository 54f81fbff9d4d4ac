"""PHP's php-amqplib, by feature. What is done and checked stands in `tests/clients/php/client.php`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import feature_program
from tests.clients.toolchain import require
from tests.node import Broker

PROGRAM = Path(__file__).parent / "php" / "client.php"


@pytest.mark.parametrize("feature", feature_program.features([PROGRAM]))
def test_php_amqplib(broker: Broker, feature: str) -> None:
    require("php")
    feature_program.run(["php", "-d", "error_reporting=E_ALL & ~E_DEPRECATED", str(PROGRAM)], feature, broker)
