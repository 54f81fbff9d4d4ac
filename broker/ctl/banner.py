"""What `leveret start` prints when the node is ready: for the people who started it. Programs read `--ready-fd` or `node.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leveret.config import DURABILITIES, Settings
from leveret.supervisor.listeners import shown

_EVERY = {"::", "0.0.0.0"}


def banner(facts: Mapping[str, Any], settings: Settings, file: Path | None, start_s: float) -> str:
    """Some ten lines of text. `facts` are `Supervisor.ready_facts()`, `file` is the configuration file if there is one."""
    workers = f"{facts['workers']} worker" + ("s" if facts["workers"] != 1 else "")
    rows = {
        "node": f"{facts['node_name']}, {workers}, process {facts['pid']}",
        "AMQP": _url("amqp", facts["amqp_host"], facts["amqp_port"]),
        "HTTP": _url("http", facts["http_host"], facts["http_port"]),
        "user": _user(settings),
        "data": str(facts["data_dir"]),
        "config": str(file) if file is not None else "defaults, environment and flags (no file)",
        "memory": f"publishers are held back above {_size(facts['memory_limit_bytes'])}",
        "durability": f"{settings.durability}: {DURABILITIES[settings.durability]}",
    }
    if settings.product != "Leveret":
        rows["told as"] = f"{settings.product} {settings.version}"
    lines = [f"  {name:<11} {text}" for name, text in rows.items()]
    return "\n".join(
        [
            "",
            f"Leveret {facts['version']}, a RabbitMQ-compatible message broker",
            "",
            *lines,
            "",
            f"Ready in {start_s:.2f} s. Stop with Ctrl-C or `leveret stop`; look with `leveret status`.",
            "",
        ]
    )


def _url(scheme: str, host: str, port: int) -> str:
    if host in _EVERY:
        return f"{scheme}://localhost:{port} (on every address of this machine)"
    return f"{scheme}://{shown(host, port)}"


def _user(settings: Settings) -> str:
    if settings.default_user != "guest":
        return f"{settings.default_user}, unless the data folder has other users already"
    if settings.default_pass != "guest":  # noqa: S105 (the default that everybody knows)
        return "guest, with the configured password, from this machine only"
    return "guest, password guest, from this machine only"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
