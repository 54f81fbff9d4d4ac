"""Transactions: nothing is in a queue and nothing settled before commit-ok; all of it is after it; nothing after a rollback."""

from __future__ import annotations

import os
import signal

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, Confirm, Queue, Tx

from tests.conftest import MakeNode
from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement, connect_on
from tests.refusal import channel_closed
from tests.returns import Returns
from tests.wire import WireClient, publish_bytes

KINDS = ["default exchange", "named exchange"]


def transactional(placement: Placement) -> BlockingChannel:
    """The publisher's channel, in transaction mode."""
    placement.publisher.tx_select()
    return placement.publisher


def ready(placement: Placement, queue: str) -> int:
    return int(placement.owner.queue_declare(queue, passive=True).method.message_count)


def target(placement: Placement, kind: str) -> tuple[str, str, str]:
    """A queue, and exchange and routing key that lead to it."""
    queue = placement.queue()
    if kind == "default exchange":
        return queue, "", queue
    exchange = placement.exchange("direct")
    placement.owner.queue_bind(queue, exchange, "k")
    return queue, exchange, "k"


def held(placement: Placement, count: int) -> tuple[str, BlockingChannel, list[int]]:
    """A queue whose `count` messages are unacked on the consumer's channel, which is transactional; their delivery tags."""
    queue = placement.queue()
    for number in range(count):
        placement.owner.basic_publish("", queue, str(number).encode())
    channel = placement.consumer
    channel.tx_select()
    return queue, channel, [delivery.tag for delivery in Inbox(channel, queue).take(count)]


# --- publishes


@pytest.mark.parametrize("kind", KINDS)
def test_publishes_are_in_the_queue_after_the_commit_and_not_before(placement: Placement, kind: str) -> None:
    queue, exchange, key = target(placement, kind)
    channel = transactional(placement)
    for number in range(5):
        channel.basic_publish(exchange, key, str(number).encode())
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
    assert channel.basic_get(queue) == (None, None, None)
    channel.tx_commit()
    assert ready(placement, queue) == 5
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(5) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_forgets_publishes_and_the_next_transaction_begins_empty(placement: Placement, kind: str) -> None:
    queue, exchange, key = target(placement, kind)
    channel = transactional(placement)
    channel.basic_publish(exchange, key, b"forgotten")
    channel.tx_rollback()
    channel.basic_publish(exchange, key, b"kept")
    channel.tx_commit()
    channel.basic_publish(exchange, key, b"never committed")
    channel.tx_rollback()
    channel.tx_commit()
    assert ready(placement, queue) == 1
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(1) == [b"kept"]


def test_uncommitted_publishes_end_with_the_channel(placement: Placement) -> None:
    queue = placement.queue()
    channel = transactional(placement)
    channel.basic_publish("", queue, b"x")
    channel.close()
    assert ready(placement, queue) == 0


def test_commit_ok_comes_when_the_queues_of_every_worker_have_their_messages(placement: Placement) -> None:
    exchange = placement.exchange("fanout")
    owners = [placement.publisher, placement.owner, placement.consumer]
    queues = []
    for owner in owners:
        queues.append(owner.queue_declare("", exclusive=True).method.queue)
        owner.queue_bind(queues[-1], exchange)
    channel = placement.connect(placement.sites.publisher).channel()
    channel.tx_select()
    for round_ in range(1, 6):
        for number in range(100):
            channel.basic_publish(exchange, "", str(number).encode())
        channel.tx_commit()
        counts = [owner.queue_declare(queue, passive=True).method.message_count for owner, queue in zip(owners, queues, strict=True)]
        assert counts == [100 * round_] * 3
    for owner, queue in zip(owners, queues, strict=True):
        assert Inbox(owner, queue, auto_ack=True).bodies(500) == [str(number).encode() for number in range(100)] * 5


def test_a_commit_goes_to_different_queues_and_exchanges_in_the_order_of_publishing(placement: Placement) -> None:
    queue, exchange, key = target(placement, "named exchange")
    other = placement.queue()
    channel = transactional(placement)
    for number in range(30):
        channel.basic_publish(exchange, key, str(number).encode())
        channel.basic_publish("", other, str(number).encode())
        channel.basic_publish(exchange, "nowhere", b"lost")
    channel.tx_commit()
    expected = [str(number).encode() for number in range(30)]
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(30) == expected
    assert Inbox(placement.consumer, other, auto_ack=True).bodies(30) == expected
    assert [ready(placement, name) for name in (queue, other)] == [0, 0]


