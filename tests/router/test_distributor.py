"""The distributor: packets in, packets out, over socket pairs with a scripted worker at the other end; and its memo against none."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from leveret.codec.errors import AmqpError
from leveret.codec.tables import encode_table
from leveret.link.link import Hello, Link
from leveret.link.poller import Poller, running_poller
from leveret.router.commands import (
    Bind,
    Command,
    CreateVhost,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    Unbind,
)
from leveret.router.distributor import Distributor, RouterLink
from leveret.router.topology import Topology

from tests.router.random_commands import lists_of_commands

PACKETS_VERSION = Hello("worker", 0, 0).version
HEAD = struct.Struct("<IBBH")
PUBLISH = struct.Struct("<IIQ")  # exchange id, channel ref, publish no
MESSAGE = struct.Struct("<IIBBH")  # sizes of properties and body, of exchange and key, flags
ENQUEUE = struct.Struct("<IHHQ")  # channel ref, origin, reserved, publish no
VERDICT = struct.Struct("<IIQQ")  # channel ref, count, first publish no, workers
THROTTLE = struct.Struct("<II")  # channel ref, worker
CONTROL_TYPE, PUBLISH_TYPE, ENQUEUE_TYPE, VERDICT_TYPE, THROTTLE_TYPE, RELIEVE_TYPE = 1, 2, 3, 4, 9, 10
WANTS_VERDICT = WANTS_CONFIRM = 1


class ScriptedWorker:
    """The worker's end of a link: writes packets made by hand, and reads what comes as tuples."""

    def __init__(self, sock: socket.socket, index: int) -> None:
        self.sock = sock
        self.index = index
        self.received = b""
        sock.setblocking(False)
        self.send_packet(CONTROL_TYPE, 0, msgpack.packb([0, PACKETS_VERSION, "worker", index, os.getpid()]))

    def send_packet(self, kind: int, flags: int, body: bytes) -> None:
        self.sock.sendall(HEAD.pack(HEAD.size + len(body), kind, flags, 0) + body)

    def publish(
        self,
        exchange_id: int,
        key: bytes = b"k",
        *,
        channel: int = 1,
        number: int = 1,
        confirm: bool = True,
        body: bytes = b"body",
        properties: bytes = b"\0\0",
    ) -> None:
        self.sock.sendall(
            publish_packet(exchange_id, key, channel=channel, number=number, confirm=confirm, body=body, properties=properties)
        )

    async def packet(self) -> tuple[Any, ...]:
        """The next hot packet, or a notice or request of the router."""
        loop = asyncio.get_running_loop()
        while True:
            if len(self.received) >= HEAD.size:
                size, kind, flags, count = HEAD.unpack_from(self.received)
                if len(self.received) >= size:
                    body, self.received = self.received[HEAD.size : size], self.received[size:]
                    read = read_packet(kind, flags, count, body)
                    if read is not None:
                        return read
                    continue
            data = await asyncio.wait_for(loop.sock_recv(self.sock, 1 << 20), 10)
            assert data, "the router closed the link"
            self.received += data

    async def is_closed(self) -> bool:
        loop = asyncio.get_running_loop()
        while data := await asyncio.wait_for(loop.sock_recv(self.sock, 1 << 20), 10):
            self.received += data
        return True


def publish_packet(exchange_id: int, key: bytes, *, channel: int, number: int, confirm: bool, body: bytes, properties: bytes) -> bytes:
    message = MESSAGE.pack(len(properties), len(body), 1, len(key), 0) + b"x" + key + properties + body
    packed = PUBLISH.pack(exchange_id, channel, number) + message
    return HEAD.pack(HEAD.size + len(packed), PUBLISH_TYPE, WANTS_VERDICT if confirm else 0, 0) + packed


