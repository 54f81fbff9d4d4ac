"""Publisher and consumer over a socket pair: the test is the broker, so every byte is known."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from leveret.codec import methods
from leveret.codec.frames import FrameReader, encode_content, encode_frame, encode_method_frame
from leveret.perf.consumer import Consumer
from leveret.perf.line import LineBroken
from leveret.perf.loader import encode_block
from leveret.perf.plan import Plan
from leveret.perf.publisher import Publisher

FRAME_MAX = 131_072
HEADER, BODY = 2, 3
PROPERTIES = b"\0\0"
STOP = encode_method_frame(1, methods.BasicCancel(consumer_tag="0"))  # any method that is not hot brings a line back at once


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The line's end and the broker's."""
    line_end, broker_end = socket.socketpair()
    line_end.setblocking(False)
    broker_end.settimeout(30.0)
    with line_end, broker_end:
        yield line_end, broker_end


def soon_ns(within_s: float = 30.0) -> int:
    return time.monotonic_ns() + int(within_s * 1e9)


def run_until(line: Consumer | Publisher, is_so: Callable[[], bool], *, settling: bool = False) -> None:
    """Run it (or let it settle) in short slices until `is_so()`, and for one slice more, in which it could do too much."""
    until_ns = soon_ns()
    turn = line.settle if settling and isinstance(line, Publisher) else line.run
    while not is_so():
        assert time.monotonic_ns() < until_ns, "not within half a minute"
        turn(soon_ns(0.01))
    turn(soon_ns(0.01))


def stamp(sequence_number: int, publisher: int = 0, sent_ns: int | None = None) -> bytes:
    sent_ns = time.monotonic_ns() if sent_ns is None else sent_ns
    return sent_ns.to_bytes(8, "big") + publisher.to_bytes(2, "big") + sequence_number.to_bytes(6, "big")


def delivery(tag: int, body: bytes, queue: int = 0, *, redelivered: bool = False, frame_max: int = FRAME_MAX) -> bytes:
    deliver = methods.BasicDeliver(consumer_tag=str(queue), delivery_tag=tag, redelivered=redelivered, routing_key="key")
    return encode_method_frame(1, deliver) + encode_content(1, 60, PROPERTIES, body, frame_max)


def acks(broker_end: socket.socket, count: int) -> list[tuple[int, bool]]:
    """The next `count` acks that the line wrote."""
    reader = FrameReader(FRAME_MAX)
    found: list[tuple[int, bool]] = []
    while len(found) < count:
        reader.feed(broker_end.recv(1 << 16))
        for frame in reader:
            method = methods.decode_method(frame.payload)
            assert isinstance(method, methods.BasicAck)
            found.append((method.delivery_tag, bool(method.multiple)))
    return found


def consumer_of(end: socket.socket, *, queues: int = 1, publishers: int = 1, ack_every: int = 0) -> Consumer:
    return Consumer(end.fileno(), 1, queues, publishers, ack_every)


def publisher_of(end: socket.socket, plan: Plan, *, index: int = 0, limit: int = 0, frame_max: int = FRAME_MAX) -> Publisher:
    messages, stamps_at = encode_block(plan, frame_max)
    return Publisher(end.fileno(), 1, index, messages, stamps_at, plan.size, plan.confirms, plan.rate, limit)


def published(broker_end: socket.socket, count: int) -> list[tuple[methods.Method, bytes]]:
    """The next `count` publishes, each with its body."""
    reader = FrameReader(FRAME_MAX)
    found: list[tuple[methods.Method, bytes]] = []
    publish, body, left = methods.Method(), b"", -1
    while len(found) < count:
        reader.feed(broker_end.recv(1 << 20))
        for frame in reader:
            if frame.type == HEADER:
                left = int.from_bytes(frame.payload[4:12], "big")
            elif frame.type == BODY:
                body += frame.payload
                left -= len(frame.payload)
            else:
                publish = methods.decode_method(frame.payload)
            if left == 0:
                found.append((publish, body))
                body, left = b"", -1
    assert len(found) == count
    return found


