"""Routing as pika's users see it: default exchange, direct, fanout, topic, bindings between exchanges, order."""

from __future__ import annotations

import pytest
from pika.exceptions import UnroutableError

from tests.inbox import Inbox
from tests.placement import Placement


def test_the_default_exchange_routes_by_queue_name(placement: Placement) -> None:
    wanted, other = placement.queue(), placement.queue()
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish("", wanted, b"hello", mandatory=True)
    method, _, body = placement.consumer.basic_get(wanted, auto_ack=True)
    assert (method.exchange, method.routing_key, body) == ("", wanted, b"hello")
    assert placement.consumer.basic_get(other)[0] is None


def test_a_direct_exchange_wants_the_very_key(placement: Placement) -> None:
    exchange = placement.exchange("direct")
    queues = {key: placement.queue() for key in ("a", "b", "a.b")}
    for key, queue in queues.items():
        placement.owner.queue_bind(queue, exchange, key)
    placement.owner.queue_bind(queues["b"], exchange, "a")
    placement.publisher.confirm_delivery()
    for key in ("a", "b", "a.b", "A", "#", ""):
        placement.publisher.basic_publish(exchange, key, key.encode())
    received = {key: Inbox(placement.consumer, queue, auto_ack=True) for key, queue in queues.items()}
    assert received["a"].bodies(1) == [b"a"]
    assert received["b"].bodies(2) == [b"a", b"b"]
    assert received["a.b"].bodies(1) == [b"a.b"]
    assert [inbox.barrier() for inbox in received.values()] == [0, 0, 0]
    assert [inbox.waiting for inbox in received.values()] == [[], [], []]


def test_a_fanout_exchange_copies_to_every_queue_whatever_the_key(placement: Placement) -> None:
    exchange = placement.exchange("fanout")
    queues = [placement.queue() for _ in range(5)]
    for queue in queues:
        placement.owner.queue_bind(queue, exchange, "ignored")
        placement.owner.queue_bind(queue, exchange, "twice bound, still one copy")
    inboxes = [Inbox(placement.consumer, queue, auto_ack=True) for queue in queues]
    placement.publisher.confirm_delivery()
    for key in ("", "k", "ignored"):
        placement.publisher.basic_publish(exchange, key, key.encode())
    for inbox in inboxes:
        assert inbox.bodies(3) == [b"", b"k", b"ignored"]
        inbox.barrier()
        assert inbox.waiting == []


def test_a_fanout_over_queues_of_all_workers_reaches_each_once(placement: Placement) -> None:
    exchange = placement.exchange("fanout")
    connections = [placement.connect(site) for site in (placement.sites.publisher, placement.sites.queue, placement.sites.consumer)]
    inboxes = []
    for connection in connections:
        channel = connection.channel()
        for _ in range(2):
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, exchange)
            inboxes.append(Inbox(channel, queue, auto_ack=True))
    for number in range(50):
        placement.publisher.basic_publish(exchange, "", str(number).encode())
    for inbox in inboxes:
        assert inbox.bodies(50) == [str(number).encode() for number in range(50)]


TOPIC_KEYS = ["", "a", "a.b", "a.b.c", "a..c", "b", "b.a", ".", "a.", ".a", "stock.usd.nyse", "#", "*", "a.#", "aa.b"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("#", TOPIC_KEYS),
        ("*", ["a", "b", "#", "*"]),
        ("a", ["a"]),
        ("a.*", ["a.b", "a.", "a.#"]),
        ("a.#", ["a", "a.b", "a.b.c", "a..c", "a.", "a.#"]),
        ("#.a", ["a", "b.a", ".a"]),
        ("*.b", ["a.b", "aa.b"]),
        ("a.#.c", ["a.b.c", "a..c"]),
        ("#.b.#", ["a.b", "a.b.c", "b", "b.a", "aa.b"]),
        ("*.*", ["a.b", "b.a", ".", "a.", ".a", "a.#", "aa.b"]),
        ("a..c", ["a..c"]),
        ("#.#", TOPIC_KEYS),
        ("*.#", [key for key in TOPIC_KEYS if key != ""]),
        ("stock.*.nyse", ["stock.usd.nyse"]),
        ("", [""]),
    ],
)
def test_a_topic_pattern_matches_words(placement: Placement, pattern: str, matched: list[str]) -> None:
    exchange, queue = placement.exchange("topic"), placement.queue()
    placement.owner.queue_bind(queue, exchange, pattern)
    placement.publisher.confirm_delivery()
    for key in TOPIC_KEYS:
        placement.publisher.basic_publish(exchange, key, key.encode())
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    assert inbox.bodies(len(matched)) == [key.encode() for key in matched]
    inbox.barrier()
    assert inbox.waiting == []


