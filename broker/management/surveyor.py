"""Who takes the pictures: asks all processes at once, for a request or for the next sample of the history.

One `Surveyor` lives in the process. It bounds what pages cost the node: requests that come while a round of questions runs wait for the
next one together, so there is never more than one round under way, and no answer is older than the request it is for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from leveret.auth.users import User, Users
from leveret.config import Settings
from leveret.management.answers import Answer, Answers
from leveret.management.history import History
from leveret.management.survey import Survey, counters_of

log = logging.getLogger(__name__)


class Asks(Protocol):
    """The processes of the node (`leveret.management.peers`)."""

    @property
    def workers(self) -> Sequence[int]: ...

    async def ask(self, kind: str, index: int, verb: str) -> Answer | None: ...


def users_of(answer: Answer) -> Users:
    """The router's users, as logins are checked against."""
    users = Users()
    for user in answer["users"]:
        users.put(User(user["name"], user["password_hash"], user["hashing_algorithm"], frozenset(user["tags"])))
    return users


class Surveyor:
    """Takes surveys of the node behind `peers`.

    `users` are who may log in: the router's at the last sample, and None before the first. They are kept here so that strangers cannot make
    us ask the whole node.
    """

    def __init__(self, peers: Asks, settings: Settings) -> None:
        self._peers = peers
        self._settings = settings
        self._history = History(settings.statistics_interval_ms / 1000)
        self._topology: Answer = {}
        self.users: Users | None = None
        self._under_way: asyncio.Task[Survey] | None = None
        self._next: asyncio.Task[Survey] | None = None

    async def survey(self) -> Survey:
        """A picture taken after this call."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._take(self._under_way))
        return await asyncio.shield(self._next)

    async def sample_for_ever(self) -> None:
        """Record a sample at each interval, until cancelled."""
        interval_s = self._settings.statistics_interval_ms / 1000
        while True:
            begun_s = time.monotonic()
            try:
                await self.sample()
            except Exception:  # a bug in one sample is logged whole; without the later ones all rates would stand still for good
                log.exception("a sample failed")
            await asyncio.sleep(max(0.0, begun_s + interval_s - time.monotonic()))

    async def sample(self) -> None:
        """Learn the users anew, take a picture and record its counters."""
        await self.learn_users()
        answers = (await self.survey()).answers
        self._history.record(answers.clock_s, counters_of(answers))

    async def learn_users(self) -> Users | None:
        """Ask the router who may log in. When it does not answer, those that it named before may; None if it never has."""
        answer = await self._peers.ask("router", 0, "users")
        if answer is not None:
            self.users = users_of(answer)
        return self.users

    async def _take(self, before: asyncio.Task[Survey] | None) -> Survey:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._under_way, self._next = self._next, None
        ask, workers = self._peers.ask, self._peers.workers
        topology, router, node, *statistics = await asyncio.gather(
            ask("router", 0, "topology"),
            ask("router", 0, "statistics"),
            ask("supervisor", 0, "node"),
            *(ask("worker", index, "statistics") for index in workers),
        )
        if topology is not None:
            self._topology = topology
        answers = Answers(
            taken_at_s=time.time(),
            clock_s=time.monotonic(),
            topology=self._topology,
            router_running=topology is not None,
            router=router,
            workers=dict(zip(workers, statistics, strict=True)),
            node=node,
        )
        return Survey(answers, self._history, self._settings)
