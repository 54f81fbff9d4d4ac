"""JSON answers: whatever a client may have put into a table comes out as valid JSON.

AMQP tables hold bytes, timestamps, decimals and NaN, none of which JSON knows. Most answers hold none of them and take the short way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def plain(value: Any) -> Any:
    """The same value in JSON's types: bytes as text (what is not UTF-8 replaced), NaN and infinities as null, the unknown as its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


class Json(Response):
    """A JSON answer in ASCII, so that no half of a surrogate pair can make it unreadable."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        try:
            text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError):
            text = json.dumps(plain(content), allow_nan=False, separators=(",", ":"))
        return text.encode("ascii")


def failure(status: int, error: str, reason: str, headers: Mapping[str, str] | None = None) -> Json:
    """RabbitMQ's form of an error. `reason` is for the user and holds nothing of our insides."""
    return Json({"error": error, "reason": reason}, status_code=status, headers=headers)
