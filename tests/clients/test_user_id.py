"""The user_id property: the sender's own name, or anybody's for a user with the tag impersonator."""

from __future__ import annotations

import pika
import pytest

from tests.administration import put_user
from tests.conftest import MakeNode
from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.refusal import channel_closed

TEXT = "PRECONDITION_FAILED - user_id property set to '{}' but authenticated user was '{}'"


@pytest.mark.parametrize("kind", ["default", "direct"])
def test_the_senders_own_name_is_taken_and_delivered(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange = "" if kind == "default" else placement.exchange("direct")
    if exchange:
        placement.owner.queue_bind(queue, exchange, queue)
    placement.publisher.basic_publish(exchange, queue, b"", pika.BasicProperties(user_id=placement.broker.user))
    assert Inbox(placement.consumer, queue, auto_ack=True).take_one().properties.user_id == placement.broker.user


@pytest.mark.parametrize("user_id", ["gues", "guest2", "Guest", "", "gu\u00e9st"])
def test_any_other_name_is_406_and_the_message_goes_nowhere(broker: Broker, user_id: str) -> None:
    with broker.connect() as connection:
        queue = connection.channel().queue_declare("", exclusive=True).method.queue
        channel = connection.channel()
        with channel_closed(406, TEXT.format(user_id, broker.user)):
            channel.basic_publish("", queue, b"", pika.BasicProperties(user_id=user_id))
            channel.queue_declare(queue, passive=True)
        assert connection.channel().queue_declare(queue, passive=True).method.message_count == 0


def test_an_impersonator_may_speak_for_others(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=1)
    put_user(node, "gateway", "g", tags=("impersonator",))
    put_user(node, "boss", "b", tags=("administrator",))
    for user, password in (("gateway", "g"), ("boss", "b")):
        node.user, node.password = user, password
        with node.connect() as connection:
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            if user == "boss":
                with channel_closed(406, TEXT.format("alice", "boss")):
                    channel.basic_publish("", queue, b"", pika.BasicProperties(user_id="alice"))
                    channel.queue_declare(queue, passive=True)
            else:
                channel.basic_publish("", queue, b"", pika.BasicProperties(user_id="alice"))
                assert channel.basic_get(queue, auto_ack=True)[1].user_id == "alice"
    node.user, node.password = "guest", "guest"