@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_unroutable_mandatory_publishes_come_back_at_the_commit_and_before_its_answer(broker: Broker, exchange: str) -> None:
    with WireClient.opened(broker) as client:
        client.open_channel().send_method(1, Tx.Select())
        client.expect(Tx.SelectOk, 1)
        client.send(publish_bytes(1, exchange, "no-such-key", b"back", mandatory=True))
        client.send(publish_bytes(1, exchange, "no-such-key", b"lost"))
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        client.expect(Queue.DeclareOk, 1)  # no return yet
        client.send_method(1, Tx.Commit())
        returned = client.expect(Basic.Return, 1)
        assert (returned.reply_code, returned.reply_text, returned.exchange) == (312, "NO_ROUTE", exchange)
        header, body = client.receive(), client.receive()
        assert (header.body_size, body.fragment) == (4, b"back")
        client.expect(Tx.CommitOk, 1)


def test_a_rolled_back_mandatory_publish_is_not_returned(placement: Placement) -> None:
    channel = transactional(placement)
    returns = Returns(channel)
    channel.basic_publish("", "no-such-queue", b"x", mandatory=True)
    channel.tx_rollback()
    channel.tx_commit()
    assert returns.messages == []


def test_a_publish_to_a_missing_exchange_closes_the_channel_before_any_commit(placement: Placement) -> None:
    queue = placement.queue()
    channel = transactional(placement)
    channel.basic_publish("", queue, b"gone with the channel")
    with channel_closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'"):
        channel.basic_publish("missing", "k", b"")
        channel.tx_commit()
    assert ready(placement, queue) == 0


def test_a_queue_deleted_before_the_commit_leaves_the_rest_of_it_whole(placement: Placement) -> None:
    doomed, queue = placement.queue(), placement.queue()
    channel = transactional(placement)
    channel.basic_publish("", doomed, b"lost")
    channel.basic_publish("", queue, b"kept")
    placement.owner.queue_delete(doomed)
    channel.tx_commit()
    assert channel.is_open
    assert ready(placement, queue) == 1


