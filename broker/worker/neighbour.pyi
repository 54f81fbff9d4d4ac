import socket
from typing import Any

from leveret.link.dial import Receiver
from leveret.link.link import Hello, Link
from leveret.link.poller import Ending, Poller
from leveret.worker.state import WorkerState

class Neighbour(Ending):
    kind: str
    index: int
    link: WorkerLink | None
    def __init__(self, state: WorkerState, kind: str, index: int) -> None: ...
    def link_opened(self, link: Link) -> None: ...
    def link_closed(self) -> None: ...
    def statistics(self) -> dict[str, Any]: ...

class WorkerLink(Link):
    def __init__(self, state: WorkerState, poller: Poller, sock: socket.socket, hello: Hello, receiver: Receiver) -> None: ...
