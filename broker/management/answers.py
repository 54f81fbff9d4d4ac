"""What the processes of the node said when they were last asked, as they said it.

`Answers` is taken by `surveyor`, read by `survey` and the resources. It computes nothing. A process that did not answer in time is None,
and whoever reads it must say what is then missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A msgpack map out of a link. The shapes are in the module that answers: leveret.router, leveret.worker.statistics, leveret.supervisor.
Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """One round of questions.

    `taken_at_s` is seconds since the epoch, `clock_s` the monotonic clock at the same moment. `topology` is the router's last known one:
    `router_running` tells whether it is of this round. `workers` has every index of the node.
    """

    taken_at_s: float
    clock_s: float
    topology: Answer
    router_running: bool
    router: Answer | None
    workers: Mapping[int, Answer | None]
    node: Answer | None
