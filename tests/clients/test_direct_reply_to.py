"""Direct reply-to: requests and replies without a reply queue, from worker to worker; its names, its refusals, and who has gone."""

from __future__ import annotations

import re

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic, Queue

from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.refusal import channel_closed, connection_closed
from tests.returns import Returns
from tests.wire import WireClient

NAME = "amq.rabbitmq.reply-to"


class Requester:
    """A channel that consumes direct replies."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.channel = channel
        self.inbox = Inbox(channel, NAME, auto_ack=True)

    def ask(self, queue: str, body: bytes, **properties: object) -> None:
        self.channel.basic_publish("", queue, body, pika.BasicProperties(reply_to=NAME, **properties))


def reply_name(placement: Placement, requester: Requester) -> str:
    """The name under which a server reaches the requester."""
    queue = placement.queue()
    requester.ask(queue, b"who?")
    reply_to = Inbox(placement.owner, queue, auto_ack=True).take_one().properties.reply_to
    assert isinstance(reply_to, str)
    return reply_to


def test_a_request_is_answered_without_a_queue(placement: Placement) -> None:
    queue = placement.queue()
    requester = Requester(placement.publisher)
    server = Inbox(placement.consumer, queue)
    for number in range(50):
        requester.ask(queue, str(number).encode(), correlation_id=str(number))
    for request in server.take(50):
        properties = pika.BasicProperties(correlation_id=request.properties.correlation_id)
        placement.consumer.basic_publish("", request.properties.reply_to, request.body + b"!", properties)
        placement.consumer.basic_ack(request.tag)
    replies = requester.inbox.take(50)
    assert [(reply.properties.correlation_id, reply.body) for reply in replies] == [(str(n), f"{n}!".encode()) for n in range(50)]
    if not placement.broker.is_peer:  # before 4.2 RabbitMQ gives all of them the same tag
        assert [reply.tag for reply in replies] == list(range(1, 51))
    assert {(reply.method.consumer_tag, reply.method.exchange, reply.method.redelivered) for reply in replies} == {
        (requester.inbox.consumer_tag, "", False)
    }


def test_the_request_carries_a_name_of_the_channels_own(placement: Placement) -> None:
    first, second = Requester(placement.publisher), Requester(placement.publisher.connection.channel())
    names = [reply_name(placement, requester) for requester in (first, first, second)]
    assert all(re.fullmatch(r"amq\.rabbitmq\.reply-to\.[A-Za-z0-9_.=+/-]+", name) for name in names), names
    assert names[0] == names[1] != names[2]
    for requester, name in ((first, names[0]), (second, names[2])):
        placement.consumer.basic_publish("", name, name.encode())
        reply = requester.inbox.take_one()
        assert (reply.method.routing_key, reply.body) == (name, name.encode())


def test_only_the_channels_own_requests_are_rewritten(placement: Placement) -> None:
    queue = placement.queue()
    requester = Requester(placement.publisher)
    requester.channel.basic_publish("", queue, b"", pika.BasicProperties(reply_to="my-queue", message_id="m", headers={"a": 1}))
    requester.ask(queue, b"", message_id="m", headers={"a": 1}, content_type="c", priority=3)
    other, rewritten = Inbox(placement.consumer, queue, auto_ack=True).take(2)
    assert other.properties == pika.BasicProperties(reply_to="my-queue", message_id="m", headers={"a": 1})
    expected = {"message_id": "m", "headers": {"a": 1}, "content_type": "c", "priority": 3}
    assert rewritten.properties == pika.BasicProperties(reply_to=rewritten.properties.reply_to, **expected)
    assert rewritten.properties.reply_to.startswith(NAME + ".")


def test_a_request_goes_through_a_named_exchange_too(placement: Placement) -> None:
    exchange, queue = placement.exchange("topic"), placement.queue()
    placement.owner.queue_bind(queue, exchange, "rpc.#")
    requester = Requester(placement.publisher)
    requester.channel.basic_publish(exchange, "rpc.add", b"2+2", pika.BasicProperties(reply_to=NAME))
    request = Inbox(placement.consumer, queue, auto_ack=True).take_one()
    placement.consumer.basic_publish("", request.properties.reply_to, b"4")
    assert requester.inbox.bodies(1) == [b"4"]


def test_large_replies_arrive_whole(placement: Placement) -> None:
    requester = Requester(placement.publisher)
    name = reply_name(placement, requester)
    body = bytes(range(256)) * 4096  # eight frames
    placement.consumer.basic_publish("", name, body)
    assert requester.inbox.bodies(1) == [body]


# --- who has gone


@pytest.mark.parametrize("how", ["cancel", "channel", "connection"])
def test_a_reply_to_one_who_has_gone_is_dropped_and_counts_as_routed(placement: Placement, how: str) -> None:
    connection = placement.connect(placement.sites.publisher)
    requester = Requester(connection.channel())
    name = reply_name(placement, requester)
    if how == "cancel":
        requester.inbox.cancel()
    elif how == "channel":
        requester.channel.close()
    else:
        connection.close()
    server = placement.consumer
    server.confirm_delivery()
    server.basic_publish("", name, b"too late")
    assert server.is_open


@pytest.mark.not_on_peer("3.10 returns a mandatory reply to a requester that has gone; 4.2 does not")
def test_a_mandatory_reply_is_never_returned(placement: Placement) -> None:
    connection = placement.connect(placement.sites.publisher)
    name = reply_name(placement, Requester(connection.channel()))
    connection.close()
    returns = Returns(placement.consumer)
    placement.consumer.basic_publish("", name, b"too late", mandatory=True)
    placement.consumer.basic_publish("", "no-such-queue", b"unroutable", mandatory=True)
    assert [message[4] for message in returns.wait(1)] == [b"unroutable"]


@pytest.mark.not_on_peer("RabbitMQ's names are made otherwise")
@pytest.mark.parametrize(
    "forge",
    [
        lambda name: name[:-1] + ("A" if name[-1] != "A" else "B"),
        lambda name: name[: len(NAME) + 1] + "3f" + name[len(NAME) + 3 :],
        lambda name: name[: len(NAME) + 1] + "ffffffffff" + name[len(NAME) + 11 :],
        lambda name: name[: len(NAME) + 1] + "zz" + name[len(NAME) + 3 :],
        lambda name: name[:-5],
        lambda name: name + "x",
        lambda name: NAME + ".",
        lambda name: NAME + "." + "0" * 100,
    ],
    ids=["last letter", "another worker", "no such worker", "no number", "cut short", "too long", "nothing", "only zeros"],
)
def test_a_forged_name_reaches_nobody(placement: Placement, forge: object) -> None:
    requester = Requester(placement.publisher)
    name = reply_name(placement, requester)
    forged = forge(name)  # type: ignore[operator]
    assert forged != name
    placement.consumer.basic_publish("", forged, b"forged")
    placement.consumer.basic_publish("", name, b"true")
    assert requester.inbox.bodies(1) == [b"true"]
    assert requester.inbox.waiting == []
    with channel_closed(404, f"NOT_FOUND - no queue '{forged}' in vhost '/'"):
        placement.consumer.queue_declare(forged, passive=True)


# --- the name as a queue


@pytest.mark.parametrize("passive", [False, True])
def test_declaring_the_name_tells_whether_somebody_waits(placement: Placement, passive: bool) -> None:
    connection = placement.connect(placement.sites.publisher)
    name = reply_name(placement, Requester(connection.channel()))
    answer = placement.consumer.queue_declare(name, passive=passive).method
    assert (answer.queue, answer.message_count, answer.consumer_count) == (name, 0, 1)
    connection.close()
    with channel_closed(404, f"NOT_FOUND - no queue '{name}' in vhost '/'"):
        placement.consumer.queue_declare(name, passive=passive)


def test_declaring_the_general_name_is_answered(placement: Placement) -> None:
    answer = placement.consumer.queue_declare(NAME, passive=True).method
    assert (answer.queue, answer.message_count) == (NAME, 0)


@pytest.mark.not_on_peer("the refusal came with 4.2; before, it was 404")
@pytest.mark.parametrize("general", [True, False], ids=["general name", "own name"])
def test_the_name_can_be_neither_bound_nor_unbound(placement: Placement, general: bool) -> None:
    name = NAME if general else reply_name(placement, Requester(placement.publisher))
    text = "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue"
    connection = placement.connect(placement.sites.consumer)
    with channel_closed(403, text):
        connection.channel().queue_bind(name, "amq.direct", "k")
    with channel_closed(403, text):
        connection.channel().queue_unbind(name, "amq.direct", "k")


# --- refusals


def test_a_reply_consumer_cannot_acknowledge(placement: Placement) -> None:
    with channel_closed(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        Inbox(placement.publisher, NAME)


def test_a_channel_has_one_reply_consumer(placement: Placement) -> None:
    requester = Requester(placement.publisher)
    with channel_closed(406, "PRECONDITION_FAILED - reply consumer already set"):
        Requester(requester.channel)


def test_the_refusals_have_an_order(placement: Placement) -> None:
    requester = Requester(placement.publisher)
    with channel_closed(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        Inbox(requester.channel, NAME)


def test_after_a_cancel_there_may_be_another(placement: Placement) -> None:
    Requester(placement.publisher).inbox.cancel()
    requester = Requester(placement.publisher)
    placement.consumer.basic_publish("", reply_name(placement, requester), b"reply")
    assert requester.inbox.bodies(1) == [b"reply"]


def test_a_request_from_a_channel_without_a_reply_consumer_is_406(placement: Placement) -> None:
    queue = placement.queue()
    Requester(placement.publisher)
    channel = placement.publisher.connection.channel()  # another channel's consumer does not count
    with channel_closed(406, "PRECONDITION_FAILED - fast reply consumer does not exist"):
        channel.basic_publish("", queue, b"x", pika.BasicProperties(reply_to=NAME))
        channel.queue_declare(queue, passive=True)


@pytest.mark.not_on_peer("RabbitMQ gives the same tag to two consumers then")
def test_the_reply_consumers_tag_is_the_channels_like_any_other(placement: Placement) -> None:
    channel = placement.connect(placement.sites.publisher).channel()
    requester = Requester(channel)
    channel._impl._consumers.pop(requester.inbox.consumer_tag, None)  # pika itself would refuse the tag
    queue = placement.queue()
    with connection_closed(530, f"NOT_ALLOWED - attempt to reuse consumer tag '{requester.inbox.consumer_tag}'"):
        channel._impl._send_method(Basic.Consume(queue=queue, consumer_tag=requester.inbox.consumer_tag))
        channel.queue_declare(queue, passive=True)


def test_getting_from_the_general_name_is_refused(placement: Placement) -> None:
    with pytest.raises(ChannelClosedByBroker) as closed:
        placement.publisher.basic_get(NAME)
    assert closed.value.reply_code == 404


def test_replies_come_to_a_channel_whatever_its_prefetch_and_acks(placement: Placement) -> None:
    requester = Requester(placement.publisher)
    requester.channel.basic_qos(prefetch_count=1)
    name = reply_name(placement, requester)
    for number in range(10):
        placement.consumer.basic_publish("", name, str(number).encode())
    assert requester.inbox.bodies(10) == [str(number).encode() for number in range(10)]


@pytest.mark.not_on_peer("RabbitMQ refuses channel.flow with active=false")
def test_replies_wait_while_the_flow_is_stopped(placement: Placement) -> None:
    requester = Requester(placement.publisher)
    name = reply_name(placement, requester)
    requester.channel.flow(active=False)
    placement.consumer.basic_publish("", name, b"reply")
    placement.consumer.queue_declare(name, passive=True)
    requester.channel.queue_declare(NAME, passive=True)
    assert requester.inbox.waiting == []
    requester.channel.flow(active=True)
    assert requester.inbox.bodies(1) == [b"reply"]


def test_consume_ok_comes_before_the_first_reply_and_nowait_sends_none(broker: Broker) -> None:
    with WireClient.opened(broker) as client:
        client.open_channel()
        client.send_method(1, Basic.Consume(queue=NAME, consumer_tag="t", no_ack=True, nowait=True))
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        client.expect(Queue.DeclareOk, 1)
        client.send_method(1, Basic.Cancel(consumer_tag="t"))
        assert client.expect(Basic.CancelOk, 1).consumer_tag == "t"
