"""Streams of like large bodies, which are received into the messages that are expected of them; and everything that turns out otherwise.

As in `test_large_bodies`: mandatory messages that nobody takes come back as they were read.
"""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.link.poller import Poller
from pika.spec import Basic, Queue

from tests.link.loop import run
from tests.wire import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, frame_bytes, header_payload, method_bytes
from tests.worker.lone_connection import FRAME_MAX, Client, on_a_poller

Like = tuple[int, str, str]  # body size, routing key, content type ("": no property)
CONTENT_TYPE, HEADERS = 0x8000, 0x2000  # property flags
PLAIN: Like = (20_000, "nobody", "")


def content(like: Like, seed: int) -> bytes:
    """Header and body frames of a message like that."""
    size, _, content_type = like
    flags, properties = (CONTENT_TYPE, bytes([len(content_type)]) + content_type.encode()) if content_type else (0, b"")
    body = random.Random(seed).randbytes(size)
    piece = FRAME_MAX - 8
    pieces = [frame_bytes(FRAME_BODY, 1, body[at : at + piece]) for at in range(0, size, piece)]
    return frame_bytes(FRAME_HEADER, 1, header_payload(60, size, flags, properties)) + b"".join(pieces)


def published(like: Like, seed: int, exchange: str = "") -> bytes:
    return method_bytes(1, Basic.Publish(exchange=exchange, routing_key=like[1], mandatory=True)) + content(like, seed)


def returned(like: Like, seed: int) -> bytes:
    return method_bytes(1, Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key=like[1])) + content(like, seed)


def answers(client: Client) -> bytes:
    """Everything that the broker has sent since."""
    return b"".join(frame_bytes(*frame) for frame in client.frames())


likes = st.tuples(
    # Neighbours of the same size in all: a longer key with a shorter body must not pass for the message that was expected.
    st.sampled_from([3000, 16_383, 16_384, 16_385, 20_000, 65_536, 262_144, 262_145, 300_000]),
    st.sampled_from(["nobody", "nobody1", "no"]),
    st.sampled_from(["", "text/plain", "a"]),
)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.tuples(likes, st.integers(1, 8)), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 150_000), max_size=6))
def test_rows_of_like_bodies_come_back_byte_for_byte(rows: list[tuple[Like, int]], cuts: list[int]) -> None:
    messages = [(like, seed) for seed, like in enumerate(like for like, count in rows for _ in range(count))]
    stream = b"".join(published(*message) for message in messages)

    def main(poller: Poller) -> None:
        client = Client(poller)
        at = 0
        for size in cuts:
            client.push(stream[at : at + size])
            at += size
        client.push(stream[at:])
        assert answers(client) == b"".join(returned(*message) for message in messages)
        client.close()

    on_a_poller(main)


def test_a_longer_key_with_a_shorter_body_is_another_message() -> None:
    other: Like = (PLAIN[0] - 1, PLAIN[1] + "x", "")
    messages = [(PLAIN, 1), (PLAIN, 2), (PLAIN, 3), (other, 4), (PLAIN, 5), (other, 6)]

    def main(poller: Poller) -> None:
        client = Client(poller)
        client.push(b"".join(published(*message) for message in messages))
        assert answers(client) == b"".join(returned(*message) for message in messages)
        client.close()

    on_a_poller(main)


def test_what_comes_before_the_bodies_may_be_long_too() -> None:
    """More than the buffer has room for, if it were one for each of the bodies that are expected."""
    table = b"\x01xS" + (100_000).to_bytes(4, "big") + bytes(100_000)
    header = header_payload(60, 20_000, HEADERS, len(table).to_bytes(4, "big") + table)
    frames = frame_bytes(FRAME_HEADER, 1, header) + frame_bytes(FRAME_BODY, 1, bytes(20_000))
    publish = method_bytes(1, Basic.Publish(exchange="", routing_key="nobody", mandatory=True))
    answer = method_bytes(1, Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="nobody"))

    def main(poller: Poller) -> None:
        client = Client(poller)
        for _ in range(10):
            client.push(publish + frames[:-1000])
            client.push(frames[-1000:] + publish + frames)
            assert answers(client) == (answer + frames) * 2
        client.close()

    on_a_poller(main)


def test_a_message_that_is_refused_in_the_midst_leaves_the_others() -> None:
    before = [(PLAIN, seed) for seed in range(5)]

    def main(poller: Poller) -> None:
        client = Client(poller)
        stream = b"".join(published(*message) for message in before)
        stream += published(PLAIN, 5, exchange="missing") + published(PLAIN, 6)
        client.push(stream)
        came = answers(client)
        kept = b"".join(returned(*message) for message in before)
        assert came.startswith(kept)
        close = came[len(kept) :]
        assert close[7:11] == bytes.fromhex("00140028"), "channel.close, and nothing after it"
        assert b"NOT_FOUND - no exchange 'missing' in vhost '/'" in close
        assert len(close) == 8 + int.from_bytes(close[3:7], "big")
        client.close()

    on_a_poller(main)


def test_reading_may_stop_in_the_midst_and_go_on_later() -> None:
    """A method that takes its time stops the connection while what follows has been received."""

    async def main(poller: Poller) -> None:
        client = Client(poller)
        waiting: list[asyncio.Future[None]] = []

        class Methods:
            def serve(self, *_: object) -> asyncio.Future[None]:
                waiting.append(asyncio.get_running_loop().create_future())
                return waiting[-1]

        client.worker.methods = Methods()
        declare = method_bytes(1, Queue.Declare(queue="slow"))
        for place in range(1, 7):
            pieces = [published(PLAIN, seed) for seed in range(7)]
            pieces.insert(place, declare)
            client.push(b"".join(pieces))
            came = answers(client)
            assert came == b"".join(returned(PLAIN, seed) for seed in range(place)), "what comes before the method"
            waiting.pop().set_result(None)
            while len(came) < 7 * len(returned(PLAIN, 0)):
                await asyncio.sleep(0)
                came += answers(client)
            assert came == b"".join(returned(PLAIN, seed) for seed in range(7))
        client.close()

    run(main)


def test_the_client_may_go_in_the_midst() -> None:
    def main(poller: Poller) -> None:
        for seed in range(20):
            client = Client(poller)
            stream = b"".join(published(PLAIN, number) for number in range(9))
            client.push(stream[: random.Random(seed).randrange(len(stream))])
            client.socket.close()
            while not client.connection.is_closed:
                poller.turn()
            assert client.worker.closed[0] in ("the peer closed the connection", "the peer reset the connection")

    on_a_poller(main)


def test_a_wrong_end_octet_in_the_midst_is_refused() -> None:
    def main(poller: Poller) -> None:
        for number in range(1, 6):
            client = Client(poller)
            pieces = [published(PLAIN, seed) for seed in range(7)]
            pieces[number] = pieces[number][:-1] + b"\x00"
            client.push(b"".join(pieces))
            frames = client.frames()
            assert [kind for kind, _, _ in frames] == [FRAME_METHOD, FRAME_HEADER, FRAME_BODY] * number + [FRAME_METHOD]
            assert client.session.errors[0].endswith("{invalid_frame_end_marker,0}")
            client.close()

    on_a_poller(main)
