"""The model of docs/scaling.md: its arithmetic by table, and what must hold whatever the costs are."""

from __future__ import annotations

import pytest

from bench import scaling
from bench.scaling import CHECKS, FITTED, MIXES, Use, fit, put_between_marks, use_of
from bench.scaling_model import Costs, Mix, link_us, local_share, message_us, router_full_at, throughput, workers_reached

COSTS = Costs(local=1.0, publish_hop=0.4, deliver_hop=0.2, routed=0.6, router=0.1, router_copy=0.05, copy=0.3, route=0.04, durable=2.0)


@pytest.mark.parametrize(("near", "workers", "share"), [(0.0, 1, 1.0), (0.0, 4, 0.25), (1.0, 4, 1.0), (0.5, 2, 0.75)])
def test_who_is_not_near_is_local_by_chance(near: float, workers: int, share: float) -> None:
    assert local_share(near, workers) == pytest.approx(share)


@pytest.mark.parametrize(("queues", "workers", "reached"), [(1, 8, 1.0), (10, 1, 1.0), (2, 2, 1.5), (1000, 4, 4.0)])
def test_queues_are_spread_over_workers_at_random(queues: int, workers: int, reached: float) -> None:
    assert workers_reached(queues, workers) == pytest.approx(reached)


@pytest.mark.parametrize(("workers", "us"), [(1, 0.0), (2, 0.006), (11, 0.06), (5000, 6.0)])
def test_more_links_share_fewer_system_calls(workers: int, us: float) -> None:
    assert link_us(workers) == pytest.approx(us)


@pytest.mark.parametrize(
    ("mix", "workers", "worker_us", "router_us"),
    [
        (Mix("local"), 1, 1.0, 0.0),
        (Mix("near", near=1.0), 64, 1.0, 0.0),
        (Mix("spread"), 2, 1.0 + 0.5 * (0.4 + 0.006) + 0.5 * (0.2 + 0.006), 0.0),
        (Mix("topic", near=1.0, named=1.0), 8, 1.6, 0.1),
        (Mix("half topic", near=1.0, named=0.5), 8, 1.3, 0.05),
        (Mix("durable", near=1.0, durable=0.5), 8, 2.0, 0.0),
        (Mix("fan-out", named=1.0, queues=4), 1, 1.0 + 3 * 0.3 + 0.6, 0.1),
        (Mix("fan-out", near=1.0, named=1.0, queues=2), 2, 1.0 + 0.3 + 0.6 * 1.25, 0.1 + 0.5 * 0.05),
    ],
)
def test_a_message_costs_its_parts(mix: Mix, workers: int, worker_us: float, router_us: float) -> None:
    assert message_us(COSTS, mix, workers) == pytest.approx((worker_us, router_us))


def test_with_verdicts_in_the_workers_the_router_has_nothing_to_do() -> None:
    assert message_us(COSTS, Mix("", near=1.0, named=1.0), 64, verdicts_in_workers=True) == pytest.approx((1.04, 0.0))
    worker_us, router_us = message_us(COSTS, Mix("", named=1.0), 2, verdicts_in_workers=True)
    assert (worker_us, router_us) == pytest.approx((1.0 + 0.5 * 0.206 + 0.04 + 0.5 * 0.406, 0.0))


@pytest.mark.parametrize(
    ("mix", "cores", "client_us", "published_per_s", "limit"),
    [
        (Mix("", near=1.0), 1, 0.0, 900_000, "cores"),
        (Mix("", near=1.0), 64, 0.0, 64 * 900_000, "cores"),
        (Mix("", near=1.0), 2, 0.8, 1_000_000, "cores"),
        (Mix("", near=1.0, named=1.0), 4, 0.0, 4 * 0.9e6 / 1.7, "cores"),
        (Mix("", near=1.0, named=1.0), 64, 0.0, 9_000_000, "router"),
        (Mix("", near=1.0, changes_per_s=1000), 64, 0.0, 64 * 900_000 - 1000 * 30 * 64, "cores"),
    ],
)
def test_the_narrower_of_cores_and_router_decides(mix: Mix, cores: int, client_us: float, published_per_s: float, limit: str) -> None:
    found = throughput(COSTS, mix, cores, client_us=client_us)
    assert (found.published_per_s, found.limit) == (pytest.approx(published_per_s), limit)


