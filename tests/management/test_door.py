"""What every request passes: limits, headers, and errors that say nothing of our insides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from leveret.management.door import BODY_BYTES_MAX, Door
from leveret.management.resources import overview

from tests.management.simulated_node import SimulatedNode


@pytest.mark.parametrize("path", ["/api/whoami", "/api/none", "/", "/api/queues?page=x"])
@pytest.mark.parametrize("user", ["guest", None])
def test_every_answer_has_the_security_headers(node: SimulatedNode, path: str, user: str | None) -> None:
    headers = node.request("GET", path, user=user).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_an_unknown_path_is_not_found(node: SimulatedNode) -> None:
    for path in ("/", "/api", "/api/none", "/api/queues/", "/docs", "/openapi.json", "/api/../etc/passwd"):
        response = node.request("GET", path)
        assert (response.status_code, response.json()) == (404, {"error": "Object Not Found", "reason": "Not Found"}), path


def test_a_wrong_method_is_refused(node: SimulatedNode) -> None:
    response = node.request("DELETE", "/api/overview")
    assert response.status_code == 405
    assert response.json() == {"error": "Method Not Allowed", "reason": "Method Not Allowed"}


def test_head_is_answered_like_get(node: SimulatedNode) -> None:
    assert node.request("HEAD", "/api/overview").status_code == 200
    assert node.request("HEAD", "/api/overview", user=None).status_code == 401


@pytest.mark.parametrize("failure", [RuntimeError("the canary in our insides"), ValueError(), KeyError("canary")])
def test_a_bug_is_a_500_without_a_traceback(node: SimulatedNode, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(overview, "overview_object", fail)
    response = node.request("GET", "/api/overview")
    assert response.status_code == 500
    assert response.json() == {"error": "internal_error", "reason": "Internal Server Error"}
    assert response.headers["x-content-type-options"] == "nosniff"
    assert node.get("/api/whoami")["name"] == "guest"


def test_a_malformed_answer_of_a_process_is_a_500_and_the_next_request_is_served(node: SimulatedNode) -> None:
    good = node.answers["router", 0, "topology"]
    node.answers["router", 0, "topology"] = {"queues": [{"surprise": True}]}
    assert node.request("GET", "/api/queues").status_code == 500
    node.answers["router", 0, "topology"] = good
    assert len(node.get("/api/queues")) == 3


@pytest.fixture
def echo(node: SimulatedNode) -> SimulatedNode:
    """The node with a route that reads its whole body; there is none yet that does."""

    async def length(request: Any) -> dict[str, int]:
        return {"length": len(await request.body())}

    from fastapi import Request

    length.__annotations__["request"] = Request
    node.application.add_api_route("/api/echo", length, methods=["POST"])
    return node


def test_a_body_up_to_the_limit_is_read(echo: SimulatedNode) -> None:
    assert echo.request("POST", "/api/echo", content=b"x" * BODY_BYTES_MAX).json() == {"length": BODY_BYTES_MAX}


def test_a_longer_body_is_refused_by_its_content_length(echo: SimulatedNode) -> None:
    response = echo.request("POST", "/api/echo", content=b"x" * (BODY_BYTES_MAX + 1))
    assert (response.status_code, response.json()["error"]) == (413, "payload_too_large")


def test_a_longer_body_is_cut_at_the_limit_when_it_comes_in_chunks(echo: SimulatedNode) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    response = echo.request("POST", "/api/echo", content=Bounded(endless()))
    assert response.status_code == 413
    assert sent <= BODY_BYTES_MAX + 2 * 65536


class Bounded:
    """An async body that the client cannot measure beforehand."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._source


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 4000, str(BODY_BYTES_MAX + 1)])
def test_a_lying_content_length_reads_nothing(echo: SimulatedNode, length: str) -> None:
    response = echo.request("POST", "/api/echo", headers={"content-length": length}, content=b"")
    assert response.status_code in (200, 413)
    assert response.status_code == 413 or response.json() == {"length": 0}


def test_a_compressed_body_is_refused(echo: SimulatedNode) -> None:
    assert echo.request("POST", "/api/echo", headers={"content-encoding": "gzip"}, content=b"x").status_code == 415
    assert echo.request("POST", "/api/echo", headers={"content-encoding": "identity"}, content=b"x").status_code == 200


@pytest.mark.parametrize(("origin", "status"), [("http://node", 200), ("http://evil.example", 403), ("null", 403), ("http://node:81", 403)])
def test_pages_of_other_sites_change_nothing(echo: SimulatedNode, origin: str, status: int) -> None:
    assert echo.request("POST", "/api/echo", headers={"origin": origin}, content=b"").status_code == status
    assert echo.request("GET", "/api/whoami", headers={"origin": origin}).status_code == 200


def test_websockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is asked of the application")

    asyncio.run(Door(nothing, is_control=False)({"type": "websocket"}, nothing, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


HOSTILE_NAMES = (
    "%00",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%ff%fe",
    "%",
    "%zz",
    "x" * 5000,
    "%22%3E%3Cimg%20src%3Dx%20onerror%3D1%3E",
    "%0d%0aset-cookie:x",
)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_only_names(node: SimulatedNode, name: str) -> None:
    for path in (f"/api/queues/{name}", f"/api/queues/%2F/{name}", f"/api/connections/{name}", f"/api/nodes/{name}"):
        response = node.request("GET", path)
        assert response.status_code == (400 if len(name) > 1024 else 404), path
        assert response.headers["content-type"] == "application/json"
        assert "set-cookie" not in response.headers
