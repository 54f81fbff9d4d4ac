"""Names and values that want to break out: of a log line, of UTF-8, of JSON (row 8)."""

from __future__ import annotations

import re
import struct
import time

import pytest
from pika.spec import Basic, Channel, Connection, Exchange, Queue

from tests.deadline import eventually
from tests.hostile.complaints import log_since
from tests.node import Node
from tests.wire import (
    CLIENT_CAPABILITIES,
    FRAME_HEADER,
    FRAME_METHOD,
    PROTOCOL_HEADER,
    WireClient,
    frame_bytes,
    header_payload,
    method_bytes,
)

# Ends a line, forges one, clears the screen, colours, reorders, ends a C string.
EVIL = "x\r\n2026-01-01 00:00:00.000 [info] worker-0 forged\x1b[2J\x1b[31m\u202e\u2028\x85\x00\x07y"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[(debug|info|warning|error)\] (supervisor|router|management|worker-\d) |  \| ")
LOGIN = b"\0guest\0guest"
BAD_UTF8 = [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"ok\x80"]


def shortstr(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def assert_lines_whole(node: Node, since: int, *words: str) -> None:
    """Every line of the log is one of ours, free of control characters; `words` are in it."""
    text = eventually(lambda: (text := log_since(node, since)) and all(word in text for word in words) and text, what=f"{words} in the log")
    for line in text.split("\n")[:-1]:
        assert LINE.match(line), f"not ours: {line!r}"
        assert line.isprintable(), f"not printable: {line!r}"
        assert not line.startswith("2026-01-01"), line


# Where a method has names, and its other arguments as bytes: "{}" stands for the bad one.
NAMED = {
    "queue.declare": (50, 10, [b"\0\0", None, b"\0" + bytes(4)]),
    "queue.bind, exchange": (50, 20, [b"\0\0", shortstr(b"q"), None, shortstr(b"k"), b"\0" + bytes(4)]),
    "queue.bind, key": (50, 20, [b"\0\0", shortstr(b"q"), shortstr(b"amq.direct"), None, b"\0" + bytes(4)]),
    "queue.purge": (50, 30, [b"\0\0", None, b"\0"]),
    "queue.delete": (50, 40, [b"\0\0", None, b"\0"]),
    "exchange.declare, type": (40, 10, [b"\0\0", shortstr(b"e"), None, b"\0" + bytes(4)]),
    "exchange.bind": (40, 30, [b"\0\0", shortstr(b"a"), None, shortstr(b"k"), b"\0" + bytes(4)]),
    "basic.consume, tag": (60, 20, [b"\0\0", shortstr(b"q"), None, b"\0" + bytes(4)]),
    "basic.cancel": (60, 30, [None, b"\0"]),
    "basic.get": (60, 70, [b"\0\0", None, b"\0"]),
    "basic.publish, exchange": (60, 40, [b"\0\0", None, shortstr(b"k"), b"\0"]),
    "basic.publish, key": (60, 40, [b"\0\0", shortstr(b""), None, b"\0"]),
    "channel.close": (20, 40, [b"\0\xc8", None, bytes(4)]),
}


@pytest.mark.parametrize("where", NAMED)
def test_row_8_a_name_that_is_not_utf8_is_a_frame_error(victim: Node, where: str) -> None:
    """Row 8: 501 in words, in whichever name of whichever method."""
    class_id, method_id, parts = NAMED[where]
    for bad in BAD_UTF8:
        payload = struct.pack(">HH", class_id, method_id) + b"".join(shortstr(bad) if part is None else part for part in parts)
        with WireClient.opened(victim) as client:
            client.open_channel()
            client.send(frame_bytes(FRAME_METHOD, 1, payload))
            close = client.expect(Connection.Close, 0)
            assert (close.reply_code, close.reply_text) == (501, "FRAME_ERROR - Malformed UTF-8 in shortstr")


def start_ok_bytes(properties: bytes, mechanism: bytes, response: bytes, locale: bytes) -> bytes:
    """connection.start-ok out of bytes; `properties`: the fields of the table."""
    payload = struct.pack(">HHI", 10, 11, len(properties)) + properties + shortstr(mechanism)
    return frame_bytes(FRAME_METHOD, 0, payload + struct.pack(">I", len(response)) + response + shortstr(locale))


def test_row_8_bad_utf8_before_the_login_ends_the_handshake_only(victim: Node) -> None:
    """Row 8: in the user's name, the mechanism, the locale and the vhost. In a client property it is opaque, as in RabbitMQ."""
    dropped = []
    for bad in BAD_UTF8:
        for start_ok in (
            start_ok_bytes(b"", b"PLAIN", b"\0" + bad + b"\0" + bad, b"en_US"),
            start_ok_bytes(b"", bad, LOGIN, b"en_US"),
            start_ok_bytes(b"", b"PLAIN", LOGIN, bad),
        ):
            client = WireClient(victim)
            client.send(PROTOCOL_HEADER + start_ok)
            client.expect(Connection.Start)
            dropped.append(client)
        client = WireClient(victim)
        client.start()
        client.tune()
        client.send(frame_bytes(FRAME_METHOD, 0, struct.pack(">HH", 10, 40) + shortstr(bad) + b"\0\0"))
        dropped.append(client)
        with WireClient(victim) as client:
            client.send(
                PROTOCOL_HEADER + start_ok_bytes(shortstr(bad) + b"S" + struct.pack(">I", len(bad)) + bad, b"PLAIN", LOGIN, b"en_US")
            )
            client.expect(Connection.Start)
            client.tune()
    for client in dropped:  # all wait at once: a refused login is dropped after three seconds
        assert b"\x0a\x00\x1e" not in client.expect_end(), "tuned"
        client.close()


def test_row_8_control_characters_round_trip_and_never_reach_the_log_raw(victim: Node) -> None:
    """Row 8: names with line breaks, escape sequences, NUL and marks of direction; each is made to be logged."""
    since = victim.log_path.stat().st_size
    with WireClient(victim) as client:  # who logs in
        client.start(f"\0{EVIL}\0wrong".replace("\x00\x07", "\x07").encode())
        assert EVIL not in client.expect(Connection.Close).reply_text
    with WireClient(victim) as client:  # how
        client.start(mechanism=EVIL)
        client.expect_end()
    with WireClient(victim) as client:  # where to
        client.start()
        client.tune()
        client.send_method(0, Connection.Open(virtual_host=EVIL))
        assert client.expect(Connection.Close).reply_code == 530
    with WireClient(victim) as client:  # by which protocol
        client.send(EVIL.encode()[:8])
        client.expect_end()

    client = WireClient(victim)
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start)
    properties = {"connection_name": EVIL, "product": EVIL, EVIL: EVIL, "capabilities": CLIENT_CAPABILITIES}
    client.send_method(0, Connection.StartOk(properties, "PLAIN", b"\0guest\0guest", "en_US"))
    client.tune()
    client.send_method(0, Connection.Open(virtual_host="/"))
    client.expect(Connection.OpenOk)
    client.open_channel()
    client.send_method(1, Queue.Declare(queue=EVIL, exclusive=True, arguments={EVIL: EVIL}))
    queue = client.expect(Queue.DeclareOk).queue
    assert queue == EVIL.replace("\r", "").replace("\n", ""), "RabbitMQ strips these two and keeps the rest"
    client.send_method(1, Exchange.Declare(exchange=EVIL, type="topic", auto_delete=True))
    client.expect(Exchange.DeclareOk)
    exchange = queue
    client.send_method(1, Queue.Bind(queue=queue, exchange=exchange, routing_key=EVIL, arguments={EVIL: EVIL}))
    client.expect(Queue.BindOk)
    client.send_method(1, Basic.Consume(queue=queue, consumer_tag=EVIL, arguments={EVIL: EVIL}))
    assert client.expect(Basic.ConsumeOk).consumer_tag == EVIL
    client.send(method_bytes(1, Basic.Publish(exchange=exchange, routing_key=EVIL)) + frame_bytes(FRAME_HEADER, 1, header_payload(60, 0)))
    deliver = client.expect(Basic.Deliver)
    assert (deliver.routing_key, deliver.exchange, deliver.consumer_tag) == (EVIL, exchange, EVIL)
    client.receive()
    names = {row["name"] for row in victim.api("queues")}
    assert queue in names
    assert any(row["client_properties"].get("product") == EVIL for row in victim.api("connections"))
    assert any(row["consumer_tag"] == EVIL for row in victim.api("consumers"))
    for method in (
        Queue.Declare(queue=EVIL + "missing", passive=True),
        Exchange.Declare(exchange=EVIL + "missing", passive=True),
        Exchange.Declare(exchange="e", type=EVIL),
        Basic.Get(queue="missing" + EVIL),
    ):
        client.send_method(1, method)
        close = client.expect(Channel.Close, 1)
        assert close.reply_code in (404, 406)
        client.send_method(1, Channel.CloseOk())
        client.open_channel()
    client.send_method(0, Connection.UpdateSecret(new_secret="guest", reason=EVIL))
    client.expect(Connection.UpdateSecretOk)
    client.send_method(0, Connection.Close(200, EVIL, 0, 0))
    client.expect(Connection.CloseOk)
    client.close()
    assert_lines_whole(victim, since, "forged", "update", "closed connection")


