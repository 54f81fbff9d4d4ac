"""`Problem`: a request that gets an error instead of its object. Raised anywhere below a route, answered in `application`."""

from __future__ import annotations

from collections.abc import Mapping


class Problem(Exception):
    """An HTTP status with RabbitMQ's `error` word and a `reason` for the user's eyes."""

    def __init__(self, status: int, error: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.error = error
        self.reason = reason
        self.headers = headers


def not_found() -> Problem:
    return Problem(404, "Object Not Found", "Not Found")
