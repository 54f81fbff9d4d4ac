"""Links over real Unix sockets: requests and answers, the order of packets, packets of any size cut anywhere, and bytes that are none."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from typing import Any

import msgpack
import pytest
from leveret.codec.errors import NotFound, PreconditionFailed
from leveret.link.link import Hello, LinkClosed, RequestFailed
from leveret.link.poller import Poller
from leveret.link.stream import socket_pair
from tests.link.recording_link import SIZE_MAX, VERSION, RecordingLink

from tests.link.loop import ROUTER, WORKER, Journal, linked, run

CONTROL, PUBLISH, ENQUEUE = 1, 2, 3
HELLO, REQUEST, RESULT, REFUSAL, FAILURE, NOTICE = range(6)
PAUSED = 2  # a subclass's own reason


def packet(kind: int, rest: bytes, flags: int = 0) -> bytes:
    return struct.pack("<IBBH", 8 + len(rest), kind, flags, 0) + rest


def control(*content: Any) -> bytes:
    return packet(CONTROL, msgpack.packb(content))


HELLO_BYTES = control(HELLO, VERSION, "router", 0, 77)


def raw_end(poller: Poller, journal: Journal) -> tuple[RecordingLink, socket.socket]:
    """A link whose peer is a bare socket."""
    one, other = socket_pair()
    other.settimeout(30)
    return RecordingLink(poller, one, WORKER, journal), other


def received(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    data = b""
    with contextlib.suppress(ConnectionResetError):  # it was closed with bytes of ours unread
        while chunk := sock.recv(65536):
            data += chunk
    return data


# --- hello


def test_both_sides_say_who_they_are() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = Journal(), Journal()
        link, other = await linked(poller, ours, theirs)
        assert ours.events == [("open", ROUTER)] and theirs.events == [("open", WORKER)]
        assert (link.peer, other.peer) == (ROUTER, WORKER)
        assert Hello("worker", 1, 4321).version == VERSION

    run(main)


# --- requests


def test_a_request_is_answered_with_what_the_handler_returns_or_awaits() -> None:
    async def later(body: Any) -> Any:
        await asyncio.sleep(0)
        return {"later": body}

    async def main(poller: Poller) -> None:
        theirs = Journal(echo=lambda body: body, later=later)
        link, _ = await linked(poller, Journal(), theirs)
        body = {"text": "é", "bytes": b"\0\xff", "list": [1, -(2**40), None, True, 0.5], "map": {"x": {}}}
        assert await link.request("echo", body) == body
        assert await link.request("echo") is None
        assert await link.request("later", 7) == {"later": 7}

    run(main)


def test_answers_find_their_requests_whatever_order_they_come_in() -> None:
    async def main(poller: Poller) -> None:
        gates: dict[int, asyncio.Future[str]] = {number: poller.loop.create_future() for number in range(5)}
        theirs = Journal(wait=lambda number: gates[number])
        link, _ = await linked(poller, Journal(), theirs)
        asked = [link.ask("wait", number) for number in range(5)]
        await theirs.until(lambda: len(theirs.of("request")) == 5)
        for number in (3, 0, 4, 2, 1):
            gates[number].set_result(f"answer {number}")
            assert await asked[number] == f"answer {number}"

    run(main)


def test_an_amqp_error_crosses_the_link_whole() -> None:
    def at_once(body: Any) -> Any:
        raise NotFound("no queue 'q' in vhost '/'")

    async def later(body: Any) -> Any:
        await asyncio.sleep(0)
        error = PreconditionFailed("queue 'q' in vhost '/' not empty")
        error.class_id, error.method_id = 50, 40
        raise error

    async def main(poller: Poller) -> None:
        link, _ = await linked(poller, Journal(), Journal(at_once=at_once, later=later))
        with pytest.raises(NotFound) as found:
            await link.request("at_once")
        assert (found.value.reply_code, found.value.reply_text) == (404, "NOT_FOUND - no queue 'q' in vhost '/'")
        assert (found.value.class_id, found.value.method_id) == (0, 0)
        with pytest.raises(PreconditionFailed) as refused:
            await link.request("later")
        assert refused.value.reply_text == "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"
        assert (refused.value.class_id, refused.value.method_id) == (50, 40)

    run(main)


def test_a_handlers_bug_fails_the_request_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def later(body: Any) -> Any:
        raise KeyError("worker")

    async def main(poller: Poller) -> None:
        link, _ = await linked(poller, Journal(), Journal(divide=lambda by: 1 // by, later=later))
        with pytest.raises(RequestFailed, match="ZeroDivisionError"):
            await link.request("divide", 0)
        with pytest.raises(RequestFailed, match="KeyError: 'worker'"):
            await link.request("later")
        assert await link.request("divide", 1) == 1

    run(main)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError, KeyError], "whole, in the log"


def test_a_request_that_is_not_answered_in_time_gives_up_and_its_late_answer_is_passed_over() -> None:
    async def main(poller: Poller) -> None:
        gate: asyncio.Future[str] = poller.loop.create_future()
        theirs = Journal(wait=lambda _: gate, echo=lambda body: body)
        link, _ = await linked(poller, Journal(), theirs)
        with pytest.raises(TimeoutError):
            await link.request("wait", timeout_s=0.01)
        await theirs.heard("request", "wait")
        gate.set_result("too late")
        assert await link.request("echo", "next") == "next"

    run(main)


def test_pending_requests_end_when_the_link_does() -> None:
    async def main(poller: Poller) -> None:
        unanswered = poller.loop.create_future()
        ours, theirs = Journal(), Journal(wait=lambda _: asyncio.shield(unanswered))
        link, other = await linked(poller, ours, theirs)
        pending = [link.ask("wait", number) for number in range(3)]
        await theirs.until(lambda: len(theirs.of("request")) == 3)
        other.close("the process is ending")
        for future in pending:
            with pytest.raises(LinkClosed):
                await future
        assert ours.of("closed") == theirs.of("closed") == [()], "each side hears of it once"
        with pytest.raises(LinkClosed):
            link.ask("wait")
        link.notify("nobody", {})  # is not an error
        assert link.is_closed and other.is_closed
        unanswered.set_result(None)  # nobody is left to hear it

    run(main)


def test_an_answer_after_the_link_has_closed_goes_nowhere() -> None:
    async def main(poller: Poller) -> None:
        gate: asyncio.Future[str] = poller.loop.create_future()
        theirs = Journal(wait=lambda _: gate)
        link, other = await linked(poller, Journal(), theirs)
        asked = link.ask("wait")
        await theirs.heard("request", "wait")
        link.close("enough")
        await theirs.heard("closed")
        gate.set_result("nobody listens")
        with pytest.raises(LinkClosed):
            await asked
        assert other.is_closed

    run(main)


# --- packets


def test_packets_notices_and_requests_arrive_in_the_order_they_were_sent() -> None:
    async def main(poller: Poller) -> None:
        theirs = Journal(mark=lambda number: number)
        link, _ = await linked(poller, Journal(), theirs)
        sent: list[tuple[Any, ...]] = []
        asked = []
        for number in range(600):
            if number % 3 == 0:
                link.send_packet(ENQUEUE, number % 256, str(number).encode())
                sent.append(("packet", ENQUEUE, number % 256, str(number).encode()))
            elif number % 3 == 1:
                link.notify("count", number)
                sent.append(("notice", "count", number))
            else:
                asked.append(link.ask("mark", number))
                sent.append(("request", "mark", number))
        assert await asyncio.gather(*asked) == list(range(2, 600, 3))
        assert theirs.events[1:] == sent

    run(main)


def test_a_packet_far_larger_than_a_read_arrives_whole_between_small_ones() -> None:
    async def main(poller: Poller) -> None:
        theirs = Journal(echo=lambda body: body)
        link, other = await linked(poller, Journal(), theirs)
        large = bytes(range(256)) * 40_000  # 10 MB
        for rest in (b"before", large, b"after", large[:300_000], b""):
            link.send_packet(PUBLISH, 0, rest)
        await theirs.until(lambda: len(theirs.of("packet")) == 5)
        assert [fact[2] for fact in theirs.of("packet")] == [b"before", large, b"after", large[:300_000], b""]
        assert await link.request("echo", large) == large
        assert link.packets_out == other.packets_in and other.packets_out == link.packets_in

    run(main)


def test_many_small_packets_arrive_in_order() -> None:
    async def main(poller: Poller) -> None:
        theirs = Journal()
        link, other = await linked(poller, Journal(), theirs)
        for number in range(50_000):
            link.send_packet(PUBLISH, 0, number.to_bytes(4, "big") * (number % 13))
        await theirs.until(lambda: len(theirs.of("packet")) == 50_000)
        assert [fact[2] for fact in theirs.of("packet")] == [number.to_bytes(4, "big") * (number % 13) for number in range(50_000)]
        assert other.received_count < 500, "they travel together"

    run(main)


STREAM = HELLO_BYTES + packet(ENQUEUE, b"first", 7) + control(NOTICE, "verb", {"key": b"value"}) + packet(PUBLISH, b"")
HEARD = [
    ("open", Hello("router", 0, 77)),
    ("packet", ENQUEUE, 7, b"first"),
    ("notice", "verb", {"key": b"value"}),
    ("packet", PUBLISH, 0, b""),
]


def test_packets_may_come_byte_by_byte() -> None:
    async def main(poller: Poller) -> None:
        journal = Journal()
        _, peer = raw_end(poller, journal)
        for at in range(len(STREAM)):
            peer.send(STREAM[at : at + 1])
            poller.turn()
        assert journal.events == HEARD
        peer.close()

    run(main)


def test_packets_may_be_cut_anywhere() -> None:
    async def main(poller: Poller) -> None:
        for cut in range(1, len(STREAM)):
            journal = Journal()
            link, peer = raw_end(poller, journal)
            for part in (STREAM[:cut], STREAM[cut:]):
                peer.send(part)
                poller.turn()
            assert journal.events == HEARD, f"cut at {cut}"
            link.close("next")
            peer.close()

    run(main)


# --- bytes that are none of ours


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IBBH", 3, CONTROL, 0, 0),
        struct.pack("<IBBH", SIZE_MAX + 1, CONTROL, 0, 0),
        struct.pack("<IBBH", 0xFFFFFFFF, CONTROL, 0, 0),
        packet(CONTROL, b""),
        packet(CONTROL, b"\xc1"),
        packet(CONTROL, b"\x93\x00\x01"),
        packet(CONTROL, msgpack.packb(5)),
        packet(CONTROL, msgpack.packb([])),
        packet(CONTROL, msgpack.packb({"kind": 0})),
        packet(CONTROL, b"\xdd\xff\xff\xff\xff"),
        control(HELLO),
        control(HELLO, VERSION),
        control(HELLO, VERSION + 1, "router", 0, 77),
        control(HELLO, "1", "router", 0, 77),
        control(NOTICE, "verb", {}),
        packet(ENQUEUE, b"before the hello"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_a_stranger_is_hung_up_on(data: bytes) -> None:
    async def main(poller: Poller) -> None:
        good, _ = await linked(poller, Journal(), Journal(echo=lambda body: body))
        journal = Journal()
        link, stranger = raw_end(poller, journal)
        stranger.send(data)
        with pytest.raises(LinkClosed):
            await link.opened
        assert link.is_closed and link.peer is None
        received(stranger)
        assert journal.events == [], "it was never open, so nobody hears of its end"
        assert await good.request("echo", 1) == 1

    run(main)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IBBH", 7, ENQUEUE, 0, 0),
        struct.pack("<IBBH", SIZE_MAX + 1, ENQUEUE, 0, 0),
        packet(CONTROL, b"\xc1"),
        control(9, 1, 2),
        control(HELLO, VERSION, "router", 0, 77),
        control(REQUEST),
        control(REQUEST, 1),
        control(NOTICE),
        control(RESULT),
        control(RESULT, 1),
        control(REFUSAL, 1),
        control(FAILURE, 1),
        packet(CONTROL, msgpack.packb([REQUEST, [1], "verb", {}])[:-1]),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_a_malformed_packet_closes_an_open_link_and_ends_its_requests(data: bytes) -> None:
    async def main(poller: Poller) -> None:
        good, _ = await linked(poller, Journal(), Journal(echo=lambda body: body))
        journal = Journal()
        link, peer = raw_end(poller, journal)
        peer.send(HELLO_BYTES)
        await link.opened
        pending = link.ask("verb", {})
        peer.send(data)
        with pytest.raises(LinkClosed):
            await pending
        assert link.is_closed
        assert journal.events == [("open", Hello("router", 0, 77)), ("closed",)]
        received(peer)
        assert await good.request("echo", 1) == 1

    run(main)


def test_a_receivers_bug_closes_that_link_alone() -> None:
    class Buggy(Journal):
        def on_notice(self, link: Any, verb: str, body: Any) -> None:
            raise LookupError(verb)

    async def main(poller: Poller) -> None:
        ours = Journal()
        link, other = await linked(poller, ours, Buggy())
        good, _ = await linked(poller, Journal(), Journal(echo=lambda body: body))
        link.notify("boom", {})
        await ours.heard("closed")
        assert other.is_closed
        assert await good.request("echo", 1) == 1

    run(main, bugs=[LookupError])


# --- back-pressure and ends


def test_a_link_that_is_not_read_is_congested_until_it_is() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = Journal(), Journal()
        link, other = await linked(poller, ours, theirs)
        other.stop_reading(PAUSED)
        rest = bytes(1000)
        sent = 0
        while not link.is_congested:
            link.send_packet(PUBLISH, 0, rest)
            sent += 1
            if sent % 100 == 0:
                poller.turn()  # what the kernel takes is gone
        assert ours.of("congested") == [()] and ours.of("drained") == []
        assert 4 * 1024 * 1024 <= link.unsent_bytes < 4 * 1024 * 1024 + 200_000
        link.send_packet(PUBLISH, 0, b"last")
        assert ours.of("congested") == [()], "said once"
        other.go_on_reading(PAUSED)
        await theirs.until(lambda: len(theirs.of("packet")) == sent + 1)
        assert [fact[2] for fact in theirs.of("packet")] == [rest] * sent + [b"last"], "nothing is dropped"
        await ours.heard("drained")
        assert ours.of("drained") == [()]
        assert link.unsent_bytes == 0 and not link.is_congested

    run(main)


def test_a_link_paused_in_the_middle_of_a_read_goes_on_where_it_stopped() -> None:
    async def main(poller: Poller) -> None:
        class Pausing(Journal):
            def on_notice(self, link: Any, verb: str, body: Any) -> None:
                super().on_notice(link, verb, body)
                link.stop_reading(PAUSED)

        theirs = Pausing()
        link, other = await linked(poller, Journal(), theirs)
        for number in range(5):
            link.notify("count", number)
        for number in range(5):
            await theirs.until(lambda number=number: len(theirs.of("notice")) == number + 1)
            poller.turn()
            assert theirs.of("notice") == [("count", earlier) for earlier in range(number + 1)]
            other.go_on_reading(PAUSED)

    run(main)


def test_a_peer_that_goes_while_it_is_not_read_is_heard_to_the_end() -> None:
    async def main(poller: Poller) -> None:
        journal = Journal()
        link, peer = raw_end(poller, journal)
        peer.send(HELLO_BYTES)
        await link.opened
        link.stop_reading(PAUSED)
        peer.send(packet(PUBLISH, b"last words"))
        peer.close()
        for _ in range(3):
            poller.turn()
        assert not link.is_closed
        link.go_on_reading(PAUSED)
        await journal.heard("closed")
        assert journal.events[1:] == [("packet", PUBLISH, 0, b"last words"), ("closed",)]

    run(main)


def test_a_peer_that_goes_while_it_is_not_read_does_not_keep_the_loop_busy() -> None:
    async def main(poller: Poller) -> None:
        link, peer = raw_end(poller, Journal())
        peer.send(HELLO_BYTES)
        await link.opened
        link.stop_reading(PAUSED)
        peer.close()
        poller.turn()  # hears of it
        assert select.select([poller.fileno()], [], [], 0)[0] == [], "the loop has no reason to wake up"

    run(main)


def test_what_was_written_before_close_after_flush_is_sent() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = Journal(), Journal()
        link, _ = await linked(poller, ours, theirs)
        rest = bytes(5_000_000)
        link.send_packet(PUBLISH, 0, rest)
        link.notify("last", {})
        link.close_after_flush()
        await theirs.heard("closed")
        assert theirs.events[1:] == [("packet", PUBLISH, 0, rest), ("notice", "last", {}), ("closed",)]
        assert link.is_closed and ours.of("closed") == [()]

    run(main)


def test_a_peer_that_vanishes_in_the_middle_of_a_packet_is_only_gone() -> None:
    async def main(poller: Poller) -> None:
        journal = Journal()
        link, peer = raw_end(poller, journal)
        peer.send(HELLO_BYTES + struct.pack("<IBBH", 1_000_000, PUBLISH, 0, 0) + bytes(1000))
        await link.opened
        peer.close()
        await journal.heard("closed")
        assert journal.of("packet") == []

    run(main)
