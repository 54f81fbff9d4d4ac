"""A listener: clients go round among those who watch one socket, one of whom is woken for each; and what a socket's ends are called."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from pathlib import Path

import pytest
from leveret.link.listener import Listener, ends_of
from leveret.link.poller import Poller

from tests.link.loop import run


class Watcher:
    """One of those who watch, all in one process here: `taken` are the descriptors that it has accepted, `rung` how often it was rung."""

    def __init__(self, poller: Poller, listening: socket.socket) -> None:
        self.taken: list[int] = []
        self.rung = 0
        self.changed = asyncio.Event()
        self.listener = Listener(poller, listening, self._on_ring)

    def _on_ring(self) -> None:
        self.rung += 1
        descriptor = self.listener.accept()
        if descriptor >= 0:
            self.taken.append(descriptor)
        self.changed.set()

    async def until_taken(self, count: int) -> None:
        while len(self.taken) < count:
            self.changed.clear()
            await self.changed.wait()

    def close(self) -> None:
        self.listener.close("done")
        for descriptor in self.taken:
            os.close(descriptor)


def listening_socket() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


def test_clients_go_round() -> None:
    async def main(poller: Poller) -> None:
        with listening_socket() as listening:
            watchers = [Watcher(poller, listening) for _ in range(3)]
            clients = []
            for number in range(9):
                clients.append(socket.create_connection(listening.getsockname()))
                await watchers[number % 3].until_taken(number // 3 + 1)
            assert [len(watcher.taken) for watcher in watchers] == [3, 3, 3]
            for each in (*watchers, *clients):
                each.close()

    run(main)


def test_the_kernel_wakes_one_of_those_who_sleep_also_after_all_that_a_listener_does() -> None:
    """By what it says of the epoll set; whom it has woken cannot be seen by those who are."""

    def watched(poller: Poller) -> int:
        text = Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text(encoding="ascii")
        every = [int(line.split()[3], 16) for line in text.splitlines() if line.startswith("tfd:")]
        (events,) = [events for events in every if events & select.EPOLLEXCLUSIVE]
        return events & (select.EPOLLIN | select.EPOLLEXCLUSIVE)

    async def main(poller: Poller) -> None:
        with listening_socket() as listening:
            watcher = Watcher(poller, listening)
            assert watched(poller) == select.EPOLLIN | select.EPOLLEXCLUSIVE
            client = socket.create_connection(listening.getsockname())
            await watcher.until_taken(1)
            assert watched(poller) == select.EPOLLIN | select.EPOLLEXCLUSIVE
            watcher.listener.be_silent()
            assert watched(poller) == select.EPOLLEXCLUSIVE
            watcher.listener.listen_again()
            watcher.listener.look_again()
            assert watched(poller) == select.EPOLLIN | select.EPOLLEXCLUSIVE
            watcher.close()
            client.close()

    run(main)


def test_who_is_silent_is_passed_over_and_then_makes_up_for_it() -> None:
    async def main(poller: Poller) -> None:
        with listening_socket() as listening:
            first, second = Watcher(poller, listening), Watcher(poller, listening)
            first.listener.be_silent()
            clients = [socket.create_connection(listening.getsockname()) for _ in range(3)]
            await second.until_taken(3)
            assert first.rung == 0
            second.listener.be_silent()
            clients.append(socket.create_connection(listening.getsockname()))
            first.listener.look_again()  # is silent still
            first.listener.listen_again()
            await first.until_taken(1)
            assert len(second.taken) == 3
            for each in (first, second, *clients):
                each.close()
            first.listener.look_again()  # is harmless

    run(main)


def test_a_client_that_another_was_woken_for_is_found_by_looking_again() -> None:
    async def main(poller: Poller) -> None:
        with listening_socket() as listening:
            declined = asyncio.Event()
            declining = Listener(poller, listening, lambda: (declining.be_silent(), declined.set()))
            other = Watcher(poller, listening)
            client = socket.create_connection(listening.getsockname())
            await declined.wait()
            other.listener.look_again()
            await other.until_taken(1)
            declining.close("done")
            other.close()
            client.close()

    run(main)


def test_with_nobody_there_accept_gives_no_descriptor_and_a_closed_listener_an_error() -> None:
    async def main(poller: Poller) -> None:
        with listening_socket() as listening:
            watcher = Watcher(poller, listening)
            assert watcher.listener.accept() == -1
            watcher.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                watcher.listener.accept()

    run(main)


def test_what_it_accepts_does_not_block_and_is_not_inherited() -> None:
    async def main(poller: Poller) -> None:
        with listening_socket() as listening:
            watcher = Watcher(poller, listening)
            client = socket.create_connection(listening.getsockname())
            await watcher.until_taken(1)
            assert not os.get_blocking(watcher.taken[0])
            assert not os.get_inheritable(watcher.taken[0])
            watcher.close()
            client.close()

    run(main)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_ends_of_a_socket_are_those_that_python_tells(family: socket.AddressFamily, host: str) -> None:
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with server, socket.create_connection(server.getsockname()[:2]) as client:
        accepted = server.accept()[0]
        with accepted:
            assert ends_of(accepted.fileno()) == (*client.getsockname()[:2], *server.getsockname()[:2])


def test_an_ipv4_client_of_a_socket_for_both_is_told_as_mapped() -> None:
    try:
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server, socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client, server.accept()[0] as accepted:
        assert ends_of(accepted.fileno()) == ("::ffff:127.0.0.1", client.getsockname()[1], "::ffff:127.0.0.1", server.getsockname()[1])


def test_unix_sockets_have_no_names_and_one_that_is_not_connected_has_no_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert ends_of(ours.fileno()) == ("", 0, "", 0)
    with socket.socket() as alone, pytest.raises(OSError, match="not connected"):
        ends_of(alone.fileno())
