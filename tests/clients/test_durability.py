"""Which messages are still there after a node was stopped, after all of it was killed, and after the worker that has the queue was killed.

What is confirmed, persistent and in a durable queue comes back as it was: bytes, order, place, and whether somebody has had it in his
hands. Everything else is gone. The queues of a test lie on worker 1 unless it says otherwise, and that is the worker that is killed.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.spec import Basic, Confirm, Queue

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Node
from tests.placement import connect_on
from tests.wire import (
    FRAME_BODY,
    FRAME_HEADER,
    WireClient,
    frame_bytes,
    header_payload,
    method_bytes,
    publish_bytes,
)

KEPT = pika.BasicProperties(delivery_mode=2)
TRANSIENT = pika.BasicProperties(delivery_mode=1)
SIZES = {"nothing": 0, "one byte": 1, "300 KB": 300_000, "10 MB": 10_000_000}
TABLE = b"\x01as\xff\xfe" + b"\x01bd\x40\x09\x21\xfb\x54\x44\x2d\x18" + b"\x01ct\x01"


@dataclass(frozen=True)
class Got:
    """A message that was found in a queue."""

    body: bytes
    redelivered: bool


def worker_ends(node: Node) -> None:
    """Kill the worker that has the queues, and wait until its successor serves them."""
    pid = node.kill_process("worker-1")

    def is_back() -> bool:
        row = next(process for process in node.api("nodes")[0]["processes"] if process["name"] == "worker-1")
        return row["pid"] not in (None, pid) and bool(row["running"])

    assert eventually(is_back, what="worker 1 is back")


def node_stops(node: Node) -> None:
    """A clean stop, and a start."""
    node.stop()
    node.start()


def node_is_killed(node: Node) -> None:
    """SIGKILL to every process, and a start."""
    node.kill()
    node.start()


Ending = Callable[[Node], None]
CRASHES = [node_is_killed, worker_ends]


@pytest.fixture(scope="module")
def shared_node(shared_nodes: MakeNode) -> Node:
    return shared_nodes(workers=2)


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """Two workers, and nothing in them. What earlier tests have settled lies in the stores' past, as in any node that has served."""
    with shared_node.lent() as node:
        yield node


@pytest.fixture(params=[node_stops, *CRASHES])
def ending(request: pytest.FixtureRequest) -> Ending:
    """One of the ways in which messages leave memory."""
    chosen: Ending = request.param
    return chosen


@contextlib.contextmanager
def confirming(node: Node, worker: int = 1) -> Iterator[BlockingChannel]:
    """A channel with confirms on that worker; its connection may be gone when the block ends."""
    connection = connect_on(node, worker)
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        yield channel
    finally:
        close(connection)


def close(connection: BlockingConnection) -> None:
    """Close it if the broker has not."""
    if connection.is_open:
        with contextlib.suppress(AMQPError):
            connection.close()


def fill(channel: BlockingChannel, queue: str, bodies: list[bytes], properties: pika.BasicProperties = KEPT) -> None:
    """Declare the durable queue where the channel is, and publish into it; returns when all is confirmed."""
    channel.queue_declare(queue, durable=True)
    for body in bodies:
        channel.basic_publish("", queue, body, properties, mandatory=True)


def numbered(count: int, prefix: str = "") -> list[bytes]:
    """`count` different bodies."""
    return [f"{prefix}{number}".encode() for number in range(count)]


def drain(node: Node, queue: str) -> list[Got]:
    """All that is in the queue, oldest first; taken out for good."""
    found: list[Got] = []
    with node.connect() as connection:
        channel = connection.channel()
        while True:
            method, _, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return found
            found.append(Got(body, method.redelivered))


def assert_holds(node: Node, queue: str, expected: list[Got], ending: Ending) -> None:
    """The queue holds exactly that; taken out for good.

    After a crash, messages that nobody has had may be marked redelivered too: a busy queue tells the disk ahead how far it will hand out.
    """
    found = drain(node, queue)
    assert [got.body for got in found] == [got.body for got in expected]
    if ending is node_stops:
        assert found == expected
    assert [was.body for is_now, was in zip(found, expected, strict=True) if was.redelivered and not is_now.redelivered] == []


def bodies(node: Node, queue: str) -> list[bytes]:
    """The bodies of all that is in the queue, oldest first; taken out for good."""
    return [got.body for got in drain(node, queue)]


