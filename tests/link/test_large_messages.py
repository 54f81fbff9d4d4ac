"""Large messages on links: received into a block of their own wherever they are cut, sent from where they lie, and let go of in time.

The tests turn the poller by hand after each piece that they send, so that a cut is a read that ends there.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.link.link import Hello, Link
from leveret.link.poller import Poller
from leveret.link.stream import socket_pair
from tests.link.recording_link import VERSION, RecordingLink

from tests.link.loop import WORKER, Journal, linked, run
from tests.link.test_link import CONTROL, ENQUEUE, HELLO, NOTICE, PUBLISH, control, packet, raw_end

DELIVER = 6
HEAD_BYTES = {PUBLISH: 16, ENQUEUE: 16, DELIVER: 16}  # between a packet's head and its message; ENQUEUE's queue ids aside
LANDING_MIN = 4 * 1024
BY_REFERENCE_MIN = 16 * 1024
HELLO_BYTES = control(HELLO, VERSION, "router", 0, 77)
PAUSED = 2


def wire(body: bytes, exchange: bytes = b"", key: bytes = b"queue", properties: bytes = b"\0\0") -> bytes:
    """A message in a packet's layout."""
    return struct.pack("<IIBBH", len(properties), len(body), len(exchange), len(key), 0) + exchange + key + properties + body


def bytes_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def message_packet(kind: int, message: bytes, queues: int = 1) -> bytes:
    """A packet with a message, and with `queues` queue ids if it is an ENQUEUE."""
    count = queues if kind == ENQUEUE else 0
    rest = bytes(range(HEAD_BYTES[kind])) + bytes(range(4)) * count + message
    return struct.pack("<IBBH", 8 + len(rest), kind, 3, count) + rest


def heard(data: bytes) -> list[tuple[Any, ...]]:
    """What a link tells its receiver of these whole packets."""
    events: list[tuple[Any, ...]] = []
    while data:
        size, kind, flags = struct.unpack_from("<IBB", data)
        events.append(("packet", kind, flags, data[8:size]) if kind != CONTROL else ("notice", "verb", {}))
        data = data[size:]
    return events


def open_end(poller: Poller, journal: Journal) -> tuple[RecordingLink, socket.socket]:
    """A link that has had its peer's hello; the peer is a bare socket."""
    link, peer = raw_end(poller, journal)
    peer.sendall(HELLO_BYTES)
    poller.turn()
    assert journal.events == [("open", Hello("router", 0, 77))]
    return link, peer


def push(poller: Poller, peer: socket.socket, data: bytes) -> None:
    """Send all of it, turning the poller whenever the socket is full, and once at the end."""
    peer.setblocking(False)
    while data:
        try:
            data = data[peer.send(data) :]
        except BlockingIOError:
            poller.turn()
    poller.turn()


@pytest.mark.parametrize("kind", [PUBLISH, ENQUEUE, DELIVER])
def test_a_large_message_may_be_cut_anywhere(kind: int) -> None:
    data = message_packet(kind, wire(bytes_of(LANDING_MIN + 500)))
    stream = packet(ENQUEUE, b"small") + data + control(NOTICE, "verb", {}) + data + packet(PUBLISH, b"")
    begins = len(packet(ENQUEUE, b"small"))

    async def main(poller: Poller) -> None:
        for cut in [*range(begins + 120), *range(begins + 1000, len(stream), 97), *range(len(stream) - 60, len(stream))]:
            journal = Journal()
            link, peer = open_end(poller, journal)
            for part in (stream[:cut], stream[cut:]):
                push(poller, peer, part)
            assert journal.events[1:] == heard(stream), f"cut at {cut}"
            if begins + 64 <= cut < begins + len(data):
                assert link.landed == 1, f"cut at {cut}: copied"
            link.close("next")
            peer.close()

    run(main)


