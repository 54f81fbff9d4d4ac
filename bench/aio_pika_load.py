"""Load with aio-pika, the asyncio client: one process of it as a program, started by `bench.client_load`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from bench.client_load import PREFETCH, SIZE, span


async def _publish(channel: AbstractChannel, queue: str, begin_s: float, end_s: float) -> int:
    message = aio_pika.Message(bytes(SIZE), delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT)
    count = 0
    while (now_s := time.monotonic()) < end_s:
        for _ in range(20):
            await channel.default_exchange.publish(message, queue)
        if now_s >= begin_s:
            count += 20
    return count


async def _consume(channel: AbstractChannel, queue: str, begin_s: float, end_s: float) -> int:
    count = 0

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal count
        await message.ack()
        if begin_s <= time.monotonic() < end_s:
            count += 1

    await channel.set_qos(prefetch_count=PREFETCH)
    declared = await channel.get_queue(queue)
    consumer_tag = await declared.consume(on_message)
    await asyncio.sleep(max(0.0, end_s - time.monotonic()))
    await declared.cancel(consumer_tag)
    return count


_WORK: Final = {"publish": _publish, "consume": _consume}


async def _work(what: str, uri: str, queue: str) -> int:
    async with await aio_pika.connect(uri) as connection:
        # Without confirms, like pika's rows: the client's own round trip would hide the broker.
        channel = await connection.channel(publisher_confirms=False)
        begin_s, end_s = await asyncio.to_thread(span)  # the others connect meanwhile; the loop must not stand still so long
        return await _WORK[what](channel, queue, begin_s, end_s)


def main() -> None:
    """`publish|consume URI QUEUE`: one process of the load; tells its count as JSON."""
    what, uri, queue = sys.argv[1:]
    print(json.dumps({"count": asyncio.run(_work(what, uri, queue))}))


if __name__ == "__main__":
    main()
