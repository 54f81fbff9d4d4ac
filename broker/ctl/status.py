"""`leveret status`: the node, its processes, queues and connections, as tables for people or as one JSON object.

Everything comes from the HTTP API over the control socket. `report` turns the answers into rich renderables; names of queues, users and
connections were chosen by clients, so they are escaped before they reach a terminal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leveret.config import DURABILITIES
from leveret.ctl.control_client import ControlClient
from leveret.logs import escaped
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

NAME_CHARACTERS_MAX = 60
PIPED_CHARACTERS_MAX = 240


def status_text(data_dirs: Sequence[Path], *, as_json: bool, top: int, timeout_s: float) -> str:
    """The status of the node that uses one of `data_dirs`, to be printed. Raises `Refusal` (69 if there is none)."""
    client = ControlClient(data_dirs, timeout_s)
    content = gather(client, top)
    if as_json:
        return json.dumps(content, indent=1) + "\n"
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_CHARACTERS_MAX  # a file or a pipe has no edge at which to fold
    with console.capture() as shown:
        console.print(report(client.facts, content))
    return shown.get()


def gather(client: ControlClient, top: int) -> dict[str, Any]:
    """{"overview", "node", "queues", "connections"}; of the last two, the `top` with the most messages and the most traffic."""
    nodes = client.get("/api/nodes")
    return {
        "overview": client.get("/api/overview"),
        "node": nodes[0] if nodes else {},
        "queues": _page(client, "queues", "messages", top),
        "connections": _page(client, "connections", "recv_oct", top),
    }


def _page(client: ControlClient, kind: str, sort: str, top: int) -> list[dict[str, Any]]:
    if top == 0:
        return []
    page: dict[str, Any] = client.get(f"/api/{kind}?page=1&page_size={top}&sort={sort}&sort_reverse=true")
    items: list[dict[str, Any]] = page["items"]
    return items


def report(facts: Mapping[str, Any], content: Mapping[str, Any]) -> RenderableType:
    """What is shown: a head of some lines, then a table each for processes, queues and connections (where there are any)."""
    overview, node = content["overview"], content["node"]
    totals = overview.get("object_totals", {})
    parts: list[RenderableType] = [_head(facts, overview, node), _processes(node.get("processes", []))]
    if content["queues"]:
        parts.append(_queues(content["queues"], totals.get("queues", len(content["queues"]))))
    if content["connections"]:
        parts.append(_connections(content["connections"], totals.get("connections", len(content["connections"]))))
    return Group(*parts)


def _head(facts: Mapping[str, Any], overview: Mapping[str, Any], node: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    totals, messages = overview.get("object_totals", {}), overview.get("queue_totals", {})
    alarms = [name for name, key in (("memory", "mem_alarm"), ("disk", "disk_free_alarm")) if node.get(key)]
    rows: list[tuple[str, str]] = [
        ("node", f"{facts['node_name']}, Leveret {facts['version']}, up {duration(node.get('uptime', 0) / 1000)}"),
        ("AMQP", f"port {facts['amqp_port']} on {facts['amqp_host']}"),
        ("HTTP", f"port {facts['http_port']} on {facts['http_host']}"),
        ("data", str(facts["data_dir"])),
        ("durability", _durability(node)),
        ("memory", f"{size(node.get('mem_used', 0))} used, publishers held back above {size(node.get('mem_limit', 0))}"),
        ("disk", f"{size(node.get('disk_free', 0))} free, limit {size(node.get('disk_free_limit', 0))}"),
        (
            "messages",
            f"{count(messages.get('messages', 0))} in queues: {count(messages.get('messages_ready', 0))} ready, "
            f"{count(messages.get('messages_unacknowledged', 0))} unacked",
        ),
        ("rates", _rates(overview.get("message_stats", {}))),
        ("objects", ", ".join(f"{count(number)} {name}" for name, number in totals.items())),
        ("alarms", ", ".join(alarms) if alarms else "none"),
    ]
    if silent := overview.get("processes_silent"):
        rows.append(("silent", f"{', '.join(silent)} (not answering: numbers are incomplete)"))
    rows += [
        ("set aside", f"{path} (a shard that could not be used; its messages are not served)") for path in node.get("shards_set_aside", ())
    ]
    for name, text in rows:
        is_bad = name in ("silent", "set aside") or (name == "alarms" and bool(alarms))
        table.add_row(Text(name, style="bold"), Text(escaped(text), style="bold red" if is_bad else ""))
    return table


def _durability(node: Mapping[str, Any]) -> str:
    mode = str(node.get("durability", "unknown"))
    return f"{mode}: {DURABILITIES[mode]}" if mode in DURABILITIES else mode


def _rates(stats: Mapping[str, Any]) -> str:
    shown = [
        f"{count(round(stats[key + '_details']['rate']))}/s {label}"
        for key, label in (("publish", "published"), ("deliver_get", "delivered"), ("ack", "acked"))
        if key + "_details" in stats
    ]
    return ", ".join(shown) if shown else "none yet"


def _processes(processes: Iterable[Mapping[str, Any]]) -> Table:
    table = _table(
        "\nprocesses", ["process"], ["pid", "state", "CPU s", "CPU %", "memory", "files", "restarts", "up", "backlog"], folds=False
    )
    for process in processes:
        cpu_s = process.get("cpu_user_s", 0.0) + process.get("cpu_system_s", 0.0)
        state = _name(process.get("state", "down"))
        if not process.get("running"):
            state.stylize("bold red")
        table.add_row(
            _name(process.get("name", "")),
            str(process.get("pid") or "-"),
            state,
            f"{cpu_s:.2f}",
            f"{100 * process.get('cpu_utilisation', 0.0):.1f}",
            size(process.get("mem_resident", 0)),
            str(process.get("fd_used", "-")),
            str(process.get("restarts", 0)),
            duration(process.get("uptime", 0) / 1000),
            size(process.get("link_backlog_bytes", 0)),
        )
    return table


def _queues(queues: Sequence[Mapping[str, Any]], total: int) -> Table:
    table = _table(_of("queues", len(queues), total), ["vhost", "queue"], ["ready", "unacked", "consumers", "worker", "in/s", "out/s"])
    for queue in queues:
        stats = queue.get("message_stats", {})
        table.add_row(
            _name(queue.get("vhost", "")),
            _name(queue.get("name", "")),
            count(queue.get("messages_ready", 0)),
            count(queue.get("messages_unacknowledged", 0)),
            str(queue.get("consumers", 0)),
            str(queue.get("worker", "-")) if queue.get("state") == "running" else Text(escaped(str(queue.get("state"))), style="bold red"),
            count(round(stats.get("publish_details", {}).get("rate", 0))),
            count(round(stats.get("deliver_get_details", {}).get("rate", 0))),
        )
    return table


def _connections(connections: Sequence[Mapping[str, Any]], total: int) -> Table:
    table = _table(
        _of("connections", len(connections), total), ["connection", "user", "vhost"], ["state", "channels", "worker", "received", "sent"]
    )
    for connection in connections:
        table.add_row(
            _name(connection.get("name", "")),
            _name(connection.get("user", "")),
            _name(connection.get("vhost", "")),
            _name(connection.get("state", "")),
            str(connection.get("channels", 0)),
            str(connection.get("worker", "-")),
            size(connection.get("recv_oct", 0)),
            size(connection.get("send_oct", 0)),
        )
    return table


def _table(title: str, left: Sequence[str], right: Sequence[str], *, folds: bool = True) -> Table:
    """Columns to the left hold names, which fold on a narrow terminal unless they are short ones of our own."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in left:
        table.add_column(name, overflow="fold", no_wrap=not folds)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _of(what: str, shown: int, total: int) -> str:
    return f"\n{what}" if shown >= total else f"\n{what} ({shown} of {total}; --top shows more)"


def _name(value: object) -> Text:
    """A name as a terminal may show it: escaped, not read as markup, not endless."""
    text = escaped(str(value))
    return Text(text if len(text) <= NAME_CHARACTERS_MAX else text[: NAME_CHARACTERS_MAX - 1] + "…")


def size(size_bytes: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >= 1 << power:
            return f"{size_bytes / (1 << power):.1f} {unit}"
    return f"{int(size_bytes)} B"


def count(number: float) -> str:
    """A whole number with its thousands apart."""
    return f"{int(number):,}"


def duration(seconds: float) -> str:
    """Two units: "3 d 4 h", "4 h 5 min", "5 min 6 s", "6 s"."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
