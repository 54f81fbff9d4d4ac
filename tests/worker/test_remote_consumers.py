"""Consumers and publishers whose queue is on another worker: what a client sees must not depend on where the queue is.

Over a started broker of three workers. What holds wherever the queue is runs once on one worker and once spread; what is about the border
between two workers runs spread alone, and not on the peer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, NackError

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Broker, Node
from tests.placement import SPREAD, Placement, connect_on
from tests.wire import WireClient, method_bytes

PREFETCH = 50


@pytest.fixture
def spread(broker: Broker) -> Iterator[Placement]:
    """Publisher, queue and consumer on a worker each."""
    if broker.is_peer:
        pytest.skip("not on the peer: about the line between two workers")
    made = Placement(broker, SPREAD)
    yield made
    made.close()


@pytest.fixture
def node(fresh_node: MakeNode) -> Node:
    """A node of two workers, one of which may be killed."""
    return fresh_node(workers=2)


def row(broker: Broker, queue: str) -> Any:
    """The queue as management shows it."""
    return broker.api(f"queues/%2F/{queue}")


def ready(placement: Placement, queue: str) -> int:
    return int(placement.owner.queue_declare(queue, passive=True).method.message_count)


# --- slow clients


def test_a_client_that_does_not_read_leaves_its_messages_in_the_queue(spread: Placement) -> None:
    queue = spread.queue()
    count, body = 3000, bytes(32 * 1024)
    deaf = spread.connect(SPREAD.consumer).channel()  # a blocking connection reads only when it is called
    deaf.basic_consume(queue, lambda *_: None)
    spread.publisher.confirm_delivery()
    for _ in range(count):
        spread.publisher.basic_publish("", queue, body)

    def stuck() -> bool:
        # What the sockets' buffers take is the kernel's business (some megabytes); the rest has not left the queue.
        return ready(spread, queue) > count // 2

    assert eventually(stuck)
    left = ready(spread, queue)
    inbox = Inbox(spread.consumer, queue, auto_ack=True)
    assert inbox.bodies(left) == [body] * left, "others are served meanwhile"
    deaf.connection.close()
    assert inbox.bodies(count - left) == [body] * (count - left), "and what it held comes back"


def test_a_client_that_reads_again_gets_everything_in_order(spread: Placement) -> None:
    queue = spread.queue()
    count = 1500
    slow = spread.connect(SPREAD.consumer).channel()
    inbox = Inbox(slow, queue)
    spread.publisher.confirm_delivery()
    for number in range(count):
        spread.publisher.basic_publish("", queue, number.to_bytes(4, "big") * 8192)
    assert ready(spread, queue) > 0, "not all of it fits on the way"
    numbers = []
    for _ in range(count):
        delivery = inbox.take_one()
        numbers.append(int.from_bytes(delivery.body[:4], "big"))
        slow.basic_ack(delivery.tag)
    assert numbers == list(range(count))
    assert inbox.barrier() == 0


def test_a_publisher_that_outruns_the_queues_consumers_is_slowed_down_and_loses_nothing(spread: Placement) -> None:
    queue = spread.queue()
    spread.consumer.basic_qos(prefetch_count=1)
    inbox = Inbox(spread.consumer, queue)
    seen, published = threading.Event(), [0]

    def publish() -> None:
        with connect_on(spread.broker, SPREAD.publisher) as connection:
            channel = connection.channel()
            while not seen.is_set():
                published[0] += 1  # before it goes: the broker may be seen to have it at once
                channel.basic_publish("", queue, b"")
            channel.queue_declare(queue, passive=True)

    def state() -> str:
        busiest = max(spread.broker.api("connections"), key=lambda row: int(row["recv_oct"]))
        return str(busiest["state"])

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        assert eventually(lambda: state() == "flow", what="state 'flow'")
        assert published[0] >= 10_000, "not before the queue is behind"
    finally:
        seen.set()
        thread.join(60)
    held = inbox.take_one()
    assert eventually(lambda: ready(spread, queue) == published[0] - 1, what="all that was published")
    spread.owner.queue_purge(queue)
    spread.consumer.basic_ack(held.tag)
    assert inbox.barrier() == 0


# --- order and barriers


def test_get_sees_what_the_same_channel_published_through_an_exchange(placement: Placement) -> None:
    queue = placement.queue()
    exchange = placement.exchange("topic")
    placement.owner.queue_bind(queue, exchange, "a.#")
    channel = placement.publisher
    for number in range(200):
        channel.basic_publish(exchange, "a.b", str(number).encode())
        method, _, body = channel.basic_get(queue, auto_ack=True)
        assert method is not None, f"get {number} came before its publish"
        assert body == str(number).encode()
        assert method.message_count == 0


def test_declare_counts_what_the_same_channel_published_through_an_exchange(placement: Placement) -> None:
    queue = placement.queue()
    exchange = placement.exchange("fanout")
    placement.owner.queue_bind(queue, exchange)
    for number in range(1, 100):
        placement.publisher.basic_publish(exchange, "", b"x")
        assert placement.publisher.queue_declare(queue, passive=True).method.message_count == number
    assert placement.publisher.queue_purge(queue).method.message_count == 99


def test_nothing_comes_after_cancel_ok(placement: Placement) -> None:
    queue = placement.queue()
    stop = threading.Event()

    def publish() -> None:
        with connect_on(placement.broker, placement.sites.publisher) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            while not stop.is_set():
                channel.basic_publish("", queue, b"x")

    thread = threading.Thread(target=publish)
    thread.start()
    client = WireClient.opened(placement.broker).open_channel()
    try:
        for round_no in range(20):
            tag = f"tag-{round_no}"
            client.send_method(1, pika.spec.Basic.Consume(queue=queue, consumer_tag=tag, no_ack=round_no % 2 == 0))
            client.expect(pika.spec.Basic.ConsumeOk)
            client.send_method(1, pika.spec.Basic.Cancel(consumer_tag=tag))
            while not is_method(client.receive(), pika.spec.Basic.CancelOk):
                pass
            client.send_method(1, pika.spec.Basic.Qos(prefetch_count=1))
            client.expect(pika.spec.Basic.QosOk)  # the very next frame
    finally:
        stop.set()
        thread.join(20)
        client.close()


def is_method(frame: Any, kind: type) -> bool:
    return isinstance(frame, pika.frame.Method) and isinstance(frame.method, kind)


def test_what_was_held_back_for_a_cancelled_consumer_goes_back_to_its_queue(spread: Placement) -> None:
    queue, other, channel = spread.queue(), spread.queue(), spread.consumer
    channel.basic_qos(prefetch_count=1, global_qos=True)
    inbox, cancelled = Inbox(channel, queue), Inbox(channel, other)
    spread.publisher.confirm_delivery()
    spread.publisher.basic_publish("", queue, b"held")
    held = inbox.take_one()
    spread.publisher.basic_publish("", other, b"waits")
    assert eventually(lambda: ready(spread, other) == 0, what="it waits on the consumer's worker")
    cancelled.cancel()
    assert eventually(lambda: ready(spread, other) == 1, what="it is in the queue again")
    channel.basic_ack(held.tag)
    inbox.barrier()
    assert cancelled.waiting == []
    assert Inbox(channel, other, auto_ack=True).bodies(1) == [b"waits"]


# --- prefetch


def test_a_shared_prefetch_bounds_consumers_of_queues_on_two_workers(spread: Placement) -> None:
    near, far = spread.name(), spread.queue()
    channel = spread.consumer
    channel.queue_declare(near, exclusive=True)
    channel.basic_qos(prefetch_count=10, global_qos=True)
    spread.publisher.confirm_delivery()
    for number in range(100):
        for queue in (near, far):
            body = f"{queue} {number}".encode()
            (channel if queue == near else spread.publisher).basic_publish("", queue, body)
    inboxes = [Inbox(channel, queue) for queue in (near, far)]
    bodies: dict[str, list[bytes]] = {near: [], far: []}
    for _ in range(20):
        channel.connection.process_data_events(time_limit=0)
        assert eventually(lambda: pump(channel, inboxes) >= 10)
        inboxes[0].barrier()
        inboxes[1].barrier()
        taken = [(inbox, inbox.take(len(inbox.waiting))) for inbox in inboxes]
        assert sum(len(deliveries) for _, deliveries in taken) == 10, "as many as both may have together"
        for inbox, deliveries in taken:
            bodies[inbox.queue] += [delivery.body for delivery in deliveries]
        channel.basic_ack(max(delivery.tag for _, deliveries in taken for delivery in deliveries), multiple=True)
    for queue in (near, far):
        assert bodies[queue] == [f"{queue} {number}".encode() for number in range(100)], "each queue's in order"


def pump(channel: Any, inboxes: list[Inbox]) -> int:
    channel.connection.process_data_events(time_limit=0.05)
    return sum(len(inbox.waiting) for inbox in inboxes)


def test_a_remote_consumers_prefetch_is_kept_and_its_acks_let_the_next_ones_come(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.consumer
    channel.basic_qos(prefetch_count=PREFETCH)
    inbox = Inbox(channel, queue)
    for number in range(10 * PREFETCH):
        placement.publisher.basic_publish("", queue, str(number).encode())
    bodies = []
    for _ in range(10):
        deliveries = inbox.take(PREFETCH)
        inbox.barrier()
        assert inbox.waiting == []
        bodies += [delivery.body for delivery in deliveries]
        channel.basic_ack(deliveries[-1].tag, multiple=True)
    assert bodies == [str(number).encode() for number in range(10 * PREFETCH)]


# --- queues that end with their users


def passive_declare_code(connection: pika.BlockingConnection, queue: str) -> int:
    """The reply code that the declare is refused with; 0 if it is not."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue, passive=True)
    except ChannelClosedByBroker as closed:
        return int(closed.reply_code)
    return 0


