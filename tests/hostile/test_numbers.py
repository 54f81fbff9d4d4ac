"""Numbers at and beyond their bounds, and sizes that lie (rows 3, 4, 7 and 26)."""

from __future__ import annotations

import struct

import pytest
from pika.spec import Basic, Channel, Confirm, Connection, Exchange, Queue

from tests.hostile.bystander import Bystander, cpu_s, resident_bytes
from tests.node import Node
from tests.wire import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, WireClient, frame_bytes, header_payload, method_bytes, publish_bytes

MIB = 1024 * 1024


def consume_with(client: WireClient, queue: str, priority: bytes) -> None:
    """basic.consume with x-priority as these bytes: type and value."""
    table = b"\x0ax-priority" + priority
    payload = struct.pack(">HHHB", 60, 20, 0, len(queue)) + queue.encode() + b"\0\0" + struct.pack(">I", len(table)) + table
    client.send(frame_bytes(FRAME_METHOD, 1, payload))


@pytest.mark.parametrize("where", ["here", "on another worker"])
def test_row_26_a_priority_may_be_any_integer_and_nothing_else(victim: Node, where: str) -> None:
    """Row 26: x-priority negative, huge, beyond 63 bits, float, text, table, boolean, nothing."""
    holder = WireClient.opened(victim).open_channel()
    holder.send_method(1, Queue.Declare(queue="priorities", auto_delete=True))
    holder.expect(Queue.DeclareOk)
    # Of four connections on three workers one at least is on another than the queue's, and with `here` the queue's own is used.
    clients = [holder] if where == "here" else [WireClient.opened(victim).open_channel() for _ in range(4)]
    keeper = WireClient.opened(victim).open_channel()
    keeper.send_method(1, Basic.Consume(queue="priorities"))
    keeper.expect(Basic.ConsumeOk)
    try:
        for client in clients:
            for integer in (b"b\x80", b"B\xff", b"s\x80\0", b"u\xff\xff", b"I\x80\0\0\0", b"i\xff\xff\xff\xff", b"l\x7f" + b"\xff" * 7):
                consume_with(client, "priorities", integer)
                tag = client.expect(Basic.ConsumeOk).consumer_tag
                client.send_method(1, Basic.Cancel(consumer_tag=tag))
                client.expect(Basic.CancelOk)
            for other in (
                b"d" + struct.pack(">d", 1e300),
                b"f" + bytes(4),
                b"S\0\0\0\x011",
                b"F" + bytes(4),
                b"t\x01",
                b"V",
                b"A" + bytes(4),
            ):
                consume_with(client, "priorities", other)
                close = client.expect(Channel.Close, 1)
                assert close.reply_code == 406
                assert "x-priority" in close.reply_text
                client.send_method(1, Channel.CloseOk())
                client.open_channel()
    finally:
        for client in {holder, keeper, *clients}:
            client.close()


@pytest.mark.parametrize(("size", "count"), [(0, 65535), (2**32 - 1, 0), (2**32 - 1, 65535), (1, 1)])
@pytest.mark.parametrize("shared", [False, True])
def test_row_26_any_prefetch_is_a_bound_and_no_allocation(victim: Node, size: int, count: int, shared: bool) -> None:
    """Row 26: basic.qos at its bounds, and a delivery under it."""
    with WireClient.opened(victim) as client:
        client.open_channel()
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        queue = client.expect(Queue.DeclareOk).queue
        client.send_method(1, Basic.Qos(prefetch_size=size, prefetch_count=count, global_qos=shared))
        client.expect(Basic.QosOk)
        client.send_method(1, Basic.Consume(queue=queue))
        client.expect(Basic.ConsumeOk)
        client.send(publish_bytes(1, "", queue, b"body"))
        assert client.expect(Basic.Deliver).delivery_tag == 1


