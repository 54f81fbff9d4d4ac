"""The worker process: its links, its shard of queues, its client connections, and the requests of its neighbours.

It wires the parts of this package together and answers the router, the other workers and management; what AMQP methods do is in
`leveret.worker.methods`, how messages flow in the Cython modules. It owns no topology: every change of it comes from the router.

Requests from another worker, about a queue of ours (named by `queue_id`) or a consumer on one (named by `handle`), and their answers:

    queue_status    queue_id                                [messages ready, consumers]
    purge           queue_id                                number of messages
    delete_queue    queue_id, if_unused, if_empty           number of messages
    attach          queue_id, ref, tag, no_ack, exclusive, priority, prefetch, prefetch_bytes,
                    arguments, about
                                                            handle
    cancel          handle                                  {}
    hold            handle                                  {}: nothing is delivered to it until it may `go_on`
    hold_commits    key                                     {}: nothing is committed until `let_commit` with that key
    written         nothing                                 {} when all that it was sent before is on the disk
    get             queue_id, ref, handle, no_ack           [handle], or [handle, delivery number, redelivered, messages, wire]
    reply_name      ref, name                               whether a requester waits for direct replies under that name
    barrier         nothing                                 {}: everything that it was sent before has been seen
    take_over       token, luggage                          {}: the client's connection is its own now; or `refused`, why not

Notices: `let_commit` by key; `detach`, `go_on` and `set_prefetch` by handle; `consumer_cancelled` by ref, to the client's worker;
`client_waits`, from a worker that cannot accept. From the router: `snapshot`, `changes`, `worker_down`; request `barrier`. From management:
requests `statistics`; `shards`, what each takes; `backup` of one `shard` into its place below `directory`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leveret.codec.errors import AmqpError, ConnectionForced, NotFound
from leveret.codec.methods import BasicCancel
from leveret.codec.tables import decode_table
from leveret.link.dial import Dialler, LinkServer
from leveret.link.link import Link, LinkClosed, RequestFailed
from leveret.queue.rules import NO_RULES, Rules
from leveret.refusal import TEMPORARY, Refusal
from leveret.storage.environment import StoreError
from leveret.supervisor.runtime import LOADS_NAME
from leveret.worker import owner
from leveret.worker.acceptor import Acceptor
from leveret.worker.connection import Connection
from leveret.worker.dead_letters import DeadLetterSender
from leveret.worker.directory import Directory, QueueEntry
from leveret.worker.handover import Handover
from leveret.worker.heartbeats import Heartbeats
from leveret.worker.loads import Loads
from leveret.worker.methods import Methods
from leveret.worker.neighbour import Neighbour, WorkerLink
from leveret.worker.newcomers import Newcomers
from leveret.worker.patience import Patience
from leveret.worker.queue_journal import QueueJournal
from leveret.worker.session import Greeting, Session
from leveret.worker.shard_copies import ShardCopies
from leveret.worker.shards import Shards
from leveret.worker.state import ShardQueue, WorkerState
from leveret.worker.subscription import LocalConsumer, RemoteConsumer, Subscription

if TYPE_CHECKING:
    from leveret.auth.permissions import Kind, Right
    from leveret.queue.queue import Queue
    from leveret.supervisor.child import Child
    from leveret.worker.channel import Channel

log = logging.getLogger(__name__)

NEIGHBOUR_TIMEOUT_S = 15.0  # for a worker to come back, and to answer: also on a machine whose processors many wait for
EACH_SECOND_S = 1.0
PARTING_TIMEOUT_S = 3.0  # for a client to answer our connection.close, and to close its socket after our close-ok
SHUTDOWN_TIMEOUT_S = 3.0  # for clients to answer the last connection.close
ALARM_REASONS = {
    (True, False): "low on memory",
    (False, True): "low on disk",
    (True, True): "low on memory & disk",
}


class Worker:
    """Made once, by `main`."""

    def __init__(self, child: Child, worker_count: int) -> None:
        self.child = child
        self.settings = child.settings
        self.index = child.index
        self.directory = Directory()
        self.state = WorkerState(child.poller, self.directory, child.index, worker_count, child.settings.message_size_max_bytes)
        self.state.on_unused = self._delete_unused
        self.methods = Methods(self)
        self.heartbeats = Heartbeats(child.loop)
        self.greeting = Greeting(child.settings)
        self.connections: set[Connection] = set()
        self.newcomers = Newcomers(child.loop, child.settings.handshakes_max, child.settings.handshake_timeout_s)
        self.parting = Patience(child.loop, PARTING_TIMEOUT_S, lambda connection: connection.parting_timed_out())
        self._all_gone = asyncio.Event()  # set by the end of the last connection
        self.alarm_reason = ""
        self.held_cancels: dict[Channel, list[BasicCancel]] = {}  # of channels that delete a queue: their delete-ok comes first
        self.loaded: asyncio.Future[None] = child.loop.create_future()
        self.shards = Shards(child.settings, child.index, self.state.committer)
        self._copies = ShardCopies()
        self._room_bytes = 0  # as told last
        self._snapshot: list[dict[str, Any]] = []
        self._connection_no = 0
        self._hold_no = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._links_opened = asyncio.Condition()
        self._make_link = functools.partial(WorkerLink, self.state)
        self._server: LinkServer | None = None
        self._diallers = [self._dial("router")]
        self.loads = Loads(child.runtime_dir / LOADS_NAME, child.index, worker_count)
        self.acceptor = Acceptor(self, worker_count)
        self.handover = Handover(self, child.settings.connection_handover)
        child.on_alarms = self.set_alarms
        self.set_alarms(child.alarms)

    def each_second(self) -> None:
        """What is looked at once a second, with one timer: a worker that has nothing to do wakes up for little else."""
        self.child.loop.call_later(EACH_SECOND_S, self.each_second)
        self._tell_room()
        self.handover.measure()

    def _tell_room(self) -> None:
        """Let the supervisor know what the shards' files could take without growing: its disk alarm counts it."""
        with contextlib.suppress(StoreError):  # a commit will end the process over it
            room_bytes = self.shards.room_bytes()
            if room_bytes != self._room_bytes:
                self._room_bytes = room_bytes
                self.child.supervisor.notify("room", {"bytes": room_bytes})

    def close(self) -> None:
        """Let go of sockets and links; the process is ending."""
        self.acceptor.close()
        for dialler in self._diallers:
            dialler.close()
        if self._server is not None:
            self._server.close()
        self.state.committer.close()

    def _dial(self, name: str) -> Dialler:
        return Dialler(self.child.poller, self.child.runtime_dir / f"{name}.sock", self.child.hello, self, self._make_link)

    def meet_workers(self) -> None:
        """Open links to the other workers, once the router has told what there is.

        A message from one of them for a queue that is not known yet would be taken for one to a queue that was deleted, and confirmed.
        """
        path = self.child.runtime_dir / f"worker-{self.index}.sock"
        self._server = LinkServer(self.child.poller, path, self.child.hello, self, self._make_link)
        # Of two workers the one with the higher index dials, so that a pair has one link.
        self._diallers += [self._dial(f"worker-{other}") for other in range(self.index)]

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do it beside everything else; a failure is logged."""
        task = self.child.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    def _spawned_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task failed: %s", task.get_coro(), exc_info=task.exception())

    # --- links

    def on_link_open(self, link: Link) -> None:
        neighbour = self._neighbour(link)
        if neighbour is None:
            return
        neighbour.link_opened(link)
        log.info("linked to %s", neighbour)
        if neighbour.kind == "worker":
            self.spawn(self._reattach(neighbour))
        self.spawn(self._announce_link())

    def on_link_closed(self, link: Link) -> None:
        neighbour = self._neighbour(link)
        if neighbour is None or neighbour.link is not link:
            return
        neighbour.link_closed()
        log.warning("lost the link to %s", neighbour)
        if neighbour.kind == "router":
            self.state.router_lost()
            return
        self.acceptor.forget_travellers(neighbour.index)
        self.acceptor.look_again()
        self.state.worker_lost(neighbour.index, False)
        self.state.committer.release_all(neighbour.index)
        for consumer in [consumer for consumer in self.state.attached.values() if consumer.client is neighbour]:
            self._detach(consumer.handle)

    def _neighbour(self, link: Link) -> Neighbour | None:
        """Who is at the other end; None for management."""
        if link.peer.kind == "router":
            return self.state.router
        if link.peer.kind == "worker" and link.peer.index < len(self.state.workers):
            return self.state.workers[link.peer.index]
        return None

    async def _announce_link(self) -> None:
        async with self._links_opened:
            self._links_opened.notify_all()

    async def link_to(self, neighbour: Neighbour, timeout_s: float | None = None) -> Link:
        """The open link to it, waiting for one if need be. Raises `TimeoutError` after `timeout_s`."""
        if neighbour.link is None:
            async with asyncio.timeout(timeout_s), self._links_opened:
                await self._links_opened.wait_for(lambda: neighbour.link is not None)
        assert neighbour.link is not None
        return neighbour.link

    async def ask_router(self, verb: str, body: dict[str, Any]) -> Any:
        """A request to the router. If the router dies over it, it is made again to its successor: every command can be applied twice.

        It waits for as long as there is no router: the supervisor starts one, or ends the node.
        """
        while True:
            link = await self.link_to(self.state.router)
            try:
                return await link.request(verb, body)
            except LinkClosed:
                continue

    async def ask_owner(self, entry: QueueEntry, verb: str, body: dict[str, Any]) -> Any:
        """A request to the worker that has the queue. Raises `NotFound` if that worker is down, as RabbitMQ does for a queue's node,
        and if the queue has been deleted there before our directory heard of it."""
        neighbour = self.state.workers[entry.worker]
        if neighbour is None:  # it was ours, and was deleted since the caller found it
            raise NotFound(f"no {entry}")
        try:
            link = await self.link_to(neighbour, NEIGHBOUR_TIMEOUT_S)
            return await link.request(verb, body, timeout_s=NEIGHBOUR_TIMEOUT_S)
        except NotFound as error:
            raise NotFound(f"no {entry}") from error  # there it has only a number any more
        except (LinkClosed, TimeoutError, RequestFailed) as error:
            log.warning("worker %d did not answer '%s' about %s: %s", entry.worker, verb, entry, error)
            raise NotFound(
                f"home node 'worker-{entry.worker}' of {'durable ' if entry.durable else ''}{entry} is down or inaccessible"
            ) from error

    async def barrier(self, worker: int) -> None:
        """Return when everything that this worker has sent through the router has reached that worker's queues."""
        await self.ask_router("barrier", {"worker": worker})

    @contextlib.asynccontextmanager
    async def commits_held(self, workers: Iterable[int]) -> AsyncIterator[None]:
        """Neither we nor these workers commit anything to disk within the context (but see `Committer.hold` for how long at most)."""
        self._hold_no += 1
        key = self._hold_no
        links = [link for worker in workers if (link := self.state.workers[worker].link) is not None]
        await asyncio.gather(
            self._hold_commits((self.index, key)),
            *[link.request("hold_commits", {"key": key}, timeout_s=NEIGHBOUR_TIMEOUT_S) for link in links],
            return_exceptions=True,  # from one that does not answer nothing is expected either
        )
        try:
            yield
        finally:
            self.state.committer.release((self.index, key))
            for link in links:
                link.notify("let_commit", {"key": key})

    async def _hold_commits(self, key: tuple[int, int]) -> dict[str, Any]:
        while self.state.committer.held_for_long:
            await self.state.committer.written()
        self.state.committer.hold(key)
        return {}

    # --- what others ask and tell

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        handler = getattr(self, "_asked_" + verb, None)
        if handler is None:
            raise ValueError(f"unknown request {verb!r}")
        return handler(link, body)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        handler = getattr(self, "_told_" + verb, None)
        if handler is None:
            raise ValueError(f"unknown notice {verb!r}")
        handler(link, body)

    def _told_snapshot(self, link: Link, body: Any) -> None:
        """The router's whole topology, in one or several parts. After a router's restart it is compared with what we have."""
        self._snapshot += body["changes"]
        if not body["last"]:
            return
        changes, self._snapshot = self._snapshot, []
        try:
            self.shards.open(list(range(self.index, body["shards"], len(self.state.workers))), body["identity"])
        except Refusal as error:
            if self.loaded.done():
                raise
            self.loaded.set_exception(error)
            return
        for change in self.directory.begin_snapshot(changes):
            self._apply(change)
        for change in changes:
            if not self.directory.has(change):
                self._apply(change)
        self.shards.forget_unknown()
        link.notify("applied", {"version": body["version"]})
        if not self.loaded.done():
            self.loaded.set_result(None)

    def _told_changes(self, link: Link, body: Any) -> None:
        for change in body["changes"]:
            self._apply(change)
        link.notify("applied", {"version": body["version"]})

    def _apply(self, change: dict[str, Any]) -> None:
        entry = self.directory.apply(change)
        if isinstance(entry, QueueEntry) and entry.worker == self.index:
            if change["change"] == "queue_added":
                entry.local = self._make_queue(entry)
                self.state.add_queue(entry.local)
            else:
                self._remove_queue(entry)

    def _make_queue(self, entry: QueueEntry) -> ShardQueue:
        """A queue of ours, with the messages that its shard's store has kept for it."""
        queue = ShardQueue(
            self.state,
            entry.id,
            entry.name,
            entry.vhost,
            durable=entry.durable,
            auto_delete=entry.auto_delete,
            exclusive=entry.exclusive,
            rules=Rules.of(decode_table(entry.arguments)) if entry.arguments else NO_RULES,
        )
        if queue.dead_letters is not None:
            queue.sender = DeadLetterSender(self.state, queue)
        self.shards.keep(queue, entry)
        return queue

    def _remove_queue(self, entry: QueueEntry) -> None:
        """The queue is deleted: its messages go, its consumers are told."""
        queue = self.state.remove_queue(entry.id)
        entry.local = None
        assert queue is not None, f"{entry} was not here"
        journal = queue.journal
        consumers = queue.clear()
        if isinstance(journal, QueueJournal):
            journal.forget()
        for consumer in consumers:
            if isinstance(consumer, RemoteConsumer):
                self.state.detach(consumer.handle)
                if consumer.client.link is not None:
                    consumer.client.link.notify("consumer_cancelled", {"ref": consumer.ref})
            elif isinstance(consumer, LocalConsumer):
                self.cancelled_by_server(consumer.subscription)
        if queue.sender is not None:
            queue.sender.close()

    def cancelled_by_server(self, subscription: Subscription) -> None:
        """Tell the client that its consumer is no more (RabbitMQ's consumer_cancel_notify), if it understands that."""
        channel = subscription.channel
        if subscription.getter or channel.consumers.get(subscription.tag) is not subscription:
            return
        channel.remove_consumer(subscription)
        if channel.connection.cancel_notify:
            cancel = BasicCancel(consumer_tag=subscription.tag.decode(), nowait=True)
            if channel in self.held_cancels:
                self.held_cancels[channel].append(cancel)
            else:
                channel.send(cancel)

    def _told_worker_down(self, link: Link, body: Any) -> None:
        self.state.worker_lost(body["index"], True)

    def _asked_barrier(self, link: Link, body: Any) -> Any:
        return {}

    def _asked_statistics(self, link: Link, body: Any) -> Any:
        return self.statistics()

    def _asked_shards(self, link: Link, body: Any) -> Any:
        return {"shards": [{"number": number, "used_bytes": store.log.sizes().used_bytes} for number, store in self.shards.stores.items()]}

    def _asked_backup(self, link: Link, body: Any) -> Any:
        store = self.shards.stores.get(body["shard"])
        if store is None:
            return {"refused": f"there is no shard {body['shard']}"}
        return self._copies.copy(body["shard"], store.log, Path(body["directory"]))

    def _told_client_waits(self, link: Link, body: Any) -> None:
        self.acceptor.look_again()

    def _asked_queue_status(self, link: Link, body: Any) -> Any:
        return owner.status(self._queue(body["queue_id"]))

    def _asked_purge(self, link: Link, body: Any) -> Any:
        return self._queue(body["queue_id"]).purge()

    def _asked_delete_queue(self, link: Link, body: Any) -> Awaitable[int]:
        return owner.delete(self, self._queue(body["queue_id"]), if_unused=body["if_unused"], if_empty=body["if_empty"])

    def _asked_attach(self, link: Link, body: Any) -> Any:
        return owner.attach(self, self._queue(body["queue_id"]), self._client(link), body).handle

    def _asked_cancel(self, link: Link, body: Any) -> Any:
        consumer = self.state.attached.get(body["handle"])
        if consumer is not None and consumer.queue is not None:
            queue = consumer.queue
            queue.cancel_consumer(consumer)
            self.delete_if_abandoned(queue)
        return {}

    def _asked_hold_commits(self, link: Link, body: Any) -> Any:
        return self._hold_commits((link.peer.index, body["key"]))

    def _told_let_commit(self, link: Link, body: Any) -> None:
        self.state.committer.release((link.peer.index, body["key"]))

    def _asked_written(self, link: Link, body: Any) -> Any:
        return self._written()

    async def _written(self) -> dict[str, Any]:
        await self.state.committer.written()
        return {}

    def _asked_hold(self, link: Link, body: Any) -> Any:
        consumer = self.state.attached.get(body["handle"])
        if consumer is not None:
            consumer.set_held(True)
        return {}

    def _told_go_on(self, link: Link, body: Any) -> None:
        consumer = self.state.attached.get(body["handle"])
        if consumer is not None:
            consumer.set_held(False)

    def _asked_get(self, link: Link, body: Any) -> Any:
        return owner.get(self, self._queue(body["queue_id"]), self._client(link), body)

    def _asked_take_over(self, link: Link, body: Any) -> Any:
        return self.handover.take(link, body)

    def _asked_reply_name(self, link: Link, body: Any) -> Any:
        return self.waits_for_replies(body["ref"], body["name"])

    def waits_for_replies(self, ref: int, name: str) -> bool:
        """Whether a channel of this worker has that name for direct replies."""
        subscription = self.state.subscriptions.get(ref)
        return subscription is not None and subscription.reply_name == name.encode()

    def _told_detach(self, link: Link, body: Any) -> None:
        # First all, then each: or what comes back from the one would go to the next, on a channel that is gone.
        for handle in body["handles"]:
            consumer = self.state.attached.get(handle)
            if consumer is not None:
                consumer.deactivate()
        for handle in body["handles"]:
            self._detach(handle)

    def _told_set_prefetch(self, link: Link, body: Any) -> None:
        consumer = self.state.attached.get(body["handle"])
        if consumer is not None:
            consumer.set_prefetch(body["prefetch"], body["prefetch_bytes"])

    def _told_consumer_cancelled(self, link: Link, body: Any) -> None:
        subscription = self.state.subscriptions.get(body["ref"])
        if subscription is not None:
            subscription.handle = 0
            if not subscription.channel.connection.travelling:  # else who has it then sees that the queue is gone
                self.cancelled_by_server(subscription)

    def _client(self, link: Link) -> Neighbour:
        """The worker that asks on behalf of a client of its own."""
        neighbour = self._neighbour(link)
        if neighbour is None:
            raise ValueError(f"{link!r} has no clients")
        return neighbour

    def _queue(self, queue_id: int) -> ShardQueue:
        queue = self.state.queues.get(queue_id)
        if queue is None:
            entry = self.directory.queues.get(queue_id)
            raise NotFound(f"no {entry}" if entry is not None else f"no queue with id {queue_id}")
        return queue

    def _detach(self, handle: int) -> None:
        """The client's channel is gone: what it had unacked goes back."""
        consumer = self.state.detach(handle)
        if consumer is not None and consumer.queue is not None:
            queue, consuming = consumer.queue, consumer.consuming
            queue.remove_consumer(consumer)
            if consuming:
                self.delete_if_abandoned(queue)

    # --- consumers that come and go

    def consumers_gone(self, subscriptions: Iterable[Subscription]) -> None:
        """These have let their queues go: an auto-delete queue without consumers goes too."""
        for subscription in subscriptions:
            queue = self.state.queues.get(subscription.queue_id)
            if queue is not None:
                self.delete_if_abandoned(queue)

    def delete_if_abandoned(self, queue: Queue) -> None:
        """Delete the queue if it is auto-delete and its last consumer has left."""
        if queue.auto_delete and queue.consumer_count == 0 and queue.id in self.state.queues:
            self.spawn(self.ask_router("delete_queue", {"vhost": queue.vhost, "name": queue.name, "queue_id": queue.id}))

    def _delete_unused(self, queue: ShardQueue) -> None:
        """Delete the queue, which nobody has used for as long as its x-expires says. Its messages are no dead letters."""
        if queue.id in self.state.queues:
            log.info("deleting %s, unused for %d ms", owner.describe(queue), queue.rules.expires_ms)
            self.spawn(self.ask_router("delete_queue", {"vhost": queue.vhost, "name": queue.name, "queue_id": queue.id}))

    async def _reattach(self, neighbour: Neighbour) -> None:
        """A worker has come back: our clients' consumers on its queues are attached anew. What they had unacked is lost with it."""
        # Those without a handle have asked to be attached and wait for this very link.
        lost = [each for each in self.state.subscriptions.values() if each.owner is neighbour and each.handle]
        for subscription in lost:
            channel = subscription.channel
            consuming = channel.consumers.get(subscription.tag) is subscription
            subscription.lose_owner()
            if not consuming:
                channel.drop_getter(subscription)
                continue
            entry = self.directory.queues.get(subscription.queue_id)
            if entry is None:
                self.cancelled_by_server(subscription)
                continue
            try:
                await self.methods.basic.attach_anew(channel, subscription, entry)
            except (AmqpError, LinkClosed) as error:
                log.warning("could not attach a consumer of %s again: %s", entry, error)
                self.cancelled_by_server(subscription)

    # --- connections

    def accept(self, descriptor: int) -> None:
        """Begin a client's connection on an accepted socket, which is ours from here on."""
        if not self.newcomers.make_room():
            os.close(descriptor)
            return
        try:
            session = Session(descriptor)
        except OSError:  # it has gone already
            os.close(descriptor)
            return
        self._connection_no += 1
        connection = Connection(
            self.child.poller,
            descriptor,
            self,
            session,
            session.name,
            owner=f"{self.child.run_id}/{self.index}.{self.child.hello.pid}.{self._connection_no}",
        )
        self.handover.watch(connection)
        self.connections.add(connection)
        self.newcomers.add(connection)
        self.state.connections_opened += 1
        self.loads.set_connections(len(self.connections))

    def connection_closed(self, connection: Connection, reason: str) -> None:
        """Its socket is closed and its channels are released."""
        self.connections.discard(connection)
        self.newcomers.leave(connection)
        self.parting.end(connection)
        if not self.connections:
            self._all_gone.set()
        self.state.connections_closed += 1
        self.heartbeats.remove(connection)
        connection.session.ended(connection, reason)
        self.loads.set_connections(len(self.connections))
        if connection.has_exclusive:
            self.exclusive_gone(connection)

    def connection_left(self, connection: Connection) -> None:
        """Another worker serves it from now on."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_gone.set()
        self.loads.set_connections(len(self.connections))

    def exclusive_gone(self, connection: Connection) -> asyncio.Task[Any]:
        """Delete the connection's exclusive queues; done when every worker knows."""
        connection.has_exclusive = False
        return self.spawn(self.ask_router("connection_gone", {"owner": connection.owner}))

    def check_permission(self, connection: Connection, right: Right, kind: Kind, name: str) -> None:
        """Raise `AccessRefused` unless the connection's user may configure, write or read that resource of its vhost."""
        self.directory.permissions.check(connection.user, connection.vhost.name, right, kind, name)

    def set_alarms(self, alarms: dict[str, bool]) -> None:
        """An alarm came or went: publishers stop being read, or go on."""
        self.alarm_reason = ALARM_REASONS.get((alarms["memory"], alarms["disk"]), "")
        self.state.set_blocked(bool(self.alarm_reason), self.connections)

    async def shut_down(self, reason: str) -> None:
        """Accept no more, tell every client, and wait a little for their answers."""
        self.acceptor.close()
        for connection in list(self.connections):
            if connection.open:
                connection.close_with(ConnectionForced(f"broker forced connection closure with reason '{reason}'"))
            else:
                connection.close("the broker is stopping")
        if self.connections:
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), SHUTDOWN_TIMEOUT_S)
        for connection in list(self.connections):
            connection.close("the broker is stopping")

    # --- numbers

    def statistics(self) -> dict[str, Any]:
        """Everything management shows of this worker."""
        # One on its way to another worker is shown there, or next time.
        channels = [channel for channel in self.state.channels.values() if not channel.connection.travelling]
        connections = [connection for connection in self.connections if connection.header_seen and not connection.travelling]
        return {
            "index": self.index,
            "pid": self.child.hello.pid,
            "connections": [connection.statistics() for connection in connections],
            "channels": [channel.statistics() for channel in channels],
            "consumers": [about_consumer(queue, consumer) for queue in self.state.queues.values() for consumer in queue.consumers],
            "queues": [
                {"id": queue.id, "name": queue.name, "vhost": queue.vhost} | queue.statistics() | about_store(queue)
                for queue in self.state.queues.values()
            ],
            "totals": self.state.totals(),
            "handovers": {"moved": self.handover.moved, "arrived": self.handover.arrived},
            "store": self.state.committer.statistics(),
            "set_aside": self.shards.set_aside(),
            "links": [self.state.router.statistics()] + [other.statistics() for other in self.state.workers if other is not None],
        }


