"""Strangers: sockets that have not logged in may cost little memory and keep nobody out (rows 1 and 2)."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from pika.spec import Connection

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.hostile.bystander import Bystander, resident_bytes, serving
from tests.hostile.complaints import complaints, log_since
from tests.node import Node
from tests.stopwatch import Stopwatch
from tests.wire import FRAME_METHOD, PROTOCOL_HEADER, WireClient

MIB = 1024 * 1024
FRAME_BEFORE_LOGIN = 16384  # payload that we take before tune-ok; RabbitMQ takes 4096 bytes


def login_s(node: Node) -> float:
    """How long an honest client takes to be in, without what it waited for a core; seconds."""
    watch = Stopwatch(serving(node))
    WireClient.opened(node).close()
    return watch.read_s


def test_row_1_a_thousand_half_open_logins_hold_less_than_32_mib(small_victim: Node) -> None:
    """Row 1: each sends all but the last byte of the largest frame that a stranger may send."""
    login_s(small_victim)
    before = resident_bytes(small_victim)
    almost = PROTOCOL_HEADER + struct.pack(">BHI", FRAME_METHOD, 0, FRAME_BEFORE_LOGIN) + bytes(FRAME_BEFORE_LOGIN)
    strangers = [WireClient(small_victim) for _ in range(1000)]
    for stranger in strangers:
        stranger.send(almost)
        stranger.expect(Connection.Start)
    with Bystander(small_victim) as bystander:  # its answer shows that the worker has read what came before
        bystander.round_trip()
    grown = resident_bytes(small_victim) - before
    for stranger in strangers:
        stranger.close()
    assert grown < 32 * MIB, f"{grown / MIB:.1f} MiB for 1,000 strangers"
    assert login_s(small_victim) < 1.0


def test_row_1_a_stranger_may_not_send_one_byte_more_than_a_login_needs(victim: Node) -> None:
    """Row 1: the largest frame is taken, one that is a byte larger is refused on its head."""
    with WireClient(victim) as client:
        client.send(PROTOCOL_HEADER + struct.pack(">BHI", FRAME_METHOD, 0, FRAME_BEFORE_LOGIN + 1))
        client.expect(Connection.Start)
        assert client.expect_end() == b""
    with WireClient(victim) as client:
        secret = b"\0guest\0" + b"x" * (FRAME_BEFORE_LOGIN - 500)
        client.start(secret)
        close = client.expect(Connection.Close)
        assert close.reply_code == 403, "read whole, and only then refused"


def test_row_2_a_trickle_of_bytes_does_not_prolong_the_handshake(fresh_node: MakeNode) -> None:
    """Row 2: whoever sends a byte now and then is closed when the time is up, counted from the start, in the header and in start-ok."""
    node = fresh_node(workers=1, handshake_timeout_s=1.0)
    watch = Stopwatch(serving(node))
    in_header, in_login = WireClient(node), WireClient(node)
    in_login.send(PROTOCOL_HEADER)
    in_login.expect(Connection.Start)
    in_login.send(struct.pack(">BHI", FRAME_METHOD, 0, 1000))
    trickles = {in_header: iter(PROTOCOL_HEADER[:7]), in_login: iter(bytes(900))}
    sent = dict.fromkeys(trickles, 0)
    while trickles:
        for client, data in list(trickles.items()):
            client.socket.settimeout(0.05)
            if (byte := next(data, None)) is not None:
                with contextlib.suppress(OSError):  # closed meanwhile: what we wait for
                    client.send(bytes([byte]))
                    sent[client] += 1
            try:
                assert client.socket.recv(1) == b""
                del trickles[client]
            except TimeoutError:
                pass
            except ConnectionResetError:  # closed with a byte of ours unread
                del trickles[client]
        assert watch.read_s < 5.0, "still open"
    assert 0 < sent[in_header] <= 7
    assert 0 < sent[in_login] < 900, "closed long before its frame was whole"
    assert "handshake timeout in state starting" in log_since(node, 0)
    assert complaints(node) == []


def test_row_2_two_thousand_silent_sockets_do_not_keep_a_good_client_waiting(victim: Node) -> None:
    """Row 2: it is in within a second, and one that is in notices nothing."""
    with Bystander(victim) as bystander:
        silent = [socket.create_connection((victim.host, victim.port)) for _ in range(2000)]
        took_s = min(login_s(victim) for _ in range(3))
        for sock in silent:
            sock.close()
    assert took_s < 1.0
    assert bystander.worst_s < 1.0


def test_row_2_strangers_are_bounded_and_the_oldest_makes_room(fresh_node: MakeNode) -> None:
    """Row 2: with `handshakes_max` sockets in their handshake a new one is refused, until the oldest have had a second; then they go."""
    took_s = 1.0
    while took_s > 0.5:  # all of them must be fresh when one too many comes; on a busy machine they may not be
        node = fresh_node(workers=1, handshakes_max=20, handshake_timeout_s=60.0)
        inside = WireClient.opened(node).open_channel()  # has opened: not counted, and not in danger
        began = time.monotonic()
        crowd = [WireClient(node) for _ in range(20)]
        for client in crowd:
            client.send(PROTOCOL_HEADER)
            client.expect(Connection.Start)
        refused = WireClient(node)
        took_s = time.monotonic() - began
    assert refused.expect_end() == b"", "one too many, and all are fresh"

    def gets_in() -> bool:
        try:
            WireClient.opened(node).close()
        except (EOFError, OSError):
            return False
        return True

    eventually(gets_in, what="a good client among silent ones")
    assert crowd[0].expect_end() == b"", "the oldest made room"
    inside.open_channel(2)
    text = log_since(node, 0)
    assert "connections are in their handshake (handshakes_max)" in text
    assert text.count("(handshakes_max)") < 20, "told once a second, not once a socket"
    for client in [*crowd, inside]:
        client.close()
