"""Connections move to the worker that has the queues they use, and their clients notice nothing but that it goes faster.

Two kinds of nodes: one decides for itself when a move pays ("auto"), one moves whatever can move at every opportunity ("always"), so that
a few dozen messages see as many moves as there can be.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from leveret.router.commands import DeleteQueue
from pika.exceptions import AMQPError
from pika.spec import Basic, Confirm, Connection, Queue

from tests.administration import administer
from tests.conftest import PEER, MakeNode
from tests.deadline import eventually
from tests.held_back import fill_until_held_back
from tests.inbox import Delivery, Inbox
from tests.node import Node
from tests.placement import connect_on, worker_of_connection
from tests.wire import WireClient, publish_bytes

pytestmark = pytest.mark.not_on_peer("looks at the workers of a node")

ENOUGH = 200  # messages one at a time, several times what makes a connection move
MIB = 1024 * 1024


def a_node(tmp_path_factory: pytest.TempPathFactory, mode: str, workers: int) -> Iterator[Node]:
    if PEER is not None:
        pytest.skip("not on the peer: starts nodes of its own")
    node = Node(tmp_path_factory.mktemp(mode) / "data", workers=workers, config={"connection_handover": mode}).start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Two workers that move a connection when that pays."""
    yield from a_node(tmp_path_factory, "auto", 2)


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Three workers that move whatever can move, at once and again and again."""
    yield from a_node(tmp_path_factory, "always", 3)


class Client:
    """A blocking connection that begins on a given worker, with a channel; tells where it is now."""

    def __init__(self, node: Node, worker: int, **parameters: Any) -> None:
        self.node = node
        self.connection = connect_on(node, worker, **parameters)
        self.channel = self.connection.channel()
        self.name = str(self.connection._impl.params.client_properties["connection_name"])

    @property
    def worker(self) -> int:
        return worker_of_connection(self.node, self.name)

    def row(self) -> dict[str, Any]:
        """Its row in /api/connections; there is exactly one."""
        rows = eventually(lambda: [row for row in self.node.api("connections") if row["user_provided_name"] == self.name])
        assert len(rows) == 1, rows
        return dict(rows[0])

    def comes_to(self, worker: int) -> bool:
        return bool(eventually(lambda: self.worker == worker, what=f"{self.name} is on worker {worker}"))

    def moves_to(self, worker: int, act: Callable[[], None]) -> None:
        """Act until it has moved there: at the first opportunity, or at a later one if something is under way for too long."""

        def has_moved() -> bool:
            for _ in range(ENOUGH):
                act()
            return self.worker == worker

        assert eventually(has_moved, what=f"{self.name} is on worker {worker}")

    def close(self) -> None:
        self.connection.close()


def wire_on(node: Node, worker: int, **tune: int) -> WireClient:
    """A raw client that begins on that worker, with channel 1 open."""
    for _ in range(16):
        client = WireClient.opened(node, **tune).open_channel()
        if where(node, client) == worker:
            return client
        client.close()
    raise AssertionError(f"no connection came to worker {worker}")


def where(node: Node, client: WireClient) -> int:
    port = client.socket.getsockname()[1]
    rows = eventually(lambda: [row for row in node.api("connections") if row["peer_port"] == port])
    return int(rows[0]["worker"])


def sends(client: WireClient, queue: str) -> bool:
    """One more message: one more opportunity, for a move is put off when something takes too long, as on a busy machine."""
    client.send(publish_bytes(1, "", queue, b"x"))
    return True


def declare_on(node: Node, worker: int, queue: str) -> str:
    with connect_on(node, worker) as connection:
        channel = connection.channel()
        channel.queue_delete(queue)
        channel.queue_declare(queue, durable=True)
    return queue


def handovers(node: Node) -> dict[int, dict[str, int]]:
    """Of each worker: how many connections have `moved` away and `arrived`."""
    return {process["index"]: process["handovers"] for process in node.api("nodes")[0]["processes"] if process["kind"] == "worker"}


# --- when it pays


def test_a_publisher_of_one_message_at_a_time_moves_to_its_queue(deciding: Node) -> None:
    queue = declare_on(deciding, 1, "one-at-a-time")
    client = Client(deciding, 0)
    client.channel.confirm_delivery()
    sent: list[bytes] = []

    def publishes() -> None:
        sent.append(b"%d" % len(sent))
        client.channel.basic_publish("", queue, sent[-1], mandatory=True)  # returns when it is confirmed

    client.moves_to(1, publishes)
    with connect_on(deciding, 0) as reading:
        assert Inbox(reading.channel(), queue, auto_ack=True).bodies(len(sent)) == sent
    client.close()


def test_a_consumer_of_one_message_at_a_time_moves_to_its_queue_with_what_it_has_not_acked(deciding: Node) -> None:
    queue = declare_on(deciding, 1, "consumer-moves")
    client = Client(deciding, 0)
    client.channel.basic_qos(prefetch_count=10)
    inbox = Inbox(client.channel, queue)
    with connect_on(deciding, 1) as publishing:
        channel = publishing.channel()
        sent: list[bytes] = []
        taken: list[Delivery] = []

        def publishes() -> None:
            sent.append(b"%d" % len(sent))
            channel.basic_publish("", queue, sent[-1])

        def takes() -> None:
            publishes()
            if taken:
                client.channel.basic_ack(taken[-1].tag)
            taken.append(inbox.take_one())

        for _ in range(10):  # so that there is always more than it may hold
            publishes()
        client.moves_to(1, takes)
        # The last one taken and nine more: the prefetch counts over the move.
        channel.queue_declare(queue, passive=True)
        assert inbox.barrier() == 1
        held = [taken[-1], *inbox.take(9)]
        count = len(sent)
        assert [delivery.body for delivery in [*taken, *held[1:]]] == sent[:-1]
        assert [delivery.tag for delivery in held] == list(range(count - 10, count))
        assert not any(delivery.method.redelivered for delivery in held)
        client.channel.basic_ack(held[-1].tag, multiple=True)
        assert inbox.take_one().body == sent[-1]
    client.close()
    # What it had not acked goes back, as ever.
    with connect_on(deciding, 0) as reading:
        again = Inbox(reading.channel(), queue).take_one()
        assert (again.body, again.method.redelivered) == (sent[-1], True)


def test_who_gets_messages_one_by_one_moves_to_the_queue(deciding: Node) -> None:
    queue = declare_on(deciding, 1, "getter-moves")
    client = Client(deciding, 0)
    held: list[int] = []
    with connect_on(deciding, 1) as publishing:
        channel = publishing.channel()
        channel.confirm_delivery()

        def gets() -> None:
            channel.basic_publish("", queue, b"%d" % len(held))
            method, _, body = client.channel.basic_get(queue)
            assert (method.delivery_tag, body) == (len(held) + 1, b"%d" % len(held))
            held.append(method.delivery_tag)

        client.moves_to(1, gets)
    client.channel.basic_ack(held[-1], multiple=True)
    assert client.channel.basic_get(queue) == (None, None, None)
    client.close()
    with connect_on(deciding, 0) as reading:
        assert reading.channel().queue_declare(queue, passive=True).method.message_count == 0


def test_large_messages_move_their_publisher(deciding: Node) -> None:
    queue = declare_on(deciding, 1, "large")
    client = wire_on(deciding, 0)
    count = 0

    def has_moved() -> bool:
        nonlocal count
        count += ENOUGH
        client.send(publish_bytes(1, "", queue, bytes(65_536)) * ENOUGH)  # in as few turns as there can be
        client.send_method(1, Queue.Declare(queue=queue, passive=True))
        assert client.expect(Queue.DeclareOk).message_count == count
        return where(deciding, client) == 1

    assert eventually(has_moved)
    client.close()


def test_batches_of_small_messages_stay_where_they_are(deciding: Node) -> None:
    queue = declare_on(deciding, 1, "batches")
    client = wire_on(deciding, 0)
    for _ in range(20):
        client.send(publish_bytes(1, "", queue, b"small") * 2_000)
        client.send_method(1, Queue.Declare(queue=queue, passive=True))
        client.expect(Queue.DeclareOk)
    assert where(deciding, client) == 0
    client.close()


def test_two_queues_on_two_workers_used_in_turns_do_not_make_it_move(deciding: Node) -> None:
    here, there = declare_on(deciding, 0, "here"), declare_on(deciding, 1, "there")
    client = Client(deciding, 0)
    client.channel.confirm_delivery()
    for _ in range(ENOUGH):
        client.channel.basic_publish("", here, b"x", mandatory=True)
        client.channel.basic_publish("", there, b"x", mandatory=True)
    assert client.worker == 0
    client.close()


def test_one_that_has_moved_stays_for_a_while(deciding: Node) -> None:
    first, second = declare_on(deciding, 1, "first"), declare_on(deciding, 0, "second")
    client = Client(deciding, 0)
    client.channel.confirm_delivery()
    before = handovers(deciding)
    client.moves_to(1, lambda: client.channel.basic_publish("", first, b"x", mandatory=True))
    assert handovers(deciding) == {0: {**before[0], "moved": before[0]["moved"] + 1}, 1: {**before[1], "arrived": before[1]["arrived"] + 1}}
    for _ in range(ENOUGH):
        client.channel.basic_publish("", second, b"x", mandatory=True)
    assert client.worker == 1
    client.close()


def test_those_that_a_worker_refuses_for_now_go_on_where_they_are_and_come_later(deciding: Node) -> None:
    """More at once than a worker takes in a second: each publishes to a queue of its own there, and consumes it."""
    clients = []
    for number in range(12):
        queue = declare_on(deciding, 1, f"refused-{number}")
        client = Client(deciding, 0)
        clients.append((client, queue, Inbox(client.channel, queue)))
    rounds = itertools.count()

    def all_there() -> bool:
        first = 20 * next(rounds)
        for client, queue, inbox in clients:
            for number in range(first, first + 20):
                client.channel.basic_publish("", queue, b"%d" % number)
                delivery = inbox.take_one()
                if (delivery.body, delivery.tag) != (b"%d" % number, number + 1):
                    raise ValueError(f"{delivery} where {number} was due")  # no AssertionError, which `eventually` takes for "not yet"
                client.channel.basic_ack(delivery.tag)
        here = {row["user_provided_name"]: row["worker"] for row in deciding.api("connections")}
        return all(here.get(client.name) == 1 for client, _, _ in clients)

    assert eventually(all_there, within_s=60, what="all on worker 1")
    for client, _, _ in clients:
        client.close()


# --- what does not move


def uses_transactions(client: Client) -> None:
    client.channel.tx_select()


def has_an_exclusive_queue(client: Client) -> None:
    client.channel.queue_declare("", exclusive=True)


def waits_for_direct_replies(client: Client) -> None:
    client.channel.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True)


def consumes_here(client: Client) -> None:
    client.channel.queue_declare("consumed-here", auto_delete=True)
    client.channel.basic_consume("consumed-here", lambda *_: None)


@pytest.mark.parametrize("tie", [uses_transactions, has_an_exclusive_queue, waits_for_direct_replies, consumes_here])
def test_what_belongs_to_a_worker_stays_with_it(restless: Node, tie: Any) -> None:
    queue = declare_on(restless, 1, "tied")
    client = Client(restless, 0)
    tie(client)
    other = client.connection.channel()
    other.confirm_delivery()
    for _ in range(20):
        other.basic_publish("", queue, b"x", mandatory=True)
    assert client.worker == 0
    client.close()


def test_without_the_option_nothing_moves(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2, connection_handover="off")
    queue = declare_on(node, 1, "q")
    client = Client(node, 0)
    client.channel.confirm_delivery()
    for _ in range(ENOUGH):
        client.channel.basic_publish("", queue, b"x", mandatory=True)
    assert client.worker == 0
    client.close()


# --- what travels


def test_what_was_sent_behind_the_publish_that_moves_it_is_served_in_order(restless: Node) -> None:
    queue = declare_on(restless, 1, "pipelined")
    client = wire_on(restless, 0)
    client.send_method(1, Confirm.Select())
    client.expect(Confirm.SelectOk)
    pieces = publish_bytes(1, "", queue, b"x") * 50
    rest = publish_bytes(1, "", queue, bytes(20_000))
    client.send(pieces + rest[:10_000])  # it moves in the middle of this: what follows is unread, and ends in half a message
    told = 0
    while told < 50:
        ack = client.expect(Basic.Ack)
        assert ack.delivery_tag > told
        told = int(ack.delivery_tag)
    client.send(rest[10_000:])
    assert client.expect(Basic.Ack).delivery_tag == 51
    client.send_method(1, Queue.Declare(queue=queue, passive=True))
    assert client.expect(Queue.DeclareOk).message_count == 51
    assert where(restless, client) == 1
    client.close()


@pytest.mark.parametrize("auto_ack", [True, False], ids=["no_ack", "ack"])
def test_a_consumer_in_full_flow_misses_nothing_and_gets_nothing_twice(restless: Node, auto_ack: bool) -> None:
    queue = declare_on(restless, 1, "full-flow")
    count = 5_000
    with connect_on(restless, 1) as publishing:
        channel = publishing.channel()
        for number in range(count):
            channel.basic_publish("", queue, b"%d" % number)
        client = Client(restless, 0)
        client.channel.basic_qos(prefetch_count=300)
        inbox = Inbox(client.channel, queue, auto_ack=auto_ack)
        for number in range(count):
            delivery = inbox.take_one()
            assert (delivery.body, delivery.tag, delivery.method.redelivered) == (b"%d" % number, number + 1, False)
            if not auto_ack:
                client.channel.basic_ack(delivery.tag)
        assert client.comes_to(1)
        assert inbox.barrier() == 0
        client.close()
        assert channel.queue_declare(queue, passive=True).method.message_count == 0


def test_heartbeats_go_on_and_a_silent_client_is_still_missed(restless: Node) -> None:
    queue = declare_on(restless, 1, "heartbeats")
    client = wire_on(restless, 0, heartbeat=2)
    assert eventually(lambda: sends(client, queue) and where(restless, client) == 1)
    assert isinstance(client.receive(), pika.frame.Heartbeat)
    client.expect_end()  # we send none
    assert "missed heartbeats" in restless.log_tail(200)


def test_channels_keep_their_numbers_their_settings_and_their_counters(restless: Node) -> None:
    queue = declare_on(restless, 1, "settings")
    client = Client(restless, 0, heartbeat=30)
    second, third = client.connection.channel(), client.connection.channel()
    before = client.row()
    client.channel.close()
    second.basic_qos(prefetch_count=7)
    second.basic_qos(prefetch_count=9, global_qos=True)
    third.confirm_delivery()
    third.queue_declare(queue, passive=True)
    third.queue_bind("", "amq.direct", "by-last-queue")
    for _ in range(30):
        third.basic_publish("", queue, b"x", mandatory=True)
    assert client.comes_to(1)
    row = client.row()
    steady = ("name", "user", "vhost", "channel_max", "frame_max", "timeout", "client_properties", "connected_at", "peer_port")
    assert {field: row[field] for field in steady} == {field: before[field] for field in steady}
    assert row["recv_oct"] > before["recv_oct"] and row["send_oct"] > before["send_oct"]
    channels = {channel["number"]: channel for channel in restless.api("channels") if channel["connection_details"]["name"] == row["name"]}
    assert sorted(channels) == [2, 3]
    assert (channels[2]["prefetch_count"], channels[2]["global_prefetch_count"], channels[2]["confirm"]) == (7, 9, False)
    assert (channels[3]["confirm"], channels[3]["message_stats"]["publish"], channels[3]["message_stats"]["confirm"]) == (True, 30, 30)
    third.queue_purge("")  # of the queue last declared on the channel
    assert third.queue_declare(queue, passive=True).method.message_count == 0
    client.close()


def test_a_stopped_flow_stays_stopped(restless: Node) -> None:
    queue = declare_on(restless, 1, "flow")
    client = Client(restless, 0)
    inbox = Inbox(client.channel, queue)
    client.channel.flow(active=False)
    other = client.connection.channel()
    other.confirm_delivery()
    for number in range(5):
        other.basic_publish("", queue, b"%d" % number, mandatory=True)
    beside = declare_on(restless, 1, "beside-the-flow")

    def has_moved() -> bool:
        other.basic_publish("", beside, b"x", mandatory=True)
        return client.worker == 1

    assert eventually(has_moved)
    assert inbox.barrier() == 5
    assert inbox.waiting == []
    client.channel.flow(active=True)
    assert inbox.bodies(5) == [b"%d" % number for number in range(5)]
    client.close()


def test_an_exclusive_consumer_is_still_alone_and_its_queues_end_is_still_told(restless: Node) -> None:
    queue = declare_on(restless, 1, "alone")
    client = Client(restless, 0)
    inbox = Inbox(client.channel, queue, exclusive=True, arguments={"x-priority": 5})
    other = client.connection.channel()

    def has_moved() -> bool:
        other.basic_publish("", queue, b"x")
        assert inbox.take_one().body == b"x"
        return client.worker == 1

    assert eventually(has_moved)
    shown = [consumer for consumer in restless.api("consumers") if consumer["queue"]["name"] == queue]
    assert [(row["consumer_tag"], row["exclusive"], row["arguments"]) for row in shown] == [(inbox.consumer_tag, True, {"x-priority": 5})]
    with connect_on(restless, 2) as second, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="exclusive use"):
        second.channel().basic_consume(queue, lambda *_: None)
    administer(restless, DeleteQueue("/", queue))

    def told() -> bool:
        client.connection.process_data_events(time_limit=0.1)
        return inbox.cancelled

    assert eventually(told, what="basic.cancel")
    client.close()


def test_messages_through_an_exchange_and_straight_ones_stay_in_their_order(restless: Node) -> None:
    first, second = declare_on(restless, 1, "order-1"), declare_on(restless, 2, "order-2")
    client = Client(restless, 0)
    for queue in (first, second):
        client.channel.queue_bind(queue, "amq.fanout")
    # It moves to and fro between the two workers: at every straight publish, while routed ones are under way.
    for number in range(60):
        client.channel.basic_publish("amq.fanout", "", b"r%d" % number)
        client.channel.basic_publish("", first if number % 2 else second, b"s%d" % number)
    reading = restless.connect()
    for queue, odd in ((first, 1), (second, 0)):
        bodies = Inbox(reading.channel(), queue, auto_ack=True).bodies(90)
        assert [body for body in bodies if body[:1] == b"r"] == [b"r%d" % number for number in range(60)]
        assert [body for body in bodies if body[:1] == b"s"] == [b"s%d" % number for number in range(odd, 60, 2)]
    reading.close()
    client.close()


def test_a_publisher_that_has_moved_is_still_blocked_by_an_alarm(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2, connection_handover="always")
    eventually(lambda: node.processes())  # the management process counts too
    used = int(node.api("nodes")[0]["mem_used"])
    node.stop()
    node.config |= {"memory_watermark": used + 32 * MIB, "memory_paging_ratio": 1}
    node.start()
    queue = declare_on(node, 1, "q")
    moved, filling = wire_on(node, 0), wire_on(node, 1)
    assert eventually(lambda: sends(moved, queue) and where(node, moved) == 1)
    fill_until_held_back(node, filling, queue, bytes(64 * 1024), 32 * MIB)
    assert filling.expect(Connection.Blocked).reason == "low on memory"
    assert moved.expect(Connection.Blocked).reason == "low on memory"
    with node.connect() as connection:
        connection.channel().queue_purge(queue)
    moved.expect(Connection.Unblocked)
    moved.send(publish_bytes(1, "", queue, b"x"))
    moved.send_method(1, Queue.Declare(queue=queue, passive=True))
    moved.expect(Queue.DeclareOk)
    moved.close()
    filling.close()


# --- at random


@pytest.mark.parametrize("seed", range(6))
def test_random_use_of_queues_everywhere_is_as_if_nothing_had_moved(restless: Node, seed: int) -> None:
    """One client against a model of its queues: each a list of bodies, in order, with what it holds unacked."""
    chance = random.Random(seed)
    queues = [declare_on(restless, worker, f"random-{seed}-{worker}") for worker in range(3)]
    client = Client(restless, seed % 3)
    client.channel.confirm_delivery()
    ready: dict[str, list[bytes]] = {queue: [] for queue in queues}
    held: dict[int, tuple[str, bytes]] = {}
    sent = 0
    queue = queues[0]
    for _ in range(250):
        if chance.random() < 0.15:
            queue = chance.choice(queues)
        act = chance.random()
        if act < 0.5:
            body = b"%d" % sent + bytes(chance.choice((0, 10, 5_000)))
            client.channel.basic_publish("", queue, body, mandatory=True)
            ready[queue].append(body)
            sent += 1
        elif act < 0.8:
            method, _, got = client.channel.basic_get(queue)
            if method is None:
                assert ready[queue] == []
                continue
            assert got == ready[queue].pop(0)
            held[method.delivery_tag] = (queue, got)
        elif act < 0.95:
            if held:
                tag = chance.choice(list(held))
                multiple = chance.random() < 0.3
                client.channel.basic_ack(tag, multiple=multiple)
                for settled in [each for each in held if each == tag or (multiple and each < tag)]:
                    del held[settled]
        else:
            assert client.channel.queue_declare(queue, passive=True).method.message_count == len(ready[queue])
    assert client.row()["channels"] == 1
    client.close()
    # What it held goes back to its place, which is before all that it had not taken yet.
    with restless.connect() as reading:
        channel = reading.channel()
        for queue in queues:
            returned = [body for of_queue, body in held.values() if of_queue == queue]
            count = len(returned) + len(ready[queue])
            assert eventually(lambda queue=queue, count=count: channel.queue_declare(queue, passive=True).method.message_count == count)
            assert Inbox(channel, queue, auto_ack=True).bodies(count) == returned + ready[queue]
            channel.queue_delete(queue)


class Publishing(threading.Thread):
    """Publishes numbers to all queues in turn with confirms, connecting again when its connection ends; keeps what was confirmed."""

    def __init__(self, node: Node, queues: list[str], enough: threading.Event) -> None:
        super().__init__()
        self.node = node
        self.queues = queues
        self.enough = enough
        self.confirmed: list[tuple[str, int]] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        number = 0
        while not self.enough.is_set():
            try:
                channel = self.node.connect().channel()
                channel.confirm_delivery()
                while not self.enough.is_set():
                    number += 1
                    queue = self.queues[number // 5 % len(self.queues)]
                    properties = pika.BasicProperties(delivery_mode=2)
                    channel.basic_publish("", queue, b"%d" % number, properties, mandatory=True)
                    self.confirmed.append((queue, number))
                channel.connection.close()
            except (AMQPError, OSError):
                continue
            except Exception as failure:  # noqa: BLE001 - for the test to assert on
                self.failure = failure
                return


class Consuming(threading.Thread):
    """Consumes all queues one after the other and acks each message, connecting again when its connection ends; keeps what it was given."""

    def __init__(self, node: Node, queues: list[str], enough: threading.Event) -> None:
        super().__init__()
        self.node = node
        self.queues = queues
        self.enough = enough
        self.taken: list[tuple[str, int, bool]] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        turn = 0
        while not self.enough.is_set():
            try:
                channel = self.node.connect().channel()
                channel.basic_qos(prefetch_count=5)
                while not self.enough.is_set():
                    turn += 1
                    self._consume(channel, self.queues[turn % len(self.queues)])
                channel.connection.close()
            except (AMQPError, OSError):
                continue
            except Exception as failure:  # noqa: BLE001 - for the test to assert on
                self.failure = failure
                return

    def _consume(self, channel: Any, queue: str) -> None:
        for method, _, body in channel.consume(queue, inactivity_timeout=0.05):
            if method is None:
                break
            self.taken.append((queue, int(body), method.redelivered))
            channel.basic_ack(method.delivery_tag)
            if method.delivery_tag % 20 == 0:
                break
        channel.cancel()


def test_nothing_confirmed_is_lost_when_workers_are_killed_in_the_middle_of_moves(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2, connection_handover="always")
    queues = [declare_on(node, worker, f"kills-{worker}") for worker in (0, 1)]
    enough = threading.Event()
    publishers = [Publishing(node, queues, enough) for _ in range(2)]
    consumers = [Consuming(node, queues, enough) for _ in range(2)]
    for thread in [*publishers, *consumers]:
        thread.start()
    chance = random.Random(5)
    try:
        for worker in (0, 1, 1, 0):
            pid = eventually(lambda worker=worker: node.workers().get(worker), within_s=20, what="the worker's pid")
            wanted = [len(publisher.confirmed) + chance.randrange(20, 120) for publisher in publishers]
            assert eventually(
                lambda wanted=wanted: all(len(each.confirmed) >= count for each, count in zip(publishers, wanted, strict=True)),
                within_s=60,
                what="confirms",
            )
            os.kill(pid, signal.SIGKILL)
            assert eventually(
                lambda worker=worker, pid=pid: node.workers().get(worker) not in (None, pid), within_s=30, what=f"worker {worker} is back"
            )
    finally:
        enough.set()
        for thread in [*publishers, *consumers]:
            thread.join(60)
    assert [thread.failure for thread in [*publishers, *consumers]] == [None] * 4
    taken = {(queue, number) for consumer in consumers for queue, number, _ in consumer.taken}
    with node.connect() as connection:
        channel = connection.channel()
        inboxes = [Inbox(channel, queue, auto_ack=True) for queue in queues]
        confirmed = {each for publisher in publishers for each in publisher.confirmed}

        def lost() -> set[tuple[str, int]]:
            for inbox in inboxes:
                inbox.barrier()
                taken.update((inbox.queue, int(delivery.body)) for delivery in inbox.take(len(inbox.waiting)))
            return confirmed - taken

        eventually(lambda: not lost(), what="all that was confirmed")
