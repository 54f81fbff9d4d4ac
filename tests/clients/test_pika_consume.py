"""Consuming by pika: consume, cancel, ack, nack, reject, requeue and its order, prefetch, get, recover."""

from __future__ import annotations

import itertools

import pika
import pytest
from pika.exceptions import DuplicateConsumerTag

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed, connection_closed


def fill(placement: Placement, queue: str, count: int) -> list[bytes]:
    """Publish `count` numbered messages and wait until they are in; gives their bodies."""
    bodies = [str(number).encode() for number in range(count)]
    for body in bodies:
        placement.publisher.basic_publish("", queue, body)
    assert eventually(lambda: ready(placement, queue) == count, what=f"{count} ready messages")
    return bodies


def ready(placement: Placement, queue: str) -> int:
    """Messages ready in the queue, as its owner says."""
    return int(placement.owner.queue_declare(queue, passive=True).method.message_count)


# --- consume and cancel


def test_what_is_queued_comes_first_and_what_is_published_later_follows(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 5)
    inbox = Inbox(placement.consumer, queue)
    assert inbox.bodies(5) == bodies
    placement.publisher.basic_publish("", queue, b"later")
    delivery = inbox.take_one()
    assert (delivery.body, delivery.tag, delivery.method.redelivered) == (b"later", 6, False)
    assert delivery.method.consumer_tag == inbox.consumer_tag


def test_consumers_of_one_queue_take_turns(placement: Placement) -> None:
    queue = placement.queue()
    connection = placement.connect(placement.sites.consumer)
    inboxes = [Inbox(connection.channel(), queue, auto_ack=True) for _ in range(3)]
    for number in range(30):
        placement.publisher.basic_publish("", queue, str(number).encode())
    shares = [list(map(int, inbox.bodies(10))) for inbox in inboxes]
    assert sorted(itertools.chain.from_iterable(shares)) == list(range(30))
    assert all(share == sorted(share) for share in shares)


def test_a_consumer_tag_can_be_chosen_and_is_made_up_by_the_server_else(placement: Placement) -> None:
    queue = placement.queue()
    assert Inbox(placement.consumer, queue, consumer_tag="mine").consumer_tag == "mine"
    channel = placement.connect(placement.sites.consumer).channel()
    answered: list[pika.frame.Method[pika.spec.Basic.ConsumeOk]] = []
    # pika makes up tags by itself, so the empty one goes past its consumers' book-keeping.
    channel._impl._rpc(pika.spec.Basic.Consume(queue=queue, consumer_tag=""), answered.append, [pika.spec.Basic.ConsumeOk])
    assert eventually(lambda: channel.connection.process_data_events(0.2) or answered)
    assert answered[0].method.consumer_tag.startswith("amq.ctag-")


def test_a_consumer_tag_used_twice_on_a_channel_is_530(placement: Placement) -> None:
    queue = placement.queue()
    connection = placement.connect(placement.sites.consumer)
    channel = connection.channel()
    Inbox(channel, queue, consumer_tag="twin")
    with pytest.raises(DuplicateConsumerTag):
        Inbox(channel, queue, consumer_tag="twin")
    Inbox(connection.channel(), queue, consumer_tag="twin")  # another channel may
    channel._impl._send_method(pika.spec.Basic.Consume(queue=queue, consumer_tag="twin"))
    with connection_closed(530, "NOT_ALLOWED - attempt to reuse consumer tag 'twin'"):
        channel.queue_declare(queue, passive=True)


def test_consuming_a_missing_queue_is_404(placement: Placement) -> None:
    with channel_closed(404, "NOT_FOUND - no queue 'missing' in vhost '/'"):
        Inbox(placement.consumer, "missing")


def test_an_exclusive_consumer_keeps_others_out(placement: Placement) -> None:
    queue = placement.queue()
    text = f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    only = Inbox(placement.consumer, queue, exclusive=True)
    other = placement.connect(placement.sites.publisher)
    with channel_closed(403, text):
        Inbox(other.channel(), queue)
    with channel_closed(403, text):
        Inbox(other.channel(), queue, exclusive=True)
    only.cancel()
    Inbox(other.channel(), queue)
    with channel_closed(403, text):
        Inbox(placement.consumer, queue, exclusive=True)


def test_a_cancelled_consumer_gets_no_more_and_may_still_ack(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 1)
    inbox = Inbox(placement.consumer, queue)
    held = inbox.take_one()
    inbox.cancel()
    placement.publisher.basic_publish("", queue, b"stays")
    assert eventually(lambda: ready(placement, queue) == 1)
    assert inbox.waiting == []
    placement.consumer.basic_ack(held.tag)
    assert placement.consumer.basic_get(queue, auto_ack=True)[2] == b"stays"


def test_cancelling_an_unknown_tag_is_answered(placement: Placement) -> None:
    channel = placement.consumer
    answered: list[object] = []
    channel._impl._rpc(pika.spec.Basic.Cancel(consumer_tag="nobody"), answered.append, [pika.spec.Basic.CancelOk])
    assert eventually(lambda: channel.connection.process_data_events(0.2) or answered)


def test_the_consume_generator_works(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 10)
    seen = []
    for method, _, body in placement.consumer.consume(queue, inactivity_timeout=10):
        assert method is not None, "nothing came"
        seen.append(body)
        placement.consumer.basic_ack(method.delivery_tag)
        if len(seen) == len(bodies):
            break
    placement.consumer.cancel()
    assert seen == bodies


# --- settling


def test_acked_messages_are_gone(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 10)
    inbox = Inbox(placement.consumer, queue)
    for delivery in inbox.take(10):
        placement.consumer.basic_ack(delivery.tag)
    placement.consumer.close()
    assert ready(placement, queue) == 0


def test_a_multiple_ack_settles_everything_up_to_its_tag(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 10)
    deliveries = Inbox(placement.consumer, queue).take(10)
    placement.consumer.basic_ack(deliveries[6].tag, multiple=True)
    placement.consumer.close()
    assert [delivery.body for delivery in Inbox(placement.publisher, queue).take(3)] == [b"7", b"8", b"9"]


def test_a_multiple_ack_of_tag_0_settles_everything(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 10)
    Inbox(placement.consumer, queue).take(10)
    placement.consumer.basic_ack(0, multiple=True)
    placement.consumer.close()
    assert ready(placement, queue) == 0


def test_acks_may_come_in_any_order(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 50)
    inbox = Inbox(placement.consumer, queue)
    deliveries = inbox.take(50)
    for delivery in deliveries[1::2][::-1]:
        placement.consumer.basic_ack(delivery.tag)
    placement.consumer.basic_ack(deliveries[20].tag, multiple=True)  # over the holes
    placement.consumer.close()
    left = [delivery.body for delivery in Inbox(placement.publisher, queue).take(14)]
    assert left == [str(number).encode() for number in range(22, 50, 2)]


@pytest.mark.parametrize("method", ["ack", "nack", "reject"])
@pytest.mark.parametrize("delivery_tag", [99, 1])
def test_an_unknown_delivery_tag_is_406(placement: Placement, method: str, delivery_tag: int) -> None:
    queue = placement.queue()
    fill(placement, queue, 2)
    channel = placement.consumer
    deliveries = Inbox(channel, queue).take(2)
    channel.basic_ack(deliveries[0].tag)
    settle = {"ack": channel.basic_ack, "nack": channel.basic_nack, "reject": channel.basic_reject}[method]
    with channel_closed(406, f"PRECONDITION_FAILED - unknown delivery tag {delivery_tag}"):
        settle(delivery_tag)
        channel.queue_declare(queue, passive=True)
    assert Inbox(placement.publisher, queue).take_one().body == b"1", "the unacked one came back"


def test_acking_a_delivery_that_needed_no_ack_is_406(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 1)
    channel = placement.consumer
    delivery = Inbox(channel, queue, auto_ack=True).take_one()
    with channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1"):
        channel.basic_ack(delivery.tag)
        channel.queue_declare(queue, passive=True)


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_a_refused_message_without_requeue_is_dropped(placement: Placement, how: str) -> None:
    queue = placement.queue()
    fill(placement, queue, 2)
    channel = placement.consumer
    first, second = Inbox(channel, queue).take(2)
    if how == "nack":
        channel.basic_nack(second.tag, multiple=True, requeue=False)
    else:
        channel.basic_reject(first.tag, requeue=False)
        channel.basic_reject(second.tag, requeue=False)
    channel.close()
    assert ready(placement, queue) == 0


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_a_requeued_message_comes_again_marked_redelivered(placement: Placement, how: str) -> None:
    queue = placement.queue()
    fill(placement, queue, 1)
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    first = inbox.take_one()
    assert not first.method.redelivered
    (channel.basic_nack if how == "nack" else channel.basic_reject)(first.tag, requeue=True)
    again = inbox.take_one()
    assert (again.body, again.method.redelivered) == (first.body, True)
    assert again.tag == first.tag + 1, "a new delivery has a new tag"


def test_requeued_messages_go_back_to_their_old_places(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 10)
    channel = placement.consumer
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(6)]
    channel.basic_nack(tags[4], requeue=True)
    channel.basic_nack(tags[1], requeue=True)
    channel.basic_nack(tags[2], requeue=True)
    expected = [(b"1", True), (b"2", True), (b"4", True), (b"6", False), (b"7", False), (b"8", False), (b"9", False)]
    deliveries = Inbox(placement.connect(placement.sites.publisher).channel(), queue).take(7)
    assert [(delivery.body, delivery.method.redelivered) for delivery in deliveries] == expected


def test_a_multiple_nack_requeues_all_in_order(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 20)
    channel = placement.consumer
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(20)]
    channel.basic_nack(tags[-1], multiple=True, requeue=True)
    deliveries = Inbox(channel, queue).take(20)
    assert [delivery.body for delivery in deliveries] == bodies
    assert all(delivery.method.redelivered for delivery in deliveries)


def test_a_lost_consumers_messages_go_to_the_next_one(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 10)
    connection = placement.connect(placement.sites.consumer)
    Inbox(connection.channel(), queue).take(10)
    connection.close()
    deliveries = Inbox(placement.consumer, queue).take(10)
    assert [(delivery.body, delivery.method.redelivered) for delivery in deliveries] == [(body, True) for body in bodies]


# --- prefetch


def held_back(inbox: Inbox, taken: int, total: int, placement: Placement) -> bool:
    """Whether the queue delivered `taken` of `total` messages in all and holds the rest ready."""
    assert eventually(lambda: ready(placement, inbox.queue) == total - taken, what=f"{total - taken} ready messages")
    inbox.barrier()
    return not inbox.waiting


@pytest.mark.parametrize("prefetch", [1, 3])
def test_prefetch_bounds_the_unacked_messages_of_a_consumer(placement: Placement, prefetch: int) -> None:
    queue = placement.queue()
    fill(placement, queue, 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_count=prefetch)
    inbox = Inbox(channel, queue)
    held = inbox.take(prefetch)
    assert held_back(inbox, prefetch, 10, placement)
    channel.basic_ack(held[0].tag)
    inbox.take_one()
    assert held_back(inbox, prefetch + 1, 10, placement)
    channel.basic_nack(0, multiple=True, requeue=False)
    inbox.take(prefetch)
    assert held_back(inbox, 2 * prefetch + 1, 10, placement)