def raw_frame(client: WireClient) -> tuple[int, bytes]:
    """Type and payload of the next frame."""
    head = client.receive_exactly(7)
    return head[0], client.receive_exactly(int.from_bytes(head[3:], "big") + 1)[:-1]


def pattern(size: int) -> bytes:
    """Bytes in which a missing or doubled piece shows."""
    return b"".join(b"%015d." % number for number in range(size // 16 + 1))[:size]


# --- as they were


def test_every_body_comes_back_whole_through_the_default_exchange(node: Node, ending: Ending) -> None:
    sent = [pattern(size) for size in SIZES.values()]
    with confirming(node) as channel:
        fill(channel, "q", sent)
    ending(node)
    assert [len(body) for body in sent] == list(SIZES.values())
    assert bodies(node, "q") == sent


def test_every_exchange_type_and_every_worker_keeps_its_copies(node: Node, ending: Ending) -> None:
    """One publish to four queues of two workers; each of them has all of it, in the order of publishing."""
    queues = {"a0": 0, "b0": 0, "a1": 1, "b1": 1}
    expected: list[bytes] = []
    with confirming(node, 0) as near, confirming(node, 1) as far:
        for queue, worker in queues.items():
            (far if worker else near).queue_declare(queue, durable=True)
        for kind in ("direct", "topic", "fanout", "headers"):
            far.exchange_declare(kind, kind, durable=True)
            for queue in queues:
                key = {"topic": "a.*.c"}.get(kind, "a.b.c")
                far.queue_bind(queue, kind, key, arguments={"x-match": "all", "colour": "red"} if kind == "headers" else None)
        for size in SIZES.values():
            for kind in ("direct", "topic", "fanout", "headers"):
                body = kind.encode() + pattern(size)
                properties = pika.BasicProperties(delivery_mode=2, headers={"colour": "red"})
                # One publisher for each worker: both to queues of their own worker and of the other.
                (near if len(expected) % 2 else far).basic_publish(kind, "a.b.c", body, properties, mandatory=True)
                expected.append(body)
    ending(node)
    for queue in queues:
        assert bodies(node, queue) == expected, queue


def test_properties_and_headers_come_back_byte_for_byte(node: Node, ending: Ending) -> None:
    """The content header as it was sent, in the publisher's own encoding; so are exchange and routing key."""
    table = {
        "text": "käse",
        "bytes": b"\x00\xff",
        "long": 2**40,
        "negative": -5,
        "true": True,
        "void": None,
        "when": datetime.datetime.fromtimestamp(1_700_000_000, datetime.UTC),
        "list": [1, "two", {"three": 3}],
        "nested": {"deeper": {"deepest": "x" * 300}},
        "x-death": "no meaning here",
    }
    full = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers=table,
        delivery_mode=2,
        priority=7,
        correlation_id="c" * 255,
        reply_to="r",
        message_id="",
        timestamp=1_700_000_000,
        type="t",
        user_id="guest",
        app_id="a",
        cluster_id="k",
    )
    encoded = b"".join(full.encode())
    sent = [
        header_payload(60, 3)[:12] + encoded,
        # Delivery mode alone; and short integers and a float in a table, which pika would not write.
        header_payload(60, 3, 1 << 12, b"\x02"),
        header_payload(60, 3, 1 << 13 | 1 << 12, len(TABLE).to_bytes(4, "big") + TABLE + b"\x02"),
    ]
    client = WireClient.opened(node).open_channel()
    client.send_method(1, Confirm.Select())
    client.expect(Confirm.SelectOk)
    with confirming(node) as channel:
        channel.queue_declare("q", durable=True)
        channel.exchange_declare("x" * 255, "direct", durable=True)
        channel.queue_bind("q", "x" * 255, "k" * 255)
    for header in sent:
        client.send(method_bytes(1, Basic.Publish(exchange="x" * 255, routing_key="k" * 255)))
        client.send(frame_bytes(FRAME_HEADER, 1, header) + frame_bytes(FRAME_BODY, 1, b"abc"))
        client.expect(Basic.Ack)
    client.close()
    ending(node)
    client = WireClient.opened(node).open_channel()
    for header in sent:
        client.send_method(1, Basic.Get(queue="q", no_ack=True))
        got = client.expect(Basic.GetOk)
        assert (got.exchange, got.routing_key, got.redelivered) == ("x" * 255, "k" * 255, False)
        assert raw_frame(client) == (FRAME_HEADER, header)
        assert raw_frame(client) == (FRAME_BODY, b"abc")
    client.close()


def test_one_stored_message_serves_many_queues(fresh_node: MakeNode, ending: Ending) -> None:
    """A megabyte in fifty queues takes a megabyte of disk, not fifty, and each queue can be emptied without the others."""
    node = fresh_node(workers=2)
    queues = [f"q{number}" for number in range(50)]
    body = pattern(1_000_000)
    with confirming(node) as channel:
        for queue in queues:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "amq.fanout")
        channel.basic_publish("amq.fanout", "", body, KEPT, mandatory=True)
        store = node.data_dir / "shards" / "1" / "data.mdb"
        assert 1_000_000 < store.stat().st_size < 4_000_000
        channel.queue_purge("q7")
        channel.queue_delete("q8")
        channel.basic_publish("", "q9", b"behind it", KEPT, mandatory=True)
    ending(node)
    assert bodies(node, "q7") == []
    assert bodies(node, "q9") == [body, b"behind it"]
    for queue in queues[:7] + queues[10:]:
        assert bodies(node, queue) == [body], queue


