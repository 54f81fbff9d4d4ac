"""Exchange-to-exchange bindings: graphs with circles and diamonds, and what goes with the last binding."""

from __future__ import annotations

import itertools
import random

import pytest

from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed


def missing(placement: Placement, exchange: str) -> None:
    """The exchange is gone for every worker."""
    for site in (placement.sites.publisher, placement.sites.queue, placement.sites.consumer):
        with channel_closed(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"):
            placement.connect(site).channel().exchange_declare(exchange, passive=True)


def confirming(placement: Placement) -> object:
    placement.publisher.confirm_delivery()
    return placement.publisher


def test_a_diamond_gives_one_copy(placement: Placement) -> None:
    top, left, right, bottom = (placement.exchange("fanout") for _ in range(4))
    queue = placement.queue()
    for source, destination in ((top, left), (top, right), (left, bottom), (right, bottom)):
        placement.owner.exchange_bind(destination, source)
    placement.owner.queue_bind(queue, bottom)
    placement.owner.queue_bind(queue, left)
    confirming(placement)
    placement.publisher.basic_publish(top, "", b"once", mandatory=True)
    assert placement.owner.queue_purge(queue).method.message_count == 1


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_circle_ends_wherever_one_enters_it(placement: Placement, length: int) -> None:
    ring = [placement.exchange("fanout") for _ in range(length)]
    for source, destination in zip(ring, ring[1:] + ring[:1], strict=True):
        placement.owner.exchange_bind(destination, source)
    queues = [placement.queue() for _ in ring]
    for exchange, queue in zip(ring, queues, strict=True):
        placement.owner.queue_bind(queue, exchange)
    confirming(placement)
    for entry in ring:
        placement.publisher.basic_publish(entry, "", b"", mandatory=True)
    assert [placement.owner.queue_purge(queue).method.message_count for queue in queues] == [length] * length


def test_each_exchange_on_the_way_applies_its_own_rules(placement: Placement) -> None:
    topic, direct, queue = placement.exchange("topic"), placement.exchange("direct"), placement.queue()
    placement.owner.exchange_bind(direct, topic, "a.*")
    placement.owner.queue_bind(queue, direct, "a.b")
    confirming(placement)
    for key in ("a.b", "a.c", "b.b", "a.b.c"):
        placement.publisher.basic_publish(topic, key, key.encode())
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(1) == [b"a.b"]
    assert placement.owner.queue_purge(queue).method.message_count == 0


def test_a_delivery_names_the_exchange_that_was_published_to(placement: Placement) -> None:
    outer, inner, queue = placement.exchange("fanout"), placement.exchange("fanout"), placement.queue()
    placement.owner.exchange_bind(inner, outer)
    placement.owner.queue_bind(queue, inner)
    placement.publisher.basic_publish(outer, "key", b"")
    delivery = Inbox(placement.consumer, queue, auto_ack=True).take_one()
    assert (delivery.method.exchange, delivery.method.routing_key) == (outer, "key")


def test_binding_twice_is_one_binding_and_unbinding_a_missing_one_succeeds(placement: Placement) -> None:
    outer, inner, queue = placement.exchange("direct"), placement.exchange("fanout"), placement.queue()
    placement.owner.queue_bind(queue, inner)
    for _ in range(2):
        placement.owner.exchange_bind(inner, outer, "k")
    placement.consumer.exchange_unbind(inner, outer, "k")
    placement.consumer.exchange_unbind(inner, outer, "k")
    placement.consumer.exchange_unbind(inner, outer, "never bound")
    confirming(placement)
    placement.publisher.basic_publish(outer, "k", b"")
    assert placement.owner.queue_purge(queue).method.message_count == 0


@pytest.mark.parametrize("end", ["unbind", "delete destination"])
def test_an_auto_delete_exchange_goes_with_its_last_binding_to_an_exchange(placement: Placement, end: str) -> None:
    source = placement.exchange("direct", auto_delete=True)
    first, second = placement.exchange("fanout"), placement.exchange("fanout")
    placement.owner.exchange_bind(first, source, "a")
    placement.owner.exchange_bind(second, source, "b")
    placement.owner.exchange_unbind(first, source, "a")
    placement.consumer.exchange_declare(source, passive=True)
    if end == "unbind":
        placement.owner.exchange_unbind(second, source, "b")
    else:
        placement.owner.exchange_delete(second)
    missing(placement, source)


def test_being_a_destination_does_not_keep_an_auto_delete_exchange(placement: Placement) -> None:
    source, destination, queue = placement.exchange("fanout"), placement.exchange("fanout", auto_delete=True), placement.queue()
    placement.owner.exchange_bind(destination, source)
    placement.owner.queue_bind(queue, destination)
    placement.owner.queue_unbind(queue, destination)
    missing(placement, destination)


def test_an_auto_delete_exchange_that_was_never_bound_stays(placement: Placement) -> None:
    source, exchange = placement.exchange("fanout"), placement.exchange("fanout", auto_delete=True)
    placement.owner.exchange_bind(exchange, source)
    placement.owner.exchange_unbind(exchange, source)
    placement.consumer.exchange_declare(exchange, passive=True)


def test_a_chain_of_auto_delete_exchanges_goes_with_the_queue_at_its_end(placement: Placement) -> None:
    chain = [placement.exchange("fanout", auto_delete=True) for _ in range(5)]
    for source, destination in itertools.pairwise(chain):
        placement.owner.exchange_bind(destination, source)
    queue = placement.owner.queue_declare("", exclusive=True).method.queue
    placement.owner.queue_bind(queue, chain[-1])
    placement.owner.queue_delete(queue)
    for exchange in chain:
        missing(placement, exchange)


def test_delete_if_unused_minds_bindings_from_it_not_to_it(placement: Placement) -> None:
    source, destination = placement.exchange("fanout"), placement.exchange("fanout")
    placement.owner.exchange_bind(destination, source)
    with channel_closed(406, f"PRECONDITION_FAILED - exchange '{source}' in vhost '/' in use"):
        placement.connect(placement.sites.consumer).channel().exchange_delete(source, if_unused=True)
    placement.consumer.exchange_delete(destination, if_unused=True)
    placement.consumer.exchange_delete(source, if_unused=True)
    missing(placement, source)


def test_a_deleted_exchange_takes_its_bindings_along(placement: Placement) -> None:
    outer, inner, queue = placement.exchange("fanout"), placement.exchange("fanout"), placement.queue()
    placement.owner.exchange_bind(inner, outer)
    placement.owner.queue_bind(queue, inner)
    placement.owner.exchange_delete(inner)
    placement.publisher.exchange_declare(inner, "fanout")
    placement.owner.queue_bind(queue, inner)
    confirming(placement)
    placement.publisher.basic_publish(outer, "", b"lost")
    placement.publisher.basic_publish(inner, "", b"comes")
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(1) == [b"comes"]


@pytest.mark.parametrize("seed", range(3))
def test_a_random_graph_reaches_exactly_what_can_be_reached(placement: Placement, seed: int) -> None:
    chance = random.Random(seed)
    exchanges = [placement.exchange("fanout") for _ in range(8)]
    queues = [placement.queue() for _ in range(4)]
    edges = {(chance.randrange(8), chance.randrange(8)) for _ in range(14)}
    ends = {(chance.randrange(8), chance.randrange(4)) for _ in range(5)}
    for source, destination in edges:
        placement.owner.exchange_bind(exchanges[destination], exchanges[source])
    for exchange, queue in ends:
        placement.owner.queue_bind(queues[queue], exchanges[exchange])
    confirming(placement)
    for entry in range(8):
        placement.publisher.basic_publish(exchanges[entry], "", b"")
        reached = {entry}
        while grown := {destination for source, destination in edges if source in reached} - reached:
            reached |= grown
        expected = [int(any((exchange, queue) in ends for exchange in reached)) for queue in range(4)]
        assert [placement.owner.queue_purge(queue).method.message_count for queue in queues] == expected, f"seed {seed}"