def read_packet(kind: int, flags: int, count: int, body: bytes) -> tuple[Any, ...] | None:
    if kind == CONTROL_TYPE:
        code, *rest = msgpack.unpackb(body)
        return None if code == 0 else ("control", code, *rest)
    if kind == ENQUEUE_TYPE:
        channel, origin, _reserved, number = ENQUEUE.unpack_from(body)
        queues = struct.unpack_from(f"<{count}I", body, ENQUEUE.size)
        message = body[ENQUEUE.size + 4 * count :]
        properties_size, body_size, exchange_size, key_size, _flags = MESSAGE.unpack_from(message)
        assert len(message) == MESSAGE.size + exchange_size + key_size + properties_size + body_size
        payload = message[len(message) - body_size :]
        return ("enqueue", list(queues), channel, origin, number, bool(flags & WANTS_CONFIRM), payload)
    if kind == VERDICT_TYPE:
        return ("verdict", *VERDICT.unpack(body))
    assert kind in (THROTTLE_TYPE, RELIEVE_TYPE)
    return ("throttle" if kind == THROTTLE_TYPE else "relieve", *THROTTLE.unpack(body))


class Node:
    """A distributor with a topology, and links to scripted workers."""

    def __init__(self, poller: Poller, workers: int, **bounds: int) -> None:
        self.poller = poller
        self.distributor = Distributor(poller, workers, **bounds)
        self.topology = Topology(workers, self.distributor)
        self.topology.apply(CreateVhost("/"))
        self.opened: dict[int, asyncio.Future[RouterLink]] = {}
        self.lost: list[int] = []
        self.workers: list[ScriptedWorker] = []

    def apply(self, command: Command) -> int:
        """Apply, and return the object's id."""
        return int(self.topology.apply(command).result.get("id", 0))

    async def connect(self, index: int) -> ScriptedWorker:
        ours, theirs = socket.socketpair()
        self.opened[index] = asyncio.get_running_loop().create_future()
        RouterLink(self.poller, ours, Hello("router", 0, os.getpid()), self)
        worker = ScriptedWorker(theirs, index)
        self.workers.append(worker)
        await asyncio.wait_for(self.opened[index], 10)
        return worker

    def on_link_open(self, link: Link) -> None:
        assert isinstance(link, RouterLink)
        if link.peer.kind == "worker":
            self.distributor.link_worker(link)
        self.opened[link.peer.index].set_result(link)

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        raise ValueError(verb)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        pass

    def on_link_closed(self, link: Link) -> None:
        assert isinstance(link, RouterLink)
        if self.distributor.unlink_worker(link):
            self.lost.append(link.peer.index)
            for outlet in self.distributor.outlets:
                if outlet.link is not None:
                    outlet.link.notify("worker_down", {"index": link.peer.index})

    def close(self) -> None:
        self.poller.close()
        for worker in self.workers:
            worker.sock.close()


async def node_of(workers: int, **bounds: int) -> AsyncIterator[Node]:
    node = Node(running_poller(), workers, **bounds)
    try:
        yield node
    finally:
        node.close()


def with_node(workers: int = 2, **bounds: int) -> Any:
    """Run an async test with a `Node`."""

    def decorate(test: Any) -> Any:
        def run() -> None:
            async def main() -> None:
                async for node in node_of(workers, **bounds):
                    await test(node)

            asyncio.run(main())

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


