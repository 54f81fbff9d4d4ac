"""The HTTP server on real sockets: two listeners, slow clients, the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from leveret.management import http_server
from leveret.management.http_server import HttpServer


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


def served(scenario: Any) -> None:
    """Run `scenario(port)` against a server on a free port, then end the server and wait for it."""

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        server = HttpServer(hello, [listener])
        running = asyncio.ensure_future(server.run())
        try:
            async with asyncio.timeout(20):
                await scenario(listener.getsockname()[1])
        finally:
            server.end()
            await running

    asyncio.run(run())


async def answer_to(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


def test_a_request_is_served_and_names_no_server() -> None:
    async def scenario(port: int) -> None:
        head = await answer_to(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"server:" not in head.lower()

    served(scenario)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_client_that_does_not_finish_its_request_is_cut_off(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", 0.05)

    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    served(scenario)


def test_a_second_request_on_a_connection_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", 1.0)

    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET / HT")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readuntil(b"hi")
        writer.close()

    served(scenario)


def test_a_head_that_never_ends_is_refused() -> None:
    async def scenario(port: int) -> None:
        head = await answer_to(port, b"GET / HTTP/1.1\r\nx: " + b"y" * (http_server.HEAD_BYTES_MAX + 1000))
        assert head.startswith(b"HTTP/1.1 4")

    served(scenario)


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"AMQP\x00\x00\x09\x01\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n"])
def test_garbage_is_a_bad_request(garbage: bytes) -> None:
    async def scenario(port: int) -> None:
        assert (await answer_to(port, garbage)).startswith(b"HTTP/1.1 400 ")

    served(scenario)


def test_the_end_is_heard_at_once_and_nothing_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DATE_S` is the only time that passes in the server by itself, and is an hour here."""
    monkeypatch.setattr(http_server, "DATE_S", 3600.0)

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        server = HttpServer(hello, [listener])
        running = asyncio.ensure_future(server.run())
        await answer_to(listener.getsockname()[1], b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        server.end()
        async with asyncio.timeout(20):
            await running

    asyncio.run(run())


def test_answers_are_dated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "DATE_S", 0.001)

    async def scenario(port: int) -> None:
        dates: set[bytes] = set()
        while len(dates) < 2:  # of two seconds
            head = await answer_to(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            dates |= {line for line in head.split(b"\r\n") if line.startswith(b"date: ")}

    served(scenario)
