import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from leveret.link.dial import Receiver
from leveret.link.poller import Poller
from leveret.link.stream import Stream

@dataclass(frozen=True, slots=True)
class Hello:
    kind: str
    index: int
    pid: int
    version: int = ...

class LinkClosed(Exception): ...
class RequestFailed(Exception): ...

class Link(Stream):
    hello: Hello
    peer: Hello
    receiver: Receiver
    opened: asyncio.Future[Hello]
    packets_in: int
    packets_out: int
    def __init__(self, poller: Poller, sock: socket.socket, hello: Hello, receiver: Receiver) -> None: ...
    async def request(self, verb: str, body: Any = None, timeout_s: float | None = None) -> Any: ...
    def ask(self, verb: str, body: Any = None) -> asyncio.Future[Any]: ...
    def notify(self, verb: str, body: Any = None) -> None: ...
