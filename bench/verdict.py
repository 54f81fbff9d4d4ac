"""How Leveret stands in one row: ratios to RabbitMQ, and whether each goal is met. Tables, JSON and pages ask; nothing is measured here."""

from __future__ import annotations

from typing import Any

from bench.figures import Figure
from bench.rows import Row

Figures = dict[str, Figure]  # by broker name


class Verdict:
    """rate, cpu: how many times better than RabbitMQ, None where nothing can be compared. Each `…_met` is None without a goal or figure.

    A row that failed outright (a value of 0 with a fault that says why) misses all of its goals.
    """

    def __init__(self, row: Row, figures: Figures) -> None:
        ours, theirs = figures.get("Leveret"), figures.get("RabbitMQ")
        self.rate: float | None = None
        self.cpu: float | None = None
        if ours and theirs and ours.value and theirs.value:
            self.rate = ours.value / theirs.value if row.higher_is_better else theirs.value / ours.value
        if ours and theirs and ours.cpu_us and theirs.cpu_us:
            self.cpu = theirs.cpu_us / ours.cpu_us
        self.rate_met = self._at_least(self.rate, row.rate_goal)
        self.cpu_met = self._at_least(self.cpu, row.cpu_goal)
        self.memory_met: bool | None = None
        self.latency_met: bool | None = None
        if ours is None:
            return
        failed = not ours.value and bool(ours.faults)
        if row.value_max is not None:
            self.rate_met = not failed and ours.value <= row.value_max
        elif failed and row.rate_goal is not None:
            self.rate_met = False
        if row.cpu_us_max is not None:
            self.cpu_met = self._at_most(ours.cpu_us, row.cpu_us_max)
        if row.memory_max is not None:
            self.memory_met = self._at_most(ours.memory_bytes, row.memory_max)
        if row.p99_max_ms is not None and ours.latency is not None:
            self.latency_met = ours.latency.kept_up and ours.latency.p99_ms < row.p99_max_ms

    @property
    def missed(self) -> bool:
        return False in self.to_json().values()

    def to_json(self) -> dict[str, Any]:
        return {"rate": self.rate_met, "cpu": self.cpu_met, "memory": self.memory_met, "latency": self.latency_met}

    @staticmethod
    def _at_least(ratio: float | None, goal: float | None) -> bool | None:
        return None if ratio is None or goal is None else ratio >= goal

    @staticmethod
    def _at_most(value: float | None, goal: float) -> bool | None:
        return None if value is None else value <= goal
