"""The overview: the whole node in one object, which dashboards and exporters read first."""

from __future__ import annotations

import platform
from typing import Any

from fastapi import APIRouter
from leveret import __version__
from leveret.management.counters import detailed
from leveret.management.json_reply import Json
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.survey import Survey, churn_of, totals_of
from starlette.responses import Response

routes = APIRouter(tags=["overview"])


def overview_object(survey: Survey) -> dict[str, Any]:
    """Everything summed up. Counters are of the workers' whole lives, closed channels included."""
    settings, node = survey.settings, survey.answers.node or {}
    depth = survey.queue_totals
    listeners = [
        {"node": survey.node_name, "protocol": listener["name"], "ip_address": listener["address"], "port": listener["port"]}
        for listener in node.get("listeners", ())
        if listener["name"] != "control"
    ]
    http = next((listener for listener in listeners if listener["protocol"] == "http"), None)
    exchanges = survey.topology("exchanges")
    types = sorted({exchange["type"] for exchange in exchanges})
    return {
        "management_version": settings.version,
        "product_name": settings.product,
        "product_version": settings.version,
        "rabbitmq_version": settings.version,
        "leveret_version": __version__,
        "python_version": platform.python_version(),
        "node": survey.node_name,
        "cluster_name": survey.node_name,
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [], "basic": [], "detailed": []},
        "default_queue_type": "classic",
        "durability": settings.durability,
        "disable_stats": False,
        "enable_queue_totals": False,
        "exchange_types": [{"name": kind, "description": f"{kind} exchange", "enabled": True} for kind in types],
        "object_totals": {
            "connections": sum(1 for _ in survey.from_workers("connections")),
            "channels": sum(1 for _ in survey.from_workers("channels")),
            "consumers": sum(1 for _ in survey.from_workers("consumers")),
            "exchanges": len(exchanges),
            "queues": len(survey.topology("queues")),
        },
        "queue_totals": detailed(depth, survey.rates("depth", "", depth), gauges=True),
        "message_stats": detailed(*survey.node_counters("totals", totals_of(survey.answers))),
        "churn_rates": detailed(*survey.node_counters("churn", churn_of(survey.answers))),
        "listeners": listeners,
        "contexts": [{"description": "Leveret management", "path": "/", "ip": http["ip_address"], **http}] if http else [],
        "processes_silent": silent_processes(survey),
    }


def silent_processes(survey: Survey) -> list[str]:
    """Names of the processes that did not answer: their part is missing from the numbers, or is the last that was known."""
    silent = [] if survey.answers.router_running else ["router"]
    silent += [f"worker-{index}" for index in survey.answers.workers if not survey.worker_answered(index)]
    return silent if survey.answers.node is not None else [*silent, "supervisor"]


@routes.get("/overview")
async def show_overview(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.one(overview_object(survey))


@routes.get("/cluster-name")
async def show_cluster_name(survey: CurrentSurvey) -> Response:
    return Json({"name": survey.node_name})
