"""Names in paths: `/api/queues/%2F/a%2Fb` is the queue `a/b` in the vhost `/`.

The door hands the application the path as it came, still percent-encoded, so that an encoded slash does not split a segment; each segment
is decoded here, as it becomes an argument of a route.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Path
from pydantic import AfterValidator

NAME_BYTES_MAX = 1024  # a connection's name; AMQP's own names have at most 255


def decoded(segment: str) -> str:
    """The name that a path segment stands for, with bytes that are not UTF-8 as the router keeps them. Raises ValueError if too long."""
    name = unquote_to_bytes(segment)
    if len(name) > NAME_BYTES_MAX:
        raise ValueError(f"a name has at most {NAME_BYTES_MAX} bytes")
    return name.decode("utf-8", "surrogateescape")


PathName = Annotated[str, Path(), AfterValidator(decoded)]
