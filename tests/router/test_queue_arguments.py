"""What a queue's arguments may be: RabbitMQ's words for what they may not, by table; and the rules that they become."""

from __future__ import annotations

from typing import Any

import pytest
from leveret.codec.errors import PreconditionFailed
from leveret.codec.tables import Timestamp, Typed, encode_table
from leveret.queue.rules import NO_RULES, Rules
from leveret.router.arguments import check_queue_arguments, check_same_queue_arguments

DESCRIBED = "queue 'q' in vhost '/'"
YEARS = 315_360_000_000  # ten, in milliseconds
TIMES = ("x-message-ttl", "x-expires")
NO_INTEGERS = (("5", "longstr"), (1.5, "double"), (True, "bool"), (None, "void"), ([1], "array"), (Timestamp(1), "timestamp"))
COUNTS = ("x-max-length", "x-max-length-bytes")


def check(arguments: dict[str, Any]) -> None:
    check_queue_arguments(encode_table(arguments), DESCRIBED)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        *({name: value} for name in TIMES for value in (1, 255, 2**31, YEARS)),
        *({name: value} for name in COUNTS for value in (0, 1, 2**62)),
        {"x-message-ttl": 0},
        {"x-dead-letter-exchange": ""},
        {"x-dead-letter-exchange": "x", "x-dead-letter-routing-key": ""},
        {"x-dead-letter-exchange": Typed("S", b"\xff"), "x-dead-letter-routing-key": "k" * 255},
        {"x-overflow": "drop-head"},
        {"x-overflow": "reject-publish"},
        {"x-overflow": "reject-publish-dlx"},
    ],
)
def test_values_that_are_taken(arguments: dict[str, Any]) -> None:
    check(arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        *(({name: -1}, f"invalid arg '{name}' for {DESCRIBED}: {{value_negative,-1}}") for name in TIMES + COUNTS),
        *(({name: YEARS + 1}, f"invalid arg '{name}' for {DESCRIBED}: {{value_too_large,{YEARS + 1}}}") for name in TIMES),
        *(
            ({name: value}, f"invalid arg '{name}' for {DESCRIBED}: \"expected integer, got {kind}\"")
            for name in TIMES + COUNTS
            for value, kind in (
                ("5", "longstr"),
                (1.5, "double"),
                (True, "bool"),
                (None, "void"),
                ([1], "array"),
                (Timestamp(1), "timestamp"),
            )
        ),
        ({"x-expires": 0}, f"invalid arg 'x-expires' for {DESCRIBED}: {{value_zero,0}}"),
        ({"x-overflow": "drop"}, f"invalid arg 'x-overflow' for {DESCRIBED}: invalid_overflow"),
        ({"x-overflow": 1}, f"invalid arg 'x-overflow' for {DESCRIBED}: {{unacceptable_type,signedint}}"),
        ({"x-dead-letter-exchange": 1}, f"invalid type 'signedint' for arg 'x-dead-letter-exchange' in {DESCRIBED}"),
        ({"x-dead-letter-routing-key": "k"}, f"invalid arg 'x-dead-letter-routing-key' for {DESCRIBED}: routing_key_but_no_dlx_defined"),
        (
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": []},
            f"invalid arg 'x-dead-letter-routing-key' for {DESCRIBED}: {{unacceptable_type,array}}",
        ),
        (
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "é" * 128},
            f"invalid arg 'x-dead-letter-routing-key' for {DESCRIBED}: a routing key has at most 255 bytes",
        ),
        # Of several the one that RabbitMQ sees first.
        ({"x-message-ttl": -1, "x-expires": -1}, f"invalid arg 'x-expires' for {DESCRIBED}: {{value_negative,-1}}"),
        ({"x-max-length": -1, "x-dead-letter-exchange": 4}, f"invalid type 'signedint' for arg 'x-dead-letter-exchange' in {DESCRIBED}"),
    ],
)
def test_values_that_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        check(arguments)
    assert str(refused.value) == f"PRECONDITION_FAILED - {text}"


def test_integers_of_different_widths_are_the_same_argument() -> None:
    byte, long = (encode_table({"x-message-ttl": Typed(tag, 100)}) for tag in "bl")
    check_same_queue_arguments(byte, long, DESCRIBED)
    other = encode_table({"x-message-ttl": Typed("l", 101)})
    with pytest.raises(PreconditionFailed, match=r"inequivalent arg 'x-message-ttl' .* received '101' but current is '100'"):
        check_same_queue_arguments(byte, other, DESCRIBED)


def test_the_rules_that_arguments_ask_for() -> None:
    assert Rules.of({}) == Rules.of({"x-colour": "brown"}) == NO_RULES
    rules = Rules.of(
        {
            "x-message-ttl": 1,
            "x-expires": 2,
            "x-max-length": 3,
            "x-max-length-bytes": 4,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "é",
        }
    )
    assert rules == Rules(1, 2, 3, 4, "reject-publish", "", "é".encode())
    assert Rules.of({"x-dead-letter-exchange": b"\xff"}).dead_letter_exchange == "�"
