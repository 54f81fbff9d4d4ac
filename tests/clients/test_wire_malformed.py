"""Wrong bytes on an open connection: each gets RabbitMQ's reply, closes what it must, and nobody else notices.

The texts are RabbitMQ's, taken from it; where RabbitMQ itself only crashes or hangs (`not_on_peer`), they follow its later versions' rules.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest
from pika.spec import Basic, Channel, Confirm, Connection, Exchange, Queue

from tests.node import Broker
from tests.wire import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    PROTOCOL_HEADER,
    WireClient,
    frame_bytes,
    header_payload,
    method_bytes,
    publish_bytes,
)

FRAME_MAX = 131072
PUBLISH = method_bytes(1, Basic.Publish(exchange="", routing_key="nobody"))
DECLARE = method_bytes(1, Queue.Declare(queue="", exclusive=True))


@pytest.fixture(autouse=True)
def bystanders(broker: Broker) -> Iterator[None]:
    """Clients that must not notice: enough for every worker; they publish and get before and after. No process may have died."""
    before = None if broker.is_peer else broker.processes()
    clients = [WireClient.opened(broker).open_channel() for _ in range(3)]
    for client in clients:
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        client.expect(Queue.DeclareOk)
    yield
    for client in clients:
        client.send(publish_bytes(1, "", "", b""))  # to no queue: the key is empty
        client.send_method(1, Basic.Get(queue=""))
        client.expect(Basic.GetEmpty)
        client.close()
    if before is not None:
        assert broker.processes() == before


@pytest.fixture
def client(broker: Broker) -> Iterator[WireClient]:
    """An open connection with channel 1 open."""
    with WireClient.opened(broker) as opened:
        yield opened.open_channel()


def octets(payload: bytes) -> str:
    """How RabbitMQ's texts show bytes that are not all printable."""
    return f"<<{','.join(map(str, payload))}>>"


MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "wrong end octet": (
        frame_bytes(FRAME_METHOD, 1, b"\0\x3c\0\x28", end=b"\0"),
        501,
        "FRAME_ERROR - type 1, all octets = <<0,60,0,40>>: {invalid_frame_end_marker,0}",
    ),
    "unknown frame type": (frame_bytes(5, 1, b"hello"), 501, 'FRAME_ERROR - type 5, all octets = <<"hello">>: unknown_frame'),
    "unknown frame type on channel 0": (frame_bytes(7, 0, b""), 501, "FRAME_ERROR - type 7, all octets = <<>>: unknown_frame"),
    "frame beyond frame_max": (
        struct.pack(">BHI", FRAME_METHOD, 1, FRAME_MAX + 1),
        501,
        "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,131073,131064}",
    ),
    "frame of 4 GiB": (
        struct.pack(">BHI", FRAME_METHOD, 1, 2**32 - 1),
        501,
        "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4294967295,131064}",
    ),
    "heartbeat with a payload": (
        frame_bytes(FRAME_HEARTBEAT, 0, b"abc"),
        501,
        'FRAME_ERROR - type 8, all octets = <<"abc">>: unknown_frame',
    ),
    "heartbeat on channel 1": (frame_bytes(FRAME_HEARTBEAT, 1, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    "empty method frame": (frame_bytes(FRAME_METHOD, 1, b""), 501, "FRAME_ERROR - type 1, all octets = <<>>: unknown_frame"),
    "method frame of 3 bytes": (
        frame_bytes(FRAME_METHOD, 1, b"\0\x3c\0"),
        501,
        "FRAME_ERROR - type 1, all octets = <<0,60,0>>: unknown_frame",
    ),
    "header frame of 2 bytes": (
        PUBLISH + frame_bytes(FRAME_HEADER, 1, b"\0\x3c"),
        501,
        "FRAME_ERROR - type 2, all octets = <<0,60>>: unknown_frame",
    ),
    "header frame on channel 0": (
        frame_bytes(FRAME_HEADER, 0, header_payload(60, 0)),
        505,
        f"UNEXPECTED_FRAME - type 2, all octets = {octets(header_payload(60, 0))}",
    ),
    "body frame on channel 0": (frame_bytes(FRAME_BODY, 0, b"x"), 505, 'UNEXPECTED_FRAME - type 3, all octets = <<"x">>'),
    "header without a publish": (
        frame_bytes(FRAME_HEADER, 1, header_payload(60, 3)),
        505,
        "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
    ),
    "body without a publish": (
        frame_bytes(FRAME_BODY, 1, b"abc"),
        505,
        "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
    ),
    "queue name that is not UTF-8": (
        frame_bytes(FRAME_METHOD, 1, struct.pack(">HHHB", 50, 10, 0, 2) + b"\xff\xfe\x00" + struct.pack(">I", 0)),
        501,
        "FRAME_ERROR - Malformed UTF-8 in shortstr",
    ),
    "a second protocol header": (
        PROTOCOL_HEADER,
        501,
        "FRAME_ERROR - type 65, all octets = <<>>: {frame_too_large,1342177289,131064}",
    ),
    "garbage": (bytes(range(256)), 501, "FRAME_ERROR - type 0, all octets = <<>>: {frame_too_large,50595078,131064}"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_frame_closes_the_connection(client: WireClient, name: str) -> None:
    data, code, text = MALFORMED[name]
    client.send(data)
    client.expect_connection_close(code, text)


CONTENT = (60, 40)
FAILING: dict[str, tuple[bytes, int, str, tuple[int, int]]] = {
    "arguments cut short": (
        frame_bytes(FRAME_METHOD, 1, b"\0\x3c\0\x28\0\0"),
        501,
        "FRAME_ERROR - cannot decode <<0,0>>",
        CONTENT,
    ),
    "arguments too long": (
        frame_bytes(FRAME_METHOD, 1, DECLARE[7:-1] + b"xx"),
        501,
        "FRAME_ERROR - cannot decode <<0,0,0,4,0,0,0,0,120,120>>",
        (50, 10),
    ),
    "a method for the header": (
        PUBLISH * 2,
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        CONTENT,
    ),
    "a body for the header": (
        PUBLISH + frame_bytes(FRAME_BODY, 1, b"abc"),
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        CONTENT,
    ),
    "a header of another class": (
        PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(50, 3)),
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
        CONTENT,
    ),
    "a method for the body": (
        PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, 3)) + PUBLISH,
        505,
        "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
        CONTENT,
    ),
    "a header for the body": (
        PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, 3)) * 2,
        505,
        "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
        CONTENT,
    ),
    "a publish on a closed channel": (
        publish_bytes(5, "", "k", b""),
        504,
        "CHANNEL_ERROR - expected 'channel.open'",
        CONTENT,
    ),
    "a declare on a closed channel": (
        method_bytes(5, Queue.Declare(queue="q")),
        504,
        "CHANNEL_ERROR - expected 'channel.open'",
        (50, 10),
    ),
    "a close on a closed channel": (
        method_bytes(5, Channel.Close(200, "", 0, 0)),
        504,
        "CHANNEL_ERROR - expected 'channel.open'",
        (20, 40),
    ),
    "a second channel.open": (method_bytes(1, Channel.Open()), 504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10)),
    "channel.open on channel 0": (
        method_bytes(0, Channel.Open()),
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
        (20, 10),
    ),
    "queue.declare on channel 0": (
        method_bytes(0, Queue.Declare(queue="q")),
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
        (50, 10),
    ),
    "basic.publish on channel 0": (
        method_bytes(0, Basic.Publish(exchange="", routing_key="k")),
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
        CONTENT,
    ),
    "a second tune-ok": (
        method_bytes(0, Connection.TuneOk(0, FRAME_MAX, 0)),
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
        (10, 31),
    ),
    "a second connection.open": (
        method_bytes(0, Connection.Open("/")),
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
        (10, 40),
    ),
    "connection.open on channel 1": (
        method_bytes(1, Connection.Open("/")),
        503,
        "COMMAND_INVALID - unimplemented method",
        (10, 40),
    ),
    "connection.close on channel 1": (
        method_bytes(1, Connection.Close(200, "", 0, 0)),
        503,
        "COMMAND_INVALID - unimplemented method",
        (10, 50),
    ),
    "queue.declare-ok from the client": (
        method_bytes(1, Queue.DeclareOk("q", 0, 0)),
        503,
        "COMMAND_INVALID - unimplemented method",
        (50, 11),
    ),
    "basic.consume-ok from the client": (
        method_bytes(1, Basic.ConsumeOk("t")),
        503,
        "COMMAND_INVALID - unimplemented method",
        (60, 21),
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_wrong_method_closes_the_connection_and_is_named(client: WireClient, name: str) -> None:
    data, code, text, ids = FAILING[name]
    client.send(data)
    client.expect_connection_close(code, text, *ids)


@pytest.mark.not_on_peer("3.10's process for the connection crashes")
@pytest.mark.parametrize("ids", [(60, 99), (99, 1), (0, 0), (65535, 65535)])
def test_an_unknown_method_is_503(client: WireClient, ids: tuple[int, int]) -> None:
    client.send(frame_bytes(FRAME_METHOD, 1, struct.pack(">HH", *ids)))
    close = client.expect(Connection.Close)
    assert (close.reply_code, close.reply_text) == (503, "COMMAND_INVALID - unimplemented method")


@pytest.mark.not_on_peer("3.10 answers 541 INTERNAL_ERROR")
@pytest.mark.parametrize(
    "payload",
    [
        header_payload(60, 0, 0x8000),
        header_payload(60, 0, 0x8000, b"\x05ab"),
        header_payload(60, 0, 0x2000, struct.pack(">I", 5) + b"\x01aZ.."),
        header_payload(60, 0, 0x2000, struct.pack(">I", 2**32 - 1)),
        header_payload(60, 0, 0x2000, struct.pack(">I", 7) + b"\x01aS" + struct.pack(">I", 2**31)),
        header_payload(60, 0, 0x0000, b"trailing"),
    ],
    ids=["no property", "short property", "unknown field type", "table of 4 GiB", "string of 2 GiB", "trailing bytes"],
)
def test_malformed_properties_are_a_frame_error(client: WireClient, payload: bytes) -> None:
    client.send(PUBLISH + frame_bytes(FRAME_HEADER, 1, payload))
    close = client.expect(Connection.Close)
    assert close.reply_code in (501, 502), close
    client.expect_end()


def nested_table(depth: int) -> bytes:
    """A field table with `depth` tables inside one another, length included."""
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


@pytest.mark.not_on_peer("3.10 takes any depth")
@pytest.mark.parametrize("where", ["arguments", "properties"])
def test_a_nesting_bomb_is_refused(client: WireClient, where: str) -> None:
    table = nested_table(16_000)
    if where == "arguments":
        data = frame_bytes(FRAME_METHOD, 1, struct.pack(">HHHBB", 50, 10, 0, 0, 4) + table)
    else:
        data = PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, 0, 0x2000, table))
    client.send(data)
    assert client.expect(Connection.Close).reply_code in (501, 502)


