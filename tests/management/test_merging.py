"""What the API shows of the other processes' answers: one object from several, RabbitMQ's names, and what is missing when one is silent."""

from __future__ import annotations

import asyncio

import pytest

from tests.management.simulated_node import CHANNEL, CONNECTION, SimulatedNode


def test_a_queue_has_its_numbers_from_the_worker_that_owns_it(node: SimulatedNode) -> None:
    orders = node.get("/api/queues/%2F/orders")
    assert orders["state"] == "running"
    assert (orders["name"], orders["vhost"], orders["type"], orders["node"], orders["worker"]) == (
        "orders",
        "/",
        "classic",
        "leveret@test",
        0,
    )
    assert (orders["messages"], orders["messages_ready"], orders["messages_unacknowledged"]) == (32, 30, 2)
    assert (orders["message_bytes"], orders["message_bytes_ready"]) == (320, 300)
    assert orders["message_stats"]["publish"] == 40
    assert orders["message_stats"]["deliver_get"] == 8
    assert [consumer["consumer_tag"] for consumer in orders["consumer_details"]] == ["ctag1"]
    assert node.get("/api/queues/%2F/mail")["messages"] == 7


def test_an_exclusive_queue_names_its_connection(node: SimulatedNode) -> None:
    node.answers["router", 0, "topology"]["queues"][0] |= {"exclusive": True, "owner": "0-1"}
    orders = node.get("/api/queues/%2F/orders")
    assert orders["owner_pid_details"] == {"name": CONNECTION, "peer_host": "127.0.0.1", "peer_port": 50001}
    assert "owner_pid_details" not in node.get("/api/queues/%2F/mail")


def test_lists_cover_all_vhosts_or_one(node: SimulatedNode) -> None:
    assert [queue["name"] for queue in node.get("/api/queues")] == ["mail", "orders", "a/b c"]
    assert [queue["name"] for queue in node.get("/api/queues/%2F")] == ["mail", "orders"]
    assert [queue["name"] for queue in node.get("/api/queues/a%2Fb")] == ["a/b c"]
    assert node.request("GET", "/api/queues/nowhere").status_code == 404


@pytest.mark.parametrize("path", ["/api/queues/a%2Fb/a%2Fb%20c", "/api/queues/a%2fb/a%2fb%20c"])
def test_an_encoded_slash_belongs_to_the_name(node: SimulatedNode, path: str) -> None:
    assert node.get(path)["name"] == "a/b c"


def test_a_bare_slash_separates(node: SimulatedNode) -> None:
    assert node.request("GET", "/api/queues/a/b/c").status_code == 404


def test_a_queue_of_a_silent_worker_is_down_and_the_others_are_not(node: SimulatedNode) -> None:
    node.answers["worker", 0, "statistics"] = None
    orders = node.get("/api/queues/%2F/orders")
    assert orders["state"] == "down"
    assert "messages" not in orders
    assert node.get("/api/queues/%2F/mail")["messages"] == 7
    assert node.get("/api/connections") == []
    assert node.get("/api/overview")["processes_silent"] == ["worker-0"]


def test_the_node_tells_of_shards_that_were_set_aside(node: SimulatedNode) -> None:
    (shown,) = node.get("/api/nodes")
    assert shown["shards_set_aside"] == ["/data/shards/1.corrupt-20261124T093000Z"]
    node.answers["worker", 1, "statistics"] = None
    (shown,) = node.get("/api/nodes")
    assert shown["shards_set_aside"] == [], "who does not answer tells nothing"


def test_a_silent_router_leaves_the_last_known_topology(node: SimulatedNode) -> None:
    node.answers["router", 0, "topology"] = node.answers["router", 0, "statistics"] = None
    assert node.get("/api/queues/%2F/orders")["messages"] == 32
    assert node.get("/api/overview")["processes_silent"] == ["router"]
    assert node.get("/api/vhosts/%2F")["cluster_state"] == {"leveret@test": "stopped"}
    router = next(process for process in node.get("/api/nodes")[0]["processes"] if process["name"] == "router")
    assert router["running"] is False


