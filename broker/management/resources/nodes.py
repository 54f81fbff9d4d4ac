"""The node and its processes: memory, disk, files, and what each process costs and has waiting on its links.

The list has one node. `processes` in it is ours: one entry for each process that should run, `"running": false` for one that does not, or
that does not answer. Fields of RabbitMQ that have no meaning here (Erlang's run queue, garbage collection) are left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from leveret.management.answers import Answer
from leveret.management.listing import ListingQuery
from leveret.management.login import CurrentSurvey
from leveret.management.path_name import PathName
from leveret.management.survey import Survey, cpu_counters, named
from starlette.responses import Response

routes = APIRouter(tags=["nodes"])
MECHANISMS = ("PLAIN", "AMQPLAIN")
LINK_FIELDS = ("peer", "backlog_bytes", "packets_in", "packets_out", "congested")


def open_files(pid: int) -> int | None:
    """How many file descriptors a process has open; None when it cannot be told."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 (a generator of Paths for 10,000 sockets is no gain)
    except OSError:
        return None


def process_object(survey: Survey, process: Answer, count_files: Callable[[int], int | None]) -> dict[str, Any]:
    """One process of the node. `answers` tells whether it answered us; the supervisor has just done so, and we are here ourselves."""
    kind, index, pid = process["kind"], int(process["index"]), process["pid"]
    own = survey.answers.router if kind == "router" else survey.answers.workers.get(index) if kind == "worker" else None
    answers = kind not in ("router", "worker") or own is not None
    counters = cpu_counters(process)
    links = [{name: link.get(name) for name in LINK_FIELDS} for link in (own or {}).get("links", ())]
    return {
        "name": process["name"],
        "kind": kind,
        "index": index,
        "pid": pid,
        "state": process["state"],
        "running": process["state"] == "running" and answers,
        "cpu_user_s": process["cpu_user_s"],
        "cpu_system_s": process["cpu_system_s"],
        "cpu_utilisation": round(max(0.0, survey.rates("process", pid, counters)["cpu_us"]) / 1e6, 4),
        "mem_used": process["private_bytes"],
        "mem_resident": process["rss_bytes"],
        "fd_used": count_files(pid) if pid else None,
        "restarts": process["restarts"],
        "uptime": int(process["uptime_s"] * 1000),
        "link_backlog_bytes": sum(int(link["backlog_bytes"] or 0) for link in links),
        "links": links,
        "handovers": dict((own or {}).get("handovers", {})),  # of a worker: connections that moved from it, and arrived at it
    }


def node_object(survey: Survey, count_files: Callable[[int], int | None] = open_files) -> dict[str, Any]:
    """The node. `fd_used` is that of the process with the most, since the limit `fd_total` is each process's own."""
    shown: dict[str, Any] = {"name": survey.node_name, "type": "disc", "rates_mode": "basic", "partitions": [], "being_drained": False}
    node = survey.answers.node
    if node is None:
        return shown | {"running": False, "processes": []}
    processes = [process_object(survey, process, count_files) for process in node["processes"]]
    memory, disk = node["memory"], node["disk"]
    connections = sum(1 for _ in survey.from_workers("connections"))
    return shown | {
        "running": True,
        "os_pid": str(node["pid"]),
        "uptime": int(node["uptime_s"] * 1000),
        "processors": os.cpu_count() or 1,
        "mem_used": memory["used_bytes"],
        "mem_limit": memory["limit_bytes"],
        "mem_alarm": memory["alarm"],
        "disk_free": disk["free_bytes"],
        "disk_free_limit": disk["limit_bytes"],
        "disk_free_alarm": disk["alarm"],
        "fd_used": max((process["fd_used"] or 0 for process in processes), default=0),
        "fd_total": node["files_max"],
        "sockets_used": connections,
        "sockets_total": node["files_max"] * node["workers"],
        "proc_used": sum(process["running"] for process in processes),
        "proc_total": len(processes),
        "db_dir": node["data_dir"],
        "durability": node["durability"],
        "shards_set_aside": [path for answer in survey.answers.workers.values() if answer for path in answer["set_aside"]],
        "auth_mechanisms": [{"name": name, "description": f"SASL {name}", "enabled": True} for name in MECHANISMS],
        "applications": [{"name": "leveret", "description": "Leveret", "version": node["version"]}],
        "enabled_plugins": [],
        "processes": processes,
    }


@routes.get("/nodes")
async def list_nodes(survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.reply([node_object(survey)])


@routes.get("/nodes/{name}")
async def show_node(name: PathName, survey: CurrentSurvey, listing: ListingQuery) -> Response:
    return listing.one(named([node_object(survey)], name))