# --- order, and who has had them


def test_unacked_messages_come_back_in_their_place_redelivered_and_others_are_not(node: Node, ending: Ending) -> None:
    """Twelve messages: four unacked (0, 2, 4, 5), four acked or discarded (1, 3, 6, 7), four never handed out (8 to 11)."""
    with confirming(node) as channel:
        fill(channel, "q", numbered(12))
        channel.basic_qos(prefetch_count=8)
        inbox = Inbox(channel, "q")
        tags = [delivery.tag for delivery in inbox.take(8)]
        inbox.cancel()
        channel.basic_ack(tags[1])
        channel.basic_ack(tags[3])
        channel.basic_reject(tags[6], requeue=False)
        channel.basic_nack(tags[7], requeue=False)
        channel.basic_publish("", "q", b"12", KEPT, mandatory=True)  # when it is confirmed, so is what came before
        ending(node)
    kept = [Got(b"%d" % number, redelivered=number < 8) for number in (0, 2, 4, 5, 8, 9, 10, 11, 12)]
    assert drain(node, "q") == kept


def test_requeued_messages_keep_their_place_and_their_mark(node: Node, ending: Ending) -> None:
    with confirming(node) as channel:
        fill(channel, "q", numbered(6))
        got = [channel.basic_get("q")[0].delivery_tag for _ in range(4)]
        channel.basic_nack(got[2], requeue=True)
        channel.basic_ack(got[0])
        channel.basic_reject(got[1], requeue=True)
        channel.basic_publish("", "q", b"6", KEPT, mandatory=True)
        ending(node)
    assert_holds(node, "q", [Got(b"%d" % number, redelivered=number < 4) for number in range(1, 7)], ending)


def test_what_another_workers_consumer_holds_comes_back_too(node: Node, ending: Ending) -> None:
    """Publisher and consumer on worker 0, queue on worker 1: over the link both ways."""
    with confirming(node, 1) as channel:
        channel.queue_declare("q", durable=True)
    with confirming(node, 0) as channel:
        fill(channel, "q", numbered(9))
        channel.basic_qos(prefetch_count=4)
        inbox = Inbox(channel, "q")
        deliveries = inbox.take(4)
        channel.basic_ack(deliveries[1].tag, multiple=True)
        inbox.take(2)  # what two acks have made room for
        inbox.cancel()
        channel.basic_publish("", "q", b"9", KEPT, mandatory=True)
        if ending is not worker_ends:  # then the connection stays, and so does what it holds, for the queue's next life
            ending(node)
    if ending is worker_ends:
        ending(node)
    assert_holds(node, "q", [Got(b"%d" % number, redelivered=number < 6) for number in range(2, 10)], ending)


def test_a_consumer_gets_what_it_held_again_when_the_queues_worker_has_died(node: Node) -> None:
    """Its old tags are worth nothing: an ack of them settles none of the new deliveries."""
    with confirming(node, 1) as channel:
        fill(channel, "q", numbered(5))
    with confirming(node, 0) as channel:
        channel.basic_qos(prefetch_count=3)
        inbox = Inbox(channel, "q")
        old = inbox.take(3)
        channel.basic_publish("", "q", b"5", KEPT, mandatory=True)
        worker_ends(node)
        new = inbox.take(3)
        assert [(delivery.body, delivery.method.redelivered) for delivery in new] == [(b"0", True), (b"1", True), (b"2", True)]
        channel.basic_ack(old[0].tag)
        channel.basic_ack(new[1].tag)
        assert inbox.take_one().body == b"3"
        inbox.barrier()
        assert inbox.waiting == []
    assert bodies(node, "q") == [b"0", b"2", b"3", b"4", b"5"]