@settings(max_examples=60, deadline=None)
@given(
    packets=st.lists(
        st.one_of(
            st.integers(0, 300).map(lambda size: packet(PUBLISH, bytes_of(size))),
            st.just(control(NOTICE, "verb", {})),
            st.tuples(st.sampled_from([PUBLISH, ENQUEUE, DELIVER]), st.integers(0, 90_000), st.integers(0, 1200)).map(
                lambda drawn: message_packet(drawn[0], wire(bytes_of(drawn[1], drawn[1])), drawn[2])
            ),
        ),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1 << 32),
    largest=st.sampled_from([7, 100, 3000, 40_000, 300_000]),
)
def test_any_packets_cut_into_any_pieces_arrive_whole_and_in_order(packets: list[bytes], seed: int, largest: int) -> None:
    stream = b"".join(packets)
    rng = random.Random(seed)

    async def main(poller: Poller) -> None:
        journal = Journal()
        _, peer = open_end(poller, journal)
        at = 0
        while at < len(stream):
            size = rng.randint(1, max(largest, len(stream) // 400))
            push(poller, peer, stream[at : at + size])
            at += size
        for _ in range(3):
            poller.turn()
        assert journal.events[1:] == heard(stream)
        peer.close()

    run(main)


def test_a_packet_whose_message_does_not_fit_is_left_to_whoever_reads_packets() -> None:
    message = wire(bytes_of(10_000))
    wrong = message_packet(DELIVER, struct.pack("<II", 2, 10_001) + message[8:])
    right = message_packet(DELIVER, message)

    async def main(poller: Poller) -> None:
        journal = Journal()
        link, peer = open_end(poller, journal)
        push(poller, peer, wrong[:5000])
        push(poller, peer, wrong[5000:] + right[:5000])
        push(poller, peer, right[5000:])
        assert journal.events[1:] == heard(wrong + right)
        assert link.landed == 1, "the right one alone"
        peer.close()

    run(main)


def test_a_link_that_is_paused_by_a_landed_message_goes_on_after_it() -> None:
    class Pausing(Journal):
        def note(self, link: Link, *event: Any) -> None:
            super().note(link, *event)
            if event[0] == "packet" and isinstance(link, RecordingLink):
                link.stop_reading(PAUSED)

    stream = b"".join(message_packet(DELIVER, wire(bytes_of(50_000, number))) for number in range(8))

    async def main(poller: Poller) -> None:
        journal = Pausing()
        link, peer = open_end(poller, journal)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        peer.setblocking(False)
        peer.send(stream[:30_000])
        poller.turn()
        peer.send(stream[30_000:])
        for number in range(8):
            await journal.until(lambda number=number: len(journal.of("packet")) == number + 1)
            poller.turn()
            assert journal.events[1:] == heard(stream)[: number + 1], "not read on before it is resumed"
            link.go_on_reading(PAUSED)
        peer.close()

    run(main)


def test_a_link_closed_by_whoever_takes_a_landed_message_is_only_closed() -> None:
    class Closing(Journal):
        def note(self, link: Link, *event: Any) -> None:
            super().note(link, *event)
            if event[0] == "packet":
                link.close("enough")

    data = message_packet(DELIVER, wire(bytes_of(50_000)))

    async def main(poller: Poller) -> None:
        journal = Closing()
        link, peer = open_end(poller, journal)
        push(poller, peer, data[:20_000])
        peer.sendall(data[20_000:] + data)
        poller.turn()
        assert journal.events[1:] == [*heard(data), ("closed",)]
        assert link.is_closed and link.landed == 1
        peer.close()

    run(main)


def resident_bytes() -> int:
    resident: int = psutil.Process().memory_info().rss
    return resident


def test_links_that_end_in_the_middle_of_a_large_message_keep_none_of_it() -> None:
    data = message_packet(DELIVER, wire(bytes_of(1_000_000)))

    async def main(poller: Poller) -> None:
        def end_in_the_middle(by_us: bool) -> None:
            journal = Journal()
            link, peer = open_end(poller, journal)
            push(poller, peer, data[:900_000])
            if by_us:
                link.close("enough")
            peer.close()
            poller.turn()
            assert journal.events[1:] == [("closed",)] and link.landed == 0

        for number in range(10):
            end_in_the_middle(number % 2 == 0)
        before = resident_bytes()
        for number in range(100):
            end_in_the_middle(number % 2 == 0)
        assert resident_bytes() - before < 30_000_000, "a hundred times 0.9 MB, if it were kept"

    run(main)


# --- sending


def packet_of(message: bytes, number: int) -> bytes:
    """What `send_message` writes for a DELIVER of that message."""
    rest = number.to_bytes(16, "little") + message
    return struct.pack("<IBBH", 8 + len(rest), DELIVER, 0, 0) + rest


@contextlib.contextmanager
def reluctant_peer(poller: Poller) -> Iterator[tuple[RecordingLink, socket.socket]]:
    """An open link to a bare socket whose kernel takes little at a time."""
    one, peer = socket_pair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    link = RecordingLink(poller, one, WORKER, Journal())
    peer.setblocking(False)
    peer.sendall(HELLO_BYTES)
    poller.turn()
    poller.turn()
    size, *_ = struct.unpack("<I", peer.recv(4))
    peer.recv(size - 4)  # its hello
    try:
        yield link, peer
    finally:
        peer.close()


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 10, 3000, BY_REFERENCE_MIN - 30, BY_REFERENCE_MIN, 70_000, 300_000]), min_size=1, max_size=20),
    seed=st.integers(0, 1 << 32),
)
def test_what_is_sent_arrives_byte_for_byte_however_little_the_socket_takes(sizes: list[int], seed: int) -> None:
    rng = random.Random(seed)

    async def main(poller: Poller) -> None:
        with reluctant_peer(poller) as (link, peer):
            expected, got = b"", b""
            for number, size in enumerate(sizes):
                message = wire(bytes_of(size, number))
                link.send_message(DELIVER, 0, number.to_bytes(16, "little"), message)
                expected += packet_of(message, number)
                if rng.random() < 0.3:
                    link.send_packet(PUBLISH, 0, b"between")
                    expected += packet(PUBLISH, b"between")
                if rng.random() < 0.5:
                    poller.turn()
                with contextlib.suppress(BlockingIOError):
                    got += peer.recv(rng.choice([1, 100, 5000, 100_000]))
                assert link.unsent_bytes <= len(expected) - len(got)
            while len(got) < len(expected):
                poller.turn()
                with contextlib.suppress(BlockingIOError):
                    got += peer.recv(1 << 20)
            assert got == expected
            poller.turn()
            assert link.unsent_bytes == 0
            assert link.message_holders == 1, "the link holds nothing that is sent"

    run(main)