@with_node(3)
async def test_a_publish_becomes_one_enqueue_per_worker_and_one_verdict(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x", "fanout"))
    queues = [node.apply(DeclareQueue("/", f"q{n}", worker=n % 2)) for n in range(5)]
    for n in range(5):
        node.apply(Bind("/", "x", f"q{n}"))
    zero, one, two = [await node.connect(index) for index in range(3)]
    two.publish(x, channel=7, number=42)
    assert await two.packet() == ("verdict", 7, 1, 42, 0b011)
    assert await zero.packet() == ("enqueue", [queues[0], queues[2], queues[4]], 7, 2, 42, True, b"body")
    assert await one.packet() == ("enqueue", [queues[1], queues[3]], 7, 2, 42, True, b"body")
    assert node.distributor.statistics()["exchanges"][str(x)] == {"publish_in": 1, "publish_out": 5}


@with_node(2)
async def test_verdicts_in_a_row_with_the_same_outcome_are_merged(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x"))
    node.apply(DeclareQueue("/", "q", worker=1))
    node.apply(Bind("/", "x", "q", "k"))
    zero = await node.connect(0)
    script = [(1, 1, b"k"), (1, 2, b"k"), (1, 3, b"none"), (1, 4, b"none"), (1, 5, b"k"), (2, 1, b"k"), (2, 3, b"k")]
    zero.sock.sendall(
        b"".join(publish_packet(x, key, channel=c, number=n, confirm=True, body=b"", properties=b"\0\0") for c, n, key in script)
    )
    expected = [(1, 2, 1, 0b10), (1, 2, 3, 0), (1, 1, 5, 0b10), (2, 1, 1, 0b10), (2, 1, 3, 0b10)]
    assert [await zero.packet() for _ in expected] == [("verdict", *verdict) for verdict in expected]
    assert node.distributor.statistics()["unroutable"] == 2


@with_node(2)
async def test_order_is_kept_and_nothing_is_answered_that_was_not_asked_for(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x", "topic"))
    queue = node.apply(DeclareQueue("/", "q", worker=1))
    node.apply(Bind("/", "x", "q", "#"))
    zero, one = [await node.connect(index) for index in range(2)]
    for number in range(1, 201):
        zero.publish(x, b"key.%d" % (number % 3), number=number, confirm=False, body=b"%d" % number)
    zero.publish(x, number=201)
    got = [await one.packet() for _ in range(201)]
    assert got == [("enqueue", [queue], 1, 0, n, n == 201, b"%d" % n if n < 201 else b"body") for n in range(1, 202)]
    assert await zero.packet() == ("verdict", 1, 1, 201, 0b10)


@with_node(1)
async def test_a_deleted_exchange_is_unroutable(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x"))
    worker = await node.connect(0)
    node.apply(DeleteExchange("/", "x"))
    worker.publish(x)
    assert await worker.packet() == ("verdict", 1, 1, 1, 0)


@with_node(1)
async def test_more_queues_than_a_packet_names_make_several_and_one_confirm(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x", "fanout"))
    count = 65_535 + 10
    for n in range(count):
        node.distributor.queue_added(1_000_000 + n, 0)
        node.topology.exchanges[x].matcher.bind(1_000_000 + n, b"", {})
    worker = await node.connect(0)
    worker.publish(x)
    first, second = await worker.packet(), await worker.packet()
    assert (len(first[1]), first[5]) == (65_535, False)
    assert (len(second[1]), second[5]) == (10, True)
    assert sorted(first[1] + second[1]) == [1_000_000 + n for n in range(count)]
    assert await worker.packet() == ("verdict", 1, 1, 1, 1)


@with_node(2)
async def test_headers_and_alternate_exchanges_and_cycles_are_followed(node: Node) -> None:
    start = node.apply(DeclareExchange("/", "start", "topic", arguments=encode_table({"alternate-exchange": "spare"})))
    node.apply(DeclareExchange("/", "h", "headers"))
    node.apply(DeclareExchange("/", "spare", "fanout"))
    matched, left = [node.apply(DeclareQueue("/", name, worker=0)) for name in ("matched", "left")]
    node.apply(Bind("/", "start", "h", "to.#", "exchange"))
    node.apply(Bind("/", "h", "start", "", "exchange", encode_table({"a": "x"})))  # and back again
    node.apply(Bind("/", "h", "matched", arguments=encode_table({"a": "x"})))
    node.apply(Bind("/", "spare", "left"))
    zero = await node.connect(0)
    headers = (1 << 13).to_bytes(2, "big") + encode_table({"a": "x"})
    zero.publish(start, b"to.h", number=1, properties=headers)
    assert await zero.packet() == ("enqueue", [matched], 1, 0, 1, True, b"body")
    assert await zero.packet() == ("verdict", 1, 1, 1, 1)
    zero.publish(start, b"to.h", number=2)
    assert await zero.packet() == ("verdict", 1, 1, 2, 0), "a remembered route would have found the queue again"
    zero.publish(start, b"elsewhere", number=3)
    assert (await zero.packet())[1] == [left]


@with_node(1)
async def test_a_packet_whose_message_does_not_fit_closes_the_link(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x"))
    for body in (
        PUBLISH.pack(x, 1, 1),
        PUBLISH.pack(x, 1, 1) + MESSAGE.pack(0, 5, 0, 0, 0) + b"four",
        PUBLISH.pack(x, 1, 1) + MESSAGE.pack(2**32 - 1, 2**32 - 1, 255, 255, 0),
    ):
        worker = await node.connect(0)
        worker.send_packet(PUBLISH_TYPE, 0, body)
        assert await worker.is_closed()
    assert node.lost == [0, 0, 0]


@with_node(2)
async def test_management_may_not_publish(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x"))
    ours, theirs = socket.socketpair()
    node.opened[0] = asyncio.get_running_loop().create_future()
    RouterLink(node.poller, ours, Hello("router", 0, os.getpid()), node)
    stranger = ScriptedWorker.__new__(ScriptedWorker)
    stranger.sock, stranger.index, stranger.received = theirs, 0, b""
    theirs.setblocking(False)
    stranger.send_packet(CONTROL_TYPE, 0, msgpack.packb([0, PACKETS_VERSION, "management", 0, 1]))
    stranger.publish(x)
    assert await stranger.is_closed()
    theirs.close()


@with_node(2)
async def test_a_worker_that_is_down_is_told_of_after_its_verdicts_and_gets_what_came_since(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x"))
    queue = node.apply(DeclareQueue("/", "q", worker=1))
    node.apply(Bind("/", "x", "q", "k"))
    zero, one = [await node.connect(index) for index in range(2)]
    zero.publish(x, number=1)
    assert (await one.packet())[4] == 1
    one.sock.close()
    assert await zero.packet() == ("verdict", 1, 1, 1, 0b10)
    assert await zero.packet() == ("control", 5, "worker_down", {"index": 1})
    for number in (2, 3):
        zero.publish(x, number=number)
        assert await zero.packet() == ("verdict", 1, 1, number, 0b10), "it counts as given to the worker: the confirm comes when it is back"
    again = await node.connect(1)
    assert [await again.packet() for _ in range(2)] == [("enqueue", [queue], 1, 0, number, True, b"body") for number in (2, 3)]
    assert node.distributor.statistics()["links"][1]["backlog_bytes"] == 0


@with_node(3, backlog_high=20_000, backlog_max=60_000)
async def test_channels_that_publish_to_a_down_worker_are_throttled_once_and_relieved(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x"))
    other = node.apply(DeclareExchange("/", "other"))
    node.apply(DeclareQueue("/", "q", worker=1))
    elsewhere = node.apply(DeclareQueue("/", "elsewhere", worker=2))
    node.apply(Bind("/", "x", "q", "k"))
    node.apply(Bind("/", "other", "elsewhere", "k"))
    zero, two = await node.connect(0), await node.connect(2)
    for number in range(1, 5):
        zero.publish(x, number=number, confirm=False, body=b"b" * 10_000)
    assert await zero.packet() == ("throttle", 1, 1)
    zero.publish(x, channel=2, confirm=False, body=b"b" * 10_000)
    assert await zero.packet() == ("throttle", 2, 1), "each channel once"
    zero.publish(other, channel=3, confirm=False)
    assert (await two.packet())[1] == [elsewhere], "who does not publish to it is not concerned"
    zero.publish(x, number=9, confirm=False, body=b"b" * 20_000)
    # Beyond the hard bound the whole link is not read any more.
    zero.publish(other, channel=3, number=2, confirm=False)
    two.publish(other, channel=8, number=1, confirm=False)
    assert (await two.packet())[2] == 8, "another worker's link goes on; the stopped one's publish has not overtaken anything"
    one = await node.connect(1)
    assert [len((await one.packet())[6]) for _ in range(6)] == [10_000] * 5 + [20_000]
    assert await zero.packet() == ("relieve", 0, 1)
    assert await two.packet() == ("relieve", 0, 1)
    assert (await two.packet())[2:5] == (3, 0, 2), "and the stopped link is read again"


@with_node(2)
async def test_a_slow_worker_throttles_publishers_until_it_has_drained(node: Node) -> None:
    x = node.apply(DeclareExchange("/", "x"))
    node.apply(DeclareQueue("/", "q", worker=1))
    node.apply(Bind("/", "x", "q", "k"))
    zero, one = [await node.connect(index) for index in range(2)]
    loop = asyncio.get_running_loop()
    big = publish_packet(x, b"k", channel=4, number=1, confirm=False, body=b"b" * (1 << 20), properties=b"\0\0")
    sent = 0
    throttled = asyncio.ensure_future(zero.packet())
    while not throttled.done():
        await loop.sock_sendall(zero.sock, big)
        sent += 1
        assert sent < 64, "a worker that reads nothing must be congested by then"
    assert throttled.result() == ("throttle", 4, 1)
    for _ in range(sent):
        assert len((await one.packet())[6]) == 1 << 20
    assert await zero.packet() == ("relieve", 0, 1)
    assert await one.packet() == ("relieve", 0, 1)


# --- the memo


def topology_with(distributor: Distributor) -> Topology:
    topology = Topology(3, distributor)
    topology.apply(CreateVhost("/"))
    topology.apply(CreateVhost("two"))
    return topology


KEYS = [b"a", b"b", b"c", b""]


@settings(max_examples=300, deadline=None)
@given(commands=lists_of_commands(60))
def test_a_memo_never_changes_where_a_message_goes(commands: list[Command]) -> None:
    """After every command, every exchange's remembered route is the one that would be worked out now."""
    distributor = Distributor(None, 3)
    topology = topology_with(distributor)
    for command in commands:
        try:
            topology.apply(command)
        except AmqpError:
            continue
        for id in topology.exchanges:
            for key in KEYS:
                # Asked twice: the first answer may be remembered from before the command, the second surely is.
                routed = distributor.queues_of(id, key)
                assert distributor.queues_of(id, key) == routed
                reached = distributor.graph.queues_reached(id, key)
                expected: dict[int, list[int]] = {}
                for queue_id in reached:
                    expected.setdefault(topology.queues[queue_id].worker, []).append(queue_id)
                assert routed == expected


def test_the_memo_is_bounded_in_entries_and_bytes() -> None:
    for bounds in ({"memo_entries_max": 100}, {"memo_bytes_max": 20_000}):
        distributor = Distributor(None, 1, **bounds)
        topology = topology_with(distributor)
        id = topology.apply(DeclareExchange("/", "x", "topic")).result["id"]
        topology.apply(DeclareQueue("/", "q", worker=0))
        topology.apply(Bind("/", "x", "q", "*.end"))
        for n in range(5000):
            assert (distributor.queues_of(id, b"%d.end" % n) != {}) and distributor.queues_of(id, b"%d" % n) == {}
            memo = distributor.statistics()["memo"]
            assert memo["entries"] <= bounds.get("memo_entries_max", 1000)
            assert memo["bytes"] <= bounds.get("memo_bytes_max", 1 << 20)
        assert memo["entries"] > 0


def test_a_binding_elsewhere_leaves_what_is_remembered() -> None:
    distributor = Distributor(None, 1)
    topology = topology_with(distributor)
    ids = [topology.apply(DeclareExchange("/", name)).result["id"] for name in ("x", "y")]
    topology.apply(DeclareQueue("/", "q"))
    topology.apply(Bind("/", "x", "q", "k"))
    distributor.queues_of(ids[0], b"k")
    before = distributor.statistics()["memo"]
    topology.apply(Bind("/", "y", "q", "k"))
    topology.apply(Unbind("/", "y", "q", "k"))
    topology.apply(DeclareQueue("/", "unbound"))
    topology.apply(DeleteQueue("/", "unbound"))
    assert distributor.statistics()["memo"]["entries"] == before["entries"] == 1
    topology.apply(DeleteQueue("/", "q"))
    assert distributor.statistics()["memo"]["entries"] == 0
    assert distributor.queues_of(ids[0], b"k") == {}


@pytest.fixture(autouse=True)
def no_warnings_unheard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A traceback in the log is a failure, wherever it came from."""
    yield
    assert not [record for record in caplog.records if record.exc_info]