def test_a_queue_may_be_looked_at_while_it_goes(placement: Placement) -> None:
    for _ in range(50):
        queue = placement.name()
        placement.owner.queue_declare(queue, auto_delete=True)
        client = WireClient.opened(placement.broker).open_channel()
        client.send_method(1, pika.spec.Basic.Consume(queue=queue, consumer_tag="t"))
        client.expect(pika.spec.Basic.ConsumeOk)
        client.close()  # from here on it goes
        assert eventually(lambda queue=queue: passive_declare_code(placement.owner.connection, queue) == 404)
    assert placement.owner.connection.is_open


def test_an_auto_delete_queue_goes_with_its_last_remote_consumer(placement: Placement) -> None:
    for leave in ("cancel", "close channel", "close connection"):
        queue = placement.name()
        placement.owner.queue_declare(queue, auto_delete=True)
        connection = placement.connect(placement.sites.consumer)
        inboxes = [Inbox(connection.channel(), queue) for _ in range(2)]
        inboxes[0].cancel()
        assert inboxes[1].barrier() == 0, "there is one more"
        if leave == "cancel":
            inboxes[1].cancel()
        elif leave == "close channel":
            inboxes[1].channel.close()
        else:
            connection.close()

        def code(queue: str = queue) -> int:
            return passive_declare_code(placement.owner.connection, queue)

        assert eventually(lambda code=code: code() == 404, what=f"gone after {leave}")


