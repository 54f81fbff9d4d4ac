"""The handshake over a bare socket: what is announced, what is negotiated, and every way to get it wrong."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

import pytest
from pika.spec import Channel, Connection

from tests.conftest import MakeNode
from tests.node import Broker
from tests.wire import PROTOCOL_HEADER, WireClient, method_bytes

STEPS = (
    method_bytes(0, Connection.StartOk(client_properties={}, mechanism="PLAIN", response=b"\0guest\0guest", locale="en_US")),
    method_bytes(0, Connection.TuneOk(2047, 131072, 0)),
    method_bytes(0, Connection.Open(virtual_host="/")),
)
LOGIN_REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the broker logfile."


def amqplain(user: str, password: str) -> bytes:
    """AMQPLAIN's response: a table without its length."""
    fields = (("LOGIN", user), ("PASSWORD", password))
    return b"".join(
        bytes([len(name)]) + name.encode() + b"S" + struct.pack(">I", len(value.encode())) + value.encode() for name, value in fields
    )


def expect_dropped(client: WireClient, code: int) -> None:
    """The broker ends a handshake that went wrong: without a word, as RabbitMQ mostly does, or with a close of this code."""
    try:
        close = client.expect(Connection.Close)
    except (EOFError, ConnectionResetError):
        return
    assert close.reply_code == code, close
    client.send_method(0, Connection.CloseOk())
    assert client.expect_end() == b""


def test_start_announces_version_mechanisms_locale_and_capabilities(broker: Broker) -> None:
    with WireClient(broker) as client:
        start = client.start()
        assert (start.version_major, start.version_minor) == (0, 9)
        assert {b"PLAIN", b"AMQPLAIN"} <= set(start.mechanisms.split())
        assert start.locales.split() == [b"en_US"]
        properties = start.server_properties
        assert {"product", "version", "platform", "copyright", "information", "cluster_name", "capabilities"} <= set(properties)
        assert properties["capabilities"] == {
            "publisher_confirms": True,
            "exchange_exchange_bindings": True,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": True,
            "consumer_priorities": True,
            "authentication_failure_close": True,
            "per_consumer_qos": True,
            "direct_reply_to": True,
        }


@pytest.mark.not_on_peer("its name is another")
def test_start_names_the_product(broker: Broker) -> None:
    with WireClient(broker) as client:
        assert client.start().server_properties["product"] == "Leveret"


def test_tune_offers_rabbitmqs_limits(broker: Broker) -> None:
    with WireClient(broker) as client:
        client.start()
        tune = client.tune()
        assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (2047, 131072, 60)


@pytest.mark.parametrize(
    "header",
    [
        b"AMQP\x00\x00\x08\x00",
        b"AMQP\x00\x00\x09\x02",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x01\x01\x00\x0a",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\x00" * 8,
    ],
)
def test_another_protocol_is_answered_with_ours_and_dropped(broker: Broker, header: bytes) -> None:
    with WireClient(broker) as client:
        client.send(header)
        assert client.expect_end() == PROTOCOL_HEADER


def test_the_header_of_amqp_0_9_is_taken_too(broker: Broker) -> None:
    with WireClient(broker) as client:
        client.send(b"AMQP\x01\x01\x00\x09")
        client.expect(Connection.Start)


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_both_mechanisms_log_in(broker: Broker, mechanism: str) -> None:
    plain = f"\0{broker.user}\0{broker.password}".encode()
    with WireClient(broker) as client:
        client.start(plain if mechanism == "PLAIN" else amqplain(broker.user, broker.password), mechanism)
        client.tune()
        client.send_method(0, Connection.Open(virtual_host="/"))
        client.expect(Connection.OpenOk)
        client.open_channel()


@pytest.mark.parametrize(("mechanism", "response"), [("PLAIN", b"\0guest\0wrong"), ("AMQPLAIN", amqplain("guest", "wrong"))])
def test_a_wrong_password_is_told_403_to_a_client_that_can_hear_it(broker: Broker, mechanism: str, response: bytes) -> None:
    with WireClient(broker) as client:
        client.start(response, mechanism)
        client.expect_connection_close(403, LOGIN_REFUSED.format(mechanism))


def test_a_wrong_password_is_only_dropped_for_a_client_that_cannot_hear_it(broker: Broker) -> None:
    with WireClient(broker) as client:
        client.start(b"\0guest\0wrong", capabilities={})
        assert client.expect_end() == b""