def test_deliveries_are_counted_when_split_at_every_byte(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    heartbeat = encode_frame(8, 0, b"")
    story = delivery(1, stamp(1)) + heartbeat + delivery(2, b"") + delivery(3, stamp(2) + bytes(9000), frame_max=4096) + STOP
    for cut in range(1, len(story)):
        # The long body's middle is all alike: a cut there tells nothing new.
        if 200 < cut < len(story) - 200 and cut % 97:
            continue
        consumer = consumer_of(line_end)
        broker_end.sendall(story[:cut])
        assert consumer.run(soon_ns(0.0002)) is False
        broker_end.sendall(story[cut:])
        assert consumer.run(soon_ns()) is True
        assert (consumer.received, consumer.received_bytes, consumer.overtaken, consumer.foreign) == (3, 9032, 0, 0), f"cut at {cut}"
        assert consumer.take_cold() == (1, methods.BasicCancel(consumer_tag="0").encode())


def test_latency_is_the_time_since_the_stamp(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    consumer = consumer_of(line_end)
    broker_end.sendall(delivery(1, stamp(1, sent_ns=time.monotonic_ns() - 2_000_000_000)) + STOP)
    consumer.run(soon_ns())
    assert consumer.latency.total == 1
    assert 2_000_000_000 <= consumer.latency.max_ns < 12_000_000_000


@pytest.mark.parametrize("sent_ns", [1 << 62, (1 << 64) - 1])
def test_a_stamp_from_the_future_is_not_ours(ends: tuple[socket.socket, socket.socket], sent_ns: int) -> None:
    line_end, broker_end = ends
    consumer = consumer_of(line_end)
    broker_end.sendall(delivery(1, stamp(1, sent_ns=sent_ns)) + STOP)
    consumer.run(soon_ns())
    assert (consumer.foreign, consumer.latency.total) == (1, 0)


def test_what_comes_after_a_later_one_of_its_publisher_and_queue_was_overtaken(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    consumer = consumer_of(line_end, queues=12, publishers=2)
    story = [(5, 0, 0), (3, 1, 0), (3, 0, 11), (6, 0, 0), (6, 0, 0), (4, 0, 0), (4, 1, 0)]  # sequence number, publisher, queue
    broker_end.sendall(b"".join(delivery(tag, stamp(number, by), queue) for tag, (number, by, queue) in enumerate(story, 1)) + STOP)
    consumer.run(soon_ns())
    assert consumer.overtaken == 2
    broker_end.sendall(delivery(99, stamp(1), redelivered=True) + STOP)
    consumer.run(soon_ns())
    assert (consumer.overtaken, consumer.redelivered) == (2, 1)


def test_each_message_has_its_ack(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    consumer = consumer_of(line_end, ack_every=1)
    broker_end.sendall(b"".join(delivery(tag, stamp(tag)) for tag in range(1, 4)) + STOP)
    consumer.run(soon_ns())
    assert acks(broker_end, 3) == [(1, False), (2, False), (3, False)]


def test_one_ack_is_for_many_and_the_rest_follows_when_nothing_more_comes(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    consumer = consumer_of(line_end, ack_every=3)
    broker_end.sendall(b"".join(delivery(tag, stamp(tag)) for tag in range(1, 9)))
    run_until(consumer, lambda: consumer.received == 8)
    assert acks(broker_end, 3) == [(3, True), (6, True), (8, True)]


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (STOP[:-1] + b"\0", "206"),
        (encode_frame(BODY, 1, b"x"), "no content header"),
        (delivery(1, stamp(1))[:-1] + b"\0", "206"),
        (b"\x01\0\0\xff\xff\xff\xff", "frame_max"),
        (encode_frame(4, 1, b"x"), "no place"),
        (encode_method_frame(1, methods.BasicDeliver(consumer_tag="0", delivery_tag=1)) + STOP, "content was due"),
        (b"", "without connection.close"),
    ],
    ids=["end octet", "body alone", "end octet later", "too long", "frame type", "method for content", "closed line"],
)
def test_what_is_not_amqp_ends_the_line_with_a_reason(ends: tuple[socket.socket, socket.socket], sent: bytes, complaint: str) -> None:
    line_end, broker_end = ends
    broker_end.sendall(sent)
    broker_end.shutdown(socket.SHUT_WR)
    with pytest.raises(LineBroken, match=complaint):
        consumer_of(line_end).run(soon_ns())


def test_messages_leave_numbered_and_stamped_with_their_keys_in_turn(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    plan = Plan(size=20, exchange_kind="topic", exchange="x", keys=3)
    began_ns = time.monotonic_ns()
    publisher = publisher_of(line_end, plan, index=7, limit=5)
    publisher.run(soon_ns())
    assert publisher.finished
    found = published(broker_end, 5)
    assert [(method.exchange, method.routing_key) for method, _ in found] == [("x", f"perf.0.{n}") for n in (0, 1, 2, 0, 1)]
    assert [body[8:] for _, body in found] == [stamp(number, publisher=7)[8:] + bytes(4) for number in range(1, 6)]
    assert all(began_ns <= int.from_bytes(body[:8], "big") <= time.monotonic_ns() for _, body in found)


@pytest.mark.parametrize("size", [0, 7, 8, 15, 16, 4096, 10_000])
def test_bodies_of_any_size_arrive_whole(ends: tuple[socket.socket, socket.socket], size: int) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(size=size, queue="q"), limit=3, frame_max=4096)
    publisher.run(soon_ns())
    assert [len(body) for _, body in published(broker_end, 3)] == [size] * 3


def test_no_more_await_their_confirm_than_the_window_holds(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(confirms=10, queue="q"), limit=25)
    run_until(publisher, lambda: publisher.published >= 10)
    assert (publisher.published, publisher.unconfirmed) == (10, 10)
    broker_end.sendall(encode_method_frame(1, methods.BasicAck(delivery_tag=4, multiple=True)))
    run_until(publisher, lambda: publisher.published >= 14)
    assert (publisher.published, publisher.confirmed, publisher.unconfirmed) == (14, 4, 10)


def test_confirms_may_come_out_of_order_and_as_nacks(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(confirms=10, queue="q"), limit=10)
    run_until(publisher, lambda: publisher.published == 10)
    said = [methods.BasicAck(delivery_tag=3), methods.BasicNack(delivery_tag=9), methods.BasicAck(delivery_tag=5, multiple=True)]
    broker_end.sendall(b"".join(encode_method_frame(1, method) for method in said))
    run_until(publisher, lambda: publisher.confirmed + publisher.nacked >= 6, settling=True)
    assert (publisher.confirmed, publisher.nacked, publisher.unconfirmed, publisher.settled_down) == (5, 1, 4, False)
    broker_end.sendall(encode_method_frame(1, methods.BasicAck(delivery_tag=0, multiple=True)))  # 0: all there are
    publisher.settle(soon_ns())
    assert (publisher.confirmed, publisher.unconfirmed, publisher.settled_down, publisher.finished) == (9, 0, True, True)
    assert publisher.confirm_latency.total == 10


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([methods.BasicAck(delivery_tag=2), methods.BasicAck(delivery_tag=2)], "twice"),
        ([methods.BasicAck(delivery_tag=11)], "never published"),
    ],
)
def test_a_confirm_that_cannot_be_ends_the_line(
    ends: tuple[socket.socket, socket.socket], said: list[methods.Method], complaint: str
) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(confirms=10, queue="q"), limit=10)
    run_until(publisher, lambda: publisher.published == 10)
    broker_end.sendall(b"".join(encode_method_frame(1, method) for method in said))
    with pytest.raises(LineBroken, match=complaint):
        publisher.settle(soon_ns())


