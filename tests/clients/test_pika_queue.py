"""Queues by pika: declare of every kind, redeclare, exclusive, auto-delete, bind, purge, delete, the channel's last queue."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed


def is_missing(placement: Placement, queue: str) -> bool:
    """Whether a passive declare answers 404."""
    channel = placement.connect().channel()
    try:
        channel.queue_declare(queue, passive=True)
    except Exception as closed:
        if getattr(closed, "reply_code", None) != 404:
            raise
        return True
    return False


def locked(queue: str) -> str:
    """The text of RESOURCE_LOCKED for a queue."""
    return (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be originally declared on "
        "another connection or the exclusive property value does not match that of the original declaration."
    )


def test_a_declared_queue_is_empty_and_known_on_every_worker(placement: Placement) -> None:
    queue = placement.name()
    answer = placement.owner.queue_declare(queue, durable=True).method
    assert (answer.queue, answer.message_count, answer.consumer_count) == (queue, 0, 0)
    for channel in (placement.publisher, placement.consumer):
        assert channel.queue_declare(queue, passive=True).method.queue == queue
    placement.consumer.queue_delete(queue)


def test_declare_ok_counts_ready_messages_and_consumers(placement: Placement) -> None:
    queue = placement.queue()
    publisher = placement.publisher
    publisher.confirm_delivery()
    for _ in range(3):
        publisher.basic_publish("", queue, b"x")
    answer = placement.consumer.queue_declare(queue, passive=True).method
    assert (answer.message_count, answer.consumer_count) == (3, 0)
    inbox = Inbox(placement.consumer, queue)
    inbox.take(3)
    answer = publisher.queue_declare(queue, durable=True).method
    assert (answer.message_count, answer.consumer_count) == (0, 1), "unacked messages are not counted"


def test_a_server_named_queue_gets_a_new_name_each_time(placement: Placement) -> None:
    names = [placement.consumer.queue_declare("", exclusive=True).method.queue for _ in range(5)]
    assert len(set(names)) == 5
    for name in names:
        assert re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", name), name


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"durable": False}, "inequivalent arg 'durable' for queue '{name}' in vhost '/': received 'false' but current is 'true'"),
        ({"auto_delete": True}, "inequivalent arg 'auto_delete' for queue '{name}' in vhost '/': received 'true' but current is 'false'"),
    ],
    ids=["durable", "auto_delete"],
)
def test_an_inequivalent_redeclare_is_406(placement: Placement, change: dict[str, Any], text: str) -> None:
    queue = placement.queue()
    with channel_closed(406, "PRECONDITION_FAILED - " + text.format(name=queue)):
        placement.consumer.queue_declare(queue, **({"durable": True} | change))


def test_a_redeclare_that_differs_in_exclusive_is_405(placement: Placement) -> None:
    queue = placement.queue()
    with channel_closed(405, locked(queue)):
        placement.consumer.queue_declare(queue, durable=True, exclusive=True)


def test_an_unknown_queue_argument_is_accepted_and_ignored_when_redeclared(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-colour": "brown"})
    placement.consumer.queue_declare(queue, durable=True)
    assert placement.consumer.is_open


@pytest.mark.not_on_peer("the argument's feature is there")
@pytest.mark.parametrize(("argument", "value"), [("x-single-active-consumer", True), ("x-max-priority", 9), ("x-queue-type", "stream")])
def test_an_argument_of_a_later_version_is_refused_not_ignored(placement: Placement, argument: str, value: Any) -> None:
    queue = placement.name()
    text = f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{queue}' in vhost '/': not supported by this version of Leveret"
    with channel_closed(406, text):
        placement.owner.queue_declare(queue, durable=True, arguments={argument: value})
    assert is_missing(placement, queue)


def test_a_reserved_queue_name_is_403(placement: Placement) -> None:
    with channel_closed(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"):
        placement.owner.queue_declare("amq.mine")


@pytest.mark.parametrize("name", ["missing", ""])
def test_a_passive_declare_of_a_missing_queue_is_404(placement: Placement, name: str) -> None:
    with channel_closed(404, f"NOT_FOUND - no queue '{name}' in vhost '/'"):
        placement.consumer.queue_declare(name, passive=True)


def test_a_passive_declare_needs_no_equal_properties(placement: Placement) -> None:
    queue = placement.queue()
    placement.consumer.queue_declare(queue, passive=True, durable=False, auto_delete=True)
    assert placement.consumer.is_open


def test_names_may_be_any_utf8_of_255_bytes(placement: Placement) -> None:
    name = "ß" * 121 + placement.name()[:13]
    assert len(name.encode()) == 255
    placement.owner.queue_declare(name)
    try:
        assert placement.consumer.queue_declare(name, passive=True).method.queue == name
    finally:
        placement.owner.queue_delete(name)


@pytest.mark.parametrize("action", ["declare", "passive", "consume", "get", "purge", "delete", "bind", "unbind"])
def test_another_connections_exclusive_queue_is_405(placement: Placement, action: str) -> None:
    exchange = placement.exchange("fanout")
    queue = placement.owner.queue_declare(placement.name(), exclusive=True).method.queue
    placement.owner.queue_bind(queue, exchange)
    channel = placement.consumer
    actions = {
        "declare": lambda: channel.queue_declare(queue, exclusive=True),
        "passive": lambda: channel.queue_declare(queue, passive=True),
        "consume": lambda: channel.basic_consume(queue, lambda *_: None),
        "get": lambda: channel.basic_get(queue),
        "purge": lambda: channel.queue_purge(queue),
        "delete": lambda: channel.queue_delete(queue),
        "bind": lambda: channel.queue_bind(queue, exchange, "k"),
        "unbind": lambda: channel.queue_unbind(queue, exchange),
    }
    with channel_closed(405, locked(queue)):
        actions[action]()
    placement.publisher.basic_publish("", queue, b"anyone may publish to it")
    assert Inbox(placement.owner, queue).bodies(1) == [b"anyone may publish to it"]


def test_an_exclusive_queue_is_its_whole_connections(placement: Placement) -> None:
    connection = placement.connect(placement.sites.queue)
    first, second = connection.channel(), connection.channel()
    queue = first.queue_declare("", exclusive=True).method.queue
    second.queue_declare(queue, passive=True)
    first.close()
    second.basic_publish("", queue, b"outlives the channel")
    assert Inbox(second, queue).bodies(1) == [b"outlives the channel"]


def test_an_exclusive_queue_goes_with_its_connection(placement: Placement) -> None:
    connection = placement.connect(placement.sites.queue)
    queue = connection.channel().queue_declare("", exclusive=True).method.queue
    placement.publisher.basic_publish("", queue, b"goes with it")
    connection.close()
    assert eventually(lambda: is_missing(placement, queue))


def test_an_auto_delete_queue_goes_with_its_last_consumer(placement: Placement) -> None:
    queue = placement.name()
    placement.owner.queue_declare(queue, auto_delete=True)
    first, second = Inbox(placement.consumer, queue), Inbox(placement.publisher, queue)
    first.cancel()
    assert not is_missing(placement, queue)
    second.cancel()
    assert eventually(lambda: is_missing(placement, queue))


def test_an_auto_delete_queue_goes_when_its_consumers_channel_closes(placement: Placement) -> None:
    queue = placement.name()
    placement.owner.queue_declare(queue, auto_delete=True)
    Inbox(placement.consumer, queue)
    placement.consumer.close()
    assert eventually(lambda: is_missing(placement, queue))


def test_an_auto_delete_queue_that_never_had_a_consumer_stays(placement: Placement) -> None:
    queue = placement.queue(auto_delete=True)
    assert placement.consumer.basic_get(queue)[0] is None
    assert not is_missing(placement, queue)


def test_purge_removes_ready_messages_and_counts_them(placement: Placement) -> None:
    queue = placement.queue()
    publisher = placement.publisher
    publisher.confirm_delivery()
    for _ in range(5):
        publisher.basic_publish("", queue, b"x")
    method, _, _ = placement.consumer.basic_get(queue)
    assert placement.publisher.queue_purge(queue).method.message_count == 4, "the unacked one is not purged"
    placement.consumer.basic_nack(method.delivery_tag)
    assert Inbox(placement.owner, queue).take_one().method.redelivered


def test_purging_a_missing_queue_is_404(placement: Placement) -> None:
    with channel_closed(404, "NOT_FOUND - no queue 'missing' in vhost '/'"):
        placement.consumer.queue_purge("missing")


def test_delete_counts_the_messages_it_removes(placement: Placement) -> None:
    queue = placement.queue()
    publisher = placement.publisher
    publisher.confirm_delivery()
    for _ in range(4):
        publisher.basic_publish("", queue, b"x")
    assert placement.consumer.queue_delete(queue).method.message_count == 4
    assert is_missing(placement, queue)


def test_deleting_a_missing_queue_succeeds(placement: Placement) -> None:
    assert placement.consumer.queue_delete(placement.name()).method.message_count == 0


def test_delete_if_unused_refuses_while_there_is_a_consumer(placement: Placement) -> None:
    queue = placement.queue()
    inbox = Inbox(placement.consumer, queue)
    with channel_closed(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"):
        placement.publisher.queue_delete(queue, if_unused=True)
    inbox.cancel()
    placement.owner.queue_delete(queue, if_unused=True)
    assert is_missing(placement, queue)


def test_delete_if_empty_refuses_while_there_is_a_message(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.publisher
    channel.basic_publish("", queue, b"x")
    with channel_closed(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"):
        channel.queue_delete(queue, if_empty=True)
    placement.owner.queue_purge(queue)
    placement.owner.queue_delete(queue, if_empty=True)
    assert is_missing(placement, queue)


def test_deleting_a_queue_cancels_its_consumers(placement: Placement) -> None:
    queue = placement.queue()
    inbox = Inbox(placement.consumer, queue)
    placement.publisher.queue_delete(queue)
    connection = placement.consumer.connection

    def cancelled() -> bool:
        connection.process_data_events(time_limit=0.2)
        return inbox.cancelled

    assert eventually(cancelled)
    assert placement.consumer.is_open


def test_deleting_a_queue_removes_its_bindings(placement: Placement) -> None:
    exchange, queue = placement.exchange("fanout"), placement.queue()
    placement.owner.queue_bind(queue, exchange)
    placement.owner.queue_delete(queue)
    placement.publisher.exchange_delete(exchange, if_unused=True)
    assert placement.publisher.is_open


@pytest.mark.parametrize("role", ["queue", "exchange"])
def test_binding_something_missing_is_404(placement: Placement, role: str) -> None:
    ends = {"queue": placement.queue(), "exchange": "amq.direct"} | {role: "missing"}
    with channel_closed(404, f"NOT_FOUND - no {role} 'missing' in vhost '/'"):
        placement.consumer.queue_bind(ends["queue"], ends["exchange"], "k")


def test_binding_twice_is_one_binding_and_unbinding_a_missing_one_succeeds(placement: Placement) -> None:
    exchange, queue = placement.exchange("direct"), placement.queue()
    placement.owner.queue_bind(queue, exchange, "k")
    placement.consumer.queue_bind(queue, exchange, "k")
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish(exchange, "k", b"once")
    assert placement.owner.queue_purge(queue).method.message_count == 1
    placement.owner.queue_unbind(queue, exchange, "k")
    placement.owner.queue_unbind(queue, exchange, "k")
    placement.publisher.basic_publish(exchange, "k", b"gone")
    assert placement.owner.queue_purge(queue).method.message_count == 0


def test_the_empty_name_means_the_channels_last_declared_queue(placement: Placement) -> None:
    channel = placement.consumer
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind("", "amq.direct", f"key-of-{queue}")
    channel.queue_bind("", "amq.direct")  # no key either: the key is the queue's name
    publisher = placement.publisher
    publisher.confirm_delivery()
    publisher.basic_publish("amq.direct", f"key-of-{queue}", b"1")
    publisher.basic_publish("amq.direct", queue, b"2")
    assert channel.basic_get("", auto_ack=True)[2] == b"1"
    assert channel.queue_purge("").method.message_count == 1
    channel.queue_unbind("", "amq.direct", f"key-of-{queue}")
    publisher.basic_publish("amq.direct", f"key-of-{queue}", b"3")
    assert channel.basic_get("", auto_ack=True)[0] is None
    assert Inbox(channel, "").consumer_tag
    channel.queue_delete("")
    assert is_missing(placement, queue)


@pytest.mark.parametrize("action", ["get", "consume", "purge", "delete", "bind"])
def test_the_empty_name_before_any_declare_is_404(placement: Placement, action: str) -> None:
    channel = placement.consumer
    actions = {
        "get": lambda: channel.basic_get(""),
        "consume": lambda: channel.basic_consume("", lambda *_: None),
        "purge": lambda: channel.queue_purge(""),
        "delete": lambda: channel.queue_delete(""),
        "bind": lambda: channel.queue_bind("", "amq.direct", "k"),
    }
    with channel_closed(404, "NOT_FOUND - no previously declared queue"):
        actions[action]()


def test_a_queue_may_be_deleted_and_declared_again_at_once(placement: Placement) -> None:
    queue = placement.queue()
    for round_ in range(20):
        placement.publisher.basic_publish("", queue, b"old")
        placement.consumer.queue_delete(queue)
        answer = placement.owner.queue_declare(queue, durable=bool(round_ % 2)).method
        assert (answer.message_count, answer.consumer_count) == (0, 0), "nothing of the old queue is left"


@pytest.mark.not_on_peer("3.10 knows the argument for quorum queues only")
def test_a_queue_declared_balanced_works_from_everywhere(placement: Placement) -> None:
    queues = [placement.queue(arguments={"x-queue-leader-locator": "balanced"}) for _ in range(6)]
    placement.publisher.confirm_delivery()
    for queue in queues:
        placement.publisher.basic_publish("", queue, queue.encode())
    for queue in queues:
        assert placement.consumer.basic_get(queue, auto_ack=True)[2] == queue.encode()
