"""Direct reply-to: names under which a requester is answered without a queue, as in RabbitMQ.

A channel that consumes from `amq.rabbitmq.reply-to` gets a name of its own; it stands in the reply-to of its requests, and a publish to the
default exchange with that name as routing key reaches the channel at once, on whichever worker it is. The name says where (worker and
subscription) and carries 128 random bits, so that nobody can answer whom it has not been asked by.

    amq.rabbitmq.reply-to.<worker, 2 hex digits><subscription, 8 hex digits>.<22 characters of base64>
"""

from __future__ import annotations

import base64
import os

NAME = "amq.rabbitmq.reply-to"
PREFIX = NAME + "."
HEX_DIGITS = frozenset("0123456789abcdef")


def new_name(worker: int, ref: int) -> bytes:
    """A name for the subscription `ref` of that worker."""
    secret = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=")
    return b"%s%02x%08x.%s" % (PREFIX.encode(), worker, ref, secret)


def place_of(name: str) -> tuple[int, int] | None:
    """Worker and subscription that a name leads to; None if it is none of ours."""
    place = name.removeprefix(PREFIX)
    if len(place) < 11 or place == name or place[10] != ".":
        return None
    digits = place[:10]
    if not HEX_DIGITS.issuperset(digits):  # int() takes signs, blanks and the digits of every script as well
        return None
    return int(digits[:2], 16), int(digits[2:], 16)
