"""The loop: asyncio with our poller in the place of its selector. Workers and the router run in one.

It owns nothing but the seam: the poller waits for sockets of streams and for the loop's own descriptors in one epoll set, serves the
streams itself, in C, and comes back to asyncio only when that has something to do: a descriptor of its own is ready, a timer is due, or
somebody has asked for a call. A turn with one message in it is then one wait, one read and perhaps one write, with no Python between.

Other processes nest a poller in whatever loop they have (`leveret.link.poller.running_poller`), which costs a second wait and the loop's
own round for each turn.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from typing import Any, TypeVarTuple

from leveret.link.poller import Poller

Calls = TypeVarTuple("Calls")  # a callback's arguments


class Keys(Mapping[Any, selectors.SelectorKey]):
    """What is registered, found by a descriptor's number or by an object that has one. `by_fd` is the table itself."""

    def __init__(self) -> None:
        self.by_fd: dict[int, selectors.SelectorKey] = {}

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self.by_fd[descriptor_of(fileobj)]

    def __len__(self) -> int:
        return len(self.by_fd)

    def __iter__(self) -> Iterator[Any]:
        return (key.fileobj for key in self.by_fd.values())


def descriptor_of(fileobj: Any) -> int:
    """Raises ValueError for what is neither a number nor has one."""
    if isinstance(fileobj, int):
        return fileobj
    try:
        return int(fileobj.fileno())
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{fileobj!r} has no descriptor") from error


class PollerSelector(selectors.BaseSelector):
    """What asyncio asks of a selector, answered by a poller's epoll set."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._keys = Keys()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Raises KeyError if it is there already."""
        fd = descriptor_of(fileobj)
        if fd in self._keys.by_fd:
            raise KeyError(f"descriptor {fd} is registered already")
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._poller.watch(fd, events)
        self._keys.by_fd[fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Raises KeyError if it is not there."""
        key = self._keys.by_fd.pop(descriptor_of(fileobj))
        self._poller.unwatch(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Serve streams until asyncio has something to do, for `timeout` seconds at most (None: for ever; 0 and less: one look)."""
        # A key may have gone since: a stream's work within the same turn can remove a reader.
        keys = self._keys.by_fd
        return [(key, events & key.events) for fd, events in self._poller.wait(timeout) if (key := keys.get(fd)) is not None]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._keys.by_fd.clear()
        self._poller.end()


class PollerLoop(asyncio.SelectorEventLoop):
    """An asyncio loop driven by `poller`, which is its own."""

    def __init__(self) -> None:
        self.poller = Poller(self)
        super().__init__(PollerSelector(self.poller))

    # All ways by which work gets into an asyncio loop end in one of these two, or in a descriptor that becomes readable.

    def call_soon(self, callback: Callable[[*Calls], object], *args: *Calls, context: Context | None = None) -> asyncio.Handle:
        """As asyncio's, and the poller comes back at the end of its turn."""
        self.poller.woken = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Calls], object], *args: *Calls, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; the poller has to be told anew how long it may wait."""
        self.poller.woken = True
        return super().call_at(when, callback, *args, context=context)
