"""Rates: what a counter did per second since the reference sample, and when there is nothing to tell."""

from __future__ import annotations

import pytest
from leveret.management.counters import detailed, whole
from leveret.management.history import SAMPLES_KEPT, History

from tests.management.simulated_node import INTERVAL_S, SimulatedNode


def history(*samples: tuple[float, dict[str, int]], interval_s: float = 10.0) -> History:
    made = History(interval_s)
    for clock_s, counters in samples:
        made.record(clock_s, {"it": counters})
    return made


def test_a_rate_is_the_difference_over_the_time() -> None:
    assert history((100.0, {"publish": 50})).rates("it", {"publish": 170}, 110.0) == {"publish": 12.0}


def test_a_sample_of_just_now_is_passed_over_for_the_one_before() -> None:
    made = history((100.0, {"publish": 0}), (110.0, {"publish": 100}))
    assert made.rates("it", {"publish": 110}, 111.0) == {"publish": 10.0}
    assert made.rates("it", {"publish": 200}, 115.0) == {"publish": 20.0}


def test_without_a_settled_sample_there_is_no_rate() -> None:
    assert history().rates("it", {"publish": 5}, 3.0) == {"publish": 0.0}
    assert history((100.0, {"publish": 0})).rates("it", {"publish": 5}, 101.0) == {"publish": 0.0}


def test_what_was_not_there_before_has_no_rate() -> None:
    """It may be old and its worker only silent at the last sample: its whole count would then show as one burst."""
    made = history((100.0, {"publish": 1}))
    assert made.rates("other", {"publish": 500}, 110.0) == {"publish": 0.0}
    assert made.rates("it", {"ack": 7, "publish": 1}, 110.0) == {"ack": 0.0, "publish": 0.0}


def test_only_the_last_samples_are_kept() -> None:
    made = History(10.0)
    for number in range(100):
        made.record(number * 10.0, {f"gone-{number}": {"publish": 1}})
    assert len(made._samples) == SAMPLES_KEPT


def test_a_counter_that_went_back_shows_no_negative_rate_and_a_length_does() -> None:
    assert detailed({"publish": 3}, {"publish": -4.0}) == {"publish": 3, "publish_details": {"rate": 0.0}}
    assert detailed({"messages": 3}, {"messages": -4.0}, gauges=True) == {"messages": 3, "messages_details": {"rate": -4.0}}


def test_deliver_get_is_the_sum_of_all_deliveries() -> None:
    counters = whole({"deliver": 1, "deliver_no_ack": 2, "get": 3, "get_no_ack": 4, "ack": 9, "unknown": 5}, ("deliver", *"abc", "ack"))
    assert counters == {"deliver": 1, "ack": 9, "deliver_get": 1}
    assert whole({"publish": 3}, ("publish", "deliver")) == {"publish": 3}


@pytest.fixture
def later(node: SimulatedNode, monkeypatch: pytest.MonkeyPatch) -> SimulatedNode:
    """The node one interval after its sample, with 40 more publishes on worker 0 and 10 fewer messages in the queue."""
    now_s = node.run(node.surveyor.survey()).answers.clock_s
    node.sample()
    monkeypatch.setattr("leveret.management.surveyor.time.monotonic", lambda: now_s + INTERVAL_S)
    worker = node.answers["worker", 0, "statistics"]
    worker["totals"]["message_stats"]["publish"] += 40
    worker["queues"][0]["message_stats"]["publish"] += 40
    worker["queues"][0] |= {"messages": 22, "messages_ready": 20}
    worker["connections"][0]["recv_oct"] += 5000
    worker["channels"][0]["message_stats"]["publish"] += 40
    node.answers["router", 0, "statistics"]["exchanges"]["3"]["publish_out"] += 10
    node.answers["supervisor", 0, "node"]["processes"][2]["cpu_user_s"] += 2.5
    return node


def test_every_page_shows_its_rates(later: SimulatedNode) -> None:
    near = pytest.approx
    queue = later.get("/api/queues/%2F/orders")
    assert queue["message_stats"]["publish_details"]["rate"] == near(8.0, rel=0.01)
    assert queue["messages_ready_details"]["rate"] == near(-2.0, rel=0.01)
    overview = later.get("/api/overview")
    assert overview["message_stats"]["publish_details"]["rate"] == near(8.0, rel=0.01)
    assert overview["queue_totals"]["messages_details"]["rate"] == near(-2.0, rel=0.01)
    assert later.get("/api/connections")[0]["recv_oct_details"]["rate"] == near(1000.0, rel=0.01)
    assert later.get("/api/channels")[0]["message_stats"]["publish_details"]["rate"] == near(8.0, rel=0.01)
    assert later.get("/api/exchanges/%2F/logs")["message_stats"]["publish_out_details"]["rate"] == near(2.0, rel=0.01)
    worker = next(process for process in later.get("/api/nodes")[0]["processes"] if process["name"] == "worker-0")
    assert worker["cpu_utilisation"] == near(0.5, rel=0.01)


def test_a_worker_that_falls_silent_takes_only_its_own_rates_away(later: SimulatedNode) -> None:
    later.answers["worker", 1, "statistics"] = None
    assert later.get("/api/overview")["message_stats"]["publish_details"]["rate"] == pytest.approx(8.0, rel=0.01)
