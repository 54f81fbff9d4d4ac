"""`leveret perf` against a started broker: every mode, small, and each message accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from leveret.perf.fleet import Fleet, LoadFailed
from leveret.perf.plan import Plan
from leveret.perf.session import Session

from tests.node import Broker

MODES: dict[str, dict[str, Any]] = {
    "auto": {},
    "ack_each": {"ack": "each", "prefetch": 50},
    "ack_multiple": {"ack": "multiple:7", "prefetch": 50},
    "confirms": {"confirms": 100, "persistent": True, "durable": True, "ack": "each", "prefetch": 50},
    "one_confirm_at_a_time": {"confirms": 1, "messages": 50},
    "direct": {"exchange_kind": "direct", "queues": 3, "consumers": 2},
    "topic": {"exchange_kind": "topic", "queues": 2, "keys": 5},
    "fanout": {"exchange_kind": "fanout", "queues": 3, "consumers": 2, "durable": True},
    "many": {"publishers": 2, "consumers": 2, "messages": 1001, "confirms": 10},
    "fewer_messages_than_publishers": {"publishers": 2, "messages": 1},
    "two_frames": {"size": 200_000, "messages": 20},
    "empty": {"size": 0},
    "rate": {"rate": 2000.0, "messages": 200},
    "by_consumer": {"declare_by": "consumer"},
    "by_another": {"declare_by": "other", "idle_between": 1},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_message_comes_once_and_in_order(broker: Broker, mode: str) -> None:
    plan = Plan(**({"uri": broker.url, "messages": 1000} | MODES[mode]))
    with Fleet(plan) as fleet:
        report = fleet.run()
    assert report.faults == []
    assert (report.published, report.missing, report.left_in_queues) == (plan.messages, 0, 0)
    assert report.received == plan.messages * (plan.copies or 0)
    assert report.confirmed == (plan.messages if plan.confirms else 0)
    assert report.received_per_s > 0
    assert report.latency.total == (report.received if plan.size >= 8 else 0)


def test_a_queue_is_filled_and_then_drained(broker: Broker) -> None:
    queue = f"perf-{os.getpid()}"
    with Fleet(Plan(uri=broker.url, consumers=0, messages=500, queue=queue)) as fleet:
        filled = fleet.run()
    assert (filled.left_in_queues, filled.missing, filled.faults) == (500, 0, [])
    with Fleet(Plan(uri=broker.url, publishers=0, queue=queue, seconds=0.3, warmup_s=0.0)) as fleet:
        drained = fleet.run()
    with broker.connect() as connection:
        assert connection.channel().queue_delete(queue).method.message_count == 0
    assert (drained.received, drained.faults) == (500, [])


def test_a_session_binds_with_many_keys_and_returns_when_all_are_bound(broker: Broker) -> None:
    queue, keys = f"perf-bound-{os.getpid()}", [f"key {number}" for number in range(401)]
    session = Session(Plan(uri=broker.url).target, "binder")
    session.declare_queue(queue)
    session.bind_all(queue, "amq.direct", iter(keys))
    with broker.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for key in keys:
            channel.basic_publish("amq.direct", key, b"", mandatory=True)  # raises for one that no queue takes
        assert channel.queue_delete(queue).method.message_count == len(keys)
    session.close()


def test_unroutable_messages_come_back(broker: Broker) -> None:
    plan = Plan(uri=broker.url, exchange_kind="direct", routing_key="nobody", mandatory=True, confirms=50, messages=300)
    with Fleet(plan) as fleet:
        report = fleet.run()
    assert (report.returned, report.confirmed, report.received) == (300, 300, 0)


def test_by_time_only_the_measured_part_makes_the_rate(broker: Broker) -> None:
    with Fleet(Plan(uri=broker.url, rate=500.0, warmup_s=2.5, seconds=0.5)) as fleet:
        report = fleet.run()
    assert report.faults == []
    # 250 messages in half a second. With the warm-up counted in, 3,000/s; with its time alone, 83/s. What lies between is for the machine:
    # a publisher that gets no core for some time is behind, and publishes what was due in the warm-up when that is over.
    assert 100.0 < report.published_per_s < 1500.0
    assert 0 < report.latency.total < report.received


def test_a_load_leaves_nothing_of_its_own_behind(broker: Broker) -> None:
    with Fleet(Plan(uri=broker.url, exchange_kind="direct", messages=10)) as fleet:
        fleet.run()
        queue, exchange = fleet.plan.queue, fleet.plan.exchange
    for declare in ("queue_declare", "exchange_declare"):
        with broker.connect() as connection, pytest.raises(Exception, match="404"):
            getattr(connection.channel(), declare)(queue if declare == "queue_declare" else exchange, passive=True)


def test_a_refusal_is_told_with_code_and_text(broker: Broker) -> None:
    with pytest.raises(LoadFailed) as failed, Fleet(Plan(uri=broker.url, publishers=0, queue="no such queue")) as fleet:
        fleet.run()
    assert failed.value.reply_code == 404
    assert failed.value.text == "NOT_FOUND - no queue 'no such queue' in vhost '/'"


def perf(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "leveret", "perf", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_command_writes_json_and_a_table(broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = perf("--uri", broker.url, "--messages", "200", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "200 published, 200 received, 0 left in queues" in done.stdout
    assert json.loads(file.read_text())["counts"]["received"] == 200


def test_the_command_writes_json_to_standard_output(broker: Broker) -> None:
    done = perf("--uri", broker.url, "--messages", "200", "--json", "-")
    assert json.loads(done.stdout)["missing"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--consumers", "1", "--publishers", "0", "--queue", "nope"], "404 NOT_FOUND - no queue 'nope' in vhost '/'"),
        (["--ack", "sometimes"], "ack is auto, each or multiple:N"),
        (["--uri", "amqp://127.0.0.1:1"], "no connection to 127.0.0.1:1: Connection refused"),
    ],
)
def test_the_command_fails_in_one_sentence(broker: Broker, arguments: list[str], said: str) -> None:
    done = perf("--uri", broker.url, *arguments)
    assert done.returncode != 0
    assert said in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr
