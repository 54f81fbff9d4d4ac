"""What a report says of a load: its rate, who was the limit, and what does not add up."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from leveret.perf.histogram import Histogram
from leveret.perf.plan import Plan
from leveret.perf.process_tree import Usage
from leveret.perf.report import BrokerUse, LoaderUse, Report
from leveret.perf.session import told
from rich.console import Console

QUIET = LoaderUse("publisher 0", elapsed_s=10.0, cpu_s=1.0, starved_s=0.5)


def report_of(**fields: Any) -> Report:
    """A load that went well, but for `fields`."""
    report = Report(
        plan=Plan(uri="amqp://me:secret@host:5673/v"),
        server="Leveret 0.1.0, durability disk",
        published_per_s=1000.0,
        received_per_s=1000.0,
        published=10_000,
        received=10_000,
        left_in_queues=0,
        confirmed=0,
        nacked=0,
        unconfirmed=0,
        returned=0,
        redelivered=0,
        overtaken=0,
        foreign=0,
        unsettled=0,
        latency=Histogram(),
        confirm_latency=Histogram(),
        loaders=[QUIET],
        broker=None,
        machine_busy_share=0.5,
    )
    return dataclasses.replace(report, **fields)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, 0),
        ({"received": 9_000}, 1000),
        ({"received": 9_000, "left_in_queues": 1000}, 0),
        ({"received": 10_050, "redelivered": 50}, 0),
        ({"received": 9_900, "nacked": 60, "returned": 40}, 0),
        ({"received": 10_001}, -1),
        ({"plan": Plan(exchange_kind="fanout", queues=3), "received": 30_000}, 0),
        ({"plan": Plan(exchange_kind="fanout", queues=3), "received": 29_000}, 1000),
        ({"plan": Plan(exchange_kind="topic", routing_key="own"), "received": 0}, None),
        ({"received": 0, "left_in_queues": None}, None),
        ({"received": 0, "foreign": 1}, None),
        ({"received": 0, "unsettled": 1}, None),
    ],
)
def test_every_message_is_accounted_for_or_missing(fields: dict[str, Any], missing: int | None) -> None:
    assert report_of(**fields).missing == missing


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"received": 9_000}, "1,000 messages are missing"),
        ({"received": 10_002}, "2 messages came more often"),
        ({"overtaken": 3}, "3 messages came after a later one"),
        ({"unconfirmed": 4}, "4 publishes were never confirmed"),
        ({"unsettled": 1}, "1 publishers could not get rid"),
        ({"nacked": 5, "received": 9_995}, "5 publishes were nacked"),
    ],
)
def test_what_a_broker_did_wrong_is_said(fields: dict[str, Any], said: str) -> None:
    (fault,) = report_of(**fields).faults
    assert fault.startswith(said)


def test_a_load_that_went_well_has_no_faults() -> None:
    assert report_of().faults == []


def busy(cpu_s: float, starved_s: float) -> LoaderUse:
    return LoaderUse("consumer 0", 10.0, cpu_s, starved_s)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, ""),
        ({"loaders": [QUIET, busy(9.0, 0.5)]}, "generator"),
        ({"loaders": [busy(0.1, 9.8)]}, "generator"),
        ({"loaders": [busy(9.0, 0.0)]}, ""),
        ({"machine_busy_share": 0.97, "loaders": [busy(9.9, 0.0)]}, "machine"),
        ({"plan": Plan(rate=1000.0), "loaders": [busy(10.0, 0.0)]}, "rate"),
        ({"plan": Plan(rate=2000.0)}, ""),
    ],
)
def test_who_was_the_limit(fields: dict[str, Any], limit: str) -> None:
    assert report_of(**fields).limit == limit


def test_broker_cpu_is_that_of_the_whole_tree_a_message() -> None:
    before = (100.0, [Usage(1, "supervisor", 5.0, 10), Usage(2, "worker", 7.0, 20)])
    after = (110.0, [Usage(1, "supervisor", 5.5, 10), Usage(2, "worker", 9.0, 500), Usage(3, "late", 0.5, 1)])
    use = BrokerUse.between([before, after], rss_max_bytes=400)
    assert use.by_process == [("supervisor", 1, 0.5), ("worker", 2, 2.0), ("late", 3, 0.5)]
    assert use.rss_max_bytes == 511
    # 3 s of CPU in 10 s at 1,000 messages/s.
    assert report_of(broker=use).broker_cpu_us == pytest.approx(300.0)
    assert report_of(broker=use, received_per_s=0.0).broker_cpu_us is None


def test_a_load_without_consumers_is_judged_by_what_it_publishes() -> None:
    assert report_of(plan=Plan(consumers=0), received_per_s=0.0).messages_per_s == 1000.0


def test_json_holds_the_load_and_no_password() -> None:
    latency = Histogram()
    latency.record(1_500)
    text = json.dumps(report_of(latency=latency).to_json())
    assert "secret" not in text
    shown = json.loads(text)
    assert shown["plan"]["uri"] == "amqp://host:5673/v"
    assert shown["server"] == "Leveret 0.1.0, durability disk"
    assert shown["latency_us"]["p50"] == 1.5
    assert shown["confirm_latency_us"] is None


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"product": "Leveret", "version": "0.1.0", "durability": "os"}, "Leveret 0.1.0, durability os"),
        ({"product": "RabbitMQ", "version": "3.10.8", "capabilities": {}}, "RabbitMQ 3.10.8"),
        ({"product": b"bytes", "version": None}, ""),
        ({}, ""),
        ({"product": "evil\x1b[2J"}, "evil\\x1b[2J"),
        ({"product": "x" * 100_000}, "x" * 60),
    ],
)
def test_a_broker_is_told_by_what_it_calls_itself(properties: dict[str, Any], text: str) -> None:
    assert told(properties) == text


def test_the_table_shows_rates_and_faults() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report_of(overtaken=3).table())
    shown = " ".join(console.export_text().split())
    assert shown.startswith("broker Leveret 0.1.0, durability disk published 1,000 msg/s")
    assert "3 messages came after a later one" in shown
