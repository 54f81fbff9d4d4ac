"""Who asks, and may they: HTTP Basic against the router's users, for every route.

`signed_in` is a dependency of the whole application, so a new route is closed until somebody opens it. A request by the control socket
needs no password: its folder lets only the user in who runs the broker. The passwords themselves are checked by `leveret.auth.users`.
"""

from __future__ import annotations

import base64
import binascii
import logging
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from leveret.codec.errors import AccessRefused
from leveret.management.problem import Problem
from leveret.management.survey import Survey
from leveret.management.surveyor import Surveyor

log = logging.getLogger(__name__)

MANAGEMENT_TAGS = {"administrator", "monitoring", "policymaker", "management"}
MONITORING_TAGS = {"administrator", "monitoring"}
CREDENTIALS_BYTES_MAX = 4096
UNKNOWN_ADDRESS = "unknown"  # no address of this machine
CHALLENGE = {"www-authenticate": 'Basic realm="Leveret Management"'}


@dataclass(frozen=True, slots=True)
class Viewer:
    """The user behind a request, with the tags that say what they may see."""

    name: str
    tags: tuple[str, ...]


def refused(reason: str) -> Problem:
    return Problem(401, "not_authorised", reason, CHALLENGE)


def credentials(authorization: str) -> tuple[str, str] | None:
    """User name and password out of an Authorization header; None when it is anything else than Basic."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > CREDENTIALS_BYTES_MAX:
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (name, password) if colon else None


def surveyor_of(request: Request) -> Surveyor:
    surveyor = request.app.state.surveyor
    assert isinstance(surveyor, Surveyor)
    return surveyor


async def signed_in(request: Request, surveyor: Annotated[Surveyor, Depends(surveyor_of)]) -> Viewer:
    """The user behind the request. Raises `Problem` 401, or 503 while the users are not known yet."""
    if request.scope["leveret.control"]:
        return Viewer("", ("administrator",))
    given = credentials(request.headers.get("authorization", ""))
    if given is None:
        raise refused("Login failed")
    users = surveyor.users or await surveyor.learn_users()
    if users is None:
        raise Problem(503, "service_unavailable", "the router process does not answer")
    address = request.client.host if request.client is not None else UNKNOWN_ADDRESS
    try:
        user = users.authenticate(*given, address)
    except AccessRefused:
        log.warning("login refused: user %s from %s", ascii(given[0][:255]), address)
        raise refused("Login failed") from None
    if MANAGEMENT_TAGS.isdisjoint(user.tags):
        raise refused("Not management user")
    return Viewer(user.name, tuple(sorted(user.tags)))


async def may_monitor(viewer: Annotated[Viewer, Depends(signed_in)]) -> Viewer:
    """A user who may see the whole node. Raises `Problem` 401."""
    if MONITORING_TAGS.isdisjoint(viewer.tags):
        raise refused("Not monitor user")
    return viewer


async def only_control(request: Request) -> None:
    """Lets only the control socket through; to everybody else the route does not exist."""
    if not request.scope["leveret.control"]:
        raise Problem(404, "Object Not Found", "Not Found")


async def current_survey(_: Annotated[Viewer, Depends(signed_in)], surveyor: Annotated[Surveyor, Depends(surveyor_of)]) -> Survey:
    return await surveyor.survey()


CurrentViewer = Annotated[Viewer, Depends(signed_in)]
CurrentSurvey = Annotated[Survey, Depends(current_survey)]
