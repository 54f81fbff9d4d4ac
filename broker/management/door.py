"""The door: what every HTTP request passes before the application sees it, and every answer on its way out.

Pure ASGI, wrapped around the application once for each listener: `Door(application, is_control=True)` for the control socket. It bounds the
body, keeps the path as it came (so that `%2F` is no separator), refuses what no route wants (compressed bodies, pages of other sites,
websockets), adds the security headers, and answers 500 without a word about our insides if anything below fails. It knows no route.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from leveret.management.json_reply import failure
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 1024 * 1024
READING_METHODS = {"GET", "HEAD", "OPTIONS"}
SECURITY_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class BodyTooLarge(Exception):
    """More bytes came than `BODY_BYTES_MAX`, whatever Content-Length said. Ends whoever reads the body."""


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """The first header of that (lower case) name, "" if there is none."""
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


class Door:
    """Wraps an ASGI application. Sets `scope["leveret.control"]`: whether the request came by the control socket."""

    def __init__(self, application: ASGIApp, *, is_control: bool) -> None:
        self._application = application
        self._is_control = is_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send)
        received_bytes = 0

        async def bounded() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > BODY_BYTES_MAX:
                if not answer.begun:
                    await _too_large()(inner, receive, answer.send)
                answer.is_over = True
                raise BodyTooLarge
            return message

        inner = dict(scope)
        inner["path"] = scope["raw_path"].decode("latin-1")
        inner["leveret.control"] = self._is_control
        if scope["method"] == "HEAD":
            inner["method"] = "GET"  # the server leaves the body out
        try:
            if (refusal := self._refusal(scope)) is not None:
                await refusal(inner, receive, answer.send)
            else:
                await self._application(inner, bounded, answer.send)
        except BodyTooLarge:
            pass  # `bounded` has answered 413 by now; it was raised only to end the application
        except Exception:  # a bug in a route: logged whole, answered 500, and no reason to end everybody else's connections
            log.exception("a request failed: %s %s", scope["method"], ascii(inner["path"][:200]))
            if not answer.begun:
                await failure(500, "internal_error", "Internal Server Error")(inner, receive, answer.send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = scope["headers"]
        length = header(headers, b"content-length")
        if length.isdecimal() and (len(length) > 18 or int(length) > BODY_BYTES_MAX):
            return _too_large()
        if header(headers, b"content-encoding").lower() not in ("", "identity"):
            # A few compressed bytes could become gigabytes.
            return failure(415, "unsupported_media_type", "compressed requests are not accepted")
        origin = header(headers, b"origin")
        if scope["method"] not in READING_METHODS and origin and urlsplit(origin).netloc != header(headers, b"host"):
            # A browser sends the user's password along with whatever another site makes it send.
            return failure(403, "forbidden", "requests from pages of other sites are not accepted")
        return None


class _Answer:
    """Passes the application's answer on with the security headers. `begun`: some of it is out; `is_over`: the rest is dropped."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.is_over = False

    async def send(self, message: Message) -> None:
        if self.is_over:
            return
        if message["type"] == "http.response.start":
            self.begun = True
            headers: list[Any] = list(message.get("headers", ()))
            given = {bytes(name).lower() for name, _ in headers}
            message = {**message, "headers": headers + [pair for pair in SECURITY_HEADERS if pair[0] not in given]}
        await self._send(message)


def _too_large() -> ASGIApp:
    return failure(413, "payload_too_large", f"the request body may have at most {BODY_BYTES_MAX} bytes")
