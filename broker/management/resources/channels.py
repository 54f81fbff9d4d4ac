"""Channels: what each has open, unacknowledged and unconfirmed, with its message counters."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from leveret.management.answers import Answer
from leveret.management.counters import detailed
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.path_name import PathName
from leveret.management.survey import Survey, about_connection, channel_counters, named
from starlette.responses import Response

routes = APIRouter(tags=["channels"])


def channel_object(survey: Survey, worker: int, channel: Answer) -> dict[str, Any]:
    """One channel as the API shows it."""
    counters = channel_counters(channel)
    name = channel["connection_name"]
    shown = {field: value for field, value in channel.items() if field != "connection_name"}
    shown["connection_details"] = about_connection(survey.connections.get(name, {"name": name}))
    shown["message_stats"] = detailed(counters, survey.rates("channel", channel["name"], counters))
    return shown | {"node": survey.node_name, "worker": worker}


def channel_objects(survey: Survey) -> list[dict[str, Any]]:
    """The channels of every worker that answers."""
    return [channel_object(survey, worker, channel) for worker, channel in survey.from_workers("channels")]


@routes.get("/channels")
async def list_channels(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(channel_objects(survey))


@routes.get("/channels/{name}")
async def show_channel(name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    channel = named(channel_objects(survey), name)
    consumers = survey.consumers_of_channels.get(name, [])
    return listing.one(channel | {"consumer_details": consumers, "publishes": [], "deliveries": []})
