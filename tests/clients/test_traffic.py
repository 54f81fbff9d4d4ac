"""Mixed traffic over all workers at once: nothing lost, nothing twice, order where order is promised, nobody held up by another."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.placement import Placement, connect_on

WITHIN_S = 60.0


@pytest.mark.parametrize("kind", ["default", "topic"])
def test_many_consumers_that_ack_and_requeue_settle_each_message_once(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange, key = "", queue
    if kind == "topic":
        exchange, key = placement.exchange("topic"), "a.b"
        placement.owner.queue_bind(queue, exchange, "a.*")
    total, consumers = 3000, 6
    sites = [placement.sites.publisher, placement.sites.queue, placement.sites.consumer]
    acked: Counter[int] = Counter()
    refused: Counter[int] = Counter()
    not_marked: list[int] = []
    counting = threading.Lock()
    done = threading.Event()

    def consume(number: int) -> None:
        chance = random.Random(number)
        connection = connect_on(placement.broker, sites[number % 3])
        channel = connection.channel()
        channel.basic_qos(prefetch_count=chance.choice((1, 10, 100)))
        for method, _, body in channel.consume(queue, inactivity_timeout=0.1):
            if method is None:
                if done.is_set():
                    break
                continue
            message = int(body)
            with counting:
                if refused[message] and not method.redelivered:
                    not_marked.append(message)
                refuse = chance.random() < 0.2
                (refused if refuse else acked)[message] += 1
                if acked.total() >= total:
                    done.set()
            if refuse:
                channel.basic_nack(method.delivery_tag, requeue=True)
            else:
                channel.basic_ack(method.delivery_tag)
        connection.close()

    def publish(half: range) -> None:
        with connect_on(placement.broker, sites[0]) as connection:
            channel = connection.channel()
            for message in half:
                channel.basic_publish(exchange, key, str(message).encode())

    with ThreadPoolExecutor(consumers + 2) as threads:
        ends = [threads.submit(consume, number) for number in range(consumers)]
        ends += [threads.submit(publish, half) for half in (range(total // 2), range(total // 2, total))]
        try:
            assert done.wait(WITHIN_S), f"{acked.total()} of {total} acked"
        finally:
            done.set()
        for end in ends:
            end.result(WITHIN_S)
    assert acked == Counter(range(total)), "each once"
    assert not_marked == []
    assert placement.owner.queue_delete(queue).method.message_count == 0


def test_a_consumer_that_does_not_read_holds_up_nobody_else(placement: Placement) -> None:
    stuffed, other = placement.queue(), placement.queue()
    body = bytes(1024 * 1024)
    deaf = placement.connect(placement.sites.consumer).channel()  # a blocking connection reads only when it is called
    tag = deaf.basic_consume(stuffed, lambda *_: None, auto_ack=True)
    placement.publisher.confirm_delivery()
    for _ in range(40):
        placement.publisher.basic_publish("", stuffed, body, mandatory=True)
    inbox = Inbox(placement.consumer, other, auto_ack=True)
    for number in range(100):
        placement.publisher.basic_publish("", other, str(number).encode(), mandatory=True)
    assert inbox.bodies(100) == [str(number).encode() for number in range(100)]
    deaf.basic_cancel(tag)
    deaf.connection.close()
    assert eventually(lambda: placement.owner.queue_declare(stuffed, passive=True).method.consumer_count == 0)


def test_everything_unread_still_arrives_in_order(placement: Placement) -> None:
    queue = placement.queue()
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    for number in range(2000):
        placement.publisher.basic_publish("", queue, number.to_bytes(4, "big") * 4096)
    assert [int.from_bytes(body[:4], "big") for body in inbox.bodies(2000)] == list(range(2000))


def test_topology_changes_under_traffic_lose_no_message_of_others(placement: Placement) -> None:
    exchange, queue = placement.exchange("topic"), placement.queue()
    placement.owner.queue_bind(queue, exchange, "steady.#")
    total = 1000
    stop = threading.Event()

    def churn() -> None:
        with connect_on(placement.broker, placement.sites.consumer) as connection:
            channel = connection.channel()
            while not stop.is_set():
                name = channel.queue_declare("", exclusive=True).method.queue
                for pattern in ("steady.#", "*.x", "#"):
                    channel.queue_bind(name, exchange, pattern)
                channel.queue_unbind(name, exchange, "#")
                channel.queue_delete(name)

    with ThreadPoolExecutor(1) as thread:
        end = thread.submit(churn)
        placement.publisher.confirm_delivery()
        for number in range(total):
            placement.publisher.basic_publish(exchange, f"steady.{number % 7}", str(number).encode(), mandatory=True)
        stop.set()
        end.result(WITHIN_S)
    assert Inbox(placement.publisher, queue, auto_ack=True).bodies(total) == [str(number).encode() for number in range(total)]
