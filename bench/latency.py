"""How long messages are under way at half the maximum rate: publisher's intended moment to consumer, in percentiles.

The load is open: each message is due at a moment that the rate alone decides, and its latency counts from that moment, however late the
generator could write it. A broker that stalls for 100 ms therefore shows all the messages that came due meanwhile. At the maximum rate
itself latency says only how long the buffers are. `bench.run` asks for it once the rates of a row are known.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from leveret.perf.report import Report

P99_MAX_MS: Final = 5.0  # the goal
SHARE: Final = 0.5  # of the maximum rate
_KEPT_UP_SHARE: Final = 0.98


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds within which 50, 99 and 99.9 % of the messages arrived. rate, asked: messages/s that arrived, and that should have.

    confirm_p99_ms: within which 99 % of the confirms came, counted from the same moments; None where nobody asked for any.
    """

    p50_ms: float
    p99_ms: float
    p999_ms: float
    rate: float
    asked: float
    confirm_p99_ms: float | None = None

    @property
    def kept_up(self) -> bool:
        """Whether the broker took the messages as fast as they came due; else the percentiles tell the length of the round."""
        return self.rate >= _KEPT_UP_SHARE * self.asked

    @classmethod
    def of(cls, report: Report, asked: float) -> Latency:
        """What `leveret perf` saw under `asked` messages/s. Raises ValueError when no message arrived in the measured time."""
        if not report.latency.total:
            raise ValueError("no message arrived in the measured time")
        confirms = report.confirm_latency
        return cls(
            p50_ms=report.latency.percentile_ns(0.5) / 1e6,
            p99_ms=report.latency.percentile_ns(0.99) / 1e6,
            p999_ms=report.latency.percentile_ns(0.999) / 1e6,
            rate=report.messages_per_s,
            asked=asked,
            confirm_p99_ms=confirms.percentile_ns(0.99) / 1e6 if confirms.total else None,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"kept_up": self.kept_up}


def median_latency(rounds: Sequence[Latency]) -> Latency:
    """The medians of several rounds (at least one), each field for itself."""
    confirms = [one.confirm_p99_ms for one in rounds if one.confirm_p99_ms is not None]
    return Latency(
        p50_ms=statistics.median(one.p50_ms for one in rounds),
        p99_ms=statistics.median(one.p99_ms for one in rounds),
        p999_ms=statistics.median(one.p999_ms for one in rounds),
        rate=statistics.median(one.rate for one in rounds),
        asked=statistics.median(one.asked for one in rounds),
        confirm_p99_ms=statistics.median(confirms) if confirms else None,
    )
