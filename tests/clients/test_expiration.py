"""The expiration property's syntax: milliseconds in decimal digits, at most ten years; RabbitMQ's words for anything else."""

from __future__ import annotations

import pika
import pytest

from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed


@pytest.mark.parametrize("expiration", ["60000", "315360000000", "000060000"])
@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_milliseconds_up_to_ten_years_are_taken_and_delivered(placement: Placement, expiration: str, exchange: str) -> None:
    queue = placement.queue()
    placement.owner.queue_bind(queue, "amq.direct", queue)
    placement.publisher.basic_publish(exchange, queue, b"x", pika.BasicProperties(expiration=expiration))
    assert Inbox(placement.consumer, queue, auto_ack=True).take_one().properties.expiration == expiration


@pytest.mark.parametrize(
    ("expiration", "reason"),
    [
        ("soon", "no_integer"),
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("-", "no_integer"),
        ("5 ", '{leftover_string," "}'),
        ("100ms", '{leftover_string,"ms"}'),
        ("1.5", '{leftover_string,".5"}'),
        ("1e3", '{leftover_string,"e3"}'),
        ("315360000000000000", "{value_too_large,315360000000000000}"),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
        ("99999999999999999999", "{value_too_large,\n" + 44 * " " + "99999999999999999999}"),
    ],
)
@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_anything_else_is_406(placement: Placement, expiration: str, reason: str, exchange: str) -> None:
    queue = placement.queue()
    text = f"PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}"
    with channel_closed(406, text):
        placement.publisher.basic_publish(exchange, queue, b"x", pika.BasicProperties(expiration=expiration))
        placement.publisher.queue_declare(queue, passive=True)
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == 0
