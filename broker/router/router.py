"""The router process: the one writer of the topology, and the way of every publish to a named exchange.

It wires the parts of this package to links and to the store. Workers and management send commands (`leveret.router.commands`) as
requests; each is applied at once, in the order of arrival and among the publishes of the same link, so that whatever is published after
the answer sees the change. The answer waits until the change is stored and every connected worker has it in its replica, at most
`APPLIED_TIMEOUT_S`. What a command may do is decided in `leveret.router.topology`, where a message goes in
`leveret.router.distributor`; permissions were checked by whoever sends.

Requests:

    <a command's verb>   its fields          its result
    topology             None                {"vhosts", "users", "permissions", "exchanges", "queues", "bindings"}, see
                                             leveret.router.listing
    users                None                {"users": [{"name", "password_hash", "hashing_algorithm", "tags"}]}; for management only
    statistics           None                {"exchanges", "unroutable", "memo", "links", "version"}
    barrier              {"worker": index}   {} when everything sent to that worker before has been read there
    backup               {"directory"}       the definitions are copied to definitions/ below it: {"bytes"} or {"refused": why}; for
                                             management only

Notices to workers:

    snapshot      {"version", "changes", "last", "identity", "shards"}
                                           the whole topology, in parts; the first thing on a new link. shards: how many there are;
                                           identity: of the definitions, whose ids the shards' stores use
    changes       {"version", "changes"}   what one command changed (leveret.router.entries)
    worker_down   {"index"}                after the last verdict that named the process that has died

Notice from workers:

    applied       {"version"}              the replica is that far
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leveret import refusal
from leveret.auth.users import hash_password
from leveret.link.dial import LinkServer
from leveret.link.link import Link
from leveret.refusal import Refusal
from leveret.router import listing
from leveret.router.commands import COMMANDS, Command, CreateVhost, PutUser, SetPermissions, WorkerGone, from_map
from leveret.router.distributor import Distributor, RouterLink
from leveret.router.entries import SHARDS_ID, Applied, Change, Stored
from leveret.router.ledger import Ledger
from leveret.router.topology import BrokenRecord, Topology
from leveret.storage.environment import ForeignStore, StoreError

if TYPE_CHECKING:
    from leveret.supervisor.child import Child

log = logging.getLogger(__name__)

APPLIED_TIMEOUT_S: Final = 5.0
BARRIER_TIMEOUT_S: Final = 5.0
SNAPSHOT_CHANGES: Final = 2000  # so many to a notice


class Replica:
    """A worker's copy of the topology. applied: the last version that it has said it has; 0: none yet."""

    def __init__(self, link: RouterLink) -> None:
        self.link = link
        self.applied = 0