@pytest.mark.parametrize("tag", [1, 2**31, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", ["ack", "nack", "reject", "ack multiple"])
def test_row_26_a_delivery_tag_that_was_never_given_is_406(victim: Node, tag: int, kind: str) -> None:
    """Row 26: tags up to the last of 64 bits."""
    ids = {"ack": 80, "ack multiple": 80, "nack": 120, "reject": 90}[kind]
    with WireClient.opened(victim) as client:
        client.open_channel()
        client.send(frame_bytes(FRAME_METHOD, 1, struct.pack(">HHQB", 60, ids, tag, kind == "ack multiple")))
        client.expect_channel_close(1, 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}", 60, ids)


def test_row_3_a_channel_beyond_channel_max_is_refused_before_anything_is_made_for_it(small_victim: Node) -> None:
    """Row 3: a table up to channel 65,535 would be half a MiB for a frame of 13 bytes."""
    with WireClient.opened(small_victim, channel_max=100) as client:
        client.open_channel(100)
        client.send_method(101, Channel.Open())
        client.expect_connection_close(530, "NOT_ALLOWED - channel 101 is higher than the negotiated channel_max (100)", 20, 10)
    before = resident_bytes(small_victim)
    clients = [WireClient.opened(small_victim) for _ in range(100)]
    for client in clients:
        client.send_method(65535, Channel.Open())
        assert client.expect(Connection.Close).reply_code == 530
    grown = resident_bytes(small_victim) - before
    for client in clients:
        client.close()
    assert grown < 8 * MIB, f"{grown / MIB:.1f} MiB"


def test_row_4_bodies_that_are_announced_and_never_come_take_no_memory(small_victim: Node) -> None:
    """Row 4: 500 channels with a body of 16 MiB each; half of them end by a disconnect, half by channel.close."""
    client = WireClient.opened(small_victim)
    for channel_id in range(1, 501):
        client.open_channel(channel_id)
    before = resident_bytes(small_victim)
    header = header_payload(60, 16 * MIB)
    for channel_id in range(1, 501):
        client.send(
            method_bytes(channel_id, Basic.Publish(exchange="", routing_key="k"))
            + frame_bytes(FRAME_HEADER, channel_id, header)
            + frame_bytes(FRAME_BODY, channel_id, b"begun")
        )
    client.open_channel(501)
    assert resident_bytes(small_victim) - before < 32 * MIB
    for channel_id in range(1, 251):
        client.send_method(channel_id, Channel.Close(200, "", 0, 0))
    close = client.expect(Connection.Close)
    assert close.reply_code == 505, "a method in the middle of a content"
    client.close()
    with Bystander(small_victim) as bystander:
        bystander.round_trip()
    assert resident_bytes(small_victim) - before < 16 * MIB


def test_row_7_tens_of_thousands_of_headers_take_linear_time(small_victim: Node) -> None:
    """Row 7: 43,000 headers in one message, past a headers exchange with 200 bindings: nobody waits for long."""
    client = WireClient.opened(small_victim).open_channel()
    client.send_method(1, Exchange.Declare(exchange="h", type="headers", auto_delete=True))
    client.expect(Exchange.DeclareOk)
    client.send_method(1, Queue.Declare(queue="hq", exclusive=True))
    client.expect(Queue.DeclareOk)
    for number in range(200):
        arguments = {"x-match": "all", "zz": number, "z": None}
        client.send_method(1, Queue.Bind(queue="hq", exchange="h", routing_key=str(number), arguments=arguments))
        client.expect(Queue.BindOk)
    client.send_method(1, Confirm.Select())
    client.expect(Confirm.SelectOk)
    fields = b"\x01aV" * 43_000
    header = frame_bytes(FRAME_HEADER, 1, header_payload(60, 0, 0x2000, struct.pack(">I", len(fields)) + fields))
    used_s = cpu_s(small_victim)
    with Bystander(small_victim) as bystander:
        for _ in range(10):
            client.send(method_bytes(1, Basic.Publish(exchange="h", routing_key="")) + header)
        confirmed = 0
        while confirmed < 10:
            confirmed = client.expect(Basic.Ack).delivery_tag
    used_s = cpu_s(small_victim) - used_s
    client.close()
    assert min(bystander.worst_s, used_s) < 0.1