@pytest.mark.parametrize("depth", [1, 10, 30])
def test_ordinary_nesting_is_taken(client: WireClient, depth: int) -> None:
    client.send(PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, 0, 0x2000, nested_table(depth))) + DECLARE)
    client.expect(Queue.DeclareOk)


@pytest.mark.not_on_peer("3.10 waits for ever")
@pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab", b"cd"], [b"", b"abcd"]])
def test_a_body_longer_than_announced_is_501(client: WireClient, pieces: list[bytes]) -> None:
    client.send(PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, 3)))
    client.send(b"".join(frame_bytes(FRAME_BODY, 1, piece) for piece in pieces))
    close = client.expect(Connection.Close)
    assert (close.reply_code, close.reply_text) == (501, "FRAME_ERROR - content body frame exceeds remaining content size")


@pytest.mark.not_on_peer("3.10 waits for the body")
@pytest.mark.parametrize("size", [16 * 1024 * 1024 + 1, 2**29 + 1, 2**32, 2**63, 2**64 - 1])
def test_a_body_beyond_the_limit_is_refused_at_its_header(client: WireClient, size: int) -> None:
    client.send(PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, size)))
    text = f"PRECONDITION_FAILED - message size {size} is larger than configured max size 16777216"
    client.expect_channel_close(1, 406, text, *CONTENT)


