"""What a session decides by itself: what tune-ok may ask for, how addresses are shown, and how its client is sent to."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from leveret.codec.errors import NotAllowed
from leveret.worker.session import Session, check_negotiated, shown_host

PACINGS = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


@pytest.mark.parametrize("value", [4096, 4097, 131071, 131072])
def test_a_value_between_the_limits_is_taken(value: int) -> None:
    check_negotiated("frame_max", value, 4096, 131072)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "NOT_ALLOWED - negotiated frame_max = 1 is lower than the minimum allowed value (4096)"),
        (4095, "NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        (131073, "NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (0, "NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
    ],
)
def test_a_value_beyond_them_is_530(value: int, text: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        check_negotiated("frame_max", value, 4096, 131072)
    assert (refused.value.reply_code, refused.value.reply_text) == (530, text)


@pytest.mark.parametrize(
    ("address", "shown"), [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("fe80::1", "fe80::1")]
)
def test_an_ipv4_client_is_shown_by_its_own_address(address: str, shown: str) -> None:
    assert shown_host(address) == shown


@pytest.mark.parametrize(("client_host", "is_here"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_a_client_of_this_machine_is_sent_to_without_pacing(client_host: str, is_here: bool) -> None:
    """One that comes from another address is sent to as the system says."""
    of_the_system = next((name for name in PACINGS.read_text().split() if name != "reno"), None)
    if of_the_system is None:
        pytest.skip("this kernel has reno alone")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, of_the_system.encode())
        with socket.create_connection(server.getsockname(), source_address=(client_host, 0)), server.accept()[0] as accepted:
            assert Session(accepted.fileno()).peer_host == client_host
            pacing = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    assert pacing == ("reno" if is_here else of_the_system)


def test_a_unix_socket_has_no_pacing_to_change() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Session(ours.fileno()).peer_host == ""
