"""The HTTP server: uvicorn on sockets that the supervisor made, with bounds on what a client may hold.

One `HttpServer` a listener. It adds two things that uvicorn leaves out: a client that does not finish a request's head in time is cut off,
and signals are not its business (`__main__` decides when to end). And it takes one out: uvicorn's look, ten times a second, whether to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 512
HEAD_BYTES_MAX = 64 * 1024
HEAD_S = 10.0  # from the connection's opening, or the first byte, to the end of a request's head
KEEP_ALIVE_S = 30
END_S = 2
DATE_S = 1.0  # how old an answer's Date header may be


class PromptProtocol(H11Protocol):
    """A connection whose client has `HEAD_S` seconds for each request's head, so that slow ones cannot use up `CONNECTIONS_MAX`."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._cancel_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """As uvicorn's, which wakes up ten times a second to see whether it shall end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), DATE_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves one application on given listening sockets, from `run` until `end`."""

    def __init__(self, application: ASGIApp, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        options: dict[str, Any] = {
            "http": PromptProtocol,
            "ws": "none",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,  # a header must not make a client local
            "limit_concurrency": CONNECTIONS_MAX,
            "h11_max_incomplete_event_size": HEAD_BYTES_MAX,
            "timeout_keep_alive": KEEP_ALIVE_S,
            "timeout_graceful_shutdown": END_S,
        }
        self._server = _Server(uvicorn.Config(application, **options))

    async def run(self) -> None:
        """Serve until `end` is called and what was under way is answered, or `END_S` seconds have passed."""
        await self._server.serve(sockets=self._sockets)

    def end(self) -> None:
        self._server.end()