def test_empty_body_frames_are_passed_over(client: WireClient) -> None:
    client.send(DECLARE)
    queue = client.expect(Queue.DeclareOk).queue
    empty = frame_bytes(FRAME_BODY, 1, b"")
    client.send(method_bytes(1, Basic.Publish(exchange="", routing_key=queue)) + frame_bytes(FRAME_HEADER, 1, header_payload(60, 2)))
    client.send(empty * 100 + frame_bytes(FRAME_BODY, 1, b"a") + empty + frame_bytes(FRAME_BODY, 1, b"b"))
    client.send_method(1, Basic.Get(queue=queue, no_ack=True))
    client.expect(Basic.GetOk)
    client.receive()
    body = b""
    while len(body) < 2:
        body += client.receive().fragment
    assert body == b"ab"


def test_contents_of_two_channels_may_interleave(client: WireClient) -> None:
    client.open_channel(2)
    client.send(DECLARE)
    queue = client.expect(Queue.DeclareOk).queue
    parts = [
        [
            method_bytes(channel_id, Basic.Publish(exchange="", routing_key=queue)),
            frame_bytes(FRAME_HEADER, channel_id, header_payload(60, 2)),
            frame_bytes(FRAME_BODY, channel_id, b"%d" % channel_id),
            frame_bytes(FRAME_BODY, channel_id, b"."),
        ]
        for channel_id in (1, 2)
    ]
    client.send(b"".join(first + second for first, second in zip(*parts, strict=True)))
    bodies = []
    for _ in range(2):
        client.send_method(1, Basic.Get(queue=queue, no_ack=True))
        client.expect(Basic.GetOk)
        assert client.receive().body_size == 2
        body = b""
        while len(body) < 2:
            body += client.receive().fragment
        bodies.append(body)
    assert bodies == [b"1.", b"2."]


def test_a_connection_dropped_in_the_middle_of_a_content_leaves_nothing(broker: Broker) -> None:
    with WireClient.opened(broker) as witness:
        witness.open_channel().send(DECLARE)
        queue = witness.expect(Queue.DeclareOk).queue
        for _ in range(10):
            client = WireClient.opened(broker).open_channel()
            client.send(method_bytes(1, Basic.Publish(exchange="", routing_key=queue)))
            client.send(frame_bytes(FRAME_HEADER, 1, header_payload(60, 1000)) + frame_bytes(FRAME_BODY, 1, bytes(500)))
            client.socket.shutdown(socket.SHUT_WR)
            client.expect_end()
            client.close()
        witness.send_method(1, Basic.Get(queue=queue))
        witness.expect(Basic.GetEmpty)


# --- closing


def test_a_clients_close_is_answered(client: WireClient) -> None:
    client.send_method(1, Channel.Close(200, "bye", 0, 0))
    client.expect(Channel.CloseOk, 1)
    client.send_method(0, Connection.Close(200, "bye", 0, 0))
    client.expect(Connection.CloseOk, 0)