@pytest.mark.not_on_peer("RabbitMQ has routed the message by then; here it is routed at the commit")
def test_an_exchange_deleted_before_the_commit_makes_its_messages_unroutable(placement: Placement) -> None:
    queue, exchange, key = target(placement, "named exchange")
    channel = transactional(placement)
    returns = Returns(channel)
    channel.basic_publish(exchange, key, b"back", mandatory=True)
    channel.basic_publish(exchange, key, b"lost")
    channel.basic_publish("", queue, b"kept")
    channel.queue_declare(queue, passive=True)  # its worker has read the publishes, and still found the exchange
    placement.owner.exchange_delete(exchange)
    channel.tx_commit()
    assert [message[4] for message in returns.wait(1)] == [b"back"]
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(1) == [b"kept"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_that_a_worker_dies_over_is_406(fresh_node: MakeNode, kind: str) -> None:
    """The queue's worker is stopped, so that the commit waits for it, and then killed."""
    node = fresh_node(workers=2)
    with connect_on(node, 0) as connection:
        declaring = connect_on(node, 1).channel()  # a connection that dies with its worker
        declaring.queue_declare("q", durable=True)
        declaring.queue_bind("q", "amq.direct", "q")
        channel = connection.channel()
        channel.tx_select()
        os.kill(node.workers()[1], signal.SIGSTOP)
        channel.basic_publish("" if kind == "default exchange" else "amq.direct", "q", b"x")
        channel._impl._send_method(Tx.Commit())
        connection.process_data_events(0.3)
        assert channel.is_open, "the commit waits"
        node.kill_process("worker-1")
        with channel_closed(406, "PRECONDITION_FAILED - partial tx completion"):
            channel.basic_qos()
        assert connection.channel().is_open


def test_transactions_of_two_channels_do_not_mix(placement: Placement) -> None:
    queue = placement.queue()
    first, second = transactional(placement), placement.publisher.connection.channel()
    second.tx_select()
    first.basic_publish("", queue, b"first")
    second.basic_publish("", queue, b"second")
    second.tx_commit()
    first.tx_rollback()
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(1) == [b"second"]
    assert ready(placement, queue) == 0


def test_a_commit_of_nothing_and_a_second_select_are_answered(placement: Placement) -> None:
    queue = placement.queue()
    channel = transactional(placement)
    channel.tx_commit()
    channel.tx_rollback()
    channel.basic_publish("", queue, b"of the same transaction")
    channel.tx_select()
    channel.tx_commit()
    assert ready(placement, queue) == 1


# --- acks


def test_acks_count_from_the_commit(placement: Placement) -> None:
    queue, channel, tags = held(placement, 3)
    channel.basic_ack(tags[0])
    channel.tx_commit()
    channel.basic_ack(tags[1])
    channel.close()  # what was not committed comes back
    inbox = Inbox(placement.publisher, queue)
    assert [(delivery.body, delivery.method.redelivered) for delivery in inbox.take(2)] == [(b"1", True), (b"2", True)]


def test_after_a_rollback_acked_messages_are_unacked_and_may_be_acked_again(placement: Placement) -> None:
    queue, channel, tags = held(placement, 2)
    channel.basic_ack(tags[0])
    channel.basic_reject(tags[1], requeue=True)
    channel.tx_rollback()
    assert channel.basic_get(queue) == (None, None, None), "neither was requeued"
    channel.basic_ack(tags[1], multiple=True)
    channel.tx_commit()
    channel.close()
    assert ready(placement, queue) == 0


@pytest.mark.parametrize("method", ["ack", "nack", "reject"])
def test_a_delivery_settled_twice_in_one_transaction_is_406(placement: Placement, method: str) -> None:
    _, channel, tags = held(placement, 2)
    settle = {"ack": channel.basic_ack, "nack": channel.basic_nack, "reject": channel.basic_reject}[method]
    channel.basic_ack(tags[0])
    with channel_closed(406, f"PRECONDITION_FAILED - unknown delivery tag {tags[0]}"):
        settle(tags[0])
        channel.tx_commit()


def test_a_multiple_ack_covers_what_the_transaction_has_not_settled_yet(placement: Placement) -> None:
    queue, channel, tags = held(placement, 5)
    channel.basic_nack(tags[1], requeue=True)
    channel.basic_ack(tags[3], multiple=True)
    channel.tx_commit()
    channel.close()
    inbox = Inbox(placement.publisher, queue)
    assert inbox.bodies(2) == [b"1", b"4"]
    inbox.barrier()
    assert inbox.waiting == []


def test_rejects_and_nacks_are_carried_out_at_the_commit(placement: Placement) -> None:
    queue, channel, tags = held(placement, 4)
    channel.basic_reject(tags[0], requeue=False)
    channel.basic_reject(tags[1], requeue=True)
    channel.basic_nack(tags[2], requeue=False)
    channel.basic_nack(tags[3], requeue=True)
    assert ready(placement, queue) == 0
    channel.basic_cancel(channel.consumer_tags[0])
    channel.tx_commit()
    assert Inbox(placement.publisher, queue, auto_ack=True).bodies(2) == [b"1", b"3"]


def test_a_prefetch_has_room_again_after_the_commit_not_after_the_ack(placement: Placement) -> None:
    queue = placement.queue()
    for number in range(2):
        placement.owner.basic_publish("", queue, str(number).encode())
    channel = placement.consumer
    channel.tx_select()
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    first = inbox.take_one()
    channel.basic_ack(first.tag)
    assert inbox.barrier() == 1
    assert inbox.waiting == []
    channel.tx_commit()
    assert inbox.take_one().body == b"1"


def test_what_is_got_and_what_is_published_commit_together(placement: Placement) -> None:
    source, sink = placement.queue(), placement.queue()
    placement.owner.basic_publish("", source, b"work")
    channel = placement.consumer
    channel.tx_select()
    method, _, body = channel.basic_get(source)
    for end in (channel.tx_rollback, channel.tx_commit):
        channel.basic_publish("", sink, body)
        channel.basic_ack(method.delivery_tag)
        end()
    channel.close()
    assert (ready(placement, source), ready(placement, sink)) == (0, 1)


# --- modes


@pytest.mark.parametrize("act", ["tx_commit", "tx_rollback"])
def test_a_channel_without_tx_select_is_not_transactional(placement: Placement, act: str) -> None:
    channel = placement.publisher
    with channel_closed(406, "PRECONDITION_FAILED - channel is not transactional"):
        getattr(channel, act)()


def test_a_channel_is_transactional_or_confirming_not_both(broker: Broker) -> None:
    with WireClient.opened(broker) as client:
        client.open_channel().send_method(1, Confirm.Select())
        client.expect(Confirm.SelectOk, 1)
        client.send_method(1, Tx.Select())
        client.expect_channel_close(1, 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", 90, 10)
        client.send_method(1, Tx.Select())
        client.expect(Tx.SelectOk, 1)
        client.send_method(1, Confirm.Select())
        client.expect_channel_close(1, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", 85, 10)


def test_persistent_messages_of_a_transaction_keep_their_properties(placement: Placement) -> None:
    queue = placement.queue()
    channel = transactional(placement)
    properties = pika.BasicProperties(delivery_mode=2, headers={"n": 1}, message_id="m", content_type="text/plain")
    channel.basic_publish("", queue, b"x" * 300_000, properties)
    channel.tx_commit()
    delivery = Inbox(placement.consumer, queue, auto_ack=True).take_one()
    assert (delivery.properties, delivery.body) == (properties, b"x" * 300_000)
