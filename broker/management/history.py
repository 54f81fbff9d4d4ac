"""Counters as they stood a few seconds ago, so that a rate can be told.

The surveyor records a sample each `statistics_interval_ms`; the resources ask for the rate of a counter that they have just read. Two
samples are kept, however long the node runs: its size is bounded by what exists, not by what has existed. No clock is read here; the
caller gives it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping

Counters = Mapping[str, int]
SAMPLES_KEPT = 2


class History:
    """The last samples, each a map from what is counted to its counters.

    `interval_s` is the time between samples. A rate is taken against the newest sample that is at least half an interval old, so that a
    page opened just after a sample does not divide by next to nothing.
    """

    def __init__(self, interval_s: float) -> None:
        self._settled_s = interval_s / 2
        self._samples: deque[tuple[float, Mapping[Hashable, Counters]]] = deque(maxlen=SAMPLES_KEPT)

    def record(self, clock_s: float, counters: Mapping[Hashable, Counters]) -> None:
        """Keep a sample taken at `clock_s`; the oldest goes."""
        self._samples.append((clock_s, counters))

    def rates(self, key: Hashable, counters: Counters, clock_s: float) -> dict[str, float]:
        """Change per second of each counter since the reference sample; 0.0 for what was not there then.

        A counter that went back (its process was restarted) gives a negative number here: whether that makes sense depends on the counter.
        """
        for sampled_at_s, sample in reversed(self._samples):
            if clock_s - sampled_at_s >= self._settled_s:
                earlier = sample.get(key)
                if earlier is None:
                    break
                elapsed_s = clock_s - sampled_at_s
                return {name: (value - earlier[name]) / elapsed_s if name in earlier else 0.0 for name, value in counters.items()}
        return dict.fromkeys(counters, 0.0)
