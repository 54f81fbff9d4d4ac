"""RabbitMQ and Leveret side by side: performs a script on both, and tells a difference that stays from one that comes and goes.

Owns `Pair`, one started broker of each kind, and `Finding`, what is told of a difference: seed, shortened script and both transcripts.
Called by `test_differential.py`.
"""

from __future__ import annotations

import collections
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tests.differential.comparison import Intended, Verdict, compare
from tests.differential.performance import Transcript, perform
from tests.differential.script import Script
from tests.differential.shortening import shorten
from tests.node import Broker

REPEATS = 2  # a difference must show again as often to be believed
LINES_SHOWN = 60


@dataclass
class Finding:
    """A difference that is on no list, as it is told to people."""

    script: Script
    verdict: Verdict
    theirs: Transcript
    ours: Transcript

    @property
    def key(self) -> str:
        """What makes two findings the same: the operation, and who showed what, without names and numbers."""
        sides = sorted({line.split("(")[0].split(": ", 1)[-1] for line in (*self.verdict.theirs, *self.verdict.ours)})
        return f"{self.verdict.operation} {' '.join(sides)}"

    def __str__(self) -> str:
        head = [
            f"{self.script.origin}, shortened to {len(self.script.steps)} steps",
            str(self.script),
            f"differs at step {self.verdict.step}:",
            *(f"  RabbitMQ  {line}" for line in self.verdict.theirs),
            *(f"  Leveret   {line}" for line in self.verdict.ours),
        ]
        for name, transcript in (("RabbitMQ", self.theirs), ("Leveret", self.ours)):
            head.append(f"what {name} showed:")
            for number, record in enumerate(transcript.records[: (self.verdict.step or 0) + 1]):
                head.append(f"  {number:2} {record.title}")
                head += [f"       {line}" for line in record.lines()[:LINES_SHOWN]]
        return "\n".join(head)


class Pair:
    """Both brokers, and the counts of what was seen on them."""

    def __init__(self, rabbitmq: Broker, leveret: Broker, intended: list[Intended]) -> None:
        self.rabbitmq = rabbitmq
        self.leveret = leveret
        self.intended = intended
        self.seen: collections.Counter[str] = collections.Counter()  # entries of the list
        self.scripts = 0
        self.steps = 0
        self.open = 0  # scripts that were compared only up to where the protocol leaves the choice
        self.parted = 0  # scripts that were compared only up to an intended difference
        self.unsteady: list[str] = []  # differences that did not show again
        self._performances = 0
        self._pool = ThreadPoolExecutor(2, "differential")

    def close(self) -> None:
        """Wait for the two performers' threads to end."""
        self._pool.shutdown()

    def try_script(self, script: Script) -> Finding | None:
        """Perform it on both; a difference that is on no list and shows every time comes back, shortened."""
        verdict, theirs, ours = self._compare(script)
        self.scripts += 1
        self.steps += verdict.compared
        self.open += verdict.is_open
        self.seen.update(set(verdict.intended))
        if verdict.step is None:
            self.parted += verdict.compared <= len(script.steps) and not verdict.is_open
            return None
        first = Finding(script, verdict, theirs, ours)
        script = replace(script, steps=script.steps[: verdict.step + 1]) if verdict.step < len(script.steps) else script
        for _ in range(REPEATS):
            verdict, theirs, ours = self._compare(script)
            if verdict.step is None:
                self.unsteady.append(str(first))
                return None
        key = Finding(script, verdict, theirs, ours).key

        def still_differs(candidate: Script) -> bool:
            verdict, theirs, ours = self._compare(candidate)
            return verdict.step is not None and Finding(candidate, verdict, theirs, ours).key == key

        script = shorten(script, still_differs)
        last = (verdict, theirs, ours)
        for _ in range(REPEATS + 1):
            verdict, theirs, ours = self._compare(script)
            if verdict.step is not None:
                last = (verdict, theirs, ours)
                break
        return Finding(script, *last)

    def _compare(self, script: Script) -> tuple[Verdict, Transcript, Transcript]:
        self._performances += 1
        prefix = f"d{self._performances}-{os.getpid()}-{time.monotonic_ns() % 10**6}."
        theirs = self._pool.submit(perform, script, self.rabbitmq, prefix)
        ours = self._pool.submit(perform, script, self.leveret, prefix)
        return compare(script, theirs.result(), ours.result(), self.intended), theirs.result(), ours.result()

    def report(self) -> str:
        """The counts, in a few lines."""
        lines = [
            f"{self.scripts} scripts, {self.steps} steps compared; {self.open} scripts went open ways, {self.parted} parted as intended",
            *(f"  intended, seen in {count} scripts: {name}" for name, count in self.seen.most_common()),
            *(f"  intended, never seen: {entry.name}" for entry in self.intended if not self.seen[entry.name]),
        ]
        if self.unsteady:
            lines.append(f"  {len(self.unsteady)} differences did not show again")
        return "\n".join(lines)