# --- what is gone


def test_only_persistent_messages_of_durable_queues_are_kept(node: Node, ending: Ending) -> None:
    with confirming(node) as channel:
        channel.queue_declare("durable", durable=True)
        channel.queue_declare("transient")
        exclusive = channel.queue_declare("", exclusive=True).method.queue
        for queue in ("durable", "transient", exclusive):
            channel.queue_bind(queue, "amq.fanout")
        for number in range(8):
            channel.basic_publish("amq.fanout", "", b"%d" % number, KEPT if number % 3 == 0 else TRANSIENT, mandatory=True)
        channel.basic_publish("amq.fanout", "", b"without a mode", mandatory=True)
        rows = {row["name"]: row for row in node.api("queues")}
        assert {rows[queue]["messages_persistent"] for queue in ("transient", exclusive)} == {0}
        ending(node)
        with node.connect() as connection, pytest.raises(ChannelClosedByBroker) as closed:
            eventually(lambda: connection.channel().queue_declare(exclusive, passive=True) and None)
        assert closed.value.reply_code == 404
    assert bodies(node, "durable") == [b"0", b"3", b"6"]
    if ending is worker_ends:  # the node still knows the queue
        assert bodies(node, "transient") == []


def test_what_was_settled_does_not_come_back(node: Node, ending: Ending) -> None:
    """Acked, got without ack, discarded, purged. After a crash it is certain once a later publish to the queue is confirmed."""
    with confirming(node) as channel:
        for queue in ("acked", "got", "consumed", "discarded", "purged"):
            fill(channel, queue, numbered(20, queue))
        inbox = Inbox(channel, "acked")
        channel.basic_ack(inbox.take(20)[-1].tag, multiple=True)
        inbox.cancel()
        for _ in range(20):
            assert channel.basic_get("got", auto_ack=True)[0] is not None
        inbox = Inbox(channel, "consumed", auto_ack=True)
        inbox.take(20)
        inbox.cancel()
        inbox = Inbox(channel, "discarded")
        channel.basic_nack(inbox.take(20)[-1].tag, multiple=True, requeue=False)
        inbox.cancel()
        channel.queue_purge("purged")
        for queue in ("acked", "got", "consumed", "discarded", "purged"):
            channel.basic_publish("", queue, b"later", KEPT, mandatory=True)
        ending(node)
    for queue in ("acked", "got", "consumed", "discarded", "purged"):
        assert_holds(node, queue, [Got(b"later", redelivered=False)], ending)


def test_a_deleted_queues_messages_are_not_in_the_next_of_its_name(node: Node, ending: Ending) -> None:
    with confirming(node) as channel:
        for queue in ("redeclared", "refilled", "declared after"):
            fill(channel, queue, numbered(50, "old "))
            channel.queue_delete(queue)
        channel.queue_declare("redeclared", durable=True)
        fill(channel, "refilled", numbered(3, "new "))
        ending(node)
    with node.connect() as connection:
        connection.channel().queue_declare("declared after", durable=True)
    assert bodies(node, "redeclared") == []
    assert bodies(node, "declared after") == []
    assert bodies(node, "refilled") == numbered(3, "new ")


def test_an_auto_delete_queue_takes_its_messages_along(node: Node) -> None:
    """A crash ends its consumer like anything else does: the queue is there again, and goes with its next consumer."""
    with confirming(node) as channel:
        channel.queue_declare("q", durable=True, auto_delete=True)
        for body in numbered(5):
            channel.basic_publish("", "q", body, KEPT, mandatory=True)
    node_is_killed(node)
    with confirming(node) as channel:
        inbox = Inbox(channel, "q")
        assert [delivery.body for delivery in inbox.take(5)] == numbered(5)
        inbox.cancel()
        channel.queue_declare("q", durable=True, auto_delete=True)
    node_stops(node)
    assert bodies(node, "q") == []


# --- transactions and confirms


