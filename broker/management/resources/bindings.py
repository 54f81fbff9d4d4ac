"""Bindings, as the router lists them: among them those that every queue has by itself to the default exchange."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.path_name import PathName
from leveret.management.survey import Survey
from starlette.responses import Response

routes = APIRouter(tags=["bindings"])
ORDER = ("vhost", "source", "destination_type", "destination", "routing_key")
FIELDS = ("source", "vhost", "destination", "destination_type", "routing_key", "arguments", "properties_key")


def all_bindings(survey: Survey, vhost: str | None = None) -> list[dict[str, Any]]:
    """All bindings, or those of a vhost. Raises `Problem` 404 for a vhost that does not exist."""
    return [{name: binding[name] for name in FIELDS} for binding in survey.in_vhost(survey.topology("bindings"), vhost)]


@routes.get("/bindings")
async def list_bindings(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(all_bindings(survey), order=ORDER)


@routes.get("/bindings/{vhost}")
async def list_bindings_of_vhost(vhost: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(all_bindings(survey, vhost), order=ORDER)
