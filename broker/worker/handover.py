"""The hand-over: a client's connection moves to the worker that has the queues it uses.

One `Handover` lives in each worker. A connection asks it (`consider`, from `Connection.weigh_far`) when its latest messages all had to do
with one other worker's queues and the way there is what they cost. If nothing ties it to this worker and the other has time for it, it is
stood still, and when nothing of it is under way its socket (over the acceptor's line) and its state (`leveret.worker.luggage`, over the
link) go together. The client notices nothing. It never moves a queue or a message, and never closes a connection for being in the wrong
place.

What keeps order: the state follows on the link all that the connection has sent to that worker's queues. What it has sent through the
router, or straight to third workers, has passed a barrier before. What that worker has sent to its consumers has come, because they are
held there first.

What may go wrong: the other worker refuses, or its line is full: the connection stays, for a while. The link closes before the answer: the
other may or may not have begun to serve the client, so the socket is ended, as it would be if the client had been there when that worker
died. We die: if the other has been given all, the client does not even notice; else its socket ends with us.

It moves rarely: after each move twice as long as before passes until the next, and a worker takes only so many a second, because how busy
it is shows only then. A worker that is busy, and busier than ours, is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from typing import TYPE_CHECKING, Any

from leveret.link.link import LinkClosed, RequestFailed
from leveret.worker import luggage
from leveret.worker.connection import Connection
from leveret.worker.session import Session

if TYPE_CHECKING:
    from leveret.link.link import Link
    from leveret.worker.worker import Worker

log = logging.getLogger(__name__)

SHARE_MIN = 0.9  # of its messages since the last look that had to do with other workers' queues
BUSY_MAX_PERCENT = 80  # a worker that is busier, and busier than ours, is not sent any
UNEVEN_MAX = 32  # connections more than twice as many as ours
TAKEN_MAX = 8  # connections that a worker takes between two measures of how busy it is
QUIET_TRIES = 50  # how often to look whether nothing is under way any more ...
QUIET_PAUSE_S = 0.001  # ... and how long between two looks
BARRIER_TIMEOUT_S = 1.0
MOVES_MAX = 8
STAY_MS = 10_000  # after the first move; doubled with each
TIED_MS = 5_000  # before the next look at a connection that had to stay
NOT_NOW_MS = 1_000  # ... because something was under way; doubled with each attempt in a row, each of which may cost it 50 ms
DOUBLINGS_MAX = 6
FAR_LIMIT_NEVER = 0xFFFFFFFF


class Handover:
    """`mode`: as the option `connection_handover` says; "always" moves whatever can move, at once and again and again."""

    def __init__(self, worker: Worker, mode: str) -> None:
        self._worker = worker
        self._mode = mode
        self._last_token = 0
        self._taken = 0  # since the last measure
        self._used_s = used_s()
        self._measured_at_s = worker.child.loop.time()
        self.moved = 0  # connections that went to another worker
        self.arrived = 0  # ... that came from one

    # --- how busy we are

    def measure(self) -> None:
        """Once a second: how busy we are, for the others to know."""
        now_s, used = self._worker.child.loop.time(), used_s()
        percent = min(100, round(100 * (used - self._used_s) / max(0.001, now_s - self._measured_at_s)))
        self._used_s, self._measured_at_s = used, now_s
        self._taken = 0
        self._worker.loads.set_busy_percent(percent)

    def _has_time(self, home: int) -> bool:
        loads = self._worker.loads
        busy = loads.busy_percent(home)
        even = loads.connections(home) <= 2 * len(self._worker.connections) + UNEVEN_MAX
        return even and (busy <= BUSY_MAX_PERCENT or busy <= loads.busy_percent(self._worker.index))

    # --- out

    def watch(self, connection: Connection) -> None:
        """A connection begins here: how closely it is to count."""
        if self._mode == "off":
            connection.far_limit = FAR_LIMIT_NEVER
        elif self._mode == "always":
            connection.far_limit = 1

    def consider(self, connection: Connection, home: int) -> None:
        """The connection's latest messages had to do with queues of worker `home` only. Called from within a frame: nothing ends here."""
        neighbour = self._worker.state.workers[home]
        far, count = connection.far_and_all()
        lives_there = far - connection.far_at_look >= SHARE_MIN * (count - connection.all_at_look)
        if neighbour is None or neighbour.link is None:
            self._stays(connection, TIED_MS)
        elif self._mode != "always" and not (lives_there and connection.moves < MOVES_MAX and self._has_time(home)):
            self._stays(connection, NOT_NOW_MS)
        elif tie := luggage.obstacle(connection, home):
            log.debug("%s stays: %s", connection.name, tie)
            self._stays(connection, TIED_MS)
        else:
            connection.stand_still()
            self._worker.spawn(self._move(connection, home))
        connection.far_at_look, connection.all_at_look = far, count

    def _stays(self, connection: Connection, for_ms: int) -> None:
        if self._mode != "always":
            connection.stays_until_ms = self._now_ms() + for_ms

    def _now_ms(self) -> int:
        return int(self._worker.child.loop.time() * 1000)

    async def _move(self, connection: Connection, home: int) -> None:
        link = self._worker.state.workers[home].link
        held: list[tuple[int, int]] = []
        answer: dict[str, Any] = {"refused": "something was under way"}
        try:
            if link is not None and await self._is_quiet(connection) and not luggage.obstacle(connection, home):
                held = luggage.far_consumers(connection)
                await self._pass_barriers(connection, home, link, [handle for _home, handle in held])
                # A consumer that was attached anew meanwhile is not held: a message for it may be on its way.
                if (
                    await self._is_quiet(connection)
                    and not luggage.obstacle(connection, home)
                    and held == luggage.far_consumers(connection)
                ):
                    answer = await self._send(connection, home, link)
        except (TimeoutError, RequestFailed, LinkClosed) as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
        if connection.is_closed or answer.get("ended"):
            return
        if "refused" not in answer:
            log.info("passed connection %s on to worker %d, whose queues it uses", connection.name, home)
            self.moved += 1
            luggage.leave_behind(connection)
            self._worker.connection_left(connection)
            return
        log.debug("%s stays: %s", connection.name, answer["refused"])
        self._stays(connection, NOT_NOW_MS << min(connection.stays, DOUBLINGS_MAX))
        connection.stays += 1
        self._go_on(connection, [handle for _home, handle in held])

    async def _is_quiet(self, connection: Connection) -> bool:
        """Wait until nothing of it is under way, for 50 ms or so: its confirms, and output that its client has still to take."""
        for _ in range(QUIET_TRIES):
            if luggage.is_quiet(connection):
                return True
            if connection.is_closed:
                return False
            await asyncio.sleep(QUIET_PAUSE_S)
        return False

    async def _pass_barriers(self, connection: Connection, home: int, link: Link, handles: list[int]) -> None:
        """All that it has sent by other ways is in the queues, and what queues have sent to its consumers is here. Raises as links do."""
        state = self._worker.state
        waits = [link.ask("hold", {"handle": handle}) for handle in handles]
        if any(channel.routed for channel in connection.all_channels()):
            if state.router.link is None:
                raise TimeoutError("the router is away")
            waits.append(state.router.link.ask("barrier", {"worker": home}))
        for other in state.workers:
            if other is not None and other.index != home and connection.far_workers >> other.index & 1:
                if other.link is None:
                    raise TimeoutError(f"{other} is away")
                waits.append(other.link.ask("barrier"))
        if waits:
            async with asyncio.timeout(BARRIER_TIMEOUT_S):
                await asyncio.gather(*waits)

    async def _send(self, connection: Connection, home: int, link: Link) -> dict[str, Any]:
        """Send socket and state. {}: it is there; `refused`: it is still ours; `ended`: nobody knows, so the client's socket is ended."""
        try:
            packed = luggage.pack(connection)
        except (TypeError, ValueError) as error:
            connection.moves = MOVES_MAX
            return {"refused": f"its state cannot be written: {error}"}
        self._last_token += 1
        if not self._worker.acceptor.send_traveller(connection.fd, home, self._last_token):
            return {"refused": "the line is full"}
        # From here on nothing may be written to the socket: the other's bytes could be in the middle of a frame.
        connection.travelling = True
        self._worker.heartbeats.remove(connection)
        try:
            answer: dict[str, Any] = await link.request("take_over", {"token": self._last_token, "luggage": packed})
        except (LinkClosed, RequestFailed) as error:
            log.warning("lost connection %s on its way to worker %d: %s", connection.name, home, error)
            end_socket(connection.fd)
            connection.close(f"worker {home} was lost")
            return {"ended": True}
        return answer

    def _go_on(self, connection: Connection, held: list[int]) -> None:
        """It stays; everything goes on as before. `held`: its consumers that were, by handle."""
        had_left = connection.travelling
        connection.go_on()
        interval_s = connection.session.heartbeat_s
        if interval_s and not connection.closed:
            self._worker.heartbeats.remove(connection)
            self._worker.heartbeats.add(connection, interval_s)
        for channel in connection.all_channels():
            for subscription in list(channel.consumers.values()):
                if subscription.owner is None:
                    continue
                if had_left and not subscription.handle:  # its queue was deleted on the way, and nobody has been told
                    self._worker.cancelled_by_server(subscription)
                elif subscription.handle in held and not channel.flow_stopped and subscription.owner.link is not None:
                    subscription.owner.link.notify("go_on", {"handle": subscription.handle})

    # --- in

    def take(self, link: Link, body: dict[str, Any]) -> dict[str, Any]:
        """A connection comes from another worker: {} when it is ours now, `refused` with the reason when it is not."""
        packed = body["luggage"]
        descriptor = self._worker.acceptor.claim(link.peer.index, body["token"])
        if descriptor is None:
            return {"refused": "its socket has not come"}
        refusal = self._refusal(packed)
        if not refusal:
            try:
                session = Session(descriptor)
            except OSError as error:
                refusal = f"its client has gone: {error.strerror}"
        if refusal:
            os.close(descriptor)
            return {"refused": refusal}
        self._taken += 1
        self.arrived += 1
        worker = self._worker
        connection = Connection(worker.child.poller, descriptor, worker, session, session.name, owner=packed["owner"])
        try:
            self._settle_in(connection, packed)
        except Exception:
            # A bug. What its consumers hold is here already, so it cannot go back.
            log.exception("could not take over connection %s", session.name)
            end_socket(connection.fd)
            connection.close("it could not be taken over")
        return {}

    def _refusal(self, packed: dict[str, Any]) -> str:
        if packed["version"] != luggage.LUGGAGE_VERSION:
            return f"state of version {packed['version']}"
        if self._worker.child.is_shutting_down:
            return "the broker is stopping"
        if self._taken >= TAKEN_MAX and self._mode != "always":
            return "enough have come for now"
        if packed["vhost"] not in self._worker.directory.vhosts:
            return "its virtual host is not known"
        return ""

    def _settle_in(self, connection: Connection, packed: dict[str, Any]) -> None:
        worker = self._worker
        self.watch(connection)
        worker.connections.add(connection)
        luggage.unpack(connection, worker.directory.vhosts[packed["vhost"]], packed)
        if self._mode != "always":
            connection.stays_until_ms = self._now_ms() + (STAY_MS << connection.moves - 1)
        if connection.session.heartbeat_s:
            worker.heartbeats.add(connection, connection.session.heartbeat_s)
        connection.alarm_changed()
        for subscription in luggage.take_seats(connection, packed["channels"]):
            worker.cancelled_by_server(subscription)
        luggage.read_on(connection)
        worker.loads.set_connections(len(worker.connections))


def used_s() -> float:
    """CPU time of this process in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def end_socket(descriptor: int) -> None:
    """End the client's connection for whoever has a descriptor of it."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended already
        pass