def test_a_fan_out_delivers_every_copy() -> None:
    found = throughput(COSTS, Mix("", named=0.5, queues=10), 1)
    assert found.delivered_per_s == pytest.approx(5.5 * found.published_per_s)


def test_the_router_is_full_from_where_more_cores_add_nothing() -> None:
    mix = Mix("", near=1.0, named=1.0)
    assert router_full_at(COSTS, mix) == 18  # 17 cores carry 0.9 * 17 / 1.7 = 9 million, which is what the router carries
    assert throughput(COSTS, mix, 18).published_per_s == pytest.approx(throughput(COSTS, mix, 64).published_per_s)
    assert router_full_at(COSTS, Mix("", near=1.0)) is None


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.name)
def test_verdicts_in_the_workers_never_make_the_router_the_limit(mix: Mix) -> None:
    assert all(throughput(COSTS, mix, cores, verdicts_in_workers=True).limit == "cores" for cores in scaling.CORES)


@pytest.mark.parametrize("wrong", [{"near": 1.1}, {"named": -0.1}, {"durable": 2.0}, {"queues": 0}, {"changes_per_s": -1.0}])
def test_an_impossible_mix_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no such mix"):
        Mix("wrong", **wrong)  # type: ignore[arg-type]


def test_no_cores_carry_nothing() -> None:
    with pytest.raises(ValueError, match="at least one core"):
        throughput(COSTS, Mix(""), 0)


def test_costs_are_differences_of_runs_and_never_below_zero() -> None:
    uses = {name: Use(1.0, 0.0, 0.1, 1e6, 2.0) for name in FITTED}
    uses["publish_hop"] = Use(1.4, 0.0, 0.1, 1e6, 2.0)
    uses["deliver_hop"] = Use(0.9, 0.0, 0.1, 1e6, 2.0)
    uses["routed"] = Use(1.6, 0.1, 0.1, 1e6, 2.0)
    uses["copy"] = Use(1.6 + 9 * 0.3, 0.1, 0.1, 1e6, 2.0)
    uses["durable"] = Use(3.0, 0.0, 0.1, 1e6, 2.0)
    costs = fit(uses)
    assert (costs.local, costs.publish_hop, costs.deliver_hop) == pytest.approx((1.0, 0.4, 0.0))
    assert (costs.routed, costs.router, costs.copy, costs.durable) == pytest.approx((0.6, 0.1, 0.3, 2.0))
    assert costs.route < costs.router
    assert costs.router_copy < costs.router


def test_a_report_is_taken_apart_by_process() -> None:
    processes = [("leveret", 1, 0.5), ("leveret.router", 2, 0.2), ("leveret.worker", 3, 1.0), ("leveret.worker", 4, 0.5)]
    details = {
        "broker": {"elapsed_s": 2.0, "by_process": processes},
        "published_per_s": 1_000_000.0,
        "messages_per_s": 2_000_000.0,
        "generator_cpu_us_per_message": 0.1,
    }
    use = use_of(details)
    assert (use.worker_us, use.router_us, use.client_us) == pytest.approx((0.75, 0.1, 0.2))
    assert use.used_cores == pytest.approx(1.05)


def test_checks_are_other_runs_than_those_that_were_fitted() -> None:
    names = [case.name for case in FITTED.values()] + [case.name for case, _ in CHECKS]
    assert len(names) == len(set(names))
    assert {case.workers for case, _ in CHECKS} == {1, 2}


def test_tables_go_between_their_marks() -> None:
    text = "before\n<!-- costs -->\nold\n<!-- /costs -->\nafter\n"
    assert put_between_marks(text, "costs", ["a", "b"]) == "before\n<!-- costs -->\na\nb\n<!-- /costs -->\nafter\n"
    with pytest.raises(ValueError, match="no marks for checks"):
        put_between_marks(text, "checks", [])


def test_the_page_shows_what_the_committed_costs_give() -> None:
    uses = scaling.read_uses(scaling.ROOT / "bench" / "scaling_costs.json")
    text = scaling.PAGE.read_text()
    for name, lines in scaling.tables(uses).items():
        assert put_between_marks(text, name, lines) == text, f"python -m bench.scaling --costs bench/scaling_costs.json --page ({name})"
