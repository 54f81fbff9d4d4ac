"""The banner of `leveret start`: what it tells, and what it never tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from leveret.config import Settings
from leveret.ctl.banner import banner

FACTS = {
    "version": "0.1.0",
    "node_name": "leveret@h",
    "workers": 2,
    "pid": 7,
    "amqp_host": "::",
    "amqp_port": 5672,
    "http_host": "127.0.0.1",
    "http_port": 15672,
    "data_dir": "/data",
    "memory_limit_bytes": 3 << 30,
}


def shown(facts: dict[str, Any] | None = None, file: Path | None = None, **settings: Any) -> str:
    chosen = Settings(data_dir=Path("/data"), runtime_dir=Path("/run/leveret"), **settings)
    return " ".join(banner(FACTS | (facts or {}), chosen, file, 0.314).split())


@pytest.mark.parametrize(
    ("facts", "settings", "text"),
    [
        ({}, {}, "node leveret@h, 2 workers, process 7"),
        ({"workers": 1}, {}, "1 worker, process"),
        ({}, {}, "AMQP amqp://localhost:5672 (on every address of this machine)"),
        ({"amqp_host": "::1"}, {}, "AMQP amqp://[::1]:5672"),
        ({}, {}, "HTTP http://127.0.0.1:15672"),
        ({}, {}, "user guest, password guest, from this machine only"),
        ({}, {"default_pass": "x1y2"}, "user guest, with the configured password, from this machine only"),
        ({}, {"default_user": "ann"}, "user ann, unless the data folder has other users already"),
        ({}, {}, "data /data"),
        ({}, {}, "config defaults, environment and flags (no file)"),
        ({}, {}, "memory publishers are held back above 3.0 GiB"),
        ({"memory_limit_bytes": 512 << 20}, {}, "held back above 512.0 MiB"),
        ({}, {}, "durability disk: a confirm waits for the disk: what is confirmed survives a power cut"),
        ({}, {"durability": "os"}, "durability os: a confirm waits for the operating system only"),
        ({}, {"product": "RabbitMQ", "version": "4.2.0"}, "told as RabbitMQ 4.2.0"),
        ({}, {}, "Ready in 0.31 s."),
    ],
)
def test_banner_tells(facts: dict[str, Any], settings: dict[str, Any], text: str) -> None:
    assert text in shown(facts, **settings)


def test_banner_names_the_file_that_was_read() -> None:
    assert "config /etc/leveret/leveret.toml" in shown(file=Path("/etc/leveret/leveret.toml"))


def test_banner_never_tells_a_password_of_the_user_s_own() -> None:
    for user in ("guest", "ann"):
        assert "hunter2" not in shown(default_user=user, default_pass="hunter2")
    assert "told as" not in shown()
