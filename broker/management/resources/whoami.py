"""Who the asker is: the one thing that every user may see."""

from __future__ import annotations

from fastapi import APIRouter
from leveret.management.json_reply import Json
from leveret.management.login import CurrentViewer
from starlette.responses import Response

routes = APIRouter(tags=["users"])


@routes.get("/whoami")
async def whoami(viewer: CurrentViewer) -> Response:
    return Json({"name": viewer.name, "tags": list(viewer.tags)})
