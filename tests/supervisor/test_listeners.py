"""Listening sockets, and the sentences for addresses that cannot be had."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from leveret.refusal import CONFIG, UNAVAILABLE, Refusal
from leveret.supervisor.listeners import control_listener, local_port, shown, tcp_listener


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::", "localhost", "0.0.0.0"])
def test_port_zero_is_a_free_one_on_which_ipv4_clients_are_heard(host: str) -> None:
    with tcp_listener(host, 0, 16, "--port") as listener:
        assert not listener.getblocking()
        assert not listener.get_inheritable()
        port = local_port(listener)
        assert port > 0
        with socket.create_connection(("127.0.0.1", port), timeout=30):
            listener.settimeout(30)
            with listener.accept()[0] as accepted:
                # Without it an answer waits 40 ms behind the one before: measured over the differential test.
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_every_address_includes_ipv6() -> None:
    with tcp_listener("::", 0, 16, "--port") as listener, socket.create_connection(("::1", local_port(listener)), timeout=30):
        pass


def test_every_address_without_ipv6_is_every_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *arguments)

    monkeypatch.setattr("leveret.supervisor.listeners.socket.socket", without_ipv6)
    with tcp_listener("::", 0, 16, "--port") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_port_of_a_connection_in_time_wait_can_be_had_again() -> None:
    with tcp_listener("127.0.0.1", 0, 16, "--port") as listener:
        port = local_port(listener)
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        listener.settimeout(30)
        server = listener.accept()[0]
        server.close()  # the side that closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    tcp_listener("127.0.0.1", port, 16, "--port").close()


@pytest.mark.parametrize(
    ("host", "exit_code", "sentence"),
    [
        ("192.0.2.1", CONFIG, "cannot listen on 192.0.2.1:{port}: this machine has no such address"),
        ("no such host", CONFIG, "cannot listen on no such host:{port}: "),
        ("a" * 300, CONFIG, "cannot listen on " + "a" * 300),
    ],
)
def test_address_that_is_not_ours(host: str, exit_code: int, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        tcp_listener(host, 5672, 16, "--port")
    assert refused.value.exit_code == exit_code
    assert refused.value.sentence.startswith(sentence.format(port=5672))


def test_port_in_use_names_the_flag() -> None:
    with tcp_listener("127.0.0.1", 0, 16, "--port") as holder, pytest.raises(Refusal) as refused:
        tcp_listener("127.0.0.1", local_port(holder), 16, "--http-port")
    assert refused.value.exit_code == UNAVAILABLE
    assert "choose another with --http-port" in refused.value.sentence


def test_control_socket_is_its_owner_s_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = Path(os.path.relpath(tmp_path)) / "control.sock"  # relative: an absolute path may be too long here
    with control_listener(path):
        assert path.stat().st_mode & 0o777 == 0o600
    with control_listener(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_addresses_are_shown_as_urls_write_them() -> None:
    assert shown("127.0.0.1", 5672) == "127.0.0.1:5672"
    assert shown("::1", 5672) == "[::1]:5672"
