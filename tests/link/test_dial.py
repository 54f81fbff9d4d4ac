"""Servers and diallers: links that come, break, and come again."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import msgpack
import pytest
from leveret.link import dial
from leveret.link.dial import Dialler, LinkServer, connect_link
from leveret.link.link import Hello, LinkClosed
from leveret.link.poller import Poller
from tests.link.recording_link import VERSION, RecordingLink

from tests.link.loop import ROUTER, WORKER, Journal, run


def hello_bytes(hello: Hello) -> bytes:
    packed = msgpack.packb([0, VERSION, hello.kind, hello.index, hello.pid])
    return struct.pack("<IBBH", 8 + len(packed), 1, 0, 0) + packed


def listening(path: Path) -> socket.socket:
    """A bare server in place of a `LinkServer`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.bind(str(path))
    sock.listen(8)
    return sock


async def end_of(sock: socket.socket) -> None:
    """Wait until the other side has closed."""
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(sock, 65536):
        pass


def test_a_server_serves_every_dialler(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        theirs = Journal(double=lambda number: 2 * number)
        server = LinkServer(poller, path, ROUTER, theirs)
        links = [await connect_link(poller, path, Hello("worker", index, 100 + index), Journal()) for index in range(3)]
        assert [await link.request("double", index) for index, link in enumerate(links)] == [0, 2, 4]
        assert [link.peer for link in links] == [ROUTER] * 3
        assert sorted(facts[0].index for facts in theirs.of("open")) == [0, 1, 2]
        assert len(server.links) == 3
        server.close()
        await theirs.until(lambda: len(theirs.of("closed")) == 3)
        assert not path.exists()
        with pytest.raises(OSError):
            await connect_link(poller, path, WORKER, Journal())

    run(main)


def test_a_servers_links_are_of_the_kind_it_makes(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        theirs = Journal()
        LinkServer(poller, path, ROUTER, theirs, RecordingLink)
        link = await connect_link(poller, path, WORKER, Journal(), RecordingLink)
        assert isinstance(link, RecordingLink)
        link.send_packet(2, 0, b"hot")
        await theirs.heard("packet", 2, 0, b"hot")

    run(main)


def test_a_plain_link_takes_no_hot_packets(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        theirs = Journal()
        LinkServer(poller, path, ROUTER, theirs)
        link = await connect_link(poller, path, WORKER, Journal(), RecordingLink)
        link.send_packet(2, 0, b"hot")
        await theirs.heard("closed")

    run(main)


def test_a_peer_of_another_user_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        server = LinkServer(poller, path, ROUTER, Journal())
        monkeypatch.setattr(dial, "peer_uid", lambda sock: 4_000_000)
        with pytest.raises(LinkClosed):
            await connect_link(poller, path, WORKER, Journal())
        assert server.links == set()

    run(main)


def test_a_dialler_waits_for_its_server_and_outlives_it(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        ours = Journal()
        dialler = Dialler(poller, path, WORKER, ours)
        assert dialler.link is None and not dialler.is_open.is_set()
        for life in range(3):
            unanswered = poller.loop.create_future()
            theirs = Journal(life=lambda _, life=life: life, wait=lambda _, unanswered=unanswered: unanswered)
            server = LinkServer(poller, path, Hello("router", 0, 1000 + life), theirs)
            await dialler.is_open.wait()
            link = dialler.link
            assert link is not None
            assert await link.request("life") == life
            pending = link.ask("wait")
            await theirs.heard("request", "wait")
            server.close()
            with pytest.raises(LinkClosed):
                await pending
            unanswered.cancel()  # or the loop would be told, one day, of a task that nobody ended
            assert dialler.link is None and not dialler.is_open.is_set()
        assert [event[0] for event in ours.events] == ["open", "closed"] * 3
        assert [facts[0].pid for facts in ours.of("open")] == [1000, 1001, 1002]
        dialler.close()

    run(main)


def test_a_server_takes_over_the_path_of_a_killed_one(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        killed = listening(path)
        killed.close()  # its file stays
        dialler = Dialler(poller, path, WORKER, Journal())
        LinkServer(poller, path, ROUTER, Journal())
        await dialler.is_open.wait()
        dialler.close()

    run(main)


def test_a_dialler_that_closes_while_dialling_leaves_no_link(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        silent = listening(path)
        ours = Journal()
        dialler = Dialler(poller, path, WORKER, ours)
        sock, _ = await poller.loop.sock_accept(silent)
        dialler.close()
        await end_of(sock)
        assert poller.streams_open == 0
        assert ours.events == [], "it was never open"
        silent.close()
        sock.close()

    run(main)


def test_a_link_that_opens_and_breaks_at_once_is_not_taken_for_open(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        server = listening(path)
        ours = Journal()
        dialler = Dialler(poller, path, WORKER, ours)
        for _ in range(2):
            sock, _ = await poller.loop.sock_accept(server)
            assert dialler.link is None, "what is closed is nobody's link"
            await poller.loop.sock_sendall(sock, hello_bytes(ROUTER) + bytes(8))  # a packet of 0 bytes
            await end_of(sock)
            sock.close()
        assert [event[0] for event in ours.events][:3] == ["open", "closed", "open"]
        dialler.close()
        server.close()

    run(main)


def test_a_closed_dialler_dials_no_more(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        path = tmp_path / "router.sock"
        server = listening(path)
        dialler = Dialler(poller, path, WORKER, Journal())
        sock, _ = await poller.loop.sock_accept(server)
        await poller.loop.sock_sendall(sock, hello_bytes(ROUTER))
        await dialler.is_open.wait()
        dialler.close()
        await end_of(sock)
        with pytest.raises(TimeoutError):  # longer than it ever waits between two attempts
            await asyncio.wait_for(poller.loop.sock_accept(server), 2 * dial.REDIAL_MAX_S)
        server.close()
        sock.close()

    run(main)
