"""The HTTP API of a running node: what clients do by AMQP is what it shows, from whichever process it comes.

Over the shared `broker`: names are each test's own, counts are of these names only.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pika
import pytest

from tests.deadline import eventually
from tests.node import Broker, Node

pytestmark = pytest.mark.not_on_peer("asks Leveret's own HTTP API")

Channel = pika.adapters.blocking_connection.BlockingChannel


@pytest.fixture
def connection(broker: Broker) -> Iterator[pika.BlockingConnection]:
    made = broker.connect(client_properties={"connection_name": "the api test"})
    yield made
    if made.is_open:
        made.close()


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> Channel:
    return connection.channel()


@pytest.fixture
def name() -> str:
    """A name that no other test has, with what a URL cannot carry bare."""
    return f"api/{uuid.uuid4().hex} ü"


def path_of(*names: str) -> str:
    return "/".join(quote(name, safe="") for name in names)


def status_of(broker: Broker, path: str, **options: Any) -> httpx.Response:
    settings = {"auth": (broker.user, broker.password), "timeout": 20} | options
    return httpx.get(f"http://{broker.host}:{broker.http_port}/{path}", **settings)


def test_a_declared_queue_is_there_at_once_with_its_settings(broker: Broker, channel: Channel, name: str) -> None:
    channel.queue_declare(name, durable=True, arguments={"x-queue-mode": "lazy"})
    queue = broker.api(f"queues/{path_of('/', name)}")
    assert (queue["name"], queue["vhost"], queue["type"], queue["state"]) == (name, "/", "classic", "running")
    assert (queue["durable"], queue["auto_delete"], queue["exclusive"]) == (True, False, False)
    assert queue["arguments"] == {"x-queue-mode": "lazy"}
    channel.queue_delete(name)
    assert status_of(broker, f"api/queues/{path_of('/', name)}").status_code == 404


def test_messages_are_counted_where_they_are(broker: Broker, channel: Channel, name: str) -> None:
    channel.queue_declare(name)
    channel.confirm_delivery()
    for _ in range(7):
        channel.basic_publish("", name, b"0123456789")
    held = [channel.basic_get(name)[0].delivery_tag for _ in range(3)]

    def counts() -> bool:
        queue = broker.api(f"queues/{path_of('/', name)}")
        assert (queue["messages"], queue["messages_ready"], queue["messages_unacknowledged"]) == (7, 4, 3)
        assert (queue["message_bytes"], queue["message_bytes_ready"]) == (70, 40)
        assert queue["message_stats"]["publish"] == 7
        assert queue["message_stats"]["deliver_get"] == 3
        return True

    assert eventually(counts)
    channel.basic_ack(held[-1], multiple=True)
    assert eventually(lambda: broker.api(f"queues/{path_of('/', name)}")["messages"] == 4)
    assert broker.api(f"queues/{path_of('/', name)}")["message_stats"]["ack"] == 3
    channel.queue_delete(name)


def test_exchanges_and_bindings(broker: Broker, channel: Channel, name: str) -> None:
    channel.exchange_declare(name, "topic", durable=True)
    channel.queue_declare(name)
    channel.queue_bind(name, name, "log.#")
    exchange = broker.api(f"exchanges/{path_of('/', name)}")
    assert (exchange["type"], exchange["durable"], exchange["internal"]) == ("topic", True, False)
    bindings = broker.api(f"queues/{path_of('/', name)}/bindings")
    assert [(b["source"], b["routing_key"]) for b in bindings] == [("", name), (name, "log.#")]
    assert [b["destination"] for b in broker.api(f"exchanges/{path_of('/', name)}/bindings/source")] == [name]
    assert bindings[1] in broker.api("bindings/%2F")
    channel.confirm_delivery()
    for key in ("log.a", "log.b", "other"):
        channel.basic_publish(name, key, b"")

    def counted() -> bool:
        stats = broker.api(f"exchanges/{path_of('/', name)}")["message_stats"]
        return (stats["publish_in"], stats["publish_out"]) == (3, 2)

    assert eventually(counted)
    channel.exchange_delete(name)
    channel.queue_delete(name)
    assert status_of(broker, f"api/exchanges/{path_of('/', name)}").status_code == 404


def test_the_predeclared_exchanges_are_listed(broker: Broker) -> None:
    listed = {exchange["name"]: exchange["type"] for exchange in broker.api("exchanges/%2F")}
    for name, kind in {"": "direct", "amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic"}.items():
        assert listed[name] == kind
    assert broker.api("exchanges/%2F/amq.default")["name"] == ""


def own_connection(broker: Broker, connection: pika.BlockingConnection) -> dict[str, Any]:
    """The API's row of this connection: its name has the address of our end."""
    host, port = connection._impl._transport._sock.getsockname()[:2]
    rows = broker.api("connections")
    found = [row for row in rows if row["name"].startswith(f"{host}:{port} -> ")]
    assert len(found) == 1, [row["name"] for row in rows]
    return dict(found[0])