def test_after_a_channel_exception_the_channel_hears_nothing_until_close_ok(client: WireClient) -> None:
    client.open_channel(2)
    client.send_method(1, Queue.Declare(queue="missing", passive=True))
    client.send(publish_bytes(1, "", "k", b"passed over") + DECLARE + frame_bytes(FRAME_METHOD, 1, DECLARE[7:-1]))
    client.send_method(2, Queue.Declare(queue="", exclusive=True))
    close = client.expect(Channel.Close, 1)
    assert (close.reply_code, close.class_id, close.method_id) == (404, 50, 10)
    client.expect(Queue.DeclareOk, 2)
    client.send(DECLARE)
    client.send_method(1, Channel.CloseOk())
    client.open_channel(1)
    client.send(DECLARE)
    client.expect(Queue.DeclareOk, 1)


def test_two_closes_that_cross_end_the_channel(client: WireClient) -> None:
    client.send_method(1, Queue.Declare(queue="missing", passive=True))
    client.send_method(1, Channel.Close(200, "bye", 0, 0))
    client.expect(Channel.Close, 1)
    client.expect(Channel.CloseOk, 1)
    client.send_method(1, Channel.CloseOk())
    client.open_channel(1)


CHANNEL_EXCEPTIONS = {
    "passive declare": (Queue.Declare(queue="missing", passive=True), 404, "NOT_FOUND - no queue 'missing' in vhost '/'", (50, 10)),
    "exchange passive": (
        Exchange.Declare(exchange="missing", passive=True),
        404,
        "NOT_FOUND - no exchange 'missing' in vhost '/'",
        (40, 10),
    ),
    "bind": (Queue.Bind(queue="missing", exchange="amq.direct"), 404, "NOT_FOUND - no queue 'missing' in vhost '/'", (50, 20)),
    "purge": (Queue.Purge(queue="missing"), 404, "NOT_FOUND - no queue 'missing' in vhost '/'", (50, 30)),
    "consume": (Basic.Consume(queue="missing"), 404, "NOT_FOUND - no queue 'missing' in vhost '/'", (60, 20)),
    "get": (Basic.Get(queue="missing"), 404, "NOT_FOUND - no queue 'missing' in vhost '/'", (60, 70)),
    "ack": (Basic.Ack(delivery_tag=9), 406, "PRECONDITION_FAILED - unknown delivery tag 9", (60, 80)),
    "nack": (Basic.Nack(delivery_tag=9), 406, "PRECONDITION_FAILED - unknown delivery tag 9", (60, 120)),
    "reject": (Basic.Reject(delivery_tag=9), 406, "PRECONDITION_FAILED - unknown delivery tag 9", (60, 90)),
    "exchange delete": (
        Exchange.Delete(exchange="amq.direct"),
        403,
        "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed",
        (40, 20),
    ),
}


@pytest.mark.parametrize("name", CHANNEL_EXCEPTIONS)
def test_a_channel_exception_names_the_failing_method(client: WireClient, name: str) -> None:
    method, code, text, ids = CHANNEL_EXCEPTIONS[name]
    client.send_method(1, method)
    client.expect_channel_close(1, code, text, *ids)


def test_a_publish_to_a_missing_exchange_names_the_publish(client: WireClient) -> None:
    client.send(publish_bytes(1, "missing", "k", b"body"))
    client.expect_channel_close(1, 404, "NOT_FOUND - no exchange 'missing' in vhost '/'", *CONTENT)


# --- nowait


