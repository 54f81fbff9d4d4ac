"""The node's listening sockets, made once by the supervisor and inherited by the children that accept on them.

They live as long as the node, so a worker or the management process that dies loses no client that is waiting to be accepted. Nothing is
accepted here. A port that is taken or an address that is not ours becomes one sentence.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from leveret.refusal import CONFIG, NO_PERMISSION, UNAVAILABLE, Refusal

CONTROL_BACKLOG = 128


def tcp_listener(host: str, port: int, backlog: int, flag: str) -> socket.socket:
    """A listening, non-blocking TCP socket. `flag` ("--port") names in errors what the user should change.

    "::" is every address of both families, or every IPv4 address where the kernel has no IPv6. A name stands for its first address, IPv4
    before IPv6. Raises `Refusal`.
    """
    family, address = _resolve(host, port)
    try:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        if host != "::" or error.errno != errno.EAFNOSUPPORT:
            raise Refusal(f"cannot listen on {shown(host, port)}: {error.strerror}", UNAVAILABLE) from None
        family, address = socket.AF_INET, ("0.0.0.0", port)
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is accepted here inherits it: else an answer right after another waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        try:
            listener.bind(address)
        except OSError as error:
            # IPv6 compiled in but switched off (a common container): "::" still means every address there is.
            if host != "::" or family != socket.AF_INET6 or error.errno != errno.EADDRNOTAVAIL:
                raise
            listener.close()
            return tcp_listener("0.0.0.0", port, backlog, flag)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, flag, error) from None
    return listener


def control_listener(path: Path) -> socket.socket:
    """The Unix socket on which the command line reaches the HTTP API. Only the node's own user gets to it (folder 0700, socket 0600)."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(CONTROL_BACKLOG)
    except OSError as error:
        listener.close()
        raise Refusal(f"cannot make the control socket {path}: {error.strerror}", UNAVAILABLE) from None
    return listener


def shown(host: str, port: int) -> str:
    """host:port as people and URLs write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def local_port(listener: socket.socket) -> int:
    """The port that was bound, which tells what port 0 became."""
    return int(listener.getsockname()[1])


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise Refusal(f"cannot listen on {shown(host, port)}: {reason}", CONFIG) from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _type, _protocol, _name, address = found[0]
    return family, (str(address[0]), port)


def _refusal(host: str, port: int, flag: str, error: OSError) -> Refusal:
    where = shown(host, port)
    if error.errno == errno.EADDRINUSE:
        return Refusal(f"port {port} is in use by another program (wanted {where}); choose another with {flag}", UNAVAILABLE)
    if error.errno == errno.EACCES:
        return Refusal(f"not allowed to listen on {where}; ports below 1024 need a privilege, choose another with {flag}", NO_PERMISSION)
    if error.errno == errno.EADDRNOTAVAIL:
        return Refusal(f"cannot listen on {where}: this machine has no such address", CONFIG)
    return Refusal(f"cannot listen on {where}: {error.strerror}", UNAVAILABLE)
