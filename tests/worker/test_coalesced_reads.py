"""Connections that are read a moment later: those that bring little at a time, often, and nothing that anybody waits for."""

from __future__ import annotations

import time

from leveret.link.poller import Poller
from pika.spec import Basic

from tests.deadline import WITHIN_S, eventually
from tests.wire import FRAME_BODY, FRAME_HEADER, frame_bytes, header_payload, method_bytes
from tests.worker.lone_connection import Client, on_a_poller

SMALL_READS_FIRST = 64
AN_HOUR_US = 3_600_000_000


def writes(*, mandatory: bool = False, body: bytes = b"small") -> list[bytes]:
    """A publish to a queue that is not there, as pika sends it: a write for each frame."""
    return [
        method_bytes(1, Basic.Publish(exchange="", routing_key="nobody", mandatory=mandatory)),
        frame_bytes(FRAME_HEADER, 1, header_payload(60, len(body))),
        frame_bytes(FRAME_BODY, 1, body),
    ]


def test_a_stream_of_publishes_that_nobody_waits_for_is_read_later() -> None:
    def main(poller: Poller) -> None:
        poller.coalesce_us = AN_HOUR_US
        client = Client(poller)
        until_s = time.monotonic() + WITHIN_S
        pushed = reads = 0
        # Small reads count when they follow each other closely, so it may take a few more on a busy machine.
        while client.connection.received_count > reads:
            reads = client.connection.received_count
            client.push(writes()[pushed % 3])
            pushed += 1
            assert time.monotonic() < until_s, "it is never read later"
        assert pushed > SMALL_READS_FIRST
        client.close()

    on_a_poller(main)


def test_what_comes_before_a_late_read_is_read_by_it() -> None:
    count = 3000

    def main(poller: Poller) -> None:
        client = Client(poller)
        for _ in range(count):
            for piece in writes():
                client.push(piece)
        (channel,) = client.connection.all_channels()

        def has_read_all() -> bool:
            poller.turn()  # nothing else comes that it could be read along with
            return bool(channel.statistics()["message_stats"]["publish"] == count)

        eventually(has_read_all, what="the last ones are read")
        client.close()

    on_a_poller(main)


def test_who_waits_for_an_answer_is_read_at_once() -> None:
    def main(poller: Poller) -> None:
        poller.coalesce_us = AN_HOUR_US
        client = Client(poller)
        for number in range(10 * SMALL_READS_FIRST):
            client.push(b"".join(writes(mandatory=True)))
            (_, _, method), *_ = client.frames()
            assert method[:4] == bytes.fromhex("003c0032"), f"basic.return of publish {number}"
        client.close()

    on_a_poller(main)


def test_large_and_batched_publishes_are_read_at_once() -> None:
    def main(poller: Poller) -> None:
        poller.coalesce_us = AN_HOUR_US
        client = Client(poller)
        for body, at_once in ((bytes(20_000), 1), (b"small", 9)):
            for _ in range(3 * SMALL_READS_FIRST):
                reads = client.connection.received_count
                client.push(b"".join(writes(body=body)) * at_once)
                assert client.connection.received_count > reads
        client.close()

    on_a_poller(main)