def about_store(queue: ShardQueue) -> dict[str, Any]:
    """What the queue's shard keeps of it, under the HTTP API's names."""
    index = queue.journal.index if isinstance(queue.journal, QueueJournal) else None
    return {
        "messages_persistent": index.live if index is not None else 0,
        "message_bytes_persistent": index.live_bytes if index is not None else 0,
    }


def about_consumer(queue: ShardQueue, consumer: Any) -> dict[str, Any]:
    """A consumer under the HTTP API's names."""
    about = consumer.about if isinstance(consumer, RemoteConsumer) else about_channel(consumer.subscription)
    return {
        "queue": {"name": queue.name, "vhost": queue.vhost},
        "consumer_tag": consumer.tag.decode("utf-8", "replace"),
        "ack_required": not consumer.no_ack,
        "exclusive": consumer.exclusive,
        "active": True,
        "activity_status": "up",
        "prefetch_count": consumer.prefetch,
        "arguments": consumer.arguments,
        "channel_details": about,
    }


def about_channel(subscription: Subscription) -> dict[str, Any]:
    """What is shown of a consumer's channel."""
    channel = subscription.channel
    connection = channel.connection
    return {
        "name": f"{connection.name} ({channel.id})",
        "number": channel.id,
        "connection_name": connection.name,
        "peer_host": connection.session.peer_host,
        "peer_port": connection.session.peer_port,
        "user": connection.user,
    }


async def first_of(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def store_failure(worker: Worker) -> Refusal:
    """Why the process ends. Nobody is answered any more: what was not confirmed may or may not be on the disk."""
    worker.shards.mark_suspect()
    return Refusal(f"{worker.state.committer.failed.result()}; the worker starts anew from what is on the disk", TEMPORARY)


async def main(child: Child) -> None:
    """Serve until the supervisor asks for the end."""
    worker = Worker(child, worker_count=child.settings.workers)
    failed = worker.state.committer.failed
    await first_of(worker.loaded, failed)
    if failed.done():
        raise store_failure(worker)
    worker.loaded.result()
    worker.meet_workers()
    worker.acceptor.start(child.listeners["amqp"])
    child.ready()
    worker.each_second()
    shutdown: asyncio.Future[str] = asyncio.ensure_future(child.shutdown_requested)
    await first_of(shutdown, failed)
    if failed.done():
        raise store_failure(worker)
    await worker.shut_down(shutdown.result())
    worker.close()