def test_a_connection_its_channel_and_its_consumer(
    broker: Broker, connection: pika.BlockingConnection, channel: Channel, name: str
) -> None:
    channel.basic_qos(prefetch_count=17)
    channel.queue_declare(name)
    channel.basic_consume(name, lambda *_: None, consumer_tag=name)
    row = eventually(lambda: own_connection(broker, connection))
    assert (row["user"], row["vhost"], row["state"], row["protocol"]) == ("guest", "/", "running", "AMQP 0-9-1")
    assert row["client_properties"]["connection_name"] == row["user_provided_name"] == "the api test"
    assert row["channels"] == 1
    assert row["recv_oct"] > 100
    assert row["send_oct"] > 100
    assert broker.api(f"connections/{path_of(row['name'])}")["name"] == row["name"]
    (of_connection,) = broker.api(f"connections/{path_of(row['name'])}/channels")
    shown = broker.api(f"channels/{path_of(of_connection['name'])}")
    assert (shown["name"], shown["number"], shown["consumer_count"]) == (f"{row['name']} (1)", 1, 1)
    assert [consumer["consumer_tag"] for consumer in shown["consumer_details"]] == [name]
    (consumer,) = [consumer for consumer in broker.api("consumers/%2F") if consumer["consumer_tag"] == name]
    assert (consumer["queue"], consumer["prefetch_count"], consumer["ack_required"]) == ({"name": name, "vhost": "/"}, 17, True)
    assert consumer["channel_details"]["connection_name"] == row["name"]
    connection.close()
    assert eventually(lambda: status_of(broker, f"api/connections/{path_of(row['name'])}").status_code == 404)


def test_the_overview_counts_what_there_is(broker: Broker, channel: Channel, name: str) -> None:
    before = broker.api("overview")
    channel.queue_declare(name)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"x")

    def counted() -> bool:
        now = broker.api("overview")
        names = [queue["name"] for queue in broker.api("queues")]  # what the tests before this one left may still be on its way out
        return bool(
            now["object_totals"]["queues"] == len(names)
            and name in names
            and now["message_stats"]["publish"] > before["message_stats"].get("publish", 0)
            and now["queue_totals"]["messages"] > 0
            and now["object_totals"]["connections"] >= 1
        )

    assert eventually(counted)
    assert broker.api("overview")["processes_silent"] == []
    assert {listener["port"] for listener in broker.api("overview")["listeners"]} == {broker.port, broker.http_port}
    channel.queue_delete(name)


def test_the_node_has_all_its_processes(broker: Broker) -> None:
    (node,) = broker.api("nodes")
    processes = {process["name"]: process for process in node["processes"]}
    workers = {f"worker-{index}" for index in range(len(processes) - 3)}
    assert set(processes) == {"supervisor", "router", "management"} | workers
    assert len({process["pid"] for process in processes.values()}) == len(processes)
    for process in processes.values():
        assert process["running"], process
        assert process["mem_resident"] > 1_000_000
        assert process["fd_used"] > 0
        assert process["cpu_user_s"] + process["cpu_system_s"] > 0
    assert {link["peer"] for link in processes["worker-0"]["links"]} >= {"router"}
    assert (node["running"], node["mem_alarm"], node["disk_free_alarm"]) == (True, False, False)
    assert 0 < node["mem_used"] < node["mem_limit"]
    assert broker.api("health/checks/alarms") == {"status": "ok"}