def test_the_overview_adds_everything_up(node: SimulatedNode) -> None:
    overview = node.get("/api/overview")
    assert overview["object_totals"] == {"connections": 1, "channels": 1, "consumers": 1, "exchanges": 3, "queues": 3}
    assert overview["queue_totals"]["messages"] == 44
    assert overview["queue_totals"]["messages_unacknowledged"] == 2
    assert overview["message_stats"]["publish"] == 111
    assert overview["message_stats"]["deliver_get"] == 61
    assert overview["churn_rates"]["connection_created"] == 4
    assert [(listener["protocol"], listener["port"]) for listener in overview["listeners"]] == [("amqp", 5672), ("http", 15672)]
    assert [kind["name"] for kind in overview["exchange_types"]] == ["direct", "fanout", "topic"]
    assert overview["processes_silent"] == []


def test_exchanges_show_what_goes_in_and_out(node: SimulatedNode) -> None:
    logs = node.get("/api/exchanges/%2F/logs")
    assert (logs["type"], logs["durable"], logs["internal"]) == ("fanout", True, False)
    assert (logs["message_stats"]["publish_in"], logs["message_stats"]["publish_out"]) == (20, 40)
    assert node.get("/api/exchanges/%2F/amq.default")["name"] == ""
    assert node.request("GET", "/api/exchanges/%2F/none").status_code == 404


def test_bindings_by_either_end(node: SimulatedNode) -> None:
    assert len(node.get("/api/bindings")) == len(node.get("/api/bindings/%2F")) == 3
    assert node.get("/api/bindings/a%2Fb") == []
    assert [b["source"] for b in node.get("/api/queues/%2F/orders/bindings")] == ["", "logs"]
    assert [b["destination"] for b in node.get("/api/exchanges/%2F/amq.topic/bindings/source")] == ["logs"]
    assert [b["source"] for b in node.get("/api/exchanges/%2F/logs/bindings/destination")] == ["amq.topic"]


def test_connections_and_channels_by_name(node: SimulatedNode) -> None:
    connection = node.get(f"/api/connections/{CONNECTION}")
    assert (connection["user"], connection["recv_oct"], connection["worker"]) == ("guest", 1000, 0)
    assert connection["recv_oct_details"] == {"rate": 0.0}
    assert [channel["number"] for channel in node.get(f"/api/connections/{CONNECTION}/channels")] == [1]
    channel = node.get(f"/api/channels/{CHANNEL}")
    assert channel["connection_details"] == {"name": CONNECTION, "peer_host": "127.0.0.1", "peer_port": 50001}
    assert channel["message_stats"]["ack"] == 5
    assert [consumer["consumer_tag"] for consumer in channel["consumer_details"]] == ["ctag1"]
    assert node.request("GET", "/api/connections/nobody").status_code == 404
    assert node.request("GET", "/api/channels/nobody").status_code == 404


def test_a_connection_that_moves_while_all_are_asked_is_one(node: SimulatedNode) -> None:
    for kind in ("connections", "channels"):
        node.answers["worker", 1, "statistics"][kind] = list(node.answers["worker", 0, "statistics"][kind])
    assert [connection["name"] for connection in node.get("/api/connections")] == [CONNECTION]
    assert [channel["name"] for channel in node.get("/api/channels")] == [CHANNEL]
    assert node.get("/api/overview")["object_totals"]["connections"] == 1


def test_consumers_by_vhost(node: SimulatedNode) -> None:
    (consumer,) = node.get("/api/consumers/%2F")
    assert consumer["queue"] == {"name": "orders", "vhost": "/"}
    assert consumer["activity_status"] == "up"
    assert node.get("/api/consumers/a%2Fb") == []
    assert node.request("GET", "/api/consumers/nowhere").status_code == 404