@pytest.mark.parametrize(
    ("mechanism", "response", "code"),
    [
        ("PLAIN", b"", 502),
        ("PLAIN", b"garbage", 502),
        ("PLAIN", b"\0guest", 502),
        ("PLAIN", b"\0guest\0guest\0more", 502),
        ("AMQPLAIN", b"\x05LOG", 502),
        ("AMQPLAIN", amqplain("guest", "guest")[:16], 502),
        ("AMQPLAIN", b"\xff" * 200, 502),
        ("X-UNKNOWN", b"\0guest\0guest", 503),
        ("", b"\0guest\0guest", 503),
    ],
)
def test_an_unreadable_login_is_dropped(broker: Broker, mechanism: str, response: bytes, code: int) -> None:
    with WireClient(broker) as client:
        client.start(response, mechanism)
        expect_dropped(client, code)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"frame_max": 100}, "negotiated frame_max = 100 is lower than the minimum allowed value (4096)"),
        ({"frame_max": 4095}, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        ({"frame_max": 200_000}, "negotiated frame_max = 200000 is higher than the maximum allowed value (131072)"),
        ({"frame_max": 0}, "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
        ({"channel_max": 0}, "negotiated channel_max = 0 is higher than the maximum allowed value (2047)"),
        ({"channel_max": 2048}, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
    ],
)
@pytest.mark.not_on_peer("3.10 drops the connection without a word")
def test_a_tune_beyond_the_limits_is_530(broker: Broker, answer: dict[str, int], text: str) -> None:
    with WireClient(broker) as client:
        client.start()
        client.tune(**answer)
        close = client.expect(Connection.Close)
        assert (close.reply_code, close.reply_text) == (530, f"NOT_ALLOWED - {text}")


@pytest.mark.parametrize("answer", [{"frame_max": 4096}, {"frame_max": 131072}, {"channel_max": 1}, {"heartbeat": 65535}])
def test_a_tune_within_the_limits_is_taken(broker: Broker, answer: dict[str, int]) -> None:
    with WireClient.opened(broker, **answer) as client:
        client.open_channel()


def test_an_unknown_vhost_is_told_530_with_the_methods_ids(broker: Broker) -> None:
    with WireClient(broker) as client:
        client.start()
        client.tune()
        client.send_method(0, Connection.Open(virtual_host="nowhere"))
        client.expect_connection_close(530, "NOT_ALLOWED - vhost nowhere not found", 10, 40)


def _opens_a_channel_for_start_ok(client: WireClient) -> None:
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start)
    client.send_method(1, Channel.Open())


def _opens_for_start_ok(client: WireClient) -> None:
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start)
    client.send_method(0, Connection.Open(virtual_host="/"))


def _opens_for_tune_ok(client: WireClient) -> None:
    client.start()
    client.expect(Connection.Tune)
    client.send_method(0, Connection.Open(virtual_host="/"))


def _tunes_twice(client: WireClient) -> None:
    client.start()
    tune = client.tune()
    client.send_method(0, Connection.TuneOk(tune.channel_max, tune.frame_max, 0))


@pytest.mark.parametrize("act", [_opens_a_channel_for_start_ok, _opens_for_start_ok, _opens_for_tune_ok, _tunes_twice])
def test_a_step_out_of_turn_ends_the_handshake(broker: Broker, act: Callable[[WireClient], None]) -> None:
    with WireClient(broker) as client:
        act(client)
        expect_dropped(client, 505 if act is _opens_a_channel_for_start_ok else 504)


def test_a_frame_larger_than_a_login_needs_is_refused_before_the_login(broker: Broker) -> None:
    for size in (1_000_000, 2**32 - 1):
        with WireClient(broker) as client:
            client.send(PROTOCOL_HEADER)
            client.expect(Connection.Start)
            client.send(struct.pack(">BHI", 1, 0, size))
            expect_dropped(client, 501)


def test_a_handshake_may_come_byte_by_byte(broker: Broker) -> None:
    with WireClient(broker) as client:
        for step, answer in zip((PROTOCOL_HEADER, *STEPS), (Connection.Start, Connection.Tune, None, Connection.OpenOk), strict=True):
            for byte in step:
                client.send(bytes([byte]))
            if answer is not None:
                client.expect(answer)


def test_a_whole_handshake_may_come_in_one_write(broker: Broker) -> None:
    with WireClient(broker) as client:
        client.send(PROTOCOL_HEADER + b"".join(STEPS) + method_bytes(1, Channel.Open()))
        client.expect(Connection.Start)
        client.expect(Connection.Tune)
        client.expect(Connection.OpenOk)
        client.expect(Channel.OpenOk, 1)


def test_sockets_that_close_at_any_step_disturb_nobody(broker: Broker) -> None:
    for _ in range(20):
        WireClient(broker).close()
        early = WireClient(broker)
        early.send(PROTOCOL_HEADER[:5])
        early.close()
        mid = WireClient(broker)
        mid.start()
        mid.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        mid.close()
    with WireClient.opened(broker) as client:
        client.open_channel()


def test_a_slow_handshake_is_dropped_and_holds_nobody_up(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2, handshake_timeout_s=2.0)
    silent = [WireClient(node) for _ in range(200)]
    partial = WireClient(node)
    partial.send(PROTOCOL_HEADER[:4])
    started = WireClient(node)
    started.start()
    started.expect(Connection.Tune)
    with WireClient.opened(node) as client:
        client.open_channel()
        for slow in [*silent, partial, started]:
            slow.expect_end()
            slow.close()
        client.open_channel(2)  # the one that finished its handshake stays


@pytest.mark.not_on_peer("it waits half a minute")
def test_after_close_ok_the_client_closes_the_socket_and_the_broker_waits_for_it(broker: Broker) -> None:
    """Go's libraries take an end that comes right behind close-ok for a failure."""
    with WireClient.opened(broker) as client:
        client.open_channel()
        began = time.monotonic()
        client.send_method(0, Connection.Close(200, "bye", 0, 0))
        client.expect(Connection.CloseOk)
        client.send(b"passed over")
        assert client.expect_end() == b""
        assert 2 < time.monotonic() - began < 10
