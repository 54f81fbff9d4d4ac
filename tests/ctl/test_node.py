"""The commands against a real node: start, status and stop as their users run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions
import pytest
from leveret.perf.fleet import Fleet
from leveret.perf.plan import Plan
from leveret.refusal import OK, UNAVAILABLE

from tests.deadline import eventually
from tests.node import Node

MakeNode = Callable[..., Node]


def leveret(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, run to its end. Its terminal is wide, so that no table is folded."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    return subprocess.run(
        [sys.executable, "-m", "leveret", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"COLUMNS": "250"},
        check=False,
    )


def status(node: Node) -> dict[str, Any]:
    done = leveret("status", "--data-dir", str(node.data_dir), "--json")
    assert (done.returncode, done.stderr) == (OK, "")
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def test_banner_is_printed_when_the_node_serves(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    log = node.log_path.read_text()
    assert f"AMQP        amqp://127.0.0.1:{node.port}\n" in log
    assert f"HTTP        http://127.0.0.1:{node.http_port}\n" in log
    assert "user        guest, password guest, from this machine only\n" in log


def test_status_shows_a_client_s_queue_and_connection(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    connection = node.connect()
    channel = connection.channel()
    channel.queue_declare("status-queue")
    for _ in range(3):
        channel.basic_publish("", "status-queue", b"x")

    def seen() -> dict[str, Any] | None:
        content = status(node)
        (queue,) = content["queues"] or [{}]
        return content if queue.get("messages_ready") == 3 and content["connections"] else None

    content = eventually(seen, within_s=30)
    assert content is not None
    assert content["queues"][0]["name"] == "status-queue"
    assert content["connections"][0]["user"] == "guest"
    names = {process["name"] for process in content["node"]["processes"]}
    assert names == {"supervisor", "router", "worker-0", "worker-1", "management"}
    assert all(process["running"] and process["mem_resident"] > 0 for process in content["node"]["processes"])

    done = leveret("status", "--data-dir", str(node.data_dir))
    assert (done.returncode, done.stderr) == (OK, "")
    text = " ".join(done.stdout.split())
    assert f"AMQP port {node.port} on 127.0.0.1" in text
    assert "messages 3 in queues: 3 ready, 0 unacked" in text
    assert "/ status-queue 3 0 0" in text
    connection.close()


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_the_running_durability_is_told_wherever_people_look(fresh_node: MakeNode, durability: str) -> None:
    node = fresh_node(workers=1, **({"durability": durability} if durability != "disk" else {}))
    log = node.log_path.read_text()
    assert f"durability  {durability}: a confirm waits for the " in log  # the banner
    assert re.search(rf"node ready after [0-9.]+ s, 1 workers, durability {durability}\n", log)
    shown = leveret("status", "--data-dir", str(node.data_dir)).stdout
    assert f"durability {durability}: a confirm waits for the " in " ".join(shown.split())
    assert (node.api("overview")["durability"], node.api("nodes")[0]["durability"]) == (durability, durability)
    with node.connect() as connection:
        properties = connection._impl.server_properties
    assert properties["durability"] == durability
    with Fleet(Plan(uri=node.url, messages=10)) as fleet:
        assert fleet.run().server.endswith(f", durability {durability}")


def test_stop_ends_the_node_and_closes_its_clients_with_320(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    connection = node.connect()
    done = leveret("stop", "--data-dir", str(node.data_dir))
    assert (done.returncode, done.stdout, done.stderr) == (OK, f"Stopped {status_name(node)}.\n", "")
    node.wait_stopped()
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        connection.process_data_events(time_limit=30)
    assert closed.value.reply_code == 320
    assert closed.value.reply_text == "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
    again = leveret("stop", "--data-dir", str(node.data_dir))
    assert again.returncode == UNAVAILABLE
    assert (
        again.stderr
        == f"leveret: no broker is running on {node.data_dir}; start one with `leveret start`, or name its folder with --data-dir\n"
    )


def status_name(node: Node) -> str:
    """The node's name, as its own log tells it in the banner."""
    line = next(line for line in node.log_path.read_text().splitlines() if line.startswith("  node "))
    return line.split()[1].rstrip(",")
