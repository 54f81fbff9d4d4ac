"""What the link tests stand on: a poller in an event loop, and receivers that write down what they hear.

Owns `run`, the loop's life for one test, and `Journal`, a list that can be waited for. Both ends of a link live in the same loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop
from leveret.link.link import Hello, Link
from leveret.link.poller import Poller, running_poller
from leveret.link.stream import socket_pair
from tests.link.recording_link import RecordingLink

WITHIN_S = 30.0

WORKER = Hello("worker", 1, 4321)
ROUTER = Hello("router", 0, 1234)


new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop  # the tests of this folder run on both kinds, see conftest


def run(main: Callable[[Poller], Awaitable[None]], bugs: Sequence[type[Exception]] = ()) -> None:
    """Run a test's `main(poller)` in a loop of its own, for 30 s at most. What is reported to the loop must be `bugs`, in order."""
    reported: list[type[BaseException] | str] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        reported.append(type(context["exception"]) if "exception" in context else context["message"])

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(note)
        poller = running_poller()
        try:
            await asyncio.wait_for(main(poller), WITHIN_S)
        finally:
            poller.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(bounded())
    assert reported == list(bugs)


class Journal:
    """A receiver: notes what happens to its links as (event, facts…), in order. `answers` are its answers to requests, by verb."""

    def __init__(self, **answers: Callable[[Any], Any]) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.links: list[Link] = []
        self._answers = answers
        self._changed = asyncio.Event()

    def note(self, link: Link, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, is_so: Callable[[], Any]) -> None:
        """Wait until `is_so()`; it is asked again after each event."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    async def heard(self, *event: Any) -> None:
        """Wait for an event that begins so."""
        await self.until(lambda: any(found[: len(event)] == event for found in self.events))

    def of(self, event: str) -> list[tuple[Any, ...]]:
        """The facts of all events of that name."""
        return [found[1:] for found in self.events if found[0] == event]

    def on_link_open(self, link: Link) -> None:
        self.links.append(link)
        self.note(link, "open", link.peer)

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        self.note(link, "request", verb, body)
        return self._answers[verb](body)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        self.note(link, "notice", verb, body)

    def on_link_closed(self, link: Link) -> None:
        self.note(link, "closed")


async def linked(poller: Poller, ours: Journal, theirs: Journal) -> tuple[RecordingLink, RecordingLink]:
    """The two ends of an open link: a worker's and a router's."""
    one, other = socket_pair()
    ends = RecordingLink(poller, one, WORKER, ours), RecordingLink(poller, other, ROUTER, theirs)
    for end in ends:
        await end.opened
    return ends
