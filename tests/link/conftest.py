"""Everything in this folder runs twice: with the poller nested in a loop, and with one that lives on the poller."""

from __future__ import annotations

import pytest
import uvloop
from leveret.link.loop import PollerLoop

import tests.link.loop


@pytest.fixture(params=[uvloop.new_event_loop, PollerLoop], ids=["nested", "driving"], autouse=True)
def _below(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.link.loop, "new_loop", request.param)
