"""Dead letters: what is rejected, expires or is too much goes to the queue's dead letter exchange, with its deaths in its headers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.inbox import Delivery, Inbox
from tests.node import Node
from tests.placement import Placement, connect_on
from tests.refusal import channel_closed

ANY_TIME = 10.0  # seconds between a test's clock and the broker's


def die_by(placement: Placement, cause: str, arguments: dict[str, Any], body: bytes = b"x", **properties: Any) -> str:
    """Publish one message to a new queue with these arguments, in which it dies; the queue."""
    limits: dict[str, dict[str, Any]] = {"rejected": {}, "expired": {"x-message-ttl": 0}, "maxlen": {"x-max-length": 0}}
    queue = placement.queue(arguments=arguments | limits[cause])
    placement.publisher.basic_publish("", queue, body, pika.BasicProperties(**properties))
    if cause == "rejected":
        inbox = Inbox(placement.consumer, queue)
        placement.consumer.basic_reject(inbox.take_one().tag, requeue=False)
        inbox.cancel()
    return queue


def deaths(delivery: Delivery) -> list[tuple[str, str, int]]:
    """Its deaths as (queue, reason, count), the latest first."""
    return [(death["queue"], death["reason"], death["count"]) for death in delivery.properties.headers["x-death"]]


@pytest.mark.parametrize("cause", ["rejected", "expired", "maxlen"])
@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_a_message_goes_to_the_dead_letter_exchange(placement: Placement, cause: str, exchange: str) -> None:
    """By the default exchange and by a named one; what it says is kept."""
    target = placement.queue()
    if exchange:
        placement.owner.queue_bind(target, exchange, target)
    arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": target}
    queue = die_by(placement, cause, arguments, b"body", content_type="text/plain", delivery_mode=2, headers={"kept": 1}, app_id="a")
    inbox = Inbox(placement.consumer, target)
    letter = inbox.take_one()
    headers = letter.properties.headers
    (death,) = headers.pop("x-death")
    assert abs(death.pop("time").timestamp() - time.time()) < ANY_TIME
    assert death == {"count": 1, "reason": cause, "queue": queue, "exchange": "", "routing-keys": [queue]}
    first = {"x-first-death-queue": queue, "x-first-death-reason": cause, "x-first-death-exchange": ""}
    last = {"x-last-death-queue": queue, "x-last-death-reason": cause, "x-last-death-exchange": ""}
    if not placement.broker.is_peer:  # the peer is a version without these
        assert {name: headers.pop(name) for name in last} == last
    assert headers == first | {"kept": 1}
    properties = letter.properties
    assert (properties.content_type, properties.delivery_mode, properties.app_id) == ("text/plain", 2, "a")
    assert (letter.body, letter.method.exchange, letter.method.routing_key) == (b"body", exchange, target)
    assert not letter.method.redelivered
    assert inbox.barrier() == 0


def test_without_a_key_the_letter_keeps_its_own(placement: Placement) -> None:
    """And its CC, each of which is a routing key again."""
    exchange, first, second = placement.exchange("direct"), placement.queue(), placement.queue()
    queue = placement.queue(arguments={"x-dead-letter-exchange": exchange, "x-message-ttl": 0})
    placement.owner.queue_bind(first, exchange, queue)
    placement.owner.queue_bind(second, exchange, "copy")
    placement.publisher.basic_publish("", queue, b"x", pika.BasicProperties(headers={"CC": ["copy"]}))
    for target in (first, second):
        inbox = Inbox(placement.consumer, target, auto_ack=True)
        letter = inbox.take_one()
        assert (letter.body, letter.method.routing_key, letter.properties.headers["CC"]) == (b"x", queue, ["copy"])
        assert letter.properties.headers["x-death"][0]["routing-keys"] == [queue, "copy"]
        assert inbox.barrier() == 0


def test_with_a_key_the_letter_loses_its_copies(placement: Placement) -> None:
    target, other = placement.queue(), placement.queue()
    die_by(placement, "expired", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}, headers={"CC": [other + "!"]})
    inbox = Inbox(placement.consumer, target, auto_ack=True)
    headers = inbox.take_one().properties.headers
    assert "CC" not in headers
    assert headers["x-death"][0]["routing-keys"][1:] == [other + "!"]


def test_the_expiration_is_taken_off_and_told(placement: Placement) -> None:
    """Or the letter would expire once more where it arrives."""
    target = placement.queue()
    queue = placement.queue(arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
    properties = pika.BasicProperties(expiration="0", message_id="m", correlation_id="c")
    placement.publisher.basic_publish("", queue, b"x", properties)
    letter = Inbox(placement.consumer, target, auto_ack=True).take_one()
    assert letter.properties.expiration is None
    assert (letter.properties.message_id, letter.properties.correlation_id) == ("m", "c")
    assert letter.properties.headers["x-death"][0]["original-expiration"] == "0"


def test_what_a_client_wrote_into_x_death_means_nothing(placement: Placement) -> None:
    if placement.broker.is_peer:
        pytest.skip("the peer is a version that believes it")
    target = placement.queue()
    forged = {"x-death": [{"queue": target, "reason": "expired", "count": 7}], "x-first-death-queue": "other", "x-last-death-queue": 5}
    queue = die_by(placement, "expired", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}, headers=forged)
    letter = Inbox(placement.consumer, target, auto_ack=True).take_one()
    assert deaths(letter) == [(queue, "expired", 1)]
    assert letter.properties.headers["x-first-death-queue"] == queue


def test_deaths_are_counted_and_the_latest_stands_first(placement: Placement) -> None:
    """Work queue -> waiting queue -> work queue, with a rejection each time: the classic way to retry."""
    work, waiting = placement.name(), placement.name()
    placement.queue(name=work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": waiting})
    placement.queue(name=waiting, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 1})
    inbox = Inbox(placement.consumer, work)
    placement.publisher.basic_publish("", work, b"x")
    placement.consumer.basic_nack(inbox.take_one().tag, requeue=False)
    for attempt in range(1, 4):
        letter = inbox.take_one()
        assert deaths(letter) == [(waiting, "expired", attempt), (work, "rejected", attempt)]
        assert letter.properties.headers["x-first-death-queue"] == work
        placement.consumer.basic_nack(letter.tag, requeue=False)


def test_a_circle_without_a_rejection_ends(placement: Placement) -> None:
    """The message is dropped where it would come round."""
    first, second = placement.name(), placement.name()
    log = placement.queue()
    exchange = placement.exchange("fanout")
    placement.queue(name=first, arguments={"x-dead-letter-exchange": exchange, "x-message-ttl": 0})
    placement.queue(name=second, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": first, "x-message-ttl": 0})
    placement.owner.queue_bind(second, exchange)
    placement.owner.queue_bind(log, exchange)
    inbox = Inbox(placement.consumer, log, auto_ack=True)
    for body in (b"1", b"2"):
        placement.publisher.basic_publish("", first, body)
        assert inbox.take_one().body == body
    assert inbox.barrier() == 0
    for queue in (first, second):
        assert placement.owner.queue_declare(queue, passive=True).method.message_count == 0


def test_a_queue_that_is_its_own_dead_letter_target(placement: Placement) -> None:
    """Rejected messages come back; expired ones do not."""
    name = placement.name()
    placement.queue(name=name, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name})
    inbox = Inbox(placement.consumer, name)
    placement.publisher.basic_publish("", name, b"x")
    for count in range(1, 4):
        letter = inbox.take_one()
        assert not letter.method.redelivered
        placement.consumer.basic_reject(letter.tag, requeue=False)
        letter = inbox.take_one()
        assert deaths(letter) == [(name, "rejected", 2 * count - 1)]
        placement.consumer.basic_reject(letter.tag, requeue=False)


def test_an_exchange_that_is_not_there_yet(placement: Placement) -> None:
    """Letters are dropped while there is none, and go there from the moment it is declared."""
    exchange, target = placement.name("x"), placement.queue()
    queue = placement.queue(arguments={"x-dead-letter-exchange": exchange, "x-message-ttl": 0})
    placement.publisher.basic_publish("", queue, b"lost")
    eventually(lambda: placement.owner.queue_declare(queue, passive=True).method.message_count == 0, what="the queue to be empty")
    placement.publisher.exchange_declare(exchange, "fanout", auto_delete=True)
    placement.owner.queue_bind(target, exchange)
    placement.publisher.basic_publish("", queue, b"found")
    inbox = Inbox(placement.consumer, target, auto_ack=True)
    assert inbox.take_one().body == b"found"
    assert inbox.barrier() == 0


def all_taken(placement: Placement, target: str, count: int) -> tuple[str, Delivery]:
    """A queue whose dead letters go to `target`, with all of so many numbers delivered and not settled; the last of them."""
    queue = placement.queue(arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
    for number in range(count):
        placement.publisher.basic_publish("", queue, b"%d" % number)
    return queue, Inbox(placement.consumer, queue).take(count)[-1]


def test_many_rejected_at_once_arrive_in_order(placement: Placement) -> None:
    """More than one slice of the sender, and more than may be under way."""
    count = 10_000
    target = placement.queue()
    _, last = all_taken(placement, target, count)
    letters = Inbox(placement.consumer, target, auto_ack=True)
    placement.consumer.basic_nack(last.tag, multiple=True, requeue=False)
    assert letters.bodies(count) == [b"%d" % number for number in range(count)]
    assert letters.barrier() == 0


def test_purge_and_delete_make_no_letters(placement: Placement) -> None:
    target = placement.queue()
    queue = placement.queue(arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
    for _ in range(2):
        placement.publisher.basic_publish("", queue, b"x")
        eventually(lambda: placement.owner.queue_declare(queue, passive=True).method.message_count == 1, what="the message")
        placement.owner.queue_purge(queue)
    placement.publisher.basic_publish("", queue, b"x")
    eventually(lambda: placement.owner.queue_declare(queue, passive=True).method.message_count == 1, what="the message")
    assert placement.owner.queue_delete(queue).method.message_count == 1
    assert Inbox(placement.consumer, target).barrier() == 0


def test_what_was_rejected_before_its_queue_was_deleted_arrives(placement: Placement) -> None:
    count = 2_000
    target = placement.queue()
    queue, last = all_taken(placement, target, count)
    placement.consumer.basic_nack(last.tag, multiple=True, requeue=False)
    placement.consumer.queue_delete(queue)
    assert Inbox(placement.consumer, target, auto_ack=True).bodies(count) == [b"%d" % number for number in range(count)]


@pytest.mark.not_on_peer("the letter's headers grow with every queue, and take RabbitMQ minutes")
def test_a_thousand_queues_in_a_chain_and_a_circle(placement: Placement) -> None:
    """Each dead-letters to the next, the last to the first: one message dies a thousand times, once in each, and that is all."""
    count = 1_000
    names = [placement.name() for _ in range(count)]
    end = placement.queue()
    exchange = placement.exchange("fanout")
    placement.owner.queue_bind(end, exchange)
    for place, name in enumerate(names):
        target = names[(place + 1) % count]
        if place == count - 2:  # one before the last, so that the chain's end is seen
            arguments = {"x-dead-letter-exchange": exchange}
        else:
            arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
        placement.queue(name=name, durable=False, arguments=arguments | {"x-message-ttl": 0})
    placement.owner.queue_bind(names[-1], exchange)
    placement.publisher.basic_publish("", names[0], b"x")
    inbox = Inbox(placement.consumer, end, auto_ack=True)
    (letter,) = inbox.take(1, within_s=30.0)
    assert [death["queue"] for death in letter.properties.headers["x-death"]] == names[-2::-1]
    assert inbox.barrier() == 0


def test_arguments_of_the_wrong_kind(placement: Placement) -> None:
    queue = placement.name()
    described = f"queue '{queue}' in vhost '/'"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"x-dead-letter-exchange": 5}, f"invalid type 'signedint' for arg 'x-dead-letter-exchange' in {described}"),
        ({"x-dead-letter-routing-key": "k"}, f"invalid arg 'x-dead-letter-routing-key' for {described}: routing_key_but_no_dlx_defined"),
        (
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": True},
            f"invalid arg 'x-dead-letter-routing-key' for {described}: {{unacceptable_type,bool}}",
        ),
    ]
    for arguments, text in cases:
        with channel_closed(406, f"PRECONDITION_FAILED - {text}"):
            placement.connect().channel().queue_declare(queue, arguments=arguments)


@pytest.fixture(scope="module")
def shared_node(shared_nodes: MakeNode) -> Node:
    return shared_nodes(workers=2)


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    with shared_node.lent() as node:
        yield node


@pytest.mark.not_on_peer("kills processes")
@pytest.mark.parametrize("exchange", ["", "amq.direct"])
@pytest.mark.parametrize("dies", ["worker-0", "worker-1", "router"])
def test_no_death_of_a_process_loses_a_letter(node: Node, dies: str, exchange: str) -> None:
    """The worker of the dying messages' queue, that of their target, or the router, while letters are on their way."""
    count = 5_000
    with connect_on(node, 0) as source, connect_on(node, 1) as target:
        channel = source.channel()
        target.channel().queue_declare("target", durable=True)
        channel.queue_bind("target", "amq.direct", "target")
        arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "target"}
        channel.queue_declare("q", durable=True, arguments=arguments)
        persistent = pika.BasicProperties(delivery_mode=2)
        for number in range(count - 1):
            channel.basic_publish("", "q", b"%d" % number, persistent)
        eventually(lambda: channel.queue_declare("q", passive=True).method.message_count == count - 1, what="the messages")
        confirming = source.channel()
        confirming.confirm_delivery()
        confirming.basic_publish("", "q", b"%d" % (count - 1), persistent)  # with its confirm all others are on the disk
        inbox = Inbox(channel, "q")
        last = inbox.take(count)[-1]
        channel.basic_nack(last.tag, multiple=True, requeue=False)
        source.process_data_events(time_limit=0)
        node.kill_process(dies)
        with contextlib.suppress(pika.exceptions.AMQPError):
            source.close()
        with contextlib.suppress(pika.exceptions.AMQPError):
            target.close()
    arrived: set[bytes] = set()

    def all_there() -> bool:
        """Rejects what has come back to the queue, and takes what has arrived."""
        with contextlib.suppress(pika.exceptions.AMQPError, AssertionError), node.connect() as connection:
            looking = connection.channel()
            back, letters = Inbox(looking, "q"), Inbox(looking, "target")
            while back.barrier() + letters.barrier() or back.waiting or letters.waiting:
                for delivery in back.take(len(back.waiting)):
                    looking.basic_reject(delivery.tag, requeue=False)
                for delivery in letters.take(len(letters.waiting)):
                    looking.basic_ack(delivery.tag)
                    arrived.add(delivery.body)
        return len(arrived) == count

    eventually(all_there, within_s=60.0, what="all letters")
