"""Message counters under RabbitMQ's names: adding them up and setting their `_details` beside them.

Pure. Exporters read these names, so they are RabbitMQ's to the letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Only grow. `deliver_get` is the sum of the four ways in which a message reaches a client.
CHANNEL_COUNTERS = (
    "publish",
    "confirm",
    "return_unroutable",
    "drop_unroutable",
    "deliver",
    "deliver_no_ack",
    "get",
    "get_no_ack",
    "redeliver",
    "ack",
    "get_empty",
)
DELIVERIES = ("deliver", "deliver_no_ack", "get", "get_no_ack")
# Go up and down: their rate may be negative.
QUEUE_GAUGES = ("messages", "messages_ready", "messages_unacknowledged")


def whole(answer: Mapping[str, Any] | None, names: Iterable[str]) -> dict[str, int]:
    """The counters of these names that are there, as ints, with `deliver_get` added when there are deliveries."""
    counters = {name: int(answer[name]) for name in names if name in answer} if answer else {}
    if any(name in counters for name in DELIVERIES):
        counters["deliver_get"] = sum(counters.get(name, 0) for name in DELIVERIES)
    return counters


def added(several: Iterable[Mapping[str, float]]) -> dict[str, Any]:
    """One map with the sum of each name."""
    total: dict[str, float] = {}
    for counters in several:
        for name, value in counters.items():
            total[name] = total.get(name, 0) + value
    return total


def detailed(counters: Mapping[str, int], rates: Mapping[str, float], *, gauges: bool = False) -> dict[str, Any]:
    """`{"publish": 5, "publish_details": {"rate": 0.4}}` for each counter.

    A negative rate of a counter means that its process was restarted, and shows as 0.0; `gauges` may fall.
    """
    shown: dict[str, Any] = {}
    for name, value in counters.items():
        rate = rates.get(name, 0.0)
        shown[name] = value
        shown[f"{name}_details"] = {"rate": round(rate if gauges else max(rate, 0.0), 4)}
    return shown