def test_a_large_message_is_held_until_it_is_sent_and_a_small_one_is_copied() -> None:
    async def main(poller: Poller) -> None:
        with reluctant_peer(poller) as (link, peer):
            link.send_message(DELIVER, 0, bytes(16), wire(bytes_of(200)))
            assert link.message_holders == 1
            message = wire(bytes_of(100_000))
            link.send_message(DELIVER, 0, bytes(16), message)
            assert link.message_holders == 2
            assert link.unsent_bytes == len(packet_of(wire(bytes_of(200)), 0)) + len(packet_of(message, 0))
            poller.turn()
            assert link.message_holders == 2 and link.unsent_bytes > 0, "the kernel has not taken all of it"
            while link.unsent_bytes:
                with contextlib.suppress(BlockingIOError):
                    peer.recv(1 << 20)
                poller.turn()
            assert link.message_holders == 1

    run(main)


def test_a_link_that_closes_lets_go_of_what_it_has_not_sent() -> None:
    async def main(poller: Poller) -> None:
        with reluctant_peer(poller) as (link, _):
            for _number in range(5):
                link.send_message(DELIVER, 0, bytes(16), wire(bytes_of(100_000)))
            assert link.message_holders == 2
            link.close("enough")
            assert link.message_holders == 1
            link.send_message(DELIVER, 0, bytes(16), wire(bytes_of(100_000)))
            poller.turn()
            assert link.message_holders == 1 and link.unsent_bytes == 0

    run(main)


def test_bytes_that_are_not_copied_count_as_backlog() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = Journal(), Journal()
        link, other = await linked(poller, ours, theirs)
        other.stop_reading(PAUSED)
        message = wire(bytes_of(100_000))
        sent = 0
        while not link.is_congested:
            link.send_message(DELIVER, 0, bytes(16), message)
            sent += 1
            poller.turn()
        assert ours.of("congested") == [()]
        assert 4 * 1024 * 1024 < link.unsent_bytes <= 4 * 1024 * 1024 + len(packet_of(message, 0))
        other.go_on_reading(PAUSED)
        await theirs.until(lambda: len(theirs.of("packet")) == sent)
        assert {fact[2] for fact in theirs.of("packet")} == {bytes(16) + message}
        await ours.heard("drained")
        assert not link.is_congested and link.message_holders == 1
        assert other.landed > sent // 2, "received where they stay"

    run(main)


def test_what_was_written_before_close_after_flush_is_sent_from_where_it_lies_too() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = Journal(), Journal()
        link, _ = await linked(poller, ours, theirs)
        message = wire(bytes_of(3_000_000))
        link.send_message(DELIVER, 0, bytes(16), message)
        link.close_after_flush()
        await theirs.heard("closed")
        assert theirs.events[1:] == [("packet", DELIVER, 0, bytes(16) + message), ("closed",)]
        assert link.message_holders == 1

    run(main)


def test_a_peer_that_resets_while_much_is_unsent_leaves_nothing_held() -> None:
    async def main(poller: Poller) -> None:
        with reluctant_peer(poller) as (link, peer):
            link.send_message(DELIVER, 0, bytes(16), wire(bytes_of(500_000)))
            poller.turn()
            peer.close()
            link.send_packet(PUBLISH, 0, b"more")
            poller.turn()
            poller.turn()
            assert link.is_closed and link.message_holders == 1

    run(main)
