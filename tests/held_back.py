"""A publisher that the memory alarm holds back: publishes to a node until it is read no more.

Memory is looked at some times a second, and a client may send a gigabyte in one: whoever only publishes until a write blocks finds out
how quick both were. So once there is enough for the alarm, `fill_until_held_back` waits for it. Tests set the node's watermark.
"""

from __future__ import annotations

import select
import socket

from tests.deadline import WITHIN_S, eventually
from tests.node import Node
from tests.wire import WireClient, publish_bytes

MIB = 1024 * 1024
IN_SOCKETS_MAX = 24 * MIB  # of what was sent, whatever their buffers hold


def memory_alarm(node: Node) -> bool:
    """Whether the node says that it is on."""
    return bool(node.api("nodes")[0]["mem_alarm"])


def fill_until_held_back(node: Node, publisher: WireClient, queue: str, body: bytes, room_bytes: int) -> tuple[int, bytes]:
    """Publish until the alarm is on and the broker reads no more; gives the number of bytes sent and the rest of the publish begun.

    room_bytes: from what the node uses to its watermark. `AssertionError` when no alarm comes, or the publisher is read in spite of it.
    """
    data = publish_bytes(1, "", queue, body)
    sent = 0
    publisher.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    publisher.socket.setblocking(False)
    view = memoryview(data)
    waited = False
    while True:
        if sent > room_bytes + IN_SOCKETS_MAX and not waited:
            waited = eventually(lambda: memory_alarm(node), what="the alarm")
        assert sent < room_bytes + 160 * MIB, f"{sent} bytes sent and still read"
        _, writable, _ = select.select([], [publisher.socket], [], 1.0)
        if not writable:
            if memory_alarm(node):
                break
            continue  # it has not come to read for a second, for want of a processor
        try:
            wrote = publisher.socket.send(view)
        except BlockingIOError:
            continue
        sent += wrote
        view = view[wrote:] or memoryview(data)
    publisher.socket.setblocking(True)
    publisher.socket.settimeout(WITHIN_S)
    return sent, bytes(view) if len(view) < len(data) else b""
