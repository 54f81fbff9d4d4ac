"""The headers exchange as its users see it: x-match in its four forms, presence, types, and what a bind refuses."""

from __future__ import annotations

import decimal
from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed


def matches(placement: Placement, arguments: dict[str, Any], *tables: dict[str, Any] | None) -> list[bool]:
    """For each table of headers, whether a message with it comes through a binding with those arguments."""
    exchange, queue = placement.exchange("headers"), placement.queue()
    placement.owner.queue_bind(queue, exchange, "", arguments)
    for number, headers in enumerate(tables):
        placement.publisher.basic_publish(exchange, "any key", str(number).encode(), pika.BasicProperties(headers=headers))
    placement.owner.queue_bind(queue, exchange, "", {"x-match": "all-with-x", "end": "of all"})
    placement.publisher.basic_publish(exchange, "", b"end", pika.BasicProperties(headers={"end": "of all"}))
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    seen: list[bytes] = []
    while seen[-1:] != [b"end"]:
        seen += inbox.bodies(1)
    return [str(number).encode() in seen for number in range(len(tables))]


AB = {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("arguments", "verdicts"),
    [
        (AB, [True, True, False, False, False, False]),
        (AB | {"x-match": "all"}, [True, True, False, False, False, False]),
        (AB | {"x-match": "any"}, [True, True, True, True, False, False]),
        ({}, [True] * 6),
        ({"x-match": "any"}, [False] * 6),
    ],
    ids=["nothing said is all", "all", "any", "all of nothing", "any of nothing"],
)
def test_all_or_any_of_the_arguments_must_be_there(placement: Placement, arguments: dict[str, Any], verdicts: list[bool]) -> None:
    tables = [AB, AB | {"c": 3}, {"a": 1}, {"b": "x", "a": 2}, {"A": 1, "B": "x"}, None]
    assert matches(placement, arguments, *tables) == verdicts


@pytest.mark.parametrize(
    ("x_match", "verdicts"),
    [
        ("all", [True, True, False, False]),
        ("any", [True, True, False, False]),
        ("all-with-x", [True, False, False, False]),
        ("any-with-x", [True, True, True, False]),
    ],
)
def test_names_that_begin_with_x_count_only_with_x(placement: Placement, x_match: str, verdicts: list[bool]) -> None:
    arguments = {"x-match": x_match, "x-region": "eu", "a": 1}
    assert matches(placement, arguments, {"a": 1, "x-region": "eu"}, {"a": 1}, {"x-region": "eu"}, {"x-region": "us"}) == verdicts


def test_an_argument_without_a_value_asks_for_presence(placement: Placement) -> None:
    tables = [{"a": 1}, {"a": None}, {"a": {"deep": []}}, {"b": 1}, {}]
    assert matches(placement, {"a": None}, *tables) == [True, True, True, False, False]


def test_a_void_header_is_no_value(placement: Placement) -> None:
    assert matches(placement, {"a": 1}, {"a": None}, {"a": 1}) == [False, True]


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (1, ["1", True, 2, 2**40, b"1", decimal.Decimal(1)]),
        ("1", [1, b"1x", "01", ""]),
        (True, [1, "true", False]),
        (2**40, [2**40 + 1, str(2**40)]),
        (decimal.Decimal("1.5"), ["1.5", decimal.Decimal("2.5")]),
        (datetime(2024, 1, 1, tzinfo=UTC), ["2024-01-01", datetime(2024, 1, 2, tzinfo=UTC)]),
        ({"x": 1}, [{"x": 2}, {}, "x"]),
        ([1, "a"], [[1], ["a", 1], 1]),
        ("", ["a", 0, None]),
    ],
    ids=["int", "string", "bool", "long", "decimal", "timestamp", "table", "array", "empty string"],
)
def test_values_are_compared_with_their_types(placement: Placement, wanted: Any, others: list[Any]) -> None:
    tables = [{"a": value} for value in (wanted, *others)]
    assert matches(placement, {"a": wanted}, *tables) == [True] + [False] * len(others)


def test_a_queue_bound_several_ways_gets_one_copy(placement: Placement) -> None:
    exchange, queue = placement.exchange("headers"), placement.queue()
    for arguments in ({"a": 1}, {"b": 2}, {"x-match": "any", "a": 1, "b": 2}):
        placement.owner.queue_bind(queue, exchange, "", arguments)
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish(exchange, "", b"", pika.BasicProperties(headers={"a": 1, "b": 2}))
    assert placement.owner.queue_purge(queue).method.message_count == 1


def test_unbinding_takes_the_very_arguments_away(placement: Placement) -> None:
    exchange, queue = placement.exchange("headers"), placement.queue()
    placement.owner.queue_bind(queue, exchange, "", {"a": 1})
    placement.owner.queue_bind(queue, exchange, "", {"a": 2})
    placement.owner.queue_unbind(queue, exchange, "", {"a": 3})
    placement.owner.queue_unbind(queue, exchange, "", {"a": 1})
    placement.publisher.confirm_delivery()
    for value in (1, 2, 3):
        placement.publisher.basic_publish(exchange, "", str(value).encode(), pika.BasicProperties(headers={"a": value}))
    assert placement.consumer.basic_get(queue, auto_ack=True)[2] == b"2"
    assert placement.consumer.basic_get(queue)[0] is None


def test_the_width_of_a_number_makes_no_difference(placement: Placement) -> None:
    """A client packs 1 as one octet, another as eight; a timestamp is a number of seconds."""
    stamp = datetime(2024, 1, 1, tzinfo=UTC)
    assert matches(placement, {"a": 1704067200, "x-match": "any"}, {"a": stamp}, {"a": 1704067201}) == [True, False]
    assert matches(placement, {"a": pika.compat.long(5)}, {"a": 5}, {"a": pika.compat.long(5)}) == [True, True]
    assert matches(placement, {"a": b"bytes"}, {"a": "bytes"}) == [True]


@pytest.mark.parametrize("name", ["amq.headers", "amq.match"])
def test_the_predeclared_ones_work(placement: Placement, name: str) -> None:
    queue = placement.owner.queue_declare("", exclusive=True).method.queue
    placement.owner.queue_bind(queue, name, "", {"for": queue})
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish(name, "", b"", pika.BasicProperties(headers={"for": queue}), mandatory=True)
    assert placement.owner.queue_purge(queue).method.message_count == 1


def test_headers_decide_at_an_exchange_behind_another_too(placement: Placement) -> None:
    outer, inner, queue = placement.exchange("fanout"), placement.exchange("headers"), placement.queue()
    placement.owner.exchange_bind(inner, outer)
    placement.owner.queue_bind(queue, inner, "", {"a": 1})
    placement.publisher.confirm_delivery()
    for value in (1, 2):
        placement.publisher.basic_publish(outer, "", str(value).encode(), pika.BasicProperties(headers={"a": value}))
    assert placement.owner.queue_purge(queue).method.message_count == 1


def test_a_wrong_x_match_is_406_at_the_bind(placement: Placement) -> None:
    exchange, queue = placement.exchange("headers"), placement.queue()
    text = 'PRECONDITION_FAILED - Invalid x-match field value <<"most">>; expected all, any, all-with-x, or any-with-x'
    with channel_closed(406, text):
        placement.consumer.queue_bind(queue, exchange, "", {"x-match": "most"})


def test_an_x_match_that_is_no_string_is_406_at_the_bind(placement: Placement) -> None:
    exchange, queue = placement.exchange("headers"), placement.queue()
    text = "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr"
    with channel_closed(406, text):
        placement.consumer.queue_bind(queue, exchange, "", {"x-match": 1})
