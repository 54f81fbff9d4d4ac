"""aio-pika: robust connections, confirms, iterators and the library's patterns, against the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError, QueueEmpty
from aio_pika.patterns import RPC, Master
from aiormq.exceptions import ChannelAccessRefused

from tests.conftest import MakeNode
from tests.names import unique
from tests.node import Broker

WITHIN_S = 30.0

Step = Callable[[AbstractChannel], Coroutine[Any, Any, None]]


def perform(broker: Broker, step: Step, **channel: Any) -> None:
    """Run a test's coroutine with a channel of a connection of its own."""

    async def main() -> None:
        async with asyncio.timeout(4 * WITHIN_S), await aio_pika.connect(broker.url) as connection:
            await step(await connection.channel(**channel))

    asyncio.run(main())


def test_a_message_arrives_as_it_was_sent(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        queue = await channel.declare_queue(exclusive=True)
        headers: dict[str, Any] = {"text": "grün", "int": 7, "yes": True, "none": None, "list": [1, "two"], "table": {"k": "v"}}
        properties: dict[str, Any] = {
            "content_type": "text/plain",
            "delivery_mode": 2,
            "priority": 3,
            "correlation_id": "c",
            "reply_to": "r",
        }
        properties |= {"expiration": 60, "message_id": "m", "type": "t", "user_id": "guest", "app_id": "a"}
        sent = aio_pika.Message(b"body", headers=headers, **properties)
        await channel.default_exchange.publish(sent, routing_key=queue.name)
        async with queue.iterator(timeout=WITHIN_S) as messages:
            message = await anext(messages)
            await message.ack()
        assert message.body == b"body"
        assert message.headers == headers
        assert {name: getattr(message, name) for name in properties} == properties

    perform(broker, step)


def test_an_unroutable_message_fails_with_confirms(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        with pytest.raises(DeliveryError) as error:
            await channel.default_exchange.publish(aio_pika.Message(b"back"), routing_key=unique("nowhere"), timeout=WITHIN_S)
        assert error.value.message is not None
        assert error.value.message.body == b"back"

    perform(broker, step, on_return_raises=True)


def test_many_confirmed_publishes_at_once(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        queue = await channel.declare_queue(exclusive=True)
        sending = [channel.default_exchange.publish(aio_pika.Message(str(n).encode()), routing_key=queue.name) for n in range(200)]
        await asyncio.gather(*sending)
        assert (await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count == 200
        got = [int((await queue.get(no_ack=True)).body) for _ in range(200)]
        assert got == list(range(200))
        with pytest.raises(QueueEmpty):
            await queue.get()

    perform(broker, step)


def test_prefetch_and_processing_contexts(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(unique("q"), auto_delete=True)
        for body in (b"1", b"2"):
            await channel.default_exchange.publish(aio_pika.Message(body), routing_key=queue.name)
        seen: list[tuple[bytes, bool | None]] = []
        async with queue.iterator(timeout=WITHIN_S) as messages:
            async for message in messages:
                seen.append((message.body, message.redelivered))
                try:
                    async with message.process(requeue=True):
                        if len(seen) == 1:
                            raise RuntimeError("once more, please")
                except RuntimeError:
                    continue
                if len(seen) == 3:
                    break
        assert seen == [(b"1", False), (b"1", True), (b"2", False)]

    perform(broker, step)


def test_exchanges_and_their_bindings(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        source = await channel.declare_exchange(unique("source"), aio_pika.ExchangeType.TOPIC, auto_delete=True)
        middle = await channel.declare_exchange(unique("middle"), aio_pika.ExchangeType.HEADERS, auto_delete=True, internal=True)
        queue = await channel.declare_queue(exclusive=True)
        await middle.bind(source, "a.*")
        await queue.bind(middle, arguments={"x-match": "any", "colour": "red"})
        for key, colour in (("a.b", "red"), ("a.b", "blue"), ("b", "red")):
            await source.publish(aio_pika.Message(b"x", headers={"colour": colour}), key, mandatory=False)
        assert (await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count == 1

    perform(broker, step)


def test_a_transaction_is_committed_or_rolled_back(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        queue = await channel.declare_queue(exclusive=True)
        async with channel.transaction():
            await channel.default_exchange.publish(aio_pika.Message(b"kept"), routing_key=queue.name)
        with pytest.raises(RuntimeError):
            async with channel.transaction():
                await channel.default_exchange.publish(aio_pika.Message(b"never"), routing_key=queue.name)
                raise RuntimeError
        assert (await queue.get(no_ack=True)).body == b"kept"
        assert await queue.get(fail=False) is None

    perform(broker, step, publisher_confirms=False)


@pytest.mark.parametrize(
    ("name", "passive", "error", "text"),
    [
        ("nowhere", True, ChannelNotFoundEntity, "NOT_FOUND - no queue 'nowhere' in vhost '/'"),
        ("amq.mine", False, ChannelAccessRefused, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"),
    ],
)
def test_refused(broker: Broker, name: str, passive: bool, error: type[Exception], text: str) -> None:
    async def step(channel: AbstractChannel) -> None:
        with pytest.raises(error) as refused:
            await channel.declare_queue(name, passive=passive)
        assert text in str(refused.value)

    perform(broker, step)


def test_a_channel_can_be_used_again_after_a_refusal(broker: Broker) -> None:
    async def main() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        async with asyncio.timeout(WITHIN_S), connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(unique("q"), auto_delete=True, durable=False)
            with pytest.raises(ChannelPreconditionFailed):
                await channel.declare_queue(queue.name, durable=True)
            other = await connection.channel()
            assert (await other.declare_queue(queue.name, passive=True)).declaration_result.message_count == 0
            await other.queue_delete(queue.name)

    asyncio.run(main())


def test_a_robust_consumer_goes_on_after_the_broker_has_been_restarted(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=1)
    name = unique("q")

    async def main() -> None:
        connection = await aio_pika.connect_robust(node.url, reconnect_interval=0.2)
        async with asyncio.timeout(60), connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(name, durable=True)
            inbox: asyncio.Queue[bytes] = asyncio.Queue()

            async def on_message(message: AbstractIncomingMessage) -> None:
                async with message.process():
                    inbox.put_nowait(message.body)

            await queue.consume(on_message)
            await channel.default_exchange.publish(aio_pika.Message(b"before"), routing_key=name)
            assert await inbox.get() == b"before"
            back = asyncio.Event()
            connection.reconnect_callbacks.add(lambda *_: back.set())
            await asyncio.to_thread(node.stop)
            await asyncio.to_thread(node.start)
            await back.wait()
            await channel.default_exchange.publish(aio_pika.Message(b"after"), routing_key=name)
            assert await inbox.get() == b"after"

    asyncio.run(main())


def test_the_master_worker_pattern(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        master = Master(channel)
        done: asyncio.Queue[int] = asyncio.Queue()
        task = unique("task")

        async def work(*, number: int) -> None:
            done.put_nowait(number)

        worker = await master.create_worker(task, work, auto_delete=True)
        for number in range(5):
            await master.create_task(task, kwargs={"number": number})
        assert [await done.get() for _ in range(5)] == list(range(5))
        await worker.close()

    perform(broker, step)


def test_the_rpc_pattern(broker: Broker) -> None:
    async def step(channel: AbstractChannel) -> None:
        rpc = await RPC.create(channel)
        method = unique("double")

        async def double(*, number: int) -> int:
            return 2 * number

        await rpc.register(method, double, auto_delete=True)
        assert await rpc.call(method, kwargs={"number": 21}) == 42
        await rpc.close()

    perform(broker, step)
