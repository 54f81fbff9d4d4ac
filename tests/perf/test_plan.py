"""What is a load and what is none, and what a plan says of its queues and keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.perf.plan import Plan, PlanError, Target


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("amqp://", Target("localhost", 5672, "guest", "guest", "/")),
        ("amqp://host", Target("host", 5672, "guest", "guest", "/")),
        ("amqp://host/", Target("host", 5672, "guest", "guest", "/")),
        ("amqp://host/%2F", Target("host", 5672, "guest", "guest", "/")),
        ("amqp://u%40x:p%3A@[::1]:99/a%2Fb", Target("::1", 99, "u@x", "p:", "a/b")),
    ],
)
def test_an_address_is_read(uri: str, target: Target) -> None:
    assert Target.from_uri(uri) == target


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uri": "http://host"}, "amqp://"),
        ({"uri": "amqps://host"}, "TLS"),
        ({"uri": "amqp://host:port"}, "usable port"),
        ({"publishers": 0, "consumers": 0}, "nothing to do"),
        ({"publishers": -1}, "publishers must lie between 0 and 1,024"),
        ({"consumers": 1025}, "consumers must lie"),
        ({"queues": 0}, "queues must lie"),
        ({"size": -1}, "size must lie"),
        ({"prefetch": 65_536}, "prefetch must lie"),
        ({"exchange_kind": "headers"}, "not 'headers'"),
        ({"exchange_kind": "default", "exchange": "x"}, "default exchange"),
        ({"exchange_kind": "default", "binding_key": "x"}, "default exchange"),
        ({"declare_by": "nobody"}, "not 'nobody'"),
        ({"declare_by": "other"}, "--idle-between 1"),
        ({"ack": "multiple"}, "multiple:N"),
        ({"ack": "multiple:1"}, "multiple:N"),
        ({"ack": "multiple:x"}, "multiple:N"),
        ({"ack": "never"}, "'never'"),
        ({"ack": "multiple:100", "prefetch": 99}, "never comes with a prefetch of 99"),
        ({"rate": -1.0}, "positive"),
        ({"seconds": 0.0}, "positive"),
        ({"messages": -1}, "positive"),
        ({"publishers": 0}, "--queue"),
        ({"queues": 1000, "keys": 66}, "65,536"),
        ({"routing_key": "{wrong}"}, "no other braces"),
        ({"exchange_kind": "topic", "binding_key": "{"}, "no other braces"),
        ({"routing_key": "x" * 246}, "longer"),
        ({"queue": "ü" * 123}, "longer"),
    ],
)
def test_what_makes_no_load_is_refused_with_a_reason(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError) as refused:
        Plan(**options)
    assert said in str(refused.value)


@pytest.mark.parametrize(("ack", "every"), [("auto", 0), ("each", 1), ("multiple:2", 2), ("multiple:500", 500)])
def test_how_many_messages_an_ack_is_for(ack: str, every: int) -> None:
    assert Plan(ack=ack).ack_every == every


def test_a_plan_survives_json() -> None:
    plan = Plan(exchange_kind="topic", keys=3, rate=1.5, confirms=7).with_names("x")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_queue_has_a_consumer_and_every_consumer_a_queue(queues: int, consumers: int) -> None:
    plan = Plan(queues=queues, consumers=consumers)
    shares = [plan.queues_of(consumer) for consumer in range(consumers)]
    assert all(shares)
    assert {number for share in shares for number in share} == set(range(queues))


@pytest.mark.parametrize(
    ("kind", "queues", "keys", "routing_keys", "binding_keys", "copies"),
    [
        ("default", 1, 1, ["q"], None, 1),
        ("default", 2, 5, ["q-0", "q-1"], None, 1),
        ("direct", 2, 1, ["perf.0.0", "perf.1.0"], ["perf.0.0", "perf.1.0"], 1),
        ("topic", 2, 2, ["perf.0.0", "perf.1.0", "perf.0.1", "perf.1.1"], ["perf.0.*", "perf.1.*"], 1),
        ("fanout", 3, 1, [""], ["", "", ""], 3),
    ],
)
def test_keys_fit_the_exchange(
    kind: str, queues: int, keys: int, routing_keys: list[str], binding_keys: list[str] | None, copies: int
) -> None:
    plan = Plan(exchange_kind=kind, queues=queues, keys=keys, queue="q")
    assert plan.routing_keys() == routing_keys
    assert binding_keys is None or plan.binding_keys() == binding_keys
    assert plan.copies == copies


def test_with_the_users_own_keys_nobody_knows_the_copies() -> None:
    assert Plan(exchange_kind="topic", routing_key="a.{n}").copies is None
    assert Plan(exchange_kind="direct", binding_key="a").copies is None


def test_only_names_left_open_are_filled_in() -> None:
    named = Plan(exchange_kind="direct", queue="mine").with_names("7")
    assert (named.queue, named.exchange) == ("mine", "leveret-perf-7")
    assert Plan().with_names("7").exchange == ""
