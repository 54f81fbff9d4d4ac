"""pika's other ways to the broker: the asyncio and select adapters, confirms with many in flight, threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.select_connection import SelectConnection

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement, worker_of_connection

WITHIN_S = 30.0


class Line:
    """An asyncio connection of pika's with one channel; its callbacks are futures here."""

    def __init__(self, connection: AsyncioConnection, channel: pika.channel.Channel) -> None:
        self.connection = connection
        self.channel = channel

    @classmethod
    async def open(cls, broker: Broker, **parameters: Any) -> Line:
        """Connect and open a channel."""
        opened: asyncio.Future[AsyncioConnection] = asyncio.get_running_loop().create_future()
        AsyncioConnection(
            broker.parameters(**parameters),
            on_open_callback=opened.set_result,
            on_open_error_callback=lambda _, error: opened.set_exception(error),
        )
        connection = await asyncio.wait_for(opened, WITHIN_S)
        channel: asyncio.Future[pika.channel.Channel] = asyncio.get_running_loop().create_future()
        connection.channel(on_open_callback=channel.set_result)
        return cls(connection, await asyncio.wait_for(channel, WITHIN_S))

    async def ask(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a channel method that answers by callback; gives the answer's method."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        method(*arguments, **named, callback=answered.set_result)
        return (await asyncio.wait_for(answered, WITHIN_S)).method

    async def close(self) -> None:
        """Close the connection and wait for its end."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connection.add_on_close_callback(lambda *_: closed.set_result(None))
        self.connection.close()
        await asyncio.wait_for(closed, WITHIN_S)


async def open_on(broker: Broker, worker: int | None) -> Line:
    """An asyncio connection that sits on worker `worker`, or anywhere for None."""
    missed: list[Line] = []
    try:
        for attempt in range(64):
            name = f"asyncio-{id(missed)}-{attempt}"
            line = await Line.open(broker, client_properties={"connection_name": name})
            if worker is None or await asyncio.to_thread(worker_of_connection, broker, name) == worker:
                return line
            missed.append(line)
        raise AssertionError(f"no connection came to worker {worker}")
    finally:
        for line in missed:
            await line.close()


def run(main: Awaitable[None]) -> None:
    """Run a test's coroutine under its deadline."""

    async def bounded() -> None:
        await asyncio.wait_for(main, 60)

    asyncio.run(bounded())


@pytest.mark.parametrize("kind", ["default", "direct", "topic"])
def test_asyncio_confirms_come_once_for_each_publish_with_many_in_flight(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange, key = "", queue
    if kind != "default":
        exchange, key = placement.exchange(kind), "k"
        placement.owner.queue_bind(queue, exchange, key)
    count = 5000

    async def main() -> None:
        line = await open_on(placement.broker, placement.sites.publisher)
        unconfirmed = set(range(1, count + 1))
        done = asyncio.get_running_loop().create_future()

        def on_confirm(frame: Any) -> None:
            assert isinstance(frame.method, pika.spec.Basic.Ack), frame
            tag = frame.method.delivery_tag
            settled = {number for number in unconfirmed if number <= tag} if frame.method.multiple else {tag} & unconfirmed
            assert settled, f"{frame.method} confirms nothing new"
            unconfirmed.difference_update(settled)
            if not unconfirmed and not done.done():
                done.set_result(None)

        await line.ask(line.channel.confirm_delivery, on_confirm)
        for number in range(count):
            line.channel.basic_publish(exchange, key, number.to_bytes(4, "big"), mandatory=True)
        await asyncio.wait_for(done, WITHIN_S)
        await line.close()

    run(main())
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == count
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    assert inbox.bodies(count) == [number.to_bytes(4, "big") for number in range(count)]


def test_asyncio_returns_come_before_their_confirms(placement: Placement) -> None:
    queue = placement.queue()

    async def main() -> None:
        line = await open_on(placement.broker, placement.sites.publisher)
        returned: set[int] = set()
        unconfirmed = set(range(1, 201))
        done = asyncio.get_running_loop().create_future()

        def on_return(_: Any, method: Any, __: Any, body: bytes) -> None:
            assert method.reply_code == 312
            returned.add(int(body))

        def on_confirm(frame: Any) -> None:
            tag = frame.method.delivery_tag
            confirmed = {number for number in unconfirmed if number <= tag} if frame.method.multiple else {tag}
            # Every odd one was unroutable: the return of each that this confirms must have come.
            missing = {number for number in confirmed if number % 2} - returned
            if missing and not done.done():
                done.set_exception(AssertionError(f"confirmed and not returned: {missing}"))
            unconfirmed.difference_update(confirmed)
            if not unconfirmed and not done.done():
                done.set_result(None)

        line.channel.add_on_return_callback(on_return)
        await line.ask(line.channel.confirm_delivery, on_confirm)
        for number in range(1, 201):
            key = "nowhere at all" if number % 2 else queue
            line.channel.basic_publish("amq.direct" if number % 4 == 1 else "", key, str(number).encode(), mandatory=True)
        await asyncio.wait_for(done, WITHIN_S)
        await line.close()

    run(main())


def test_asyncio_consumes_with_prefetch_and_acks_as_it_goes(placement: Placement) -> None:
    queue = placement.queue()
    count = 500

    async def main() -> None:
        line = await open_on(placement.broker, placement.sites.consumer)
        seen: list[int] = []
        done = asyncio.get_running_loop().create_future()

        def on_message(channel: Any, method: Any, _: Any, body: bytes) -> None:
            seen.append(int(body))
            channel.basic_ack(method.delivery_tag)
            if len(seen) == count:
                done.set_result(None)

        await line.ask(line.channel.basic_qos, prefetch_count=10)
        consume_ok = await line.ask(line.channel.basic_consume, queue, on_message)
        for number in range(count):
            placement.publisher.basic_publish("", queue, str(number).encode())
        await asyncio.wait_for(done, WITHIN_S)
        assert seen == list(range(count))
        cancel_ok = await line.ask(line.channel.basic_cancel, consume_ok.consumer_tag)
        assert cancel_ok.consumer_tag == consume_ok.consumer_tag
        await line.close()

    run(main())
    assert placement.owner.queue_delete(queue).method.message_count == 0, "all acked"


def test_asyncio_many_requests_on_many_channels_at_once(placement: Placement) -> None:
    async def main() -> None:
        lines = [await open_on(placement.broker, site) for site in (placement.sites.publisher, placement.sites.consumer)]

        async def life(line: Line, number: int) -> None:
            opened: asyncio.Future[pika.channel.Channel] = asyncio.get_running_loop().create_future()
            line.connection.channel(on_open_callback=opened.set_result)
            on_channel = Line(line.connection, await asyncio.wait_for(opened, WITHIN_S))
            channel = on_channel.channel
            name = (await on_channel.ask(channel.queue_declare, "", exclusive=True)).queue
            await on_channel.ask(channel.queue_bind, name, "amq.topic", f"{name}.#")
            got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            await on_channel.ask(channel.basic_consume, name, lambda *arguments: got.set_result(arguments[3]), auto_ack=True)
            channel.basic_publish("amq.topic", f"{name}.x.{number}", str(number).encode())
            assert await asyncio.wait_for(got, WITHIN_S) == str(number).encode()
            assert (await on_channel.ask(channel.queue_delete, name)).message_count == 0

        await asyncio.gather(*(life(line, number) for line in lines for number in range(25)))
        for line in lines:
            await line.close()

    run(main())


def test_asyncio_is_told_of_a_channel_exception(placement: Placement) -> None:
    async def main() -> None:
        line = await Line.open(placement.broker)
        closed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        line.channel.add_on_close_callback(lambda _, reason: closed.set_result(reason))
        line.channel.queue_declare("missing", passive=True)
        reason = await asyncio.wait_for(closed, WITHIN_S)
        assert isinstance(reason, pika.exceptions.ChannelClosedByBroker)
        assert (reason.reply_code, reason.reply_text) == (404, "NOT_FOUND - no queue 'missing' in vhost '/'")
        assert line.connection.is_open
        await line.close()

    run(main())


def test_the_select_adapter_publishes_and_consumes(broker: Broker) -> None:
    seen: list[bytes] = []
    failure: list[BaseException] = []

    def on_open(connection: SelectConnection) -> None:
        connection.channel(on_open_callback=on_channel)

    def on_channel(channel: pika.channel.Channel) -> None:
        channel.queue_declare("", exclusive=True, callback=lambda frame: on_queue(channel, frame.method.queue))

    def on_queue(channel: pika.channel.Channel, name: str) -> None:
        def on_message(channel: pika.channel.Channel, method: Any, _: Any, body: bytes) -> None:
            seen.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(seen) == 100:
                channel.connection.close()

        def on_consuming(_: Any) -> None:
            for number in range(100):
                channel.basic_publish("", name, str(number).encode())

        channel.basic_consume(name, on_message, callback=on_consuming)

    def on_end(connection: SelectConnection, reason: BaseException) -> None:
        if not isinstance(reason, pika.exceptions.ConnectionClosedByClient):
            failure.append(reason)
        connection.ioloop.stop()

    connection = SelectConnection(broker.parameters(), on_open_callback=on_open, on_open_error_callback=on_end, on_close_callback=on_end)
    connection.ioloop.call_later(WITHIN_S, connection.ioloop.stop)
    connection.ioloop.start()
    assert failure == []
    assert seen == [str(number).encode() for number in range(100)]


def test_threads_with_a_connection_each_publish_at_once(placement: Placement) -> None:
    queue = placement.queue()
    publishers, each = 6, 200

    def publish(number: int) -> None:
        with placement.broker.connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for turn in range(each):
                channel.basic_publish("", queue, f"{number} {turn}".encode(), mandatory=True)

    with ThreadPoolExecutor(publishers) as threads:
        ends = [threads.submit(publish, number) for number in range(publishers)]
        bodies = [tuple(map(int, body.split())) for body in Inbox(placement.consumer, queue, auto_ack=True).bodies(publishers * each)]
        for end in ends:
            end.result(WITHIN_S)
    for number in range(publishers):
        assert [turn for publisher, turn in bodies if publisher == number] == list(range(each)), "each publisher's order is kept"


def test_a_thread_hands_its_acks_to_the_connections_thread(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.consumer
    channel.basic_qos(prefetch_count=5)
    inbox = Inbox(channel, queue)
    for number in range(100):
        placement.publisher.basic_publish("", queue, str(number).encode())

    acked: list[int] = []

    def settle(tag: int) -> None:
        def ack() -> None:
            channel.basic_ack(tag)
            acked.append(tag)

        channel.connection.add_callback_threadsafe(ack)

    def all_are_acked() -> bool:
        """pika takes one round to hear of such a call, and another one to make it."""
        channel.connection.process_data_events(time_limit=0)
        return len(acked) == 100

    with ThreadPoolExecutor(1) as thread:
        ends = [thread.submit(settle, inbox.take_one().tag) for _ in range(100)]  # only what is acked lets the next ones come
        for end in ends:
            end.result(WITHIN_S)
    eventually(all_are_acked, WITHIN_S)
    channel.close()
    assert placement.owner.queue_delete(queue).method.message_count == 0
