"""The processes that management asks: a link to the router and to each worker, redialled for ever, and the supervisor's own.

`ask` never raises and never waits longer than `ANSWER_S`: a process that is away, stuck or at odds with the question gives None, and the
page says what is missing instead of hanging with it. `order` is for what must be done, and waits. What processes tell unasked does not
concern management.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leveret.codec.errors import AmqpError
from leveret.link.dial import Dialler
from leveret.link.link import Hello, Link, LinkClosed, RequestFailed
from leveret.link.poller import Poller
from leveret.management.answers import Answer
from leveret.management.problem import Problem

log = logging.getLogger(__name__)

ANSWER_S = 4.0  # a worker on a machine with too few cores may need some of it, and is no process to call silent; under a sampling interval


class Peers:
    """Links to the processes of one node. `workers` has every index that the node runs."""

    def __init__(self, poller: Poller, runtime_dir: Path, workers: int, hello: Hello, supervisor: Link) -> None:
        self.workers: Sequence[int] = range(workers)
        self._supervisor = supervisor
        self._silent: set[tuple[str, int, str]] = set()
        receiver = _Deaf()
        self._router = Dialler(poller, runtime_dir / "router.sock", hello, receiver)
        self._workers = [Dialler(poller, runtime_dir / f"worker-{index}.sock", hello, receiver) for index in self.workers]

    @property
    def worker_count(self) -> int:
        return len(self.workers)

    async def ask(self, kind: str, index: int, verb: str) -> Answer | None:
        """The answer of one process (`router`, `worker`, `supervisor`) to `verb`, or None when none comes in time."""
        link = self._link(kind, index)
        answer, why = None, "there is no link"
        if link is not None:
            try:
                answer = await link.request(verb, {}, ANSWER_S)
                why = f"it was {type(answer).__name__}, not a map"
            except (LinkClosed, RequestFailed, AmqpError, TimeoutError) as error:
                why = str(error) or type(error).__name__
        if isinstance(answer, dict):
            if (kind, index, verb) in self._silent:
                self._silent.remove((kind, index, verb))
                log.info("%s %d answers %r again", kind, index, verb)
            return answer
        if (kind, index, verb) not in self._silent:  # pages ask often; one line tells it all
            self._silent.add((kind, index, verb))
            log.warning("no answer from %s %d to %r: %s", kind, index, verb, why)
        return None

    async def order(self, kind: str, index: int, verb: str, body: Mapping[str, Any]) -> Answer:
        """The answer to a request that may take as long as it takes. Raises `Problem`: 503 when the process is away or goes away meanwhile,
        500 when it fails over it, 400 with the words of an answer that is {"refused": words}.
        """
        name = f"{kind}-{index}" if kind == "worker" else kind
        link = self._link(kind, index)
        if link is None:
            raise Problem(503, "service_unavailable", f"the {name} process does not answer")
        try:
            answer = await link.request(verb, body)
        except LinkClosed:
            raise Problem(503, "service_unavailable", f"the {name} process went away") from None
        except (RequestFailed, AmqpError) as error:
            log.error("%s failed over %r: %s", name, verb, error)
            raise Problem(500, "internal_error", f"the {name} process failed over it; its log tells why") from None
        if "refused" in answer:
            raise Problem(400, "bad_request", str(answer["refused"]))
        return dict(answer)

    def _link(self, kind: str, index: int) -> Link | None:
        if kind == "worker":
            return self._workers[index].link
        return self._router.link if kind == "router" else self._supervisor

    async def opened(self) -> None:
        """Return when all links are open, or after `ANSWER_S`: the first pages should not miss processes that are only being dialled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                for dialler in (self._router, *self._workers):
                    await dialler.is_open.wait()

    def close(self) -> None:
        """Stop dialling and close the links (the supervisor's is its owner's)."""
        for dialler in (self._router, *self._workers):
            dialler.close()


class _Deaf:
    """Receives for links on which management only asks: it answers nothing, and passes over what is told to everybody."""

    def on_link_open(self, link: Link) -> None: ...

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        raise ValueError(f"management answers no requests, and was asked for {verb!r}")

    def on_notice(self, link: Link, verb: str, body: Any) -> None: ...

    def on_link_closed(self, link: Link) -> None: ...
