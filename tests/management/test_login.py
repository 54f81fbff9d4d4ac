"""Who gets in, by which door, and what strangers learn: nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from tests.management.simulated_node import SimulatedNode

NOT_AUTHORISED = {"error": "not_authorised", "reason": "Login failed"}


def api_paths(node: SimulatedNode) -> Iterator[str]:
    """Every path of the API, with something in place of its names."""
    schema = node.get("/api/openapi.json")
    for path in schema["paths"]:
        yield re.sub(r"\{\w+\}", "x", path)


def test_no_route_of_the_api_is_open(node: SimulatedNode) -> None:
    """Whatever is added later is closed until somebody opens it."""
    paths = [*api_paths(node), "/api/openapi.json", "/api/control/stop"]
    assert len(paths) > 20
    node.asked.clear()
    for path in paths:
        response = node.request("POST" if path == "/api/control/stop" else "GET", path, user=None)
        assert response.status_code == 401, path
        assert response.json() == NOT_AUTHORISED
    assert node.asked == []  # a stranger costs the other processes nothing
    assert node.stopped == 0


def test_all_routes_are_in_the_schema_or_known_not_to_be(node: SimulatedNode) -> None:
    """Guards the test above: a route that the schema hides would escape it."""
    hidden = {route.path for route in node.application.routes if isinstance(route, APIRoute) and not route.include_in_schema}
    assert hidden <= {"/api/openapi.json", "/api/control/stop", "/api/queues/detailed"}


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"guest").decode(),
        "Basic " + base64.b64encode(b"guest:wrong").decode(),
        "Basic " + base64.b64encode(b"guest:").decode(),
        "Basic " + base64.b64encode(b"nobody:guest-secret").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Basic " + base64.b64encode(b"guest:" + b"x" * 10_000).decode(),
        "Bearer guest-secret",
        "Digest username=guest",
    ],
)
def test_bad_credentials_get_the_same_401(node: SimulatedNode, authorization: str) -> None:
    response = node.request("GET", "/api/whoami", user=None, headers={"authorization": authorization})
    assert response.status_code == 401
    assert response.json() == NOT_AUTHORISED
    assert response.headers["www-authenticate"].startswith("Basic realm=")


def test_whoami(node: SimulatedNode) -> None:
    assert node.get("/api/whoami") == {"name": "guest", "tags": ["administrator"]}
    assert node.get("/api/whoami", user="planner") == {"name": "planner", "tags": ["management"]}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_guest_comes_from_this_machine(node: SimulatedNode, peer: str) -> None:
    assert node.request("GET", "/api/whoami", peer=peer).status_code == 200


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "unknown"])
def test_guest_comes_from_nowhere_else_whatever_a_proxy_says(node: SimulatedNode, peer: str) -> None:
    forged = {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1", "x-real-ip": "127.0.0.1"}
    assert node.request("GET", "/api/whoami", peer=peer, headers=forged).status_code == 401
    assert node.request("GET", "/api/whoami", peer=peer, user="watcher").status_code == 200


def test_a_user_without_a_tag_is_no_user_of_the_api(node: SimulatedNode) -> None:
    response = node.request("GET", "/api/whoami", user="program")
    assert response.status_code == 401
    assert response.json() == {"error": "not_authorised", "reason": "Not management user"}


@pytest.mark.parametrize(("user", "status"), [("guest", 200), ("watcher", 200), ("planner", 401), ("program", 401)])
def test_only_monitors_see_the_whole_node(node: SimulatedNode, user: str, status: int) -> None:
    for path in ("/api/overview", "/api/nodes", "/api/queues", "/api/connections", "/api/vhosts", "/api/bindings"):
        assert node.request("GET", path, user=user).status_code == status, path


def test_the_control_socket_needs_no_password(node: SimulatedNode) -> None:
    assert node.get("/api/overview", control=True)["node"] == "leveret@test"
    assert node.get("/api/whoami", control=True)["tags"] == ["administrator"]


def test_only_the_control_socket_stops_the_node(node: SimulatedNode) -> None:
    assert node.request("POST", "/api/control/stop").status_code == 404
    assert node.request("POST", "/api/control/stop", user="watcher").status_code == 404
    assert node.stopped == 0
    assert node.request("POST", "/api/control/stop", control=True).status_code == 202
    assert node.stopped == 1
    assert node.request("GET", "/api/control/stop", control=True).status_code == 405


def test_while_the_users_are_unknown_nobody_gets_in_and_the_control_socket_works(node: SimulatedNode) -> None:
    node.surveyor.users = None
    node.surveyor._topology = {}
    for verb in ("topology", "statistics", "users"):
        node.answers["router", 0, verb] = None
    response = node.request("GET", "/api/whoami")
    assert response.status_code == 503
    assert response.json() == {"error": "service_unavailable", "reason": "the router process does not answer"}
    assert node.request("GET", "/api/queues", control=True).status_code == 503
    assert node.get("/api/nodes", control=True)[0]["running"] is True


def test_users_are_learned_at_the_first_login_if_no_sample_came_before(node: SimulatedNode) -> None:
    node.surveyor.users = None
    assert node.get("/api/whoami")["name"] == "guest"


def test_a_removed_user_is_out_after_the_next_sample(node: SimulatedNode) -> None:
    assert node.request("GET", "/api/whoami", user="watcher").status_code == 200
    users = node.answers["router", 0, "users"]["users"]
    users[:] = [user for user in users if user["name"] != "watcher"]
    node.sample()
    assert node.request("GET", "/api/whoami", user="watcher").status_code == 401


def test_no_page_shows_a_password_or_its_hash(node: SimulatedNode) -> None:
    hashes = [user["password_hash"] for user in node.answers["router", 0, "users"]["users"]]
    for path in api_paths(node):
        text = node.request("GET", path).text
        assert not any(secret in text for secret in [*hashes, "guest-secret"]), path


def test_a_refused_login_is_logged_without_its_password(node: SimulatedNode, caplog: pytest.LogCaptureFixture) -> None:
    node.request("GET", "/api/whoami", user="evil\r\nname", password="canary-password")
    assert "login refused" in caplog.text
    assert "canary-password" not in caplog.text
    assert "evil\\r\\nname" in caplog.text
