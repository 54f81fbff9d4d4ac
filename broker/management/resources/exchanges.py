"""Exchanges, with how many messages came in and how many copies went out to queues."""

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
from leveret.management.survey import Survey, exchange_counters, exchange_key
from starlette.responses import Response

routes = APIRouter(tags=["exchanges"])


def exchange_object(survey: Survey, exchange: Answer) -> dict[str, Any]:
    """One exchange of the router's directory as the API shows it."""
    shown: dict[str, Any] = {name: exchange[name] for name in ("name", "vhost", "type", "durable", "auto_delete", "internal", "arguments")}
    shown["policy"] = None
    key = exchange_key(exchange)
    statistics = survey.exchange_statistics.get(key)
    if statistics is not None:
        counters = exchange_counters(statistics)
        shown["message_stats"] = detailed(counters, survey.rates("exchange", key, counters))
    return shown


def exchange_objects(survey: Survey, vhost: str | None = None) -> list[dict[str, Any]]:
    """All exchanges, or those of a vhost. Raises `Problem` 404 for a vhost that does not exist."""
    return [exchange_object(survey, exchange) for exchange in survey.in_vhost(survey.topology("exchanges"), vhost)]


def known_exchange(survey: Survey, vhost: str, name: str) -> Answer:
    """The exchange of that name. A path calls the default one `amq.default`, as an empty name cannot stand there. Raises `Problem` 404."""
    name = "" if name == "amq.default" else name
    for exchange in survey.in_vhost(survey.topology("exchanges"), vhost):
        if exchange["name"] == name:
            return exchange
    raise not_found()


@routes.get("/exchanges")
async def list_exchanges(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(exchange_objects(survey), order=("vhost", "name"))


@routes.get("/exchanges/{vhost}")
async def list_exchanges_of_vhost(vhost: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply(exchange_objects(survey, vhost))


@routes.get("/exchanges/{vhost}/{name}")
async def show_exchange(vhost: PathName, name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    shown = exchange_object(survey, known_exchange(survey, vhost, name))
    return listing.one(shown | {"incoming": [], "outgoing": []})


@routes.get("/exchanges/{vhost}/{name}/bindings/source")
async def list_bindings_from_exchange(vhost: PathName, name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    source = known_exchange(survey, vhost, name)["name"]
    return listing.reply((b for b in all_bindings(survey, vhost) if b["source"] == source), order=("destination", "routing_key"))


@routes.get("/exchanges/{vhost}/{name}/bindings/destination")
async def list_bindings_to_exchange(vhost: PathName, name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    destination = known_exchange(survey, vhost, name)["name"]
    found = [b for b in all_bindings(survey, vhost) if b["destination_type"] == "exchange" and b["destination"] == destination]
    return listing.reply(found, order=("source", "routing_key"))
