"""One figure of one round: what a broker did under one row's work. Rows make them, `bench.run` takes their medians and shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` is in the row's unit (mostly messages/s), `cpu_us` the broker's CPU microseconds per message (or per connection).

    limit: what kept the value from being higher, when it was not the broker; faults: what the broker did wrong, in words;
    details: everything else that is worth keeping in the JSON.
    """

    value: float
    cpu_us: float | None
    limit: str = ""
    faults: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def median(figures: Iterable[Figure]) -> Figure:
    """The medians of several rounds, each field for itself; every fault of any round; the limit that most rounds had."""
    rounds = list(figures)
    cpu_us = [figure.cpu_us for figure in rounds if figure.cpu_us is not None]
    return Figure(
        value=statistics.median(figure.value for figure in rounds),
        cpu_us=statistics.median(cpu_us) if cpu_us else None,
        limit=statistics.mode(figure.limit for figure in rounds),
        faults=tuple(dict.fromkeys(fault for figure in rounds for fault in figure.faults)),
        details={"rounds": [figure.details | {"value": figure.value, "cpu_us": figure.cpu_us} for figure in rounds]},
    )