def test_overlapping_topic_bindings_give_one_copy(placement: Placement) -> None:
    exchange, queue = placement.exchange("topic"), placement.queue()
    for pattern in ("#", "a.*", "a.b", "*.b", "a.#"):
        placement.owner.queue_bind(queue, exchange, pattern)
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish(exchange, "a.b", b"once")
    assert placement.consumer.queue_purge(queue).method.message_count == 1


def test_unbinding_one_pattern_leaves_the_others(placement: Placement) -> None:
    exchange, queue = placement.exchange("topic"), placement.queue()
    for pattern in ("a.#", "a.*", "*.x"):
        placement.owner.queue_bind(queue, exchange, pattern)
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish(exchange, "a.b", b"1")  # memoised before the bindings change
    placement.owner.queue_unbind(queue, exchange, "a.#")
    placement.publisher.basic_publish(exchange, "a.b", b"2")
    placement.owner.queue_unbind(queue, exchange, "a.*")
    placement.publisher.basic_publish(exchange, "a.b", b"3")
    placement.publisher.basic_publish(exchange, "a.x", b"4")
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(3) == [b"1", b"2", b"4"]


def test_a_binding_is_in_force_for_everyone_once_it_is_answered(placement: Placement) -> None:
    exchange, queue = placement.exchange("direct"), placement.queue()
    placement.publisher.confirm_delivery()
    for round_ in range(30):
        key = str(round_)
        placement.owner.queue_bind(queue, exchange, key)
        placement.publisher.basic_publish(exchange, key, key.encode(), mandatory=True)
        placement.consumer.queue_unbind(queue, exchange, key)
        with pytest.raises(UnroutableError):
            placement.publisher.basic_publish(exchange, key, b"", mandatory=True)
    assert placement.owner.queue_purge(queue).method.message_count == 30


def test_a_queue_is_known_to_every_publisher_once_its_declare_is_answered(placement: Placement) -> None:
    placement.publisher.confirm_delivery()
    for _ in range(30):
        placement.publisher.basic_publish("", placement.queue(), b"", mandatory=True)


def test_a_cycle_of_exchanges_ends_and_gives_one_copy(placement: Placement) -> None:
    exchanges = [placement.exchange("fanout") for _ in range(4)]
    queue = placement.queue()
    for source, destination in zip(exchanges, exchanges[1:] + exchanges[:1], strict=True):
        placement.owner.exchange_bind(destination, source)
    placement.owner.queue_bind(queue, exchanges[2])
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish(exchanges[0], "", b"round", mandatory=True)
    assert placement.consumer.queue_purge(queue).method.message_count == 1


@pytest.mark.parametrize("kind", ["default", "direct", "fanout", "topic"])
def test_messages_of_one_channel_keep_their_order(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange, key = "", queue
    if kind != "default":
        exchange, key = placement.exchange(kind), "some.key"
        placement.owner.queue_bind(queue, exchange, key)
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    count = 3000
    for number in range(count):
        placement.publisher.basic_publish(exchange, key, number.to_bytes(4, "big"))
    assert inbox.bodies(count) == [number.to_bytes(4, "big") for number in range(count)]
