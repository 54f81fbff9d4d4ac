"""What only the control socket may do: stop the node. To the HTTP port these routes do not exist."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from leveret.management.login import only_control
from starlette.responses import Response

routes = APIRouter(prefix="/control", include_in_schema=False, dependencies=[Depends(only_control)])


@routes.post("/stop")
async def stop(request: Request) -> Response:
    """Asks for a graceful stop and answers 202 at once: this process is among those that stop."""
    request.app.state.stop_node()
    return Response(status_code=202)
