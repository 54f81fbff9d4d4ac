"""Large bodies on a client's connection: they land in their messages wherever their bytes are cut, and go out from where they lie.

A connection with nobody behind it (`lone_connection`): the client publishes mandatory messages to a queue that is not there, so each comes
back as it was read. A cut of what is sent is a read that ends there.
"""

from __future__ import annotations

import random

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.codec.errors import ConnectionForced
from leveret.link.poller import Poller
from pika.spec import Basic, Channel
from pika.spec import Connection as ConnectionClass

from tests.wire import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, frame_bytes, header_payload, method_bytes
from tests.worker.lone_connection import FRAME_MAX, Client, on_a_poller

LANDING_MIN = 4 * 1024
PUBLISH = method_bytes(1, Basic.Publish(exchange="", routing_key="nobody", mandatory=True))


def bytes_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def publish(body: bytes, frame_max: int = FRAME_MAX) -> bytes:
    """The frames of a publish."""
    piece = frame_max - 8
    frames = [frame_bytes(FRAME_BODY, 1, body[at : at + piece]) for at in range(0, len(body), piece)]
    return PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, len(body))) + b"".join(frames)


def returned(body: bytes, frame_max: int = FRAME_MAX) -> list[tuple[int, int, bytes]]:
    """The frames with which it comes back."""
    piece = frame_max - 8
    bodies = [(FRAME_BODY, 1, body[at : at + piece]) for at in range(0, len(body), piece)]
    method = method_bytes(1, Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="nobody"))
    return [(FRAME_METHOD, 1, method[7:-1]), (FRAME_HEADER, 1, header_payload(60, len(body))), *bodies]


