"""Users: their passwords, tags and where they may come from.

A worker keeps a `Users` filled from the router's changes and asks it at each login; the router and management use `hash_password` when they
make a user. Nothing here stores anything or looks at a socket: the peer's address comes in with the question.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from leveret.codec.errors import AccessRefused

SALT_BYTES: Final = 4
DEFAULT_HASHING: Final = "rabbit_password_hashing_sha256"
TAGS: Final = frozenset({"administrator", "monitoring", "policymaker", "management", "impersonator"})

# RabbitMQ's names of the algorithms, as exported definitions carry them. MD5 only comes with users imported from very old nodes.
_DIGESTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "rabbit_password_hashing_sha256": lambda data: hashlib.sha256(data).digest(),
    "rabbit_password_hashing_sha512": lambda data: hashlib.sha512(data).digest(),
    "rabbit_password_hashing_md5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
}


def hash_password(password: str | bytes, hashing_algorithm: str = DEFAULT_HASHING, salt: bytes | None = None) -> str:
    """RabbitMQ's `password_hash`: base64 of a salt of 4 bytes and the digest of salt and password.

    salt: random unless given. Raises `ValueError` for an algorithm that is not known.
    """
    digest = _DIGESTS.get(hashing_algorithm)
    if digest is None:
        raise ValueError(f"unknown password hashing algorithm {hashing_algorithm!r}")
    if salt is None:
        salt = os.urandom(SALT_BYTES)
    secret = password.encode() if isinstance(password, str) else password
    return base64.b64encode(salt + digest(salt + secret)).decode("ascii")


def verify_password(password: str | bytes, password_hash: str, hashing_algorithm: str = DEFAULT_HASHING) -> bool:
    """Whether the password is the one that was hashed. The time it takes does not tell how much of it was right.

    An empty password is never right, and a hash that cannot be read matches nothing.
    """
    digest = _DIGESTS.get(hashing_algorithm, _DIGESTS[DEFAULT_HASHING])
    try:
        stored = base64.b64decode(password_hash, validate=True)
    except (binascii.Error, ValueError):
        stored = b""
    secret = password.encode() if isinstance(password, str) else password
    salt = stored[:SALT_BYTES]
    same = hmac.compare_digest(salt + digest(salt + secret), stored)
    return same and bool(secret) and len(salt) == SALT_BYTES and hashing_algorithm in _DIGESTS


# What an unknown user's password is compared with, so that a login costs the same whether the name exists or not.
_NOBODY: Final = hash_password(os.urandom(16))


@dataclass(frozen=True, slots=True)
class User:
    """A user as a login sees it."""

    name: str
    password_hash: str = field(repr=False)
    hashing_algorithm: str = DEFAULT_HASHING
    tags: frozenset[str] = frozenset()

    @property
    def is_administrator(self) -> bool:
        return "administrator" in self.tags


def is_loopback(address: str) -> bool:
    """Whether a peer's address is this machine: 127.0.0.0/8, ::1, the same mapped into IPv6, or a Unix socket ("")."""
    if not address or address == "127.0.0.1":  # nearly all that log in from here
        return True
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.is_loopback
    return parsed.is_loopback


class Users:
    """All users, as of the last change. loopback_users: names that may log in from this machine only."""

    def __init__(self, loopback_users: Collection[str] = ("guest",)) -> None:
        self._users: dict[str, User] = {}
        self._loopback = frozenset(loopback_users)

    def put(self, user: User) -> None:
        """Add the user or replace the one of that name."""
        self._users[user.name] = user

    def remove(self, name: str) -> None:
        """Forget the user; one that is not there is gone already."""
        self._users.pop(name, None)

    def clear(self) -> None:
        """Forget everybody: a snapshot follows."""
        self._users.clear()

    def get(self, name: str) -> User | None:
        """The user of that name."""
        return self._users.get(name)

    def authenticate(self, name: str, password: str | bytes, peer_address: str, mechanism: str = "PLAIN") -> User:
        """The user, if name and password are right and it may come from there.

        peer_address: of the socket, never of a PROXY header; "" for a Unix socket. Raises `AccessRefused` with RabbitMQ's text, the same
        for each reason.
        """
        user = self._users.get(name)
        if user is None:
            verify_password(password, _NOBODY)
        elif verify_password(password, user.password_hash, user.hashing_algorithm) and (
            name not in self._loopback or is_loopback(peer_address)
        ):
            return user
        raise refused(mechanism)

    def trust(self, name: str, peer_address: str, mechanism: str) -> User:
        """The user of that name without a password, if there is one and it may come from there. Raises as `authenticate` does."""
        user = self._users.get(name)
        if user is None or (name in self._loopback and not is_loopback(peer_address)):
            raise refused(mechanism)
        return user


def refused(mechanism: str) -> AccessRefused:
    """403 in RabbitMQ's words, the same for whatever was wrong."""
    return AccessRefused(f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile.")
