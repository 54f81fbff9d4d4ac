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
    Script(
        "a limit for each consumer lifts the shared one",
        (
            Step("A", 1, "queue.declare", {"queue": "q0"}),
            Step("A", 1, "basic.qos", {"prefetch_count": 1, "global_qos": True}),
            Step("A", 1, "basic.qos", {"prefetch_count": 3}),
            Step("A", 1, "basic.consume", {"queue": "q0", "consumer_tag": "t0"}),
            Step("A", 1, "publish", {"routing_key": "q0", "body": b"m", "count": 5}),
        ),
    ),
    Script(
        "a changed prefetch and a consumer that is there",
        (
            Step("A", 1, "queue.declare", {"queue": "q0"}),
            Step("A", 1, "basic.qos", {"prefetch_count": 1}),
            Step("A", 1, "basic.consume", {"queue": "q0", "consumer_tag": "t0"}),
            Step("A", 1, "publish", {"routing_key": "q0", "body": b"m", "count": 5}),
            Step("A", 1, "basic.qos", {"prefetch_count": 3}),
        ),
    ),
    Script(
        "a binding that is not there, of another's exclusive queue",
        (
            Step("A", 1, "queue.declare", {"queue": "q0", "exclusive": True}),
            Step("B", 1, "queue.unbind", {"queue": "q0", "exchange": "amq.direct", "routing_key": "k"}),
            Step("B", 1, "queue.bind", {"queue": "q0", "exchange": "amq.match", "arguments": {"x-match": 1}}),
        ),
    ),
    Script(
        "the tag of a reply consumer",
        (
            Step("A", 1, "queue.declare", {"queue": "q0"}),
            Step("A", 1, "basic.consume", {"queue": "amq.rabbitmq.reply-to", "consumer_tag": "t0", "no_ack": True}),
            Step("A", 1, "basic.consume", {"queue": "q0", "consumer_tag": "t0"}),
        ),
    ),
    Script(
        "delete-ok before the cancels",
        (
            Step("A", 1, "queue.declare", {"queue": "q0"}),
            Step("A", 1, "basic.consume", {"queue": "q0", "consumer_tag": "t0"}),
            Step("B", 1, "basic.consume", {"queue": "q0", "consumer_tag": "t0"}),
            Step("A", 1, "queue.delete", {"queue": "q0"}),
        ),
    ),
    Script(
        "a method on a channel that was never opened, without a queue's name",
        (Step("A", 7, "queue.delete", {}, ready=False),),
    ),
    Script(
        "content of another class on a channel that was never opened",
        (
            Step(
                "A",
                7,
                "raw",
                {"frames": [(1, bytes.fromhex("003c0028" + 10 * "0")), (2, bytes.fromhex("00320000" + 15 * "0" + "3" + "0000"))]},
                ready=False,
            ),
        ),
    ),
    Script(
        "messages got on a channel that waits for close-ok",
        (
            Step("A", 1, "queue.declare", {"queue": "q0"}),
            Step("A", 1, "publish", {"routing_key": "q0", "body": b"m"}),
            Step("A", 1, "basic.get", {"queue": "q0"}),
            Step("A", 1, "tx.commit", {}, lingers=True),
        ),
    ),
)