def every_type() -> bytes:
    """The fields of a table with a value of every type and some at their bounds, as bytes."""
    values = {
        "t": b"\x02",
        "b": b"\x80",
        "B": b"\xff",
        "s": b"\x80\x00",
        "u": b"\xff\xff",
        "I": b"\x80\0\0\0",
        "i": b"\xff\xff\xff\xff",
        "l": b"\x80" + bytes(7),
        "L": b"\x7f" + b"\xff" * 7,
        "f": struct.pack(">f", float("nan")),
        "d": struct.pack(">d", float("inf")),
        "D": b"\xff\xff\xff\xff\xff",
        "S": struct.pack(">I", 3) + b"\xff\0\n",
        "x": struct.pack(">I", 2) + b"\xff\0",
        "T": b"\xff" * 8,
        "V": b"",
        "A": struct.pack(">I", 9) + b"d" + struct.pack(">d", float("-inf")),
        "F": struct.pack(">I", 3) + b"\x01aV",
    }
    return b"".join(shortstr(b"k" + tag.encode()) + tag.encode() + value for tag, value in values.items())


def test_row_8_values_of_every_type_are_taken_everywhere_and_shown(victim: Node) -> None:
    """Row 8: what people can look at must not break over what clients say: NaN, bytes, times beyond the year 9999, huge decimals."""
    table = every_type()
    table = struct.pack(">I", len(table)) + table
    with WireClient(victim) as client:
        client.send(PROTOCOL_HEADER)
        client.expect(Connection.Start)
        client.send(start_ok_bytes(every_type(), b"PLAIN", LOGIN, b"en_US"))
        client.tune()
        client.send_method(0, Connection.Open(virtual_host="/"))
        client.expect(Connection.OpenOk)
        client.open_channel()
        name, exchange = f"types-{time.monotonic_ns()}".encode(), f"types-x-{time.monotonic_ns()}".encode()
        auto_delete, exclusive = b"\x04", b"\x04"
        client.send(frame_bytes(FRAME_METHOD, 1, struct.pack(">HHH", 50, 10, 0) + shortstr(name) + exclusive + table))
        client.expect(Queue.DeclareOk)
        client.send(
            frame_bytes(FRAME_METHOD, 1, struct.pack(">HHH", 40, 10, 0) + shortstr(exchange) + shortstr(b"headers") + auto_delete + table)
        )
        client.expect(Exchange.DeclareOk)
        binding = shortstr(name) + shortstr(exchange) + shortstr(b"") + b"\0" + table
        client.send(frame_bytes(FRAME_METHOD, 1, struct.pack(">HHH", 50, 20, 0) + binding))
        client.expect(Queue.BindOk)
        client.send(frame_bytes(FRAME_METHOD, 1, struct.pack(">HHH", 60, 20, 0) + shortstr(name) + shortstr(b"t") + b"\0" + table))
        client.expect(Basic.ConsumeOk)
        # The same table as headers matches the binding.
        client.send(method_bytes(1, Basic.Publish(exchange=exchange.decode(), routing_key="", mandatory=True)))
        client.send(frame_bytes(FRAME_HEADER, 1, header_payload(60, 0, 0x2000, table)))
        frame = client.receive()
        assert isinstance(frame.method, Basic.Deliver | Basic.Return)
        for path in ("connections", "channels", "consumers", "queues", "exchanges", "bindings", f"queues/%2F/{name.decode()}"):
            assert victim.api(path)
        assert any(row["arguments"].get("kV", 0) is None for row in victim.api("queues"))
