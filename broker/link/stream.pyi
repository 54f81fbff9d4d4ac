import socket

from leveret.link.poller import Poller

class Stream:
    poller: Poller
    fd: int
    received_bytes: int
    sent_bytes: int
    received_count: int
    sent_count: int
    received_at_ms: int
    sent_at_ms: int
    def __init__(self, poller: Poller, sock: socket.socket | int) -> None: ...
    @property
    def unsent_bytes(self) -> int: ...
    @property
    def is_congested(self) -> bool: ...
    @property
    def is_closed(self) -> bool: ...
    def close_after_flush(self) -> int: ...
    def close(self, reason: str) -> int: ...

def socket_pair() -> tuple[socket.socket, socket.socket]: ...