def test_a_committed_transaction_survives_and_nothing_else_of_the_channel_does(node: Node, ending: Ending) -> None:
    """Publishes to queues of both workers and acks; one commit, one rollback, one transaction that is still open."""
    with confirming(node, 0) as near, confirming(node, 1) as far:
        near.queue_declare("near", durable=True)
        fill(far, "far", numbered(6, "old "))
        channel = far.connection.channel()
        channel.tx_select()
        got = [channel.basic_get("far")[0].delivery_tag for _ in range(6)]
        for act, tags in (("commit", got[:2]), ("rollback", got[2:4]), ("nothing", got[4:5])):
            for tag in tags:
                channel.basic_ack(tag)
            for queue in ("near", "far"):
                channel.basic_publish("", queue, f"direct {act}".encode(), KEPT)
            if act != "nothing":
                getattr(channel, f"tx_{act}")()
        ending(node)
    old = [Got(b"old %d" % number, redelivered=True) for number in range(2, 6)]
    assert_holds(node, "far", [*old, Got(b"direct commit", redelivered=False)], ending)
    assert drain(node, "near") == [Got(b"direct commit", redelivered=False)]


def test_a_transaction_through_exchanges_is_on_the_disk_of_every_worker_when_it_is_answered(node: Node) -> None:
    with confirming(node, 0) as near, confirming(node, 1) as far:
        near.queue_declare("near", durable=True)
        far.queue_declare("far", durable=True)
        near.queue_bind("near", "amq.fanout")
        near.queue_bind("far", "amq.fanout")
        channel = near.connection.channel()
        channel.tx_select()
        for body in numbered(500):
            channel.basic_publish("amq.fanout", "", body, KEPT)
        channel.tx_commit()
        node_is_killed(node)
    assert bodies(node, "near") == numbered(500)
    assert bodies(node, "far") == numbered(500)


def test_every_publish_is_confirmed_once_whatever_becomes_of_it(node: Node) -> None:
    """Persistent, transient, to queues of one and two workers, unroutable, in bursts of 1 to 500: each tag answered once, by an ack."""
    with confirming(node, 0) as near, confirming(node, 1) as far:
        near.queue_declare("near", durable=True)
        far.queue_declare("far", durable=True)
        near.queue_bind("near", "amq.fanout")
        near.queue_bind("far", "amq.fanout")
    client = WireClient.opened(node).open_channel()
    client.send_method(1, Confirm.Select())
    client.expect(Confirm.SelectOk)
    expected: dict[str, list[bytes]] = {"near": [], "far": []}
    open_tags: set[int] = set()
    tag = 0
    for burst in (1, 2, 30, 500, 1, 100):
        data = b""
        for _ in range(burst):
            tag += 1
            open_tags.add(tag)
            body = b"%d" % tag
            exchange, key = [("", "near"), ("", "far"), ("amq.fanout", ""), ("", "nowhere")][tag % 4]
            if tag % 3:
                data += kept_publish(exchange, key, body)
                for queue in expected:
                    if key == queue or exchange:
                        expected[queue].append(body)
            else:
                data += publish_bytes(1, exchange, key, body)
        client.send(data)
        while open_tags:
            ack = client.expect(Basic.Ack)
            told = {number for number in open_tags if number == ack.delivery_tag or (ack.multiple and number < ack.delivery_tag)}
            assert ack.delivery_tag in told, f"{ack} and open are {sorted(open_tags)}"
            open_tags -= told
    client.send_method(1, Queue.Declare(queue="near", passive=True))
    client.expect(Queue.DeclareOk)  # no further ack comes before it
    client.close()
    node_is_killed(node)
    for queue, sent in expected.items():
        # Two roads lead into a queue, and messages of one road keep their order.
        found = bodies(node, queue)
        assert sorted(found) == sorted(sent)
        for road in (2, 0 if queue == "near" else 1):
            assert [body for body in found if int(body) % 4 == road] == [body for body in sent if int(body) % 4 == road]


def kept_publish(exchange: str, key: str, body: bytes) -> bytes:
    """The frames of a persistent publish on channel 1."""
    method = method_bytes(1, Basic.Publish(exchange=exchange, routing_key=key))
    return method + frame_bytes(FRAME_HEADER, 1, header_payload(60, len(body), 1 << 12, b"\x02")) + frame_bytes(FRAME_BODY, 1, body)


# --- more than one life


