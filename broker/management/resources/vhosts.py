"""Virtual hosts, with the messages that lie in their queues and the octets of their connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from leveret.management.counters import QUEUE_GAUGES
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.path_name import PathName
from leveret.management.survey import OCTETS, Survey, named, octets, queue_gauges
from starlette.responses import Response

routes = APIRouter(tags=["vhosts"])


def vhost_objects(survey: Survey) -> list[dict[str, Any]]:
    """All virtual hosts."""
    totals = {vhost["name"]: dict.fromkeys((*QUEUE_GAUGES, *OCTETS), 0) for vhost in survey.topology("vhosts")}

    def add(vhost: str, counters: Mapping[str, int]) -> None:
        for name, value in counters.items():
            if vhost in totals:  # not one that came since the router was asked
                totals[vhost][name] += value

    for queue in survey.topology("queues"):
        if (statistics := survey.queue_statistics.get(queue["id"])) is not None:
            add(queue["vhost"], queue_gauges(statistics))
    for _, connection in survey.from_workers("connections"):
        add(connection["vhost"], octets(connection))
    state = {survey.node_name: "running" if survey.answers.router_running else "stopped"}
    return [
        {
            "name": vhost["name"],
            "description": vhost.get("description", ""),
            "tags": vhost.get("tags", []),
            "metadata": {"description": vhost.get("description", ""), "tags": vhost.get("tags", [])},
            "default_queue_type": "classic",
            "tracing": False,
            "cluster_state": state,
            **totals[vhost["name"]],
        }
        for vhost in survey.topology("vhosts")
    ]


@routes.get("/vhosts")
async def list_vhosts(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(vhost_objects(survey))


@routes.get("/vhosts/{name}")
async def show_vhost(name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.one(named(vhost_objects(survey), name))