def test_prefetch_0_is_no_bound(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.consumer
    channel.basic_qos(prefetch_count=0)
    inbox = Inbox(channel, queue)
    for number in range(2000):
        placement.publisher.basic_publish("", queue, str(number).encode())
    assert len(inbox.take(2000)) == 2000


def test_prefetch_does_not_bound_a_consumer_without_acks(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 100)
    placement.consumer.basic_qos(prefetch_count=1)
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(100) == bodies


def test_prefetch_is_each_consumers_own(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_count=2)
    first, second = Inbox(channel, queue), Inbox(channel, queue)
    first.take(2)
    second.take(2)
    assert held_back(first, 4, 10, placement)
    assert second.waiting == []


def test_prefetch_counts_for_consumers_that_come_after_it(placement: Placement) -> None:
    queue, other = placement.queue(), placement.queue()
    fill(placement, queue, 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_count=1)
    early = Inbox(channel, queue)
    early.take(1)
    channel.basic_qos(prefetch_count=4)
    fill(placement, other, 10)
    late = Inbox(channel, other)
    late.take(4)
    assert held_back(late, 4, 10, placement)


def test_a_shared_prefetch_bounds_the_whole_channel(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first, second = Inbox(channel, queue), Inbox(channel, queue)

    def three_came() -> bool:
        channel.connection.process_data_events(time_limit=0.1)
        return len(first.waiting) + len(second.waiting) == 3

    assert eventually(three_came)
    # A queue on another worker sends each consumer up to the limit and the consumers' worker holds back what is beyond it.
    assert ready(placement, queue) in ((7,) if placement.sites.queue == placement.sites.consumer else range(4, 8))
    first.barrier()
    assert len(first.waiting) + len(second.waiting) == 3
    seen = []
    while len(seen) < 10:
        for inbox in (first, second):
            for delivery in inbox.take(len(inbox.waiting)):
                seen.append(delivery.body)
                channel.basic_ack(delivery.tag)
        channel.connection.process_data_events(time_limit=0.1)
        assert len(first.waiting) + len(second.waiting) <= 3
    assert sorted(seen) == [str(number).encode() for number in range(10)]


def test_a_busy_consumer_is_passed_over(placement: Placement) -> None:
    queue = placement.queue()
    busy_channel, free_channel = placement.consumer, placement.publisher.connection.channel()
    busy_channel.basic_qos(prefetch_count=1)
    busy = Inbox(busy_channel, queue)
    fill_one = placement.owner.basic_publish
    fill_one("", queue, b"kept")
    busy.take(1)
    free = Inbox(free_channel, queue)
    for number in range(20):
        fill_one("", queue, str(number).encode())
    assert free.bodies(20) == [str(number).encode() for number in range(20)]


@pytest.mark.not_on_peer("RabbitMQ answers it with 540")
def test_prefetch_size_bounds_the_unacked_bytes_of_a_consumer(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.consumer
    channel.basic_qos(prefetch_size=1000)
    inbox = Inbox(channel, queue)
    placement.publisher.confirm_delivery()
    for number in range(5):
        placement.publisher.basic_publish("", queue, bytes([number]) * 600)
    held = inbox.take_one()
    assert held_back(inbox, 1, 5, placement)
    for number in range(1, 5):
        channel.basic_ack(held.tag)
        held = inbox.take_one()
        assert held.body[0] == number


# --- get


def test_get_takes_one_message_and_tells_how_many_are_left(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 3)
    method, properties, body = placement.consumer.basic_get(queue)
    assert (method.delivery_tag, method.redelivered, method.exchange, method.routing_key) == (1, False, "", queue)
    assert (method.message_count, body, properties) == (2, b"0", pika.BasicProperties())
    placement.consumer.basic_ack(method.delivery_tag)
    assert placement.consumer.basic_get(queue, auto_ack=True)[0].message_count == 1
    placement.consumer.close()
    assert ready(placement, queue) == 1


def test_get_from_an_empty_queue_is_get_empty(placement: Placement) -> None:
    assert placement.consumer.basic_get(placement.queue()) == (None, None, None)


def test_get_from_a_missing_queue_is_404(placement: Placement) -> None:
    with channel_closed(404, "NOT_FOUND - no queue 'missing' in vhost '/'"):
        placement.consumer.basic_get("missing")


def test_a_message_got_without_an_ack_comes_back_with_the_channels_end(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 1)
    placement.consumer.basic_get(queue)
    placement.consumer.close()
    delivery = Inbox(placement.publisher, queue).take_one()
    assert (delivery.body, delivery.method.redelivered) == (b"0", True)


def test_delivery_tags_are_the_channels_whatever_queue_they_come_from(placement: Placement) -> None:
    queues = [placement.queue(), placement.queue()]
    for queue in queues:
        fill(placement, queue, 2)
    tags = [placement.consumer.basic_get(queue)[0].delivery_tag for queue in queues * 2]
    assert tags == [1, 2, 3, 4]
    placement.consumer.basic_ack(4, multiple=True)
    placement.consumer.close()
    assert [ready(placement, queue) for queue in queues] == [0, 0]


# --- recover


def test_recover_requeues_everything_unacked_in_order(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 5)
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    first = inbox.take(5)
    channel.basic_ack(first[2].tag)
    channel.basic_recover(requeue=True)
    again = inbox.take(4)
    assert [delivery.body for delivery in again] == bodies[:2] + bodies[3:]
    assert all(delivery.method.redelivered for delivery in again)
    with channel_closed(406, f"PRECONDITION_FAILED - unknown delivery tag {first[0].tag}"):
        channel.basic_ack(first[0].tag)
        channel.queue_declare(queue, passive=True)


def test_recover_with_nothing_unacked_is_answered(placement: Placement) -> None:
    placement.consumer.basic_recover(requeue=True)
    assert placement.consumer.is_open


@pytest.mark.not_on_peer("RabbitMQ answers it with 540")
def test_recover_without_requeue_delivers_again_to_the_same_consumer(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 4)
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    other = Inbox(placement.connect(placement.sites.consumer).channel(), queue)
    channel.basic_ack(inbox.take(4)[0].tag)
    channel.basic_recover(requeue=False)
    again = inbox.take(3)
    assert [(delivery.body, delivery.method.redelivered) for delivery in again] == [(body, True) for body in bodies[1:]]
    other.barrier()
    assert other.waiting == []
    channel.basic_ack(0, multiple=True)
    channel.close()
    assert ready(placement, queue) == 0