def test_an_exclusive_queue_goes_with_a_connection_that_only_vanishes(placement: Placement) -> None:
    client = WireClient.opened(placement.broker).open_channel()
    queue = placement.name()
    client.send_method(1, pika.spec.Queue.Declare(queue=queue, exclusive=True))
    client.expect(pika.spec.Queue.DeclareOk)
    with pytest.raises(ChannelClosedByBroker) as locked:
        placement.publisher.connection.channel().queue_declare(queue, passive=True)
    assert locked.value.reply_code == 405
    client.send(method_bytes(1, pika.spec.Queue.Declare(queue=queue, passive=True)))
    client.close()

    assert eventually(lambda: passive_declare_code(placement.publisher.connection, queue) == 404)
    placement.publisher.queue_declare(queue)
    placement.publisher.queue_delete(queue)


# --- spreading


def test_new_connections_spread_over_the_workers(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=3)
    connections = []

    def places() -> list[int]:
        rows = node.api("connections")
        counts = [sum(1 for found in rows if found["worker"] == worker) for worker in range(3)]
        return counts if sum(counts) == len(connections) else []

    for number in range(12):
        connections.append(node.connect(client_properties={"connection_name": f"c{number}"}))
        counts = eventually(places)  # by then its worker has told the others, which each may accept the next one
    assert max(counts) - min(counts) <= 1
    for connection in connections:
        connection.close()


