"""`node`: the management application over made-up answers of the other processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.management.simulated_node import SimulatedNode, simulated_node


@pytest.fixture
def node() -> Iterator[SimulatedNode]:
    with simulated_node() as node:
        yield node
