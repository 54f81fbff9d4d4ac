"""The application: all resources under `/api`, and one place where their errors become answers.

`make_application` is called once by `__main__` (and by tests). The list of resources below is the whole of the API; each resource's file
holds its routes. Nothing here knows a field of any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from leveret.management.json_reply import Json, failure
from leveret.management.login import may_monitor, signed_in
from leveret.management.problem import Problem
from leveret.management.resources import (
    backup,
    bindings,
    channels,
    connections,
    consumers,
    control,
    exchanges,
    health,
    nodes,
    overview,
    queues,
    vhosts,
    whoami,
)
from leveret.management.resources.backup import Orders
from leveret.management.surveyor import Surveyor
from starlette.exceptions import HTTPException

# Who sees them: anybody with a management tag, or only those who may see the whole node (until permissions by vhost exist).
FOR_ALL = (whoami, health)
FOR_CONTROL = (control, backup)
FOR_MONITORS = (overview, nodes, vhosts, exchanges, queues, bindings, connections, channels, consumers)


def make_application(surveyor: Surveyor, stop_node: Callable[[], None], orders: Orders) -> FastAPI:
    """The ASGI application. `stop_node` asks the supervisor to stop the node and returns at once; `orders` go to other processes."""
    application = FastAPI(
        title="Leveret",
        docs_url=None,  # their pages load scripts from other sites
        redoc_url=None,
        openapi_url=None,  # served below, behind the login
        dependencies=[Depends(signed_in)],
        exception_handlers={
            Exception: _on_bug,
            Problem: _on_problem,
            RequestValidationError: _on_bad_request,
            HTTPException: _on_http_exception,
        },
        redirect_slashes=False,
    )
    application.state.surveyor = surveyor
    application.state.stop_node = stop_node
    application.state.orders = orders
    for resource in FOR_ALL:
        application.include_router(resource.routes, prefix="/api")
    for resource in FOR_MONITORS:
        application.include_router(resource.routes, prefix="/api", dependencies=[Depends(may_monitor)])
    for resource in FOR_CONTROL:
        application.include_router(resource.routes, prefix="/api")
    application.add_api_route("/api/openapi.json", lambda: Json(application.openapi()), include_in_schema=False)
    return application


async def _on_bug(_: Request, error: Exception) -> Json:
    """The door logs it; the asker learns nothing."""
    return failure(500, "internal_error", "Internal Server Error")


async def _on_problem(_: Request, problem: Exception) -> Json:
    assert isinstance(problem, Problem)
    return failure(problem.status, problem.error, problem.reason, problem.headers)


async def _on_bad_request(_: Request, error: Exception) -> Json:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    return failure(400, "bad_request", f"{name}: {first['msg']}" if name else str(first["msg"]))


async def _on_http_exception(_: Request, error: Exception) -> Json:
    """What the framework refuses by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return failure(404, "Object Not Found", "Not Found")
    phrase = HTTPStatus(error.status_code).phrase
    return failure(error.status_code, phrase, phrase, error.headers)