class Router:
    """Made once, by `main`. Raises `Refusal` if the store cannot be used."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.settings = child.settings
        self.version = 1
        self.replicas: dict[int, Replica] = {}
        self.distributor = Distributor(child.poller, child.settings.workers)
        self.topology = Topology(child.settings.workers, self.distributor, child.settings.queue_leader_locator == "balanced")
        self._applied_waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._process_watches: dict[int, int] = {}  # worker index -> pidfd
        self._listed: dict[str, Any] | None = None
        self._server: LinkServer | None = None
        try:
            self.ledger = Ledger(child.data_dir, child.run_id)
            self.topology.restore(*self.ledger.durable)
            left_out = self.topology.restore(*self.ledger.session, session=True)
        except (StoreError, BrokenRecord) as error:
            code = refusal.DATA if isinstance(error, ForeignStore | BrokenRecord) else refusal.CANNOT_CREATE
            raise Refusal(str(error), code) from error
        corrections = [Stored(record_id, False, None) for record_id in left_out]
        shards = self.topology.shards_record()
        if self.ledger.durable[0].get(SHARDS_ID) != shards.record:
            # Batches are kept in order, so it is on the disk before any queue of a new shard is.
            corrections.append(shards)
        self.ledger.write(corrections, self.topology.next_id)
        # They are in the topology now; kept here they would be in memory twice.
        self.ledger.durable = self.ledger.session = ({}, 0)

    async def make_defaults(self) -> None:
        """On empty storage: the default vhost and the user who may do everything in it, stored before anybody can connect."""
        if self.topology.vhosts:
            return
        user, vhost = self.settings.default_user, self.settings.default_vhost
        commands = (
            CreateVhost(vhost),
            PutUser(user, hash_password(self.settings.default_pass), tags=("administrator",)),
            SetPermissions(user, vhost, ".*", ".*", ".*"),
        )
        # Together, so that they are one batch: all or nothing is there after a kill.
        await asyncio.gather(*[self.apply(command) for command in commands])

    def serve(self) -> None:
        """Listen for links."""
        self._server = LinkServer(self.child.poller, self.child.runtime_dir / "router.sock", self.child.hello, self, RouterLink)

    async def close(self) -> None:
        """Close the links, then the store."""
        if self._server is not None:
            self._server.close()
        for watch in self._process_watches.values():
            self.child.loop.remove_reader(watch)
            os.close(watch)
        await self.ledger.close()

    # --- commands

    def apply(self, command: Command) -> Awaitable[dict[str, Any]]:
        """Carry it out now; the result comes when it is stored and known everywhere. Raises the refusal at once."""
        return self._settled(self.topology.apply(command))

    def _settled(self, applied: Applied) -> Awaitable[dict[str, Any]]:
        if applied.changes:
            self._broadcast(applied.changes)
        if applied.stored:
            self._listed = None
        # Even if nothing changed: an equal declare must not be answered before the one that made the thing.
        return self._answer(applied.result, self.ledger.write(applied.stored, self.topology.next_id), self._known_everywhere())

    async def _answer(
        self, result: dict[str, Any], stored: asyncio.Future[None] | None, known: asyncio.Future[None] | None
    ) -> dict[str, Any]:
        if stored is not None:
            await asyncio.shield(stored)
        if known is not None:
            try:
                async with asyncio.timeout(APPLIED_TIMEOUT_S):
                    await known
            except TimeoutError:
                behind = [str(index) for index, replica in self.replicas.items() if replica.applied < self.version]
                log.warning("answering although worker %s has not taken in the change for %g s", ", ".join(behind), APPLIED_TIMEOUT_S)
        return result

    def _broadcast(self, changes: list[Change]) -> None:
        self.version += 1
        for replica in self.replicas.values():
            replica.link.notify("changes", {"version": self.version, "changes": changes})

    def _known_everywhere(self) -> asyncio.Future[None] | None:
        """A future of the moment when every connected worker has the present version; None: they have."""
        if all(replica.applied >= self.version for replica in self.replicas.values()):
            return None
        if self._applied_waiting and self._applied_waiting[-1][0] == self.version:
            known = self._applied_waiting[-1][1]
        else:
            known = self.child.loop.create_future()
            self._applied_waiting.append((self.version, known))
        return asyncio.shield(known)  # one who gives up does not give up for all

    def _check_known(self) -> None:
        """A replica has gone on, or gone: answer those who waited for it."""
        known = min((replica.applied for replica in self.replicas.values()), default=self.version)
        while self._applied_waiting and self._applied_waiting[0][0] <= known:
            future = self._applied_waiting.popleft()[1]
            if not future.done():
                future.set_result(None)

    # --- links

    def on_link_open(self, link: Link) -> None:
        if link.peer.kind != "worker":
            return
        index = link.peer.index
        if not isinstance(link, RouterLink) or not 0 <= index < self.settings.workers:
            link.close(f"there is no worker {index}")
            return
        if index in self.replicas:
            self.replicas[index].link.close("the worker has opened another link")
        if self.ledger.worker_pids.get(index) != link.peer.pid:
            if index in self.ledger.worker_pids:
                self._worker_ended(index)
            self.ledger.write_worker(index, link.peer.pid)
        if index not in self._process_watches:
            self._watch_process(index, link.peer.pid)
        self.replicas[index] = Replica(link)
        self._send_snapshot(link)
        self.distributor.link_worker(link)
        log.info("linked to worker %d (pid %d)", index, link.peer.pid)

    def _send_snapshot(self, link: RouterLink) -> None:
        changes = self.topology.snapshot()
        part = list(islice(changes, SNAPSHOT_CHANGES))
        while True:
            following = list(islice(changes, SNAPSHOT_CHANGES))
            link.notify(
                "snapshot",
                {
                    "version": self.version,
                    "changes": part,
                    "last": not following,
                    "identity": self.ledger.identity,
                    "shards": self.topology.shards,
                },
            )
            if not following:
                return
            part = following

    def on_link_closed(self, link: Link) -> None:
        if not isinstance(link, RouterLink) or link.peer.kind != "worker" or not self.distributor.unlink_worker(link):
            return
        index = link.peer.index
        del self.replicas[index]
        log.warning("lost the link to worker %d", index)
        for replica in self.replicas.values():
            replica.link.notify("worker_down", {"index": index})
        self._check_known()

    def _watch_process(self, index: int, pid: int) -> None:
        """Hear of the end of the worker's process. A broken link alone does not mean that its clients are gone."""
        try:
            watch = os.pidfd_open(pid)
        except ProcessLookupError:
            self._worker_ended(index)
            return
        self._process_watches[index] = watch
        self.child.loop.add_reader(watch, self._worker_ended, index)

    def _worker_ended(self, index: int) -> None:
        """The process is gone, and with it its clients' connections: their exclusive queues go too."""
        watch = self._process_watches.pop(index, None)
        if watch is not None:
            self.child.loop.remove_reader(watch)
            os.close(watch)
        applied = self.topology.apply(WorkerGone(index))
        if applied.changes:
            log.info("deleted %d exclusive queues of worker %d, which has ended", applied.result["deleted"], index)
            # Nobody waits for this one.
            asyncio.ensure_future(self._settled(applied)).add_done_callback(lambda task: task.cancelled() or task.exception())

    # --- what others ask and tell

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        if verb in COMMANDS:
            return self.apply(from_map(verb, body))
        handler = getattr(self, "_asked_" + verb, None)
        if handler is None:
            raise ValueError(f"unknown request {verb!r}")
        return handler(link, body)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        replica = self.replicas.get(link.peer.index)
        if verb != "applied" or replica is None or replica.link is not link:
            raise ValueError(f"unexpected notice {verb!r}")
        replica.applied = body["version"]
        self._check_known()

    def _asked_topology(self, link: Link, body: Any) -> dict[str, Any]:
        if self._listed is None:
            self._listed = {
                "vhosts": listing.vhosts(self.topology),
                "users": listing.users(self.topology),
                "permissions": listing.permissions(self.topology),
                "exchanges": listing.exchanges(self.topology),
                "queues": listing.queues(self.topology),
                "bindings": listing.bindings(self.topology),
            }
        return self._listed

    def _asked_users(self, link: Link, body: Any) -> dict[str, Any]:
        if link.peer.kind != "management":
            raise ValueError("only management may see password hashes")
        return {
            "users": [{name: value for name, value in user.record().items() if name != "kind"} for user in self.topology.users.values()]
        }

    async def _asked_backup(self, link: Link, body: Any) -> dict[str, Any]:
        if link.peer.kind != "management":
            raise ValueError("only management may ask for a backup")
        return await self.ledger.copy_to(Path(body["directory"]))

    def _asked_statistics(self, link: Link, body: Any) -> dict[str, Any]:
        return self.distributor.statistics() | {"version": self.version}

    async def _asked_barrier(self, link: Link, body: Any) -> dict[str, Any]:
        replica = self.replicas.get(body["worker"])
        if replica is None:
            raise TimeoutError(f"worker {body['worker']} is down")
        await replica.link.request("barrier", {}, timeout_s=BARRIER_TIMEOUT_S)
        return {}


async def main(child: Child) -> None:
    """Serve until the supervisor asks for the end, or until the store fails."""
    router = Router(child)
    try:
        await router.make_defaults()
        router.serve()
        child.ready(vhosts=len(router.topology.vhosts), exchanges=len(router.topology.exchanges), queues=len(router.topology.queues))
        shutdown: asyncio.Future[Any] = asyncio.ensure_future(child.shutdown_requested)
        failed: asyncio.Future[Any] = router.ledger.failed
        await asyncio.wait([shutdown, failed], return_when=asyncio.FIRST_COMPLETED)
        shutdown.cancel()
        if failed.done():
            raise Refusal(f"{failed.result()}; the router starts anew", refusal.TEMPORARY)
    finally:
        await router.close()
