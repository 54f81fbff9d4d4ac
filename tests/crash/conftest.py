"""What every test of the laboratory needs: pika does not log that connections end, because here they do so all the time."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet_pika() -> Iterator[None]:
    """Let pika be silent about what the ledger tells."""
    log = logging.getLogger("pika")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)
