"""What the regression guard counts: pieces of the hot path, each a fixed number of times, between marks that callgrind sees.

`bench.guard` runs `python -m bench.counted FOLDER [NAME …]` under valgrind and reads what was counted; by itself it only does the work. A
bench is prepared outside the marks and run twice, the second time with twice as many operations: the difference is what the operations
cost, without whatever a run costs once. The mark is a function of the C library that nobody else calls (`MARK`); callgrind writes down what
it has counted so far, and begins anew, whenever it is entered.

Everything that could differ between two runs is fixed: bytes, numbers of operations, the order of turns, and by the guard hash seeds and
whatever else is random. The channel's benches run on a whole node in this process (`bench.one_process`), the others on one layer alone,
with the loops of the benches that time them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import lmdb
from leveret.codec.frames import encode_content, encode_method_frame
from leveret.codec.methods import BasicAck, BasicPublish, QueueDelete, QueueDeleteOk
from leveret.codec.properties import NO_PROPERTIES
from leveret.codec.tables import encode_table
from leveret.link.link import Hello
from leveret.link.poller import Poller
from leveret.storage.local_log import LocalLog

from bench import codec, codec_loops, queue_loops, queues, routing, segment_loops, segments
from bench.link_loops import LoadLink
from bench.mark import mark

if TYPE_CHECKING:
    from bench.one_process import Client, OneProcessNode

MARK: Final = "__pyx_pw_5bench_4mark_*mark"  # as Cython names `bench.mark.mark` for the linker
FRAME_MAX: Final = codec.FRAME_MAX
CHANNEL: Final = 1  # of each client of the node
MAP_BYTES: Final = 1 << 28

Run = Callable[[], object]
Prepare = Callable[[int], "contextlib.AbstractContextManager[Run]"]


@dataclass(frozen=True, slots=True)
class Bench:
    """operations: of the first run; the second has twice as many. prepare: gives a run of so many operations."""

    name: str
    operations: int
    prepare: Prepare


BENCHES: dict[str, Bench] = {}


def bench(operations: int) -> Callable[[Callable[[int], Iterator[Run]]], None]:
    """Register a generator that prepares a run of so many operations, yields it, and tidies up. Its name says layer and work."""

    def register(prepare: Callable[[int], Iterator[Run]]) -> None:
        BENCHES[prepare.__name__] = Bench(prepare.__name__, operations, contextlib.contextmanager(prepare))

    return register


# --- the codec


@bench(5000)
def codec_scan_publish_16(count: int) -> Iterator[Run]:
    """The three frames of a publish found."""
    stream = codec.publishes(500, 16)
    yield lambda: codec_loops.scan(stream, FRAME_MAX, count // 500)


@bench(5000)
def codec_write_deliver_16(count: int) -> Iterator[Run]:
    """basic.deliver, header and body written."""
    yield lambda: codec_loops.deliver(b"x" * 16, NO_PROPERTIES, FRAME_MAX, count)


@bench(5000)
def codec_write_deliver_1024(count: int) -> Iterator[Run]:
    """The same with 1 KB and typical properties."""
    yield lambda: codec_loops.deliver(b"x" * 1024, codec.TYPICAL.encode(), FRAME_MAX, count)


@bench(20)
def codec_split_body_1mb(count: int) -> Iterator[Run]:
    """A body of 1 MiB cut into frames."""
    body = bytes(1 << 20)
    yield lambda: codec_loops.split_body(body, FRAME_MAX, count)


@bench(5000)
def codec_view_properties_none(count: int) -> Iterator[Run]:
    yield lambda: codec_loops.view(NO_PROPERTIES, count)


@bench(2000)
def codec_view_properties_typical(count: int) -> Iterator[Run]:
    yield lambda: codec_loops.view(codec.TYPICAL.encode(), count)


@bench(10)
def codec_check_table_1000_fields(count: int) -> Iterator[Run]:
    """A whole table of a thousand fields."""
    table = encode_table({f"{number:06}": None for number in range(1000)})
    yield lambda: codec_loops.check(table, count)


@bench(5000)
def codec_find_field_last_of_5(count: int) -> Iterator[Run]:
    """In a hundred copies: comparing takes other ways near the end of a page."""
    tables = [bytes(bytearray(encode_table(codec.FIVE_FIELDS))) for _ in range(100)]

    def run() -> None:
        for table in tables:
            codec_loops.find(table, b"x-rate", count // 100)

    yield run


@bench(500)
def codec_decode_queue_declare(count: int) -> Iterator[Run]:
    """A cold method with five arguments as a Python object."""
    payload = codec.DECLARE.encode()
    yield lambda: codec_loops.decode(payload, count)


@bench(500)
def codec_write_queue_declare(count: int) -> Iterator[Run]:
    yield lambda: codec_loops.write_method(codec.DECLARE, count)


# --- the queue


@bench(5000)
def queue_publish_deliver_no_ack(count: int) -> Iterator[Run]:
    """A message of its own published and handed out."""
    queue, _ = queues.queue_with(no_ack=True)
    yield lambda: queue_loops.publish_new(queue, count, 16)


@bench(5000)
def queue_publish_deliver_no_ack_10_consumers(count: int) -> Iterator[Run]:
    queue, _ = queues.queue_with(10, no_ack=True)
    yield lambda: queue_loops.publish_same(queue, count)


@bench(5000)
def queue_publish_deliver_ack(count: int) -> Iterator[Run]:
    queue, (consumer,) = queues.queue_with()
    yield lambda: queue_loops.publish_and_ack(queue, consumer, count)


@bench(5000)
def queue_publish_deliver_ack_500_unacked(count: int) -> Iterator[Run]:
    """The oldest of 500 acked each time."""
    queue, (consumer,) = queues.queue_with()
    yield lambda: queue_loops.publish_and_ack_window(queue, consumer, count, 500)


@bench(5000)
def queue_ack_prefetch_1(count: int) -> Iterator[Run]:
    """Each ack brings the next of what waits."""
    queue, (consumer,) = queues.queue_with(prefetch=1)
    queue_loops.publish_same(queue, count)
    yield lambda: queue_loops.ack_each(queue, consumer, 1, count)


@bench(8192)
def queue_publish_only(count: int) -> Iterator[Run]:
    """Into a ring that grows; a power of two, so that one doubling is in the difference."""
    queue, _ = queues.queue_with(0)
    yield lambda: queue_loops.publish_same(queue, count)


@bench(5000)
def queue_drain_no_ack(count: int) -> Iterator[Run]:
    """What waits, pumped to a new consumer."""
    queue, _ = queues.queue_with(0)
    queue_loops.publish_same(queue, count)
    consumer = queue_loops.CountingConsumer(b"drain", no_ack=True)
    queue.add_consumer(consumer)

    def run() -> None:
        consumer.activate()
        queue_loops.pump_all(queue)

    yield run


@bench(5000)
def queue_get_no_ack(count: int) -> Iterator[Run]:
    queue, _ = queues.queue_with(0)
    queue_loops.publish_same(queue, count)
    getter = queue_loops.CountingConsumer(b"", no_ack=True)
    queue.add_getter(getter)
    yield lambda: queue_loops.get_each(queue, getter, count)


@bench(5000)
def queue_ack_multiple(count: int) -> Iterator[Run]:
    """One ack for all; an operation is one message."""
    queue, consumer = queues.filled(count)
    yield lambda: queue_loops.settle_all(queue, consumer, False)


@bench(5000)
def queue_requeue_each(count: int) -> Iterator[Run]:
    """Given back one by one, oldest first."""
    queue, consumer = queues.filled(count)
    queue_loops.publish_same(queue, count)
    yield lambda: queue_loops.requeue_each(queue, consumer, 1, count, 1)


# --- routing


@bench(5000)
def routing_direct_memo(count: int) -> Iterator[Run]:
    """A hundred keys in turn, all routed before."""
    node = routing.Node("direct").bind(*(f"key-{n}" for n in range(100)))
    keys = [b"key-%d" % n for n in range(100)]
    node.find(keys, 1)
    yield lambda: node.find(keys, count // 100)


@bench(2000)
def routing_direct_miss(count: int) -> Iterator[Run]:
    """Matched and prepared each time."""
    node = routing.Node("direct", memo_bytes_max=0).bind(*(f"key-{n}" for n in range(100)))
    keys = [b"key-%d" % n for n in range(100)]
    yield lambda: node.find(keys, count // 100)


@bench(1000)
def routing_topic_match(count: int) -> Iterator[Run]:
    """Keys of three words against a hundred patterns."""
    patterns, keys = routing.devices(100)
    node = routing.Node("topic").bind(*patterns)
    yield lambda: node.match(keys[:100], count // 100)


@bench(1000)
def routing_headers_match(count: int) -> Iterator[Run]:
    """Five headers against twenty bindings."""
    node = routing.Node("headers")
    for number in range(20):
        node.bind("", arguments=encode_table({"format": "pdf", "kind": number}))
    headers = encode_table({"format": "pdf", "kind": 7, "size": 12345, "author": "somebody", "urgent": True})
    yield lambda: node.match([b""], count, (1 << 13).to_bytes(2, "big") + headers)


@bench(20)
def routing_fanout_match_100_queues(count: int) -> Iterator[Run]:
    node = routing.Node("fanout").bind(*[""] * 100)
    yield lambda: node.match([b"k"], count)


def routed(node: routing.Node, key: bytes, body_size: int, count: int) -> Iterator[Run]:
    """Packets read, routed and written for the workers' links, whose buffers have had their size."""
    node.publish(key, body_size, 16_000_000 // (64 + body_size))
    yield lambda: node.publish(key, body_size, count)


@bench(5000)
def routing_publish_16_1_queue(count: int) -> Iterator[Run]:
    """A packet read, routed and written for one worker."""
    yield from routed(routing.Node("topic").bind("a.#"), b"a.b.c", 16, count)


@bench(2000)
def routing_publish_1024_1_queue(count: int) -> Iterator[Run]:
    yield from routed(routing.Node("topic").bind("a.#"), b"a.b.c", 1024, count)


@bench(2000)
def routing_publish_16_10_queues_2_workers(count: int) -> Iterator[Run]:
    yield from routed(routing.Node("fanout").bind(*[""] * 10), b"", 16, count)


# --- the link


class NoReceiver:
    """Nobody asks or tells anything on these links."""

    def on_link_open(self, link: Any) -> None:
        pass

    def on_link_closed(self, link: Any) -> None:
        pass

    def on_notice(self, link: Any, verb: str, body: Any) -> None:
        raise AssertionError(verb)

    def on_request(self, link: Any, verb: str, body: Any) -> Any:
        raise AssertionError(verb)


def packets(count: int, body_size: int, to_a_turn: int) -> Iterator[Run]:
    """ENQUEUE packets from one end of a link to the other, both in one poller; an operation is a packet written and read."""
    loop = asyncio.new_event_loop()
    poller = Poller(loop)
    ends = [LoadLink(poller, end, Hello("worker", index, os.getpid()), NoReceiver()) for index, end in enumerate(socket.socketpair())]
    sender, counter = ends
    sender.load(body_size)
    loop.call_soon(loop.stop)
    loop.run_forever()  # the hellos are written
    for _ in range(3):
        poller.turn()
    came: list[bool] = []
    counter.count, counter.expected, counter.all_came = 0, count + to_a_turn, lambda: came.append(True)

    def run(turns: int) -> None:
        for _ in range(turns):
            assert sender.send(to_a_turn, 1 << 20) == to_a_turn
            poller.turn()  # written
            poller.turn()  # read

    run(1)  # buffers have grown
    yield lambda: run(count // to_a_turn)
    assert came, f"{counter.count} of {count} packets have come"
    poller.close()
    loop.close()


@bench(5000)
def link_enqueue_16(count: int) -> Iterator[Run]:
    yield from packets(count, 16, 500)


@bench(2000)
def link_enqueue_1024(count: int) -> Iterator[Run]:
    yield from packets(count, 1024, 100)


# --- the store


@bench(5000)
def store_add_settle_unwritten(count: int) -> Iterator[Run]:
    """Added, and settled before its batch is taken."""
    store, queue = segments.empty()

    def run() -> None:
        for first in range(1, count + 1, 1000):
            segment_loops.add_many(store, queue, b"x" * 16, first, 1000)
            segment_loops.settle_many(store, queue, 16, first, first + 999)
            segments.commit(store)

    yield run


@bench(4000)
def store_settle_stored(count: int) -> Iterator[Run]:
    """Settled one by one, after their commit."""
    store, queue = segments.filled(count, b"x" * 16)
    yield lambda: segment_loops.settle_many(store, queue, 16, 1, count)


def batches(count: int, size: int) -> Iterator[Run]:
    """A thousand added and taken as a batch into LMDB (unsynced), the thousand before settled and dropped; an operation is a message."""
    with tempfile.TemporaryDirectory() as folder:
        log = LocalLog(Path(folder), "scratch")
        store, queue = segments.filled(2000, b"x" * size, log)
        segment_loops.settle_many(store, queue, size, 1, 1000)

        def run() -> None:
            for first in range(2001, 2001 + count, 1000):
                segment_loops.add_many(store, queue, b"x" * size, first, 1000)
                segments.commit(store)
                segment_loops.settle_many(store, queue, size, first - 1000, first - 1)

        yield run
        log.close()


@bench(8000)
def store_commit_16(count: int) -> Iterator[Run]:
    yield from batches(count, 16)


@bench(4000)
def store_commit_1024(count: int) -> Iterator[Run]:
    yield from batches(count, 1024)


@bench(5000)
def store_read_16(count: int) -> Iterator[Run]:
    """Read back from LMDB, a run at a time."""
    with tempfile.TemporaryDirectory() as folder:
        log = LocalLog(Path(folder), "scratch")
        store, queue = segments.filled(count, b"x" * 16, log)
        yield lambda: segment_loops.read_by_runs(store, queue)
        log.close()


# --- the channel, over a whole node


_node: OneProcessNode | None = None


def node() -> OneProcessNode:
    """The node of all the channel's benches, made when the first of them needs it: a start takes longer than a bench."""
    global _node
    from bench.one_process import OneProcessNode  # half of all imports, which the other benches do without

    if _node is None:
        _node = OneProcessNode(2)
    return _node


def close_node() -> None:
    global _node
    if _node is not None:
        _node.close()
        _node = None


def publish_bytes(key: str, body_size: int, exchange: str = "") -> bytes:
    method = encode_method_frame(CHANNEL, BasicPublish(exchange=exchange, routing_key=key))
    return method + encode_content(CHANNEL, 60, NO_PROPERTIES, b"x" * body_size, FRAME_MAX)


@dataclass(slots=True)
class Road:
    """The way of `batch` publishes a turn from one client into the node, and of what comes out of it to another.

    publishes: one turn's bytes. turns: until everything has come everywhere. deliveries: of each publish, at least `delivery_bytes` each.
    """

    publisher: Client
    consumer: Client
    publishes: bytes
    batch: int
    turns: int = 1
    deliveries: int = 1
    delivery_bytes: int = 60

    def run(self, count: int, *, acks: bool = False, confirms: bool = False) -> Run:
        """`count` publishes. acks: of each delivery one, by itself. confirms: the publisher's are read.

        One round is made here: buffers grow in it, and whether a block can grow where it lies depends on what lies behind it.
        """
        rounds, due = count // self.batch, self.batch * self.deliveries
        answers = [
            b"".join(encode_method_frame(CHANNEL, BasicAck(delivery_tag=round_no * due + n + 1)) for n in range(due))
            for round_no in range(rounds + 1 if acks else 0)
        ]
        take_turns, turns, publisher, consumer = node().turn, self.turns, self.publisher.socket, self.consumer.socket

        room = bytearray(1 << 20)

        def go(first: int, end: int) -> None:
            come_bytes = 0
            for round_no in range(first, end):
                assert publisher.send(self.publishes) == len(self.publishes)
                take_turns(turns)
                come_bytes += consumer.recv_into(room)
                if acks:
                    assert consumer.send(answers[round_no]) == len(answers[round_no])
                    take_turns(turns)
                if confirms:
                    assert publisher.recv_into(room) >= 21
            least_bytes = (end - first) * due * self.delivery_bytes
            assert come_bytes >= least_bytes, f"{come_bytes} bytes came, not {least_bytes}"

        go(0, 1)
        return lambda: go(1, rounds + 1)


def to_queue(count: int, body_size: int, batch: int, *, owner: int = 0, acks: bool = False, confirms: bool = False) -> Iterator[Run]:
    """By the default exchange: clients on worker 0, the queue on worker `owner`."""
    publisher, consumer, declarer = node().client(0), node().client(0), node().client(owner)
    queue = f"guard.{declarer.number:06}"
    declarer.declare(queue)
    consumer.consume(queue, no_ack=not acks)
    if confirms:
        publisher.confirm()
    node().settle()
    road = Road(publisher, consumer, publish_bytes(queue, body_size) * batch, batch, turns=2 if owner else 1, delivery_bytes=60 + body_size)
    yield road.run(count, acks=acks, confirms=confirms)
    assert consumer.ask(QueueDelete(queue=queue)) == QueueDeleteOk(message_count=0)


def through_exchange(count: int, kind: str, queue_count: int, batch: int) -> Iterator[Run]:
    """Through the router to queues of worker 0, where the clients are too. 16 bytes, no acks."""
    publisher, consumer = node().client(0), node().client(0)
    names = [f"guard.{consumer.number:06}.{n}" for n in range(queue_count)]
    exchange = f"guard.{kind}.{consumer.number:06}"
    for name in names:
        consumer.declare(name)
        consumer.bind(exchange, kind, name, "a.*.c")
        consumer.consume(name, no_ack=True)
    node().settle()
    road = Road(publisher, consumer, publish_bytes("a.b.c", 16, exchange) * batch, batch, turns=2, deliveries=queue_count)
    yield road.run(count)
    for name in names:
        assert consumer.ask(QueueDelete(queue=name)) == QueueDeleteOk(message_count=0)


@bench(5000)
def channel_no_ack_16(count: int) -> Iterator[Run]:
    """Publish frames in, through the queue, deliver frames out: publisher, queue and consumer on one worker."""
    yield from to_queue(count, 16, 500)


@bench(1000)
def channel_no_ack_512(count: int) -> Iterator[Run]:
    """As large as malloc serves from its cache; beyond that the count depends on what happens to lie about in the heap."""
    yield from to_queue(count, 512, 100)


@bench(40)
def channel_no_ack_64k(count: int) -> Iterator[Run]:
    yield from to_queue(count, 65536, 2)


@bench(5000)
def channel_ack_16(count: int) -> Iterator[Run]:
    """Each delivery acknowledged by itself."""
    yield from to_queue(count, 16, 500, acks=True)


@bench(5000)
def channel_confirm_16(count: int) -> Iterator[Run]:
    """Confirms for the publisher."""
    yield from to_queue(count, 16, 500, confirms=True)


@bench(5000)
def channel_ack_16_other_worker(count: int) -> Iterator[Run]:
    """The queue on another worker: there, back, and the acks there again."""
    yield from to_queue(count, 16, 500, owner=1, acks=True)


@bench(2000)
def channel_no_ack_512_other_worker(count: int) -> Iterator[Run]:
    yield from to_queue(count, 512, 100, owner=1)


@bench(5000)
def channel_topic_16(count: int) -> Iterator[Run]:
    """Through the router to one queue."""
    yield from through_exchange(count, "topic", 1, 500)


@bench(1000)
def channel_fanout_16_10_queues(count: int) -> Iterator[Run]:
    """Through the router to ten queues; an operation is one publish and its ten deliveries."""
    yield from through_exchange(count, "fanout", 10, 100)


def fix_what_differs() -> None:
    """Take away what makes two runs differ (the guard does the rest, by the environment), and what valgrind has no room for."""
    gc.disable()
    # The maps of a node are larger than all the addresses that valgrind gives.
    lmdb.open = lambda path, *, map_size, _open=lmdb.open, **options: _open(path, map_size=min(map_size, MAP_BYTES), **options)


def perform(names: list[str], mark: Callable[[], object]) -> list[dict[str, Any]]:
    """Run the named benches, each twice. Every run lies between two marks; [{"bench", "operations"}] of the runs, in their order."""
    runs = []
    try:
        for name in names:
            one = BENCHES[name]
            for operations in (one.operations, 2 * one.operations):
                with one.prepare(operations) as run:
                    gc.collect()
                    mark()
                    run()
                    mark()
                runs.append({"bench": name, "operations": operations})
    finally:
        close_node()
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.counted", description="The work whose instructions `bench.guard` counts.")
    parser.add_argument("into", type=Path, help="a file for the list of runs (JSON)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benches; default all")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    logging.disable(logging.CRITICAL)  # the node's links close one after the other at its end
    fix_what_differs()
    runs = perform(options.names or list(BENCHES), mark)
    options.into.write_text(json.dumps(runs))


if __name__ == "__main__":
    main()
