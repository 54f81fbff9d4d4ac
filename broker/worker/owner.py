"""What the worker that owns a queue does for whoever asks: a client of its own, or another worker on behalf of one of its clients.

Pure of sockets: the callers are `leveret.worker.methods` for queues of this worker and `leveret.worker.worker` for requests from others. So
an operation is written once, wherever the client is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leveret.codec.errors import AccessRefused, PreconditionFailed
from leveret.codec.tables import decode_table
from leveret.queue.queue import InExclusiveUse
from leveret.worker.subscription import RemoteConsumer

if TYPE_CHECKING:
    from leveret.worker.neighbour import Neighbour
    from leveret.worker.state import ShardQueue
    from leveret.worker.subscription import Subscription
    from leveret.worker.worker import Worker


def describe(queue: ShardQueue) -> str:
    """The queue as RabbitMQ's reply texts name it."""
    return f"queue '{queue.name}' in vhost '{queue.vhost}'"


def status(queue: ShardQueue) -> list[int]:
    """Messages ready and consumers, as declare-ok tells them. Whoever asks uses the queue (x-expires)."""
    queue.touch()
    return [queue.ready_count, queue.consumer_count]


async def delete(worker: Worker, queue: ShardQueue, *, if_unused: bool, if_empty: bool) -> int:
    """Delete the queue by way of the router; the number of messages that it had. Raises `PreconditionFailed` (406) as RabbitMQ does."""
    if if_unused and queue.consumer_count:
        raise PreconditionFailed(f"{describe(queue)} in use")
    if if_empty and queue.ready_count:
        raise PreconditionFailed(f"{describe(queue)} not empty")
    count = queue.ready_count
    await worker.ask_router("delete_queue", {"vhost": queue.vhost, "name": queue.name, "queue_id": queue.id})
    return int(count)


def consume(queue: ShardQueue, subscription: Subscription) -> None:
    """Attach a client of this worker. Raises `AccessRefused` (403) if the queue is in exclusive use."""
    try:
        subscription.take_from(queue)
    except InExclusiveUse as error:
        raise AccessRefused(str(error)) from error


def attach(worker: Worker, queue: ShardQueue, client: Neighbour, body: dict[str, Any]) -> RemoteConsumer:
    """Attach a client of another worker; nothing is delivered before its first credit. Raises as `consume` does."""
    consumer = RemoteConsumer(
        client,
        body["ref"],
        worker.state.next_handle(),
        body["tag"],
        body["about"],
        no_ack=body["no_ack"],
        exclusive=body["exclusive"],
        priority=body["priority"],
        prefetch=body["prefetch"],
        prefetch_bytes=body["prefetch_bytes"],
        arguments=decode_table(body["arguments"]),
    )
    try:
        queue.add_consumer(consumer)
    except InExclusiveUse as error:
        raise AccessRefused(str(error)) from error
    worker.state.attach(consumer)
    return consumer


def get(worker: Worker, queue: ShardQueue, client: Neighbour, body: dict[str, Any]) -> list[Any]:
    """basic.get for a client of another worker: [handle, delivery number, redelivered, messages left, message]; empty queue: [handle].

    Its first get makes the consumer under which its unacked messages are kept; later ones name it by `handle`.
    """
    getter = worker.state.attached.get(body["handle"])
    if getter is None or getter.queue is not queue:
        getter = RemoteConsumer(client, body["ref"], worker.state.next_handle(), b"", None, no_ack=body["no_ack"])
        queue.add_getter(getter)
        worker.state.attach(getter)
    return [getter.handle, *getter.take()]
