"""One figure of one round: what a broker did under one row's work. Rows make them, `bench.run` takes their medians and shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.latency import Latency


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` is in the row's unit (mostly messages/s), `cpu_us` the broker's CPU microseconds per message (or per connection).

    limit: what kept the value from being higher, when it was not the broker; faults: what the broker did wrong, in words;
    memory_bytes: the most that all its processes used together meanwhile, shared pages counted once; latency: at half the value, taken
    in rounds of its own; details: everything else that is worth keeping in the JSON.
    """

    value: float
    cpu_us: float | None
    limit: str = ""
    faults: tuple[str, ...] = ()
    memory_bytes: int | None = None
    latency: Latency | None = None
    details: dict[str, Any] = field(default_factory=dict)


def median(figures: Iterable[Figure]) -> Figure:
    """The medians of several rounds, each field for itself; every fault of any round; the limit that most rounds had; no latency."""
    rounds = list(figures)
    memory = _of_those_known(figure.memory_bytes for figure in rounds)
    return Figure(
        value=statistics.median(figure.value for figure in rounds),
        cpu_us=_of_those_known(figure.cpu_us for figure in rounds),
        limit=statistics.mode(figure.limit for figure in rounds),
        faults=tuple(dict.fromkeys(fault for figure in rounds for fault in figure.faults)),
        memory_bytes=None if memory is None else int(memory),
        details={
            "rounds": [
                figure.details | {"value": figure.value, "cpu_us": figure.cpu_us, "memory_bytes": figure.memory_bytes} for figure in rounds
            ]
        },
    )


def _of_those_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
