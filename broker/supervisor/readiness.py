"""Telling systemd (or whoever set `NOTIFY_SOCKET`) that the node is ready, stopping, or what it is at.

One datagram per call, as sd_notify(3) describes; nothing happens where the variable is not set, and a socket that is gone is no reason to
stop a broker. The supervisor alone calls it, so a unit needs no `NotifyAccess=all`.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(**assignments: str | int) -> None:
    """Send assignments such as `READY=1, STATUS="…"`; each value is one line."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    message = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in assignments.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
        try:
            line.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            log.warning("could not tell the service manager: %s", error)
