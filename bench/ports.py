"""Spare TCP ports of the loopback address, for the brokers that benches and tests start.

Owns `spare_port`. A node binds its port long after it was chosen, and again after each restart, so a port that is merely free now will not
do: any client's connection may be given it meanwhile, and another process that looks for a port may choose the same. A port from here lies
outside the range of which the system gives to clients, and is given to nobody else who asks here for as long as this process lives.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

LEAST = 10_000
BLOCK = 32  # ports that one process takes at a time
ROOM_MIN = 50 * BLOCK  # fewer ports beside the clients' range than these are not worth to be kept to
TRIES = 1000

_marks: list[socket.socket] = []  # an abstract address for each of our blocks; the system frees them when this process ends


def spare_port() -> int:
    """A TCP port of 127.0.0.1, never given twice. Raises RuntimeError when all blocks are taken."""
    return next(_spare)


def _beside_the_clients() -> range:
    """The ports that the system gives to no client, if there are enough of them."""
    least, most = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if least - LEAST >= ROOM_MIN:
        return range(LEAST, least)
    if 0xFFFF - most >= ROOM_MIN:
        return range(most + 1, 0x10000)
    return range(LEAST, 0x10000)


def _blocks() -> Iterator[range]:
    """Blocks that are ours from now on."""
    ports = _beside_the_clients()
    dice = random.SystemRandom()
    while True:
        for _ in range(TRIES):
            first = ports.start + BLOCK * dice.randrange(len(ports) // BLOCK)
            mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                mark.bind(f"\0leveret-spare-ports-{first}")
            except OSError:  # another process has this block
                mark.close()
                continue
            _marks.append(mark)
            yield range(first, first + BLOCK)
            break
        else:
            raise RuntimeError(f"no block of {BLOCK} ports is free between {ports.start} and {ports.stop}")


def _ports() -> Iterator[int]:
    for block in _blocks():
        for port in block:
            with contextlib.suppress(OSError):  # some other program listens there
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
                yield port


_spare = _ports()