@pytest.mark.parametrize("size", [LANDING_MIN, 20_000])
def test_a_body_may_be_cut_anywhere(size: int) -> None:
    before, after = bytes_of(10, 1), bytes_of(size - 1, 2)
    body = bytes_of(size)
    stream = publish(before) + publish(body) + publish(after)
    begins = len(publish(before))
    ends = begins + len(publish(body))
    answer = returned(before) + returned(body) + returned(after)

    def main(poller: Poller) -> None:
        client = Client(poller)
        for cut in [*range(begins, begins + 100), *range(begins + 100, ends, 331), *range(ends - 20, ends + 60)]:
            client.push(stream[:cut])
            client.push(stream[cut:])
            assert client.frames() == answer, f"cut at {cut}"
        client.close()

    on_a_poller(main)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 500, LANDING_MIN, 16_383, 16_384, 65_536, 131_064, 131_065, 400_000]), min_size=1, max_size=8),
    frame_max=st.sampled_from([4096, 20_000, FRAME_MAX, 1_000_000]),
    largest=st.sampled_from([50, 5000, 60_000, 500_000]),
    sent_at_once=st.sampled_from([4608, None]),
    seed=st.integers(0, 1 << 32),
)
def test_bodies_cut_into_any_pieces_come_back_byte_for_byte(
    sizes: list[int], frame_max: int, largest: int, sent_at_once: int | None, seed: int
) -> None:
    rng = random.Random(seed)
    bodies = [bytes_of(size, number) for number, size in enumerate(sizes)]
    stream = b"".join(publish(body, frame_max) for body in bodies)

    def main(poller: Poller) -> None:
        client = Client(poller, frame_max, sent_at_once)
        at = 0
        while at < len(stream):
            size = rng.randint(1, max(largest, len(stream) // 200))
            client.push(stream[at : at + size])
            at += size
        assert client.frames() == [frame for body in bodies for frame in returned(body, frame_max)]
        assert client.connection.unsent_bytes == 0
        client.close()

    on_a_poller(main)


def test_a_wrong_end_octet_after_a_landed_body_is_refused_in_the_same_words_as_after_any() -> None:
    body = b"x" * 50_000
    stream = publish(body)[:-1] + b"\x00"
    text = 'FRAME_ERROR - type 3, first 16 octets = <<"xxxxxxxxxxxxxxxx">>: {invalid_frame_end_marker,0}'

    def main(poller: Poller) -> None:
        for cut in (len(stream), 20_000, len(stream) - 1):
            client = Client(poller)
            client.push(stream[:cut])
            client.push(stream[cut:])
            assert client.session.errors == [text], f"cut at {cut}"
            client.push(publish(body))
            assert [frame[0] for frame in client.frames()] == [FRAME_METHOD], "connection.close, and nothing is read any more"
            client.close()

    on_a_poller(main)


def test_more_than_the_header_has_said_is_refused_and_never_written_into_the_message() -> None:
    head = PUBLISH + frame_bytes(FRAME_HEADER, 1, header_payload(60, 10_000))

    def main(poller: Poller) -> None:
        for frames in (frame_bytes(FRAME_BODY, 1, bytes(10_001)), frame_bytes(FRAME_BODY, 1, bytes(6000)) * 2):
            stream = head + frames
            for cut in (len(stream), len(head) + 100, len(stream) - 100):
                client = Client(poller)
                client.push(stream[:cut])
                client.push(stream[cut:])
                assert client.session.errors == ["FRAME_ERROR - content body frame exceeds remaining content size"], f"cut at {cut}"
                client.close()

    on_a_poller(main)


def test_a_body_that_nobody_expects_is_refused_as_ever() -> None:
    def main(poller: Poller) -> None:
        client = Client(poller)
        stream = frame_bytes(FRAME_BODY, 1, bytes(10_000))
        client.push(stream[:5000])
        assert client.session.errors == [], "not before it is whole"
        client.push(stream[5000:])
        assert client.session.errors == ["UNEXPECTED_FRAME - expected method frame, got non method frame instead"]
        client.close()

    on_a_poller(main)


def test_a_heartbeat_and_another_channels_publish_between_the_frames_of_a_body() -> None:
    body, other = bytes_of(100_000), bytes_of(30_000, 1)
    frame_max = 40_000
    frames = publish(body, frame_max)
    first = len(frames) - len(body) - 8 * 3 + frame_max  # behind the first body frame
    second = publish(other, frame_max).replace(PUBLISH, method_bytes(2, Basic.Publish(routing_key="nobody", mandatory=True)))
    second = second.replace(
        frame_bytes(FRAME_HEADER, 1, header_payload(60, len(other))), frame_bytes(FRAME_HEADER, 2, header_payload(60, len(other)))
    )
    second = second.replace(frame_bytes(FRAME_BODY, 1, other), frame_bytes(FRAME_BODY, 2, other))
    stream = frames[:first] + frame_bytes(8, 0, b"") + second + frames[first:]

    def main(poller: Poller) -> None:
        client = Client(poller, frame_max)
        client.push(method_bytes(2, Channel.Open()))
        client.frames()
        for cut in range(0, len(stream), 4999):
            client.push(stream[:cut])
            client.push(stream[cut:])
            came = client.frames()
            assert [frame for frame in came if frame[1] == 1] == returned(body, frame_max), f"cut at {cut}"
            assert b"".join(frame[2] for frame in came if frame[:2] == (FRAME_BODY, 2)) == other, f"cut at {cut}"
        client.close()

    on_a_poller(main)


def test_a_connection_that_fails_while_a_body_lands_reads_on_to_the_clients_answer() -> None:
    stream = publish(bytes_of(60_000))

    def main(poller: Poller) -> None:
        client = Client(poller)
        client.push(stream[:30_000])
        client.connection.fail(None, ConnectionForced("an operator's wish"))
        client.push(stream[30_000:] + publish(bytes_of(60_000)))
        assert [frame[0] for frame in client.frames()] == [FRAME_METHOD]
        client.push(method_bytes(0, ConnectionClass.CloseOk()))
        assert client.connection.is_closed
        assert client.worker.closed == ["closed by us, and the client has agreed"]
        client.close()

    on_a_poller(main)


def test_connections_that_end_in_the_middle_of_a_body_keep_none_of_it() -> None:
    stream = publish(bytes_of(1_000_000), 2_000_000)

    def main(poller: Poller) -> None:
        def end_in_the_middle(by_us: bool) -> None:
            client = Client(poller, 2_000_000)
            client.push(stream[:900_000])
            if by_us:
                client.connection.close("enough")
            client.socket.close()
            poller.turn()
            assert client.connection.is_closed and client.session.errors == []

        for number in range(10):
            end_in_the_middle(number % 2 == 0)
        before = psutil.Process().memory_info().rss
        for number in range(100):
            end_in_the_middle(number % 2 == 0)
        assert psutil.Process().memory_info().rss - before < 30_000_000, "a hundred times 0.9 MB, if it were kept"

    on_a_poller(main)


def test_a_client_that_does_not_read_is_not_read_either_however_large_what_it_is_answered() -> None:
    body = bytes_of(200_000)

    def main(poller: Poller) -> None:
        client = Client(poller, sent_at_once=4608)
        data = publish(body) * 60
        stuck = 0
        while stuck < 3 and data:
            try:
                data = data[client.socket.send(data) :]
                stuck = 0
            except BlockingIOError:
                stuck += 1
            poller.turn()
        assert data, "12 MB were taken from a client that reads nothing"
        assert client.connection.is_unread
        assert 4 * 1024 * 1024 < client.connection.unsent_bytes < 6 * 1024 * 1024
        client.push(data)
        assert client.frames() == returned(body) * 60
        assert not client.connection.is_unread
        client.close()

    on_a_poller(main)


@pytest.mark.parametrize(("size", "bound"), [(1_000, 256 * 1024), (64 * 1024, 1024 * 1024)])
def test_more_may_wait_for_a_slow_client_when_it_is_not_copied(size: int, bound: int) -> None:
    data = publish(bytes_of(size))

    def main(poller: Poller) -> None:
        client = Client(poller, sent_at_once=4608)
        while not client.connection.is_congested:
            assert client.connection.unsent_bytes <= bound
            client.push(data)
        assert bound < client.connection.unsent_bytes <= bound + 2 * len(data), "one answer more, whose head is larger than the publish's"
        client.frames()
        assert not client.connection.is_congested
        client.close()

    on_a_poller(main)
