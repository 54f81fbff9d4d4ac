"""Queues: the directory of the router, with the numbers of the workers that own them.

A queue whose worker does not answer is there with `"state": "down"` and without numbers.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from leveret.management.answers import Answer
from leveret.management.counters import detailed
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.path_name import PathName
from leveret.management.problem import not_found
from leveret.management.resources.bindings import all_bindings
from leveret.management.survey import Survey, about_connection, queue_counters, queue_gauges
from starlette.responses import Response

routes = APIRouter(tags=["queues"])
BYTES = ("message_bytes", "message_bytes_ready", "message_bytes_unacknowledged")
# Where they are: on disk for good; not in memory.
PLACES = ("messages_persistent", "message_bytes_persistent", "messages_paged_out", "message_bytes_paged_out")


def queue_object(survey: Survey, queue: Answer) -> dict[str, Any]:
    """One queue of the router's directory as the API shows it."""
    statistics = survey.queue_statistics.get(int(queue["id"]))
    shown: dict[str, Any] = {
        "name": queue["name"],
        "vhost": queue["vhost"],
        "type": "classic",
        "durable": queue["durable"],
        "auto_delete": queue["auto_delete"],
        "exclusive": queue["exclusive"],
        "arguments": queue["arguments"],
        "node": survey.node_name,
        "worker": queue["worker"],
        "state": "running" if survey.worker_answered(queue["worker"]) else "down",
        "policy": None,
        "operator_policy": None,
        "effective_policy_definition": {},
    }
    if (owner := survey.owners.get(queue["owner"])) is not None:
        shown["owner_pid_details"] = about_connection(owner)
    if statistics is None:
        return shown
    gauges, counters = queue_gauges(statistics), queue_counters(statistics)
    rates = survey.rates("queue", int(queue["id"]), gauges | counters)
    shown |= detailed(gauges, rates, gauges=True)
    shown |= {name: int(statistics.get(name, 0)) for name in BYTES}
    shown |= {name: int(statistics.get(name, 0)) for name in PLACES}
    shown |= {
        "messages_ram": gauges["messages"] - shown["messages_paged_out"],
        "message_bytes_ram": shown["message_bytes"] - shown["message_bytes_paged_out"],
        "consumers": int(statistics.get("consumers", 0)),
        "message_stats": detailed(counters, rates),
    }
    return shown


def queue_objects(survey: Survey, vhost: str | None = None) -> list[dict[str, Any]]:
    """All queues, or those of a vhost. Raises `Problem` 404 for a vhost that does not exist."""
    return [queue_object(survey, queue) for queue in survey.in_vhost(survey.topology("queues"), vhost)]


def known_queue(survey: Survey, vhost: str, name: str) -> Answer:
    """The queue of that name in the router's directory. Raises `Problem` 404."""
    for queue in survey.in_vhost(survey.topology("queues"), vhost):
        if queue["name"] == name:
            return queue
    raise not_found()


@routes.get("/queues")
@routes.get("/queues/detailed", include_in_schema=False)
async def list_queues(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(queue_objects(survey), order=("vhost", "name"))


@routes.get("/queues/{vhost}")
async def list_queues_of_vhost(vhost: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(queue_objects(survey, vhost))


@routes.get("/queues/{vhost}/{name}")
async def show_queue(vhost: PathName, name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    shown = queue_object(survey, known_queue(survey, vhost, name))
    consumers = [consumer for _, consumer in survey.from_workers("consumers") if consumer["queue"] == {"name": name, "vhost": vhost}]
    return listing.one(shown | {"consumer_details": consumers, "incoming": [], "deliveries": []})


@routes.get("/queues/{vhost}/{name}/bindings")
async def list_bindings_of_queue(vhost: PathName, name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    known_queue(survey, vhost, name)
    found = [b for b in all_bindings(survey, vhost) if b["destination_type"] == "queue" and b["destination"] == name]
    return listing.reply(found, order=("source", "routing_key"))