def test_methods_with_nowait_are_done_and_not_answered(client: WireClient) -> None:
    queue, exchange = "nowait-q", "nowait-x"
    client.send_method(1, Confirm.Select(nowait=True))
    client.send_method(1, Exchange.Declare(exchange=exchange, type="fanout", auto_delete=True, nowait=True))
    client.send_method(1, Queue.Declare(queue=queue, exclusive=True, nowait=True))
    client.send_method(1, Queue.Bind(queue=queue, exchange=exchange, nowait=True))
    client.send(publish_bytes(1, exchange, "k", b"1"))
    client.expect(Basic.Ack, 1)
    client.send_method(1, Queue.Declare(queue=queue, passive=True))
    assert client.expect(Queue.DeclareOk).message_count == 1
    client.send_method(1, Queue.Purge(queue=queue, nowait=True))
    client.send_method(1, Basic.Consume(queue=queue, consumer_tag="t", no_ack=True, nowait=True))
    client.send(publish_bytes(1, exchange, "k", b"2"))
    delivered = [client.receive() for _ in range(4)]
    methods = [frame.method for frame in delivered if hasattr(frame, "method")]
    assert {type(method) for method in methods} == {Basic.Deliver, Basic.Ack}
    assert next(method for method in methods if isinstance(method, Basic.Deliver)).consumer_tag == "t"
    client.send_method(1, Basic.Cancel(consumer_tag="t", nowait=True))
    client.send_method(1, Queue.Declare(queue=queue, passive=True))
    answer = client.expect(Queue.DeclareOk)
    assert (answer.message_count, answer.consumer_count) == (0, 0)
    client.send_method(1, Queue.Delete(queue=queue, nowait=True))
    client.send_method(1, Queue.Declare(queue=queue, passive=True))
    client.expect_channel_close(1, 404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10)
    client.send_method(1, Exchange.Declare(exchange=exchange, passive=True))
    client.expect_channel_close(1, 404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'", 40, 10)


@pytest.mark.parametrize("kind", ["exchange", "queue"])
def test_a_refused_method_with_nowait_closes_the_channel_all_the_same(client: WireClient, kind: str) -> None:
    if kind == "exchange":
        client.send_method(1, Exchange.Declare(exchange="amq.mine", type="direct", nowait=True))
        text, ids = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'", (40, 10)
    else:
        client.send_method(1, Queue.Declare(queue="amq.mine", nowait=True))
        text, ids = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'", (50, 10)
    client.expect_channel_close(1, 403, text, *ids)


# --- many wrong bytes


def session_bytes() -> bytes:
    """What a lively client sends, from its header to its close."""
    data = PROTOCOL_HEADER
    data += method_bytes(0, Connection.StartOk({"product": "x"}, "PLAIN", b"\0guest\0guest", "en_US"))
    data += method_bytes(0, Connection.TuneOk(2047, FRAME_MAX, 0)) + method_bytes(0, Connection.Open("/"))
    data += method_bytes(1, Channel.Open()) + DECLARE + method_bytes(1, Confirm.Select())
    data += method_bytes(1, Basic.Qos(prefetch_count=3)) + method_bytes(1, Basic.Consume(queue="", consumer_tag="c"))
    data += method_bytes(1, Queue.Bind(queue="", exchange="amq.topic", routing_key="never.#"))
    for number in range(5):
        data += publish_bytes(1, "amq.topic", f"never.{number}", b"x" * number * 50, mandatory=True)
    data += method_bytes(1, Basic.Ack(delivery_tag=1)) + method_bytes(1, Basic.Cancel(consumer_tag="c"))
    return data + method_bytes(0, Connection.Close(200, "bye", 0, 0))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_sessions_end_and_harm_nobody(broker: Broker, seed: int) -> None:
    whole = session_bytes()
    chance = random.Random(seed)
    clients = []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(PROTOCOL_HEADER), len(data))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randrange(1, 20)]
                case 2:
                    data[at:at] = chance.randbytes(chance.randrange(1, 20))
                case 3:
                    data[at : at + 4] = struct.pack(">I", chance.choice((0, 1, 2**31, 2**32 - 1)))
        client = WireClient(broker)
        clients.append(client)
        with contextlib.suppress(OSError):  # dropped before all was sent
            client.send(bytes(data))
            client.socket.shutdown(socket.SHUT_WR)
    for client in clients:
        client.expect_end()
        client.close()