def test_the_nodes_memory_is_that_of_its_processes_at_this_moment(broker: Broker, channel: Channel) -> None:
    """Not that of the supervisor's last look, which is up to a second ago while there is much room."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    for _ in range(3):
        for _ in range(16):
            channel.basic_publish("", queue, bytes(1 << 20))
        channel.queue_declare(queue, passive=True)
        (node,) = broker.api("nodes")
        assert node["mem_used"] == pytest.approx(sum(process["mem_used"] for process in node["processes"]), abs=4 << 20)


def test_pages_over_many_queues(broker: Broker, channel: Channel) -> None:
    prefix = f"page-{uuid.uuid4().hex}"
    names = [f"{prefix}-{number:02}" for number in range(25)]
    for queue in names:
        channel.queue_declare(queue, exclusive=True)
    page = broker.api(f"queues/%2F?page=3&page_size=10&name={prefix}&columns=name")
    assert page["items"] == [{"name": queue} for queue in names[20:]]
    assert (page["filtered_count"], page["page_count"], page["item_count"]) == (25, 3, 5)


def test_an_exclusive_queue_names_its_owner(broker: Broker, connection: pika.BlockingConnection, channel: Channel, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    queue = broker.api(f"queues/{path_of('/', name)}")
    assert queue["exclusive"] is True
    assert queue["owner_pid_details"]["name"] == own_connection(broker, connection)["name"]
    connection.close()
    assert eventually(lambda: status_of(broker, f"api/queues/{path_of('/', name)}").status_code == 404)


def test_only_users_get_in(broker: Broker) -> None:
    refused = {"error": "not_authorised", "reason": "Login failed"}
    for auth in (None, ("guest", "wrong"), ("nobody", "guest")):
        response = status_of(broker, "api/overview", auth=auth)
        assert (response.status_code, response.json()) == (401, refused)
    assert broker.api("whoami") == {"name": "guest", "tags": ["administrator"]}


def test_the_default_user_of_the_configuration_gets_in(fresh_node: Callable[..., Node]) -> None:
    node = fresh_node(workers=1, default_user="operator", default_pass="an operator's secret")
    node.user, node.password = "operator", "an operator's secret"
    assert node.api("whoami")["name"] == "operator"
    assert status_of(node, "api/whoami", auth=("guest", "guest")).status_code == 401
    assert "an operator's secret" not in node.log_tail(1000)


def test_a_node_without_a_router_still_answers(fresh_node: Callable[..., Node]) -> None:
    """And says what is missing, until the router is back."""
    node = fresh_node(workers=1)
    node.connect().channel().queue_declare("kept", durable=True)
    assert eventually(lambda: [queue["name"] for queue in node.api("queues")] == ["kept"])
    before = node.processes()["router"]
    node.kill_process("router")
    assert status_of(node, "api/overview").status_code == 200
    assert eventually(lambda: node.processes().get("router", before) != before)
    assert eventually(lambda: node.api("overview")["processes_silent"] == [])
    assert [queue["name"] for queue in node.api("queues")] == ["kept"]


def test_a_killed_management_process_comes_back(fresh_node: Callable[..., Node]) -> None:
    node = fresh_node(workers=1)
    with node.connect() as connection:
        node.kill_process("management")
        assert eventually(lambda: bool(node.api("nodes")))
        connection.channel().queue_declare("undisturbed", exclusive=True)


def test_rates_move_while_messages_do(fresh_node: Callable[..., Node]) -> None:
    node = fresh_node(workers=1, statistics_interval_ms=100)
    with node.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("busy")

        def publishing() -> bool:
            for _ in range(100):
                channel.basic_publish("", "busy", b"x")
            rate: float = node.api("queues/%2F/busy")["message_stats"]["publish_details"]["rate"]
            return rate > 1.0

        assert eventually(publishing)


def control_socket(node: Node) -> str:
    """The path of the node's control socket, as it stands in `node.json`."""
    return str(json.loads((node.data_dir / "node.json").read_text())["control_socket"])


def test_the_control_socket_stops_the_node_and_the_port_does_not(fresh_node: Callable[..., Node]) -> None:
    node = fresh_node(workers=1)
    by_port = httpx.post(f"http://{node.host}:{node.http_port}/api/control/stop", auth=(node.user, node.password), timeout=20)
    assert by_port.status_code == 404
    with httpx.Client(transport=httpx.HTTPTransport(uds=control_socket(node)), timeout=20) as client:
        assert client.get("http://localhost/api/overview").status_code == 200
        assert client.post("http://localhost/api/control/stop").status_code == 202
    node.wait_stopped()


def test_leveret_status_and_stop(fresh_node: Callable[..., Node]) -> None:
    node = fresh_node(workers=1)

    def leveret(*words: str) -> str:
        command = [sys.executable, "-m", "leveret", *words, "--data-dir", str(node.data_dir)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    with node.connect() as connection:
        connection.channel().queue_declare("shown")
        status = json.loads(leveret("status", "--json"))
        assert [queue["name"] for queue in status["queues"]] == ["shown"]
        assert len(status["connections"]) == 1
    leveret("stop")
    node.wait_stopped()


def test_half_open_clients_do_not_keep_others_out(broker: Broker) -> None:
    idle = [socket.create_connection((broker.host, broker.http_port or 0)) for _ in range(100)]
    try:
        for sock in idle:
            sock.sendall(b"GET /api/overview HTTP/1.1\r\nhost: x\r\n")
        assert broker.api("whoami")["name"] == "guest"
    finally:
        for sock in idle:
            sock.close()