# --- a queue's worker dies


def test_a_remote_consumer_goes_on_under_its_tag_when_the_queues_worker_is_back(node: Node) -> None:
    with connect_on(node, 1) as home:
        home.channel().queue_declare("there", durable=True)
    away = connect_on(node, 0)
    channel, publishing = away.channel(), away.channel()
    channel.basic_qos(prefetch_count=2)
    inbox = Inbox(channel, "there", consumer_tag="mine")
    publishing.confirm_delivery()
    publishing.basic_publish("", "there", b"before")
    held = inbox.take_one()
    node.kill_process("worker-1")

    def confirmed() -> bool:
        try:
            publishing.basic_publish("", "there", b"after")
        except NackError:
            return False
        return True

    assert eventually(confirmed)
    after = inbox.take_one()
    assert (after.body, after.method.consumer_tag, after.method.redelivered) == (b"after", "mine", False)
    assert not inbox.cancelled
    assert after.tag > held.tag
    channel.basic_ack(held.tag)  # too late, and harmless
    for number in range(4):
        publishing.basic_publish("", "there", str(number).encode())
    assert inbox.take_one().body == b"0"
    assert inbox.barrier() == 3, "its prefetch came with it"
    assert inbox.waiting == []
    channel.basic_ack(0, multiple=True)
    assert inbox.bodies(2) == [b"1", b"2"]
    inbox.cancel()
    channel.close()
    assert publishing.queue_declare("there", passive=True).method.consumer_count == 0
    away.close()


def test_confirms_that_wait_for_a_worker_that_dies_become_nacks(node: Node) -> None:
    with connect_on(node, 1) as home, connect_on(node, 0) as near:
        channel = home.channel()
        channel.queue_declare("there", durable=True)
        channel.queue_bind("there", "amq.topic", "#")
        near.channel().queue_declare("here", durable=True)
    with connect_on(node, 0) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        told: list[bool] = []
        pid = node.kill_process("worker-1")
        rounds = 0
        while not told or not told[-1]:
            try:
                channel.basic_publish("", "there", b"straight")
                channel.basic_publish("amq.topic", "k", b"routed")
                told.append(True)
            except NackError:
                told.append(False)
            channel.basic_publish("", "here", b"others are not concerned")
            rounds += 1
            assert rounds < 10_000
        assert node.workers()[1] != pid
        assert channel.queue_declare("here", passive=True).method.message_count == rounds


def test_cancelling_while_the_queues_worker_dies_is_answered(node: Node) -> None:
    with connect_on(node, 1) as home:
        home.channel().queue_declare("there", durable=True)
    with connect_on(node, 0) as away:
        channel = away.channel()
        inboxes = [Inbox(channel, "there") for _ in range(20)]
        node.kill_process("worker-1")
        for inbox in inboxes:
            inbox.cancel()
        assert channel.is_open and away.is_open
        assert eventually(lambda: channel.queue_declare("there", passive=True).method.consumer_count == 0)
