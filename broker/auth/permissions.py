"""Permissions: what a user may configure, write and read in a vhost, as three regular expressions on resource names.

A worker keeps a `Permissions` filled from the router's changes and asks it before a method touches a resource. As in RabbitMQ the
expressions are searched, not anchored, "" matches nothing, and the default exchange is called `amq.default`. Tags grant nothing here.

The expressions are an administrator's, the names a client's: the length of both is bounded, matching is linear (`leveret.auth.pattern`),
and each verdict is computed once and remembered.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Literal

from leveret.auth.pattern import Pattern
from leveret.codec.errors import AccessRefused, NotAllowed, PreconditionFailed

log = logging.getLogger(__name__)

# Remembered verdicts; all are forgotten when there are more. Some 230 bytes each: names of queues that come and go fill it whatever it is.
VERDICTS_MAX: Final = 2_048

Right = Literal["configure", "write", "read"]
Kind = Literal["queue", "exchange"]


def check_pattern(expression: str) -> None:
    """Raise `PreconditionFailed` (a sentence) if the expression is too long or none."""
    Pattern(expression)


def _compiled(expression: str) -> Pattern:
    """The pattern; one that matches nothing for an expression that an earlier version had taken and this one cannot."""
    try:
        return Pattern(expression)
    except PreconditionFailed as error:
        log.error("a permission that cannot be matched refuses everything: %s", error.reply_text)
        return Pattern("")


@dataclass(frozen=True, slots=True)
class _Grant:
    configure: Pattern
    write: Pattern
    read: Pattern


class Permissions:
    """All permissions, as of the last change."""

    def __init__(self) -> None:
        self._grants: dict[tuple[str, str], _Grant] = {}
        self._verdicts: dict[tuple[str, str, str, str], bool] = {}

    def set(self, user: str, vhost: str, configure: str, write: str, read: str) -> None:
        """Grant, in place of what was granted before. The expressions have passed `check_pattern`."""
        self._grants[user, vhost] = _Grant(_compiled(configure), _compiled(write), _compiled(read))
        self._verdicts.clear()

    def clear(self, user: str, vhost: str) -> None:
        """Take back what was granted."""
        self._grants.pop((user, vhost), None)
        self._verdicts.clear()

    def clear_all(self) -> None:
        """Forget everything: a snapshot follows."""
        self._grants.clear()
        self._verdicts.clear()

    def may_open(self, user: str, vhost: str) -> bool:
        """Whether the user may use the vhost at all."""
        return (user, vhost) in self._grants

    def check_open(self, user: str, vhost: str) -> None:
        """Raise `NotAllowed` (530) if not `may_open`."""
        if not self.may_open(user, vhost):
            raise NotAllowed(f"access to vhost '{vhost}' refused for user '{user}'")

    def may(self, user: str, vhost: str, right: Right, name: str) -> bool:
        """Whether the user has the right on the resource of that name; "" is the default exchange."""
        asked = (user, vhost, right, name)
        verdict = self._verdicts.get(asked)
        if verdict is None:
            grant = self._grants.get((user, vhost))
            verdict = grant is not None and getattr(grant, right).matches(name or "amq.default")
            if len(self._verdicts) >= VERDICTS_MAX:
                self._verdicts.clear()
            self._verdicts[asked] = verdict
        return verdict

    def check(self, user: str, vhost: str, right: Right, kind: Kind, name: str) -> None:
        """Raise `AccessRefused` (403) with RabbitMQ's text if not `may`."""
        if not self.may(user, vhost, right, name):
            raise AccessRefused(f"{right} access to {kind} '{name or 'amq.default'}' in vhost '{vhost}' refused for user '{user}'")

    def check_any(self, user: str, vhost: str, kind: Kind, name: str) -> None:
        """For a passive declare: any of the three rights will do. Raises `AccessRefused` otherwise, naming `configure` as RabbitMQ does."""
        if not any(self.may(user, vhost, right, name) for right in ("configure", "write", "read")):
            self.check(user, vhost, "configure", kind, name)
