"""Connections of clients, as the workers that hold them tell them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from leveret.management.answers import Answer
from leveret.management.counters import detailed
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.path_name import PathName
from leveret.management.resources.channels import channel_objects
from leveret.management.survey import Survey, named, octets
from starlette.responses import Response

routes = APIRouter(tags=["connections"])


def connection_object(survey: Survey, worker: int, connection: Answer) -> dict[str, Any]:
    """One connection as the API shows it: what its worker told, and the rates of its octets."""
    counters = octets(connection)
    rates = survey.rates("connection", connection["name"], counters)
    shown = {field: value for field, value in connection.items() if field != "owner"}
    return shown | detailed(counters, rates) | {"type": "network", "node": survey.node_name, "worker": worker}


def connection_objects(survey: Survey) -> list[dict[str, Any]]:
    """The connections of every worker that answers."""
    return [connection_object(survey, worker, connection) for worker, connection in survey.from_workers("connections")]


@routes.get("/connections")
async def list_connections(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(connection_objects(survey))


@routes.get("/connections/{name}")
async def show_connection(name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.one(named(connection_objects(survey), name))


@routes.get("/connections/{name}/channels")
async def list_channels_of_connection(name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    named(connection_objects(survey), name)
    return listing.reply(
        (channel for channel in channel_objects(survey) if channel["connection_details"]["name"] == name), order=("number",)
    )
