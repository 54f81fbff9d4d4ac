"""Scripts that once showed a difference, shortened: they are performed before the random ones, so that it does not come back.

A finding of `test_differential.py` prints the steps in the form in which they stand here.
"""

from __future__ import annotations

from tests.differential.script import Script, Step

SCRIPTS: tuple[Script, ...] = (
    Script(
        "an auto-delete queue goes with its last consumer",
        (
            Step("A", 1, "queue.declare", {"queue": "q0", "auto_delete": True}),
            Step("A", 1, "basic.consume", {"queue": "q0", "consumer_tag": "t0"}),
            Step("A", 1, "basic.cancel", {"consumer_tag": "t0"}),
        ),
    ),
)
