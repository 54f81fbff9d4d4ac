"""SASL mechanisms: from what a client answers at login to the user it is.

One function a mechanism, in one table; a worker's session looks the client's choice up and calls it. A new one (EXTERNAL, by a TLS
certificate's name, or a token) is one more row: it gets the same `Login`. Nothing here touches a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from leveret.auth.users import User, Users
from leveret.codec.errors import AmqpError, CommandSyntaxError, quoted_bytes
from leveret.codec.tables import decode_table


@dataclass(frozen=True, slots=True)
class Login:
    """An attempt. peer_address: of the socket, "" for a Unix socket; anonymous_user: whom ANONYMOUS logs in as, "" when it is off."""

    mechanism: str
    response: bytes
    peer_address: str
    anonymous_user: str = ""


def plain_credentials(response: bytes) -> tuple[str, str]:
    """User and password of a PLAIN response, `[authorization id] NUL user NUL password` (RFC 4616). Raises `CommandSyntaxError`."""
    parts = response.split(b"\0")
    if len(parts) != 3:
        # The response may hold a password: the text shows none of it.
        raise CommandSyntaxError(f"response {quoted_bytes(b'')} invalid")
    try:
        return parts[1].decode(), parts[2].decode()
    except UnicodeDecodeError as error:
        raise CommandSyntaxError("user and password must be UTF-8") from error


def amqplain_credentials(response: bytes) -> tuple[str, str]:
    """User and password of an AMQPLAIN response: a field table without its length, with LOGIN and PASSWORD. Raises `CommandSyntaxError`."""
    try:
        table = decode_table(len(response).to_bytes(4, "big") + response)
    except AmqpError as error:
        raise CommandSyntaxError("AMQPLAIN auth info in wrong format") from error
    login, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(login, str) or not isinstance(password, str):
        raise CommandSyntaxError("AMQPLAIN auth info has no LOGIN or PASSWORD")
    return login, password


def _plain(users: Users, login: Login) -> User:
    return users.authenticate(*plain_credentials(login.response), login.peer_address, login.mechanism)


def _amqplain(users: Users, login: Login) -> User:
    return users.authenticate(*amqplain_credentials(login.response), login.peer_address, login.mechanism)


def _anonymous(users: Users, login: Login) -> User:
    """No questions asked (RFC 4505): only if an operator has named the user, and from where that user may come."""
    return users.trust(login.anonymous_user, login.peer_address, login.mechanism)


MECHANISMS: Final[Mapping[str, Callable[[Users, Login], User]]] = {
    "PLAIN": _plain,
    "AMQPLAIN": _amqplain,
    "ANONYMOUS": _anonymous,
}


def offered(anonymous_user: str) -> tuple[str, ...]:
    """The mechanisms that connection.start names, in the order in which clients should try them."""
    return tuple(name for name in MECHANISMS if name != "ANONYMOUS" or anonymous_user)


def authenticate(users: Users, login: Login) -> User:
    """The user. `login.mechanism` is one of those offered. Raises `AccessRefused` (403) or `CommandSyntaxError` (502)."""
    return MECHANISMS[login.mechanism](users, login)


def shown_name(login: Login) -> str:
    """The user name of an attempt that failed, for the log; never anything of a password."""
    try:
        if login.mechanism == "PLAIN":
            return plain_credentials(login.response)[0]
        if login.mechanism == "AMQPLAIN":
            return amqplain_credentials(login.response)[0]
    except AmqpError:
        return "?"
    return login.anonymous_user
