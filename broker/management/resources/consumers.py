"""Consumers: who takes messages from which queue, on which channel."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.path_name import PathName
from leveret.management.survey import Survey
from starlette.responses import Response

routes = APIRouter(tags=["consumers"])
ORDER = ("queue.vhost", "queue.name", "channel_details.name", "consumer_tag")


def consumer_objects(survey: Survey, vhost: str | None = None) -> list[dict[str, Any]]:
    """All consumers, or those on queues of a vhost. Raises `Problem` 404 for a vhost that does not exist."""
    survey.in_vhost((), vhost)
    return [
        {**consumer, "activity_status": "up" if consumer["active"] else "waiting"}
        for _, consumer in survey.from_workers("consumers")
        if vhost in (None, consumer["queue"]["vhost"])
    ]


@routes.get("/consumers")
async def list_consumers(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(consumer_objects(survey), order=ORDER)


@routes.get("/consumers/{vhost}")
async def list_consumers_of_vhost(vhost: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(consumer_objects(survey, vhost), order=ORDER)