def test_a_rate_is_kept_and_stamps_tell_when_a_message_was_due(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(rate=1000.0, queue="q"), limit=20)
    began_ns = time.monotonic_ns()
    publisher.run(soon_ns())
    assert time.monotonic_ns() - began_ns >= 19_000_000
    due_ns = [int.from_bytes(body[:8], "big") for _, body in published(broker_end, 20)]
    assert all(later - earlier in (999_999, 1_000_000, 1_000_001) for earlier, later in pairwise(due_ns))


def test_what_comes_due_within_a_step_leaves_together(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(rate=100_000.0, queue="q"), limit=1000)
    began_ns = time.monotonic_ns()
    publisher.run(soon_ns())
    assert time.monotonic_ns() - began_ns >= 9_990_000
    # 40 steps of 25 messages, a wait and a write each; the block's end divides one of them, and now and then it looks for a farewell.
    assert publisher.system_calls <= 90
    due_ns = [int.from_bytes(body[:8], "big") for _, body in published(broker_end, 1000)]
    assert all(later - earlier in (9_999, 10_000, 10_001) for earlier, later in pairwise(due_ns))


@pytest.mark.parametrize(
    ("size", "fewest", "bytes_max"), [(16, 700, 1 << 16), (1024, 50, 1 << 16), (16_384, 16, 1 << 20), (65_536, 15, 1 << 20)]
)
def test_a_block_makes_one_large_write(size: int, fewest: int, bytes_max: int) -> None:
    messages, _ = encode_block(Plan(size=size, queue="q"), FRAME_MAX)
    assert len(messages) >= fewest
    assert sum(map(len, messages)) <= bytes_max


def test_returns_are_counted_and_other_methods_come_to_python(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(confirms=1, mandatory=True, queue="q"), limit=1)
    run_until(publisher, lambda: publisher.published == 1)
    returned = methods.BasicReturn(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")
    blocked = encode_method_frame(0, methods.ConnectionBlocked(reason="low on memory"))
    broker_end.sendall(encode_method_frame(1, returned) + encode_content(1, 60, PROPERTIES, stamp(1), FRAME_MAX) + blocked)
    assert publisher.settle(soon_ns()) is True
    channel_id, payload = publisher.take_cold()
    assert (channel_id, methods.decode_method(payload)) == (0, methods.ConnectionBlocked(reason="low on memory"))
    assert publisher.returned == 1


def test_a_blocked_publisher_writes_nothing_new(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, _ = ends
    publisher = publisher_of(line_end, Plan(queue="q"), limit=5)
    publisher.blocked = True
    publisher.run(soon_ns(0.005))
    assert publisher.published == 0
    publisher.blocked = False
    publisher.run(soon_ns())
    assert publisher.published == 5


def test_why_a_broker_hung_up_is_read_before_the_reset_is_told(ends: tuple[socket.socket, socket.socket]) -> None:
    line_end, broker_end = ends
    publisher = publisher_of(line_end, Plan(queue="q"))
    broker_end.sendall(encode_method_frame(0, methods.ConnectionClose(reply_code=320, reply_text="CONNECTION_FORCED - bye")))
    broker_end.close()
    assert publisher.run(soon_ns()) is True
    assert methods.decode_method(publisher.take_cold()[1]).reply_code == 320


def test_a_block_that_is_too_large_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(ValueError, match="67,108,864"):
        Publisher(ends[0].fileno(), 1, 0, [bytes(1 << 26), b"x"], [1, 1], 16, 0, 0.0, 0)
