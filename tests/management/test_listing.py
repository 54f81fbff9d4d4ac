"""Lists: filter, sort, columns and pages, with RabbitMQ's parameters and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from leveret.management.listing import at, cut, rank

from tests.management.simulated_node import SimulatedNode


@pytest.fixture
def many(node: SimulatedNode) -> SimulatedNode:
    """A node with 120 queues named q-000 … in the vhost a/b, and nothing in it besides."""
    topology = node.answers["router", 0, "topology"]
    template = next(queue for queue in topology["queues"] if queue["name"] == "orders")
    topology["queues"] = [template | {"id": 1000 + n, "name": f"q-{n:03}", "vhost": "a/b", "worker": n % 2} for n in range(120)]
    return node


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def test_without_page_the_answer_is_the_whole_array(many: SimulatedNode) -> None:
    assert len(many.get("/api/queues")) == 120


def test_a_page_carries_its_counts(many: SimulatedNode) -> None:
    page = many.get("/api/queues?page=2&page_size=50")
    assert names(page.pop("items")) == [f"q-{n:03}" for n in range(50, 100)]
    assert page == {"total_count": 120, "item_count": 50, "filtered_count": 120, "page": 2, "page_size": 50, "page_count": 3}
    assert many.get("/api/queues?page=3&page_size=50")["item_count"] == 20
    assert many.get("/api/queues?page=1")["page_size"] == 100


def test_a_page_behind_the_last_is_refused(many: SimulatedNode) -> None:
    response = many.request("GET", "/api/queues?page=4&page_size=50")
    assert response.status_code == 400
    assert response.json() == {"error": "page_out_of_range", "reason": "Page out of range, page: 4 page size: 50, len: 120"}


def test_the_first_page_of_nothing_is_there(node: SimulatedNode) -> None:
    assert node.get("/api/consumers/a%2Fb?page=1") == {
        "total_count": 0,
        "item_count": 0,
        "filtered_count": 0,
        "page": 1,
        "page_size": 100,
        "page_count": 1,
        "items": [],
    }


def test_a_name_filters_by_any_part_of_it_in_any_case(many: SimulatedNode) -> None:
    page = many.get("/api/queues?page=1&name=Q-11&use_regex=false&pagination=true")
    assert (page["filtered_count"], page["total_count"]) == (10, 120)
    assert names(many.get("/api/queues?name=q-119")) == ["q-119"]


def test_regular_expressions_are_refused(many: SimulatedNode) -> None:
    response = many.request("GET", "/api/queues?page=1&name=(a%2B)%2B%24&use_regex=true")
    assert response.status_code == 400
    assert "regular expressions are not supported" in response.json()["reason"]


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=one",
        "page=1.5",
        "page=99999999999999999999999",
        "page=1&page_size=0",
        "page=1&page_size=501",
        "page=1&page_size=-5",
        "page_size=x",
        "sort_reverse=perhaps",
        "name=" + "n" * 256,
        "columns=" + ",".join("abcdefghi" * 20),
        "sort=a.b.c.d.e.f.g.h.i.j",
    ],
)
def test_bad_parameters_are_bad_requests(node: SimulatedNode, query: str) -> None:
    response = node.request("GET", f"/api/queues?{query}")
    assert response.status_code == 400, response.text
    assert response.json()["error"] == "bad_request"
    assert query.partition("=")[0].split("&")[0] in response.json()["reason"] or "page_size" in response.json()["reason"]


def test_sort_follows_a_path_in_either_direction(node: SimulatedNode) -> None:
    assert names(node.get("/api/queues?sort=messages")) == ["a/b c", "mail", "orders"]
    assert names(node.get("/api/queues?sort=messages&sort_reverse=true")) == ["orders", "mail", "a/b c"]
    assert names(node.get("/api/queues?sort=message_stats.publish&sort_reverse=true"))[0] == "orders"
    assert names(node.get("/api/queues?sort=no.such.field,name")) == ["a/b c", "mail", "orders"]


def test_values_of_unlike_types_can_be_sorted() -> None:
    mixed = ["b", 2, None, {"x": 1}, 1.5, "a", [1], True]
    assert sorted(mixed, key=rank)[:6] == [None, True, 1.5, 2, "a", "b"]


def test_columns_keep_what_they_name_as_it_was_nested(node: SimulatedNode) -> None:
    assert node.get("/api/queues/%2F?columns=name,message_stats.publish") == [
        {"name": "mail", "message_stats": {}},
        {"name": "orders", "message_stats": {"publish": 40}},
    ]
    assert node.get("/api/queues/%2F/orders?columns=name,consumer_details.consumer_tag") == {
        "name": "orders",
        "consumer_details": [{"consumer_tag": "ctag1"}],
    }
    assert node.get("/api/overview?columns=object_totals.queues") == {"object_totals": {"queues": 3}}
    assert node.get("/api/queues?page=1&columns=vhost")["items"] == [{"vhost": "/"}, {"vhost": "/"}, {"vhost": "a/b"}]


def test_a_path_into_something_that_has_no_fields_is_nothing() -> None:
    assert at({"a": {"b": 1}}, ["a", "b"]) == 1
    assert at({"a": 5}, ["a", "b"]) is None
    assert cut({"a": 5, "c": 6}, [["a", "b"]]) == {"a": 5}