def test_every_life_keeps_what_the_ones_before_have_left(node: Node) -> None:
    """Crash, start, publish, stop, start, … with messages taken between. Positions and the store's numbers must go on, not begin again."""
    waiting: list[Got] = []
    with confirming(node) as channel:
        channel.queue_declare("q", durable=True)
    for life, end in enumerate([node_is_killed, node_stops, worker_ends, node_is_killed, node_is_killed, node_stops, node_stops]):
        with confirming(node) as channel:
            fill(channel, "q", numbered(10, f"{life}: "))
            waiting += [Got(body, redelivered=False) for body in numbered(10, f"{life}: ")]
            for _ in range(6):
                method, _, body = channel.basic_get("q")
                was = waiting.pop(0)
                assert body == was.body
                assert method.redelivered or not was.redelivered
                channel.basic_ack(method.delivery_tag)
            held = [channel.basic_get("q")[2] for _ in range(2)]
            assert held == [was.body for was in waiting[:2]]
            waiting[:2] = [Got(body, redelivered=True) for body in held]
            channel.basic_publish("", "q", f"last of {life}".encode(), KEPT, mandatory=True)
            waiting.append(Got(f"last of {life}".encode(), redelivered=False))
            end(node)
    assert_holds(node, "q", waiting, node_is_killed)


def test_a_queues_shard_stays_whatever_the_number_of_workers(fresh_node: MakeNode) -> None:
    """Three workers, then one that owns all three shards, then three, then five; in each life messages come and go in every queue."""
    node = fresh_node(workers=3)
    waiting: dict[str, list[bytes]] = {f"q{worker}": [] for worker in range(3)}
    for worker, queue in enumerate(waiting):
        with confirming(node, worker) as channel:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "amq.fanout")
    for life, (workers, end) in enumerate([(3, node_stops), (1, node_is_killed), (3, node_stops), (5, node_is_killed), (2, node_stops)]):
        node.stop()
        node.worker_count = workers
        node.start()
        assert {row["name"]: row["worker"] for row in node.api("queues")} == {f"q{shard}": shard % workers for shard in range(3)}
        with confirming(node, workers - 1) as channel:
            for body in numbered(7, f"{life}: "):
                channel.basic_publish("amq.fanout", "", body, KEPT, mandatory=True)
            for queue, left in waiting.items():
                left += numbered(7, f"{life}: ")
                for _ in range(4):
                    assert channel.basic_get(queue, auto_ack=True)[2] == left.pop(0)
                channel.basic_publish("", queue, f"end of {life}".encode(), KEPT, mandatory=True)
                left.append(f"end of {life}".encode())
        end(node)
    for queue, left in waiting.items():
        assert bodies(node, queue) == left


def test_new_queues_go_to_the_shards_of_this_run_only(fresh_node: MakeNode) -> None:
    """With fewer workers than shards the surplus shards only drain."""
    node = fresh_node(workers=3)
    with confirming(node, 2) as channel:
        fill(channel, "old", numbered(3))
    node.stop()
    node.worker_count = 2
    node.start()
    with confirming(node) as channel:
        for number in range(6):
            fill(channel, f"new {number}", numbered(3), KEPT)
    assert bodies(node, "old") == numbered(3)
    node.stop()
    assert (node.data_dir / "shards" / "2" / "data.mdb").is_file()
    node.worker_count = 3
    node.start()
    assert {row["name"]: row["worker"] for row in node.api("queues")} == {"old": 2} | {f"new {number}": 1 for number in range(6)}
    for number in range(6):
        assert bodies(node, f"new {number}") == numbered(3)


@pytest.mark.parametrize("end", [node_stops, *CRASHES])
def test_durability_os_outlives_every_process_too(fresh_node: MakeNode, end: Ending) -> None:
    """It promises less about a power cut, and as much about everything else."""
    node = fresh_node(workers=2, durability="os")
    with confirming(node) as channel:
        fill(channel, "q", numbered(300))
        held = channel.basic_get("q")[0].delivery_tag
        channel.basic_ack(held)
        channel.basic_publish("", "q", pattern(300_000), KEPT, mandatory=True)
        end(node)
    assert bodies(node, "q") == [*numbered(300)[1:], pattern(300_000)]
    node.stop()
    node.config["durability"] = "disk"
    node.start()
    with confirming(node) as channel:
        fill(channel, "q", [b"to the disk"])
    node_is_killed(node)
    assert bodies(node, "q") == [b"to the disk"]
