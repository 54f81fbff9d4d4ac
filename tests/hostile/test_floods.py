"""Floods: much of what is allowed (rows 9 and 10), and answers that nobody reads."""

from __future__ import annotations

import contextlib
import select
import socket
import time

import pytest
from pika.spec import Basic, Channel, Connection, Queue, Tx

from tests.deadline import eventually
from tests.hostile.bystander import Bystander, cpu_s, resident_bytes
from tests.node import Node
from tests.wire import FRAME_BODY, FRAME_HEADER, WireClient, frame_bytes, header_payload, method_bytes, publish_bytes

MIB = 1024 * 1024
MILLION = 1_000_000
RETRANSMISSION_MAX_S = 120.0  # Linux's TCP_RTO_MAX


def test_row_9_opening_and_closing_channels_for_ever_leaves_nothing(small_victim: Node) -> None:
    """Row 9: 40 rounds of 2,047 channels, each with a confirm and a consumer-less get, opened and closed; memory stays flat."""
    client = WireClient.opened(small_victim)
    opens = b"".join(method_bytes(channel_id, Channel.Open()) for channel_id in range(1, 2048))
    closes = b"".join(method_bytes(channel_id, Channel.Close(200, "", 0, 0)) for channel_id in range(1, 2048))
    sizes = []
    for _ in range(40):
        client.send(opens)
        answers_size = len(method_bytes(1, Channel.OpenOk())) * 2047
        client.receive_exactly(answers_size)
        client.send(closes)
        client.receive_exactly(len(method_bytes(1, Channel.CloseOk())) * 2047)
        sizes.append(resident_bytes(small_victim))
    client.close()
    assert max(sizes[20:]) - max(sizes[:20]) < 2 * MIB, [size // 1024 for size in sizes]


def test_row_9_channels_beyond_channel_max_close_the_connection(small_victim: Node) -> None:
    """Row 9: the 2,048th channel is one too many."""
    with WireClient.opened(small_victim) as client:
        client.send(b"".join(method_bytes(channel_id, Channel.Open()) for channel_id in range(1, 2048)))
        client.receive_exactly(len(method_bytes(1, Channel.OpenOk())) * 2047)
        client.send_method(2048, Channel.Open())
        assert client.expect(Connection.Close).reply_code == 530


class Hoarder:
    """Fills a queue with a million messages, and holds them all unacked as often as a test likes."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.publisher = WireClient.opened(node, timeout_s=60).open_channel()
        self.publisher.send_method(1, Queue.Declare(queue="hoard"))
        self.publisher.expect(Queue.DeclareOk)
        batch = publish_bytes(1, "", "hoard", bytes(16)) * 1000
        for _ in range(MILLION // 1000):
            self.publisher.send(batch)
        eventually(lambda: self.ready() == MILLION, 60, "all published")

    def ready(self) -> int:
        """Messages in the queue that nobody has."""
        self.publisher.send_method(1, Queue.Declare(queue="hoard", passive=True))
        return int(self.publisher.expect(Queue.DeclareOk).message_count)

    def hold(self) -> WireClient:
        """A client without prefetch that has got them all, acked none, and has cancelled its consumer."""
        client = WireClient.opened(self.node, timeout_s=60).open_channel()
        size = MILLION * len(deliver_bytes())
        client.send_method(1, Basic.Consume(queue="hoard", consumer_tag="t"))
        client.expect(Basic.ConsumeOk)
        left = size - len(client._received)
        while left:
            left -= len(client.socket.recv(min(left, MIB)))
        client._received = b""
        client.send_method(1, Basic.Cancel(consumer_tag="t"))
        client.expect(Basic.CancelOk)
        return client


def deliver_bytes() -> bytes:
    """One of the hoard's deliveries, as long as every other."""
    deliver = method_bytes(1, Basic.Deliver(consumer_tag="t", delivery_tag=1, redelivered=False, exchange="", routing_key="hoard"))
    return deliver + frame_bytes(FRAME_HEADER, 1, header_payload(60, 16)) + frame_bytes(FRAME_BODY, 1, bytes(16))


GIVE_BACK = {
    "nack": [method_bytes(1, Basic.Nack(0, multiple=True, requeue=True))],
    "channel.close": [method_bytes(1, Channel.Close(200, "", 0, 0))],
    "recover": [method_bytes(1, Basic.Recover(requeue=True))],
    "recover without requeue": [method_bytes(1, Basic.Recover(requeue=False))],
    "commit": [method_bytes(1, Tx.Select()), method_bytes(1, Basic.Nack(0, multiple=True, requeue=True)), method_bytes(1, Tx.Commit())],
    "disconnect": [],
}


def test_row_10_a_million_unacked_messages_are_bounded_and_go_back_without_holding_anybody_up(small_victim: Node) -> None:
    """Row 10: prefetch 0, no ack: under 250 bytes each. Requeued at once, in every way there is, another connection waits under 100 ms."""
    before = resident_bytes(small_victim)
    hoarder = Hoarder(small_victim)
    for way, methods in GIVE_BACK.items():
        client = hoarder.hold()
        assert hoarder.ready() == 0
        grown = resident_bytes(small_victim) - before
        assert grown < 250 * MILLION, f"{grown / MIB:.0f} MiB"
        used_s = cpu_s(small_victim)
        with Bystander(small_victim) as bystander:
            if methods:
                client.send(b"".join(methods))
            else:
                client.close()
            eventually(lambda: hoarder.ready() == MILLION, 30, "all requeued")
            used_s = cpu_s(small_victim) - used_s
            print(f"{way}: worst round trip {bystander.worst_s * 1000:.0f} ms, {used_s * 1000:.0f} ms of CPU")
            assert min(bystander.worst_s, used_s) < 0.1, way
        client.close()


def flood_unread(client: WireClient, request: bytes, most: int) -> int:
    """Send the request again and again without reading, until the broker stops reading for three seconds or `most` bytes are sent."""
    batch = request * max(1, 65536 // len(request))
    client.socket.setblocking(False)
    sent = 0
    while sent < most:
        if not select.select([], [client.socket], [], 3.0)[1]:
            break
        with contextlib.suppress(BlockingIOError):
            sent += client.socket.send(batch)
    client.socket.setblocking(True)
    return sent


UNREAD = {
    "get": lambda queue: method_bytes(1, Basic.Get(queue=queue)),
    "declare": lambda queue: method_bytes(1, Queue.Declare(queue=queue, passive=True)),
    "return": lambda queue: publish_bytes(1, "", "nowhere", bytes(1000), mandatory=True),
    "qos": lambda queue: method_bytes(1, Basic.Qos()),
    "channel": lambda queue: method_bytes(2, Channel.Open()) + method_bytes(2, Channel.Close(200, "", 0, 0)),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_row_10_who_asks_and_does_not_read_is_not_read(small_victim: Node, kind: str) -> None:
    """Row 10 and rabbitmq's own history of writers' mailboxes: answers that nobody reads are bounded, and come when they are read."""
    client = WireClient.opened(small_victim)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.open_channel()
    client.send_method(1, Queue.Declare(queue="unread", exclusive=True))
    client.expect(Queue.DeclareOk)
    for _ in range(100):
        client.send(publish_bytes(1, "", "unread", bytes(100_000)))
    client.send_method(1, Queue.Declare(queue="unread", passive=True))
    assert client.expect(Queue.DeclareOk).message_count == 100
    request = UNREAD[kind]("unread")
    if kind == "get":  # 100 KB of answer for 20 bytes; put back, so that there is always one to get
        request += method_bytes(1, Basic.Nack(0, multiple=True, requeue=True))
    before = resident_bytes(small_victim)
    began_s = time.monotonic()
    sent = flood_unread(client, request, 48 * MIB)
    assert sent < 48 * MIB, "read on and on"
    grown = resident_bytes(small_victim) - before
    assert grown < 16 * MIB, f"{grown / MIB:.1f} MiB of unread answers"
    with Bystander(small_victim) as bystander:
        for _ in range(10):
            assert bystander.round_trip() < 0.1
    # Once it reads, it is served on: everything that was read is answered. Loopback loses segments of a peer that does not read, and TCP
    # doubles its pause before each time that it sends them again: the next is no longer than all since the first loss, nor than that.
    client.socket.settimeout(min(time.monotonic() - began_s, RETRANSMISSION_MAX_S) + 10)
    received = 0
    while received <= 4 * MIB:
        chunk = client.socket.recv(MIB)
        assert chunk, f"closed after {received} bytes of answers"
        received += len(chunk)
    client.close()