def test_vhosts_add_up_their_queues(node: SimulatedNode) -> None:
    vhosts = {vhost["name"]: vhost for vhost in node.get("/api/vhosts")}
    assert vhosts["/"]["messages"] == 39
    assert vhosts["/"]["recv_oct"] == 1000
    assert vhosts["a/b"]["messages"] == 5
    assert node.get("/api/vhosts/a%2Fb")["cluster_state"] == {"leveret@test": "running"}


def test_the_node_shows_every_process(node: SimulatedNode) -> None:
    (shown,) = node.get("/api/nodes")
    assert shown == node.get("/api/nodes/leveret@test") | {"processes": shown["processes"]}
    assert (shown["running"], shown["os_pid"], shown["mem_used"], shown["mem_alarm"]) == (True, "100", 150_000_000, False)
    assert (shown["proc_used"], shown["proc_total"], shown["sockets_used"]) == (5, 5, 1)
    worker = next(process for process in shown["processes"] if process["name"] == "worker-0")
    assert (worker["pid"], worker["mem_used"], worker["link_backlog_bytes"]) == (102, 30_000_000, 4096)
    assert worker["handovers"] == {"moved": 2, "arrived": 1}
    assert worker["cpu_user_s"] + worker["cpu_system_s"] == 2.0
    assert node.request("GET", "/api/nodes/other@host").status_code == 404


def test_a_process_that_is_being_restarted_does_not_run(node: SimulatedNode) -> None:
    worker = node.answers["supervisor", 0, "node"]["processes"][3]
    worker |= {"pid": None, "state": "restarting", "restarts": 2}
    node.answers["worker", 1, "statistics"] = None
    shown = node.get("/api/nodes/leveret@test")
    assert shown["proc_used"] == 4
    assert [(p["pid"], p["running"], p["restarts"]) for p in shown["processes"] if p["name"] == "worker-1"] == [(None, False, 2)]


def test_what_json_does_not_know_comes_out_as_valid_json(node: SimulatedNode) -> None:
    properties = node.get("/api/connections")[0]["client_properties"]
    assert properties == {"product": "Pika", "strange": None, "raw": "�\x00"}


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm_fails_the_health_checks(node: SimulatedNode, resource: str) -> None:
    assert node.get("/api/health/checks/alarms") == {"status": "ok"}
    node.answers["supervisor", 0, "node"][resource]["alarm"] = True
    for check, where in (("alarms", "in the cluster"), ("local-alarms", "on the node")):
        response = node.request("GET", f"/api/health/checks/{check}")
        assert response.status_code == 503
        assert response.json() == {
            "status": "failed",
            "reason": f"There are alarms in effect {where}",
            "alarms": [{"node": "leveret@test", "resource": resource}],
        }


def test_a_silent_supervisor_is_not_healthy_and_stops_no_page(node: SimulatedNode) -> None:
    node.answers["supervisor", 0, "node"] = None
    assert node.request("GET", "/api/health/checks/alarms").status_code == 503
    assert node.get("/api/nodes") == [
        {
            "name": "leveret@test",
            "type": "disc",
            "rates_mode": "basic",
            "partitions": [],
            "being_drained": False,
            "running": False,
            "processes": [],
        }
    ]
    assert node.get("/api/overview")["processes_silent"] == ["supervisor"]


def test_requests_that_come_together_share_one_round_of_questions(node: SimulatedNode) -> None:
    node.asked.clear()

    async def many() -> list[object]:
        return await asyncio.gather(*(node.surveyor.survey() for _ in range(50)))

    assert len(set(map(id, node.run(many())))) == 1
    assert node.asked.count(("router", 0, "topology")) == 1


def test_a_request_never_gets_answers_older_than_itself(node: SimulatedNode) -> None:
    """One that comes while a round is under way waits for the next: what it declared a moment ago must be in it."""
    node.asked.clear()
    node.is_asked.clear()

    async def overlapping() -> tuple[object, object]:
        first = asyncio.ensure_future(node.surveyor.survey())
        await node.is_asked.wait()
        second = asyncio.ensure_future(node.surveyor.survey())
        return await first, await second

    first, second = node.run(overlapping())
    assert first is not second
    assert node.asked.count(("router", 0, "topology")) == 2
