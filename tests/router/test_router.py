"""The router process: answers, replicas, restarts and deaths, over real links."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from leveret.codec.errors import AmqpError, PreconditionFailed
from leveret.link.link import RequestFailed
from leveret.refusal import DATA
from leveret.router.commands import (
    Bind,
    Command,
    CreateVhost,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    PutUser,
    SetPermissions,
    Unbind,
)
from leveret.storage.definitions import Definitions

from tests.router.router_process import WITHIN_S, RouterProcess


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="lv-"))
    yield path
    shutil.rmtree(path)


def of_kind(changes: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [change for change in changes if change["change"] == kind]


def sorted_topology(topology: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    return {kind: sorted(map(repr, items)) for kind, items in topology.items()}


def test_a_fresh_node_has_its_default_user_and_vhost(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder, default_user="boss", default_pass="canary-7", default_vhost="main") as router:
            assert router.facts == {"vhosts": 1, "exchanges": 7, "queues": 0}
            worker = await router.connect("worker")
            assert [change["name"] for change in of_kind(worker.snapshot, "vhost_added")] == ["main"]
            [user] = of_kind(worker.snapshot, "user_put")
            assert (user["name"], user["tags"]) == ("boss", ["administrator"])
            assert "canary" not in repr(worker.snapshot)
            assert of_kind(worker.snapshot, "permissions_set") == [
                {"change": "permissions_set", "user": "boss", "vhost": "main", "configure": ".*", "write": ".*", "read": ".*"}
            ]
            assert len(of_kind(worker.snapshot, "exchange_added")) == 7
            # Deleted defaults do not come back: only empty storage is filled.
            management = await router.connect("management")
            await management.do(CreateVhost("other"))
            await management.ask("delete_vhost", {"name": "main"})
            await management.ask("delete_user", {"name": "boss"})
            await router.kill()
            await router.start()
            again = await router.connect("worker")
            assert [change["name"] for change in of_kind(again.snapshot, "vhost_added")] == ["other"]
            assert of_kind(again.snapshot, "user_put") == []

    asyncio.run(main())


def test_a_declare_is_answered_when_every_worker_has_it(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            zero, one = await router.connect("worker", 0), await router.connect("worker", 1)
            one.says_applied = False
            declared = asyncio.ensure_future(zero.do(DeclareQueue("/", "q", worker=0)))
            repeated = asyncio.ensure_future(zero.do(DeclareQueue("/", "q", worker=0)))
            await one.hears(lambda: bool(one.changes))
            # A command that tells the workers nothing new is answered meanwhile, after the two: so they wait for the worker alone.
            assert await zero.ask("statistics")
            assert not declared.done() and not repeated.done()
            one.say_applied()
            assert (await declared)["created"] is True
            assert (await repeated)["created"] is False, "an equal declare waits too: its client will publish at once"
            assert zero.changes == one.changes

    asyncio.run(main())


def test_a_worker_that_does_not_answer_delays_a_declare_by_five_seconds_at_most(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            zero, one = await router.connect("worker", 0), await router.connect("worker", 1)
            one.says_applied = False
            begun = time.monotonic()
            await zero.do(DeclareQueue("/", "q", worker=0))
            assert 4 < time.monotonic() - begun < 10
            assert one.link is not None
            waiting = asyncio.ensure_future(zero.do(DeclareQueue("/", "p", worker=0)))
            await one.hears(lambda: len(one.changes) == 2)
            begun = time.monotonic()
            one.link.close("gone")
            await waiting
            assert time.monotonic() - begun < 3, "a worker whose link is lost is not waited for"

    asyncio.run(main())


def test_refusals_and_nonsense_are_answered(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            worker = await router.connect("worker")
            await worker.do(DeclareQueue("/", "q", worker=0))
            with pytest.raises(PreconditionFailed, match="inequivalent arg 'durable'"):
                await worker.do(DeclareQueue("/", "q", durable=True, worker=0))
            for verb, body, sentence in [
                ("declare_queue", {"vhost": 5}, "declare_queue: vhost must be str"),
                ("fly", {}, "unknown request 'fly'"),
                ("users", None, "only management may see password hashes"),
                ("barrier", {"worker": 1}, "worker 1 is down"),
            ]:
                with pytest.raises(RequestFailed, match=sentence):
                    await worker.ask(verb, body)
            assert (await worker.do(DeclareQueue("/", "q", worker=0)))["created"] is False

    asyncio.run(main())


def test_a_barrier_is_answered_when_the_worker_has_answered(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            zero, one = await router.connect("worker", 0), await router.connect("worker", 1)
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            goes_on: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

            def barrier() -> Any:
                reached.set_result(None)
                return goes_on

            one.barrier = barrier
            answer = asyncio.ensure_future(zero.ask("barrier", {"worker": 1}))
            async with asyncio.timeout(WITHIN_S):
                await reached
            assert await zero.ask("statistics")
            assert not answer.done()
            goes_on.set_result({})
            assert await answer == {}

    asyncio.run(main())


def test_a_large_snapshot_comes_in_parts(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            zero = await router.connect("worker", 0)
            assert zero.link is not None
            await asyncio.gather(
                *(zero.link.ask("declare_queue", {"vhost": "/", "name": f"q{n}", "worker": 0, "durable": n % 2 == 0}) for n in range(5000))
            )
            one = await router.connect("worker", 1)
            assert one.snapshot_parts == 3
            assert one.snapshot == zero.snapshot + zero.changes

    asyncio.run(main())


SOME_OF_EVERYTHING: list[Command] = [
    CreateVhost("two", user="guest"),
    PutUser("u", "hash", tags=("monitoring",)),
    SetPermissions("u", "two", "a", "b", "c"),
    DeclareExchange("/", "durable", "topic", durable=True),
    DeclareExchange("/", "transient", "headers", arguments=b""),
    DeclareQueue("/", "durable", durable=True, worker=1),
    DeclareQueue("/", "transient", worker=0),
    DeclareQueue("/", "mine", exclusive=True, owner="c1", worker=0),
    Bind("/", "durable", "durable", "a.#"),
    Bind("/", "durable", "transient", "b"),
    Bind("/", "durable", "mine", "c", owner="c1"),
    Bind("/", "durable", "transient", "d", "exchange"),
    Bind("/", "transient", "durable"),
    DeclareQueue("two", "gone", durable=True, worker=0),
    DeleteQueue("two", "gone"),
]


def test_a_killed_router_loses_nothing_and_a_new_run_keeps_what_is_durable(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            worker = await router.connect("worker", 0)
            for command in SOME_OF_EVERYTHING:
                await worker.do(command)
            management = await router.connect("management")
            before = await management.ask("topology")
            await router.kill()
            async with asyncio.timeout(WITHIN_S):
                await worker.closed.wait()
            await router.start()
            again = await router.connect("worker", 0)  # the same process as before: its clients are still there
            management = await router.connect("management")
            after = await management.ask("topology")
            assert sorted_topology(after) == sorted_topology(before)
            assert sorted(map(repr, again.snapshot)) == sorted(map(repr, worker.snapshot + kept(worker.changes)))
            new_id = (await again.do(DeclareQueue("/", "new", worker=0)))["id"]
            assert new_id > max(queue["id"] for queue in before["queues"])

            assert await router.stop() == 0
            router.run_id = "run-2"
            await router.start()
            management = await router.connect("management")
            durable = await management.ask("topology")
            assert [queue["name"] for queue in durable["queues"]] == ["durable"]
            assert {exchange["name"] for exchange in durable["exchanges"] if exchange["vhost"] == "/"} >= {"durable", "amq.topic"}
            assert "transient" not in {exchange["name"] for exchange in durable["exchanges"]}
            assert [binding["routing_key"] for binding in durable["bindings"] if binding["source"] == "durable"] == ["a.#"]
            assert (durable["users"], durable["permissions"]) == (before["users"], before["permissions"])
            assert [path.name for path in (folder / "data" / "session").iterdir()] == ["run-2"]

    asyncio.run(main())


def test_the_identity_and_the_number_of_shards_are_told_and_kept(folder: Path) -> None:
    async def main() -> None:
        identities = set()
        for run, (workers, shards) in enumerate([(2, 2), (3, 3), (1, 3)]):
            async with RouterProcess(folder, workers=workers) as router:
                worker = await router.connect("worker", 0)
                assert worker.shards == shards
                identities.add(worker.identity)
                await worker.do(DeclareQueue("/", f"q{run}", durable=True, worker=workers - 1))
                await router.stop()
        assert len(identities) == 1
        async with RouterProcess(folder, workers=2) as router:
            worker = await router.connect("worker", 0)
            places = {change["name"]: (change["shard"], change["worker"]) for change in of_kind(worker.snapshot, "queue_added")}
            assert places == {"q0": (1, 1), "q1": (2, 0), "q2": (0, 0)}

    asyncio.run(main())


def kept(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The additions that no later removal took back."""
    removed = {change["id"] for change in changes if change["change"] in ("queue_removed", "exchange_removed")}
    return [change for change in changes if change.get("id") not in removed]


def assert_sound(environment: Path) -> None:
    """LMDB's own offline check: every page reachable once, free and live pages cover the file."""
    verified = subprocess.run([sys.executable, "-m", "lmdb", "verify", "-e", str(environment)], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_answered_commands_survive_a_kill_at_any_moment(folder: Path) -> None:
    """Random commands, one after the other over two links, and a SIGKILL in the middle: whatever was answered is there afterwards."""
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)

    async def main() -> None:
        async with RouterProcess(folder) as router:
            for round_no in range(4):
                worker = await router.connect("worker", 0)
                expected: dict[str, bool] = {}
                uncertain: set[str] = set()

                async def churn(
                    name_from: int, prefix: str = f"r{round_no}", worker: Any = worker, expected: Any = expected, uncertain: Any = uncertain
                ) -> None:
                    for n in range(name_from, name_from + 100_000):
                        name = f"{prefix}-{n}"
                        uncertain.add(name)
                        durable = rng.random() < 0.5
                        await worker.do(DeclareQueue("/", name, durable=durable, worker=0))
                        await worker.do(Bind("/", "amq.topic", name, name))
                        expected[name] = True
                        if rng.random() < 0.3:
                            await worker.do(DeleteQueue("/", name))
                            expected[name] = False
                        uncertain.discard(name)

                churning = [asyncio.ensure_future(churn(n * 100_000)) for n in range(2)]
                await worker.hears(lambda worker=worker: len(worker.changes) >= rng.randint(20, 120))
                await router.kill()
                await asyncio.wait(churning)
                assert_sound(folder / "data" / "definitions")
                for task in churning:
                    assert task.exception() is not None
                await router.start()
                management = await router.connect("management")
                topology = await management.ask("topology")
                there = {queue["name"] for queue in topology["queues"]}
                bound = {binding["destination"] for binding in topology["bindings"] if binding["source"] == "amq.topic"}
                assert len(expected) > 5
                for name, exists in expected.items():
                    if name not in uncertain:
                        assert (name in there) == exists, f"{name}; seed {seed}"
                        assert (name in bound) == exists, f"binding of {name}; seed {seed}"

    asyncio.run(main())


def test_exclusive_queues_go_with_the_workers_process_not_with_its_link(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            process = router.stand_in()
            zero = await router.connect("worker", 0, process.pid)
            one = await router.connect("worker", 1)
            await zero.do(DeclareQueue("/", "mine", exclusive=True, owner="c1", worker=0))
            await zero.do(DeclareQueue("/", "kept", worker=0))
            assert zero.link is not None
            zero.link.close("a link may break")
            await one.hears(lambda: ("worker_down", {"index": 0}) in one.notices)
            again = await router.connect("worker", 0, process.pid)
            assert [change["name"] for change in of_kind(again.snapshot, "queue_added")] == ["mine", "kept"]
            process.kill()
            await one.hears(lambda: [change["name"] for change in of_kind(one.changes, "queue_removed")] == ["mine"])

    asyncio.run(main())


def test_a_worker_that_died_while_the_router_was_down_is_found_out(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            process = router.stand_in()
            zero = await router.connect("worker", 0, process.pid)
            await zero.do(DeclareQueue("/", "mine", exclusive=True, owner="c1", worker=0))
            await router.kill()
            process.kill()
            process.wait()
            await router.start()
            successor = await router.connect("worker", 0, router.stand_in().pid)
            assert of_kind(successor.snapshot, "queue_added") == []

    asyncio.run(main())


def test_what_management_is_shown(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            worker = await router.connect("worker", 1)
            management = await router.connect("management")
            await worker.do(DeclareQueue("/", "q", worker=1, arguments=b""))
            exchange = (await worker.do(DeclareExchange("/", "x")))["id"]
            await worker.do(Bind("/", "x", "q", "a key"))
            topology = await management.ask("topology")
            assert topology["vhosts"] == [{"name": "/", "description": "", "tags": [], "tracing": False}]
            assert topology["users"] == [{"name": "guest", "tags": ["administrator"]}]
            [queue] = topology["queues"]
            assert (queue["name"], queue["worker"], queue["type"], queue["arguments"]) == ("q", 1, "classic", {})
            assert topology["bindings"][-1] == {
                "source": "x",
                "vhost": "/",
                "destination": "q",
                "destination_type": "queue",
                "routing_key": "a key",
                "arguments": {},
                "properties_key": "a%20key",
            }
            assert await management.ask("topology") == topology
            await worker.do(Unbind("/", "x", "q", "a key"))
            assert len((await management.ask("topology"))["bindings"]) == 1, "a remembered list must not outlive a change"
            await worker.do(DeleteExchange("/", "x"))
            [user] = (await management.ask("users"))["users"]
            assert set(user) == {"name", "password_hash", "hashing_algorithm", "tags"}
            statistics = await management.ask("statistics")
            assert str(exchange) not in statistics["exchanges"]
            assert [(link["peer"], link["open"]) for link in statistics["links"]] == [("worker 0", False), ("worker 1", True)]

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"this is no database" * 500, b""], ids=["text", "version"])
def test_a_store_that_cannot_be_used_is_refused_in_a_sentence(folder: Path, content: bytes) -> None:
    async def main() -> None:
        router = RouterProcess(folder)
        definitions = folder / "data" / "definitions"
        definitions.mkdir(parents=True)
        if content:
            (definitions / "data.mdb").write_bytes(content)
        else:
            Definitions(definitions, 999).close()
        async with router:
            assert router.process is not None and router.process.exited.done()
            assert await router.process.exited == DATA
            assert str(definitions) in router.refusal["sentence"]
            assert router.refusal["exit_code"] == DATA

    asyncio.run(main())


def test_a_damaged_session_costs_only_the_session(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            worker = await router.connect("worker", 0)
            await worker.do(DeclareQueue("/", "durable", durable=True, worker=0))
            await worker.do(DeclareQueue("/", "transient", worker=0))
            await router.kill()
            (folder / "data" / "session" / "run-1" / "data.mdb").write_bytes(b"torn" * 5000)
            await router.start()
            again = await router.connect("worker", 0)
            assert [change["name"] for change in of_kind(again.snapshot, "queue_added")] == ["durable"]
            assert (await again.do(DeclareQueue("/", "transient", worker=0)))["created"]

    asyncio.run(main())


def test_a_second_link_of_a_worker_takes_the_place_of_the_first(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder) as router:
            first = await router.connect("worker", 0)
            second = await router.connect("worker", 0)
            async with asyncio.timeout(WITHIN_S):
                await first.closed.wait()
            assert (await second.do(DeclareQueue("/", "q", worker=0)))["created"]
            stranger = await router.connect("management", 0)
            with pytest.raises(AmqpError):
                await stranger.do(DeclareQueue("none", "q"))

    asyncio.run(main())


def test_a_worker_that_the_node_does_not_have_is_turned_away(folder: Path) -> None:
    async def main() -> None:
        async with RouterProcess(folder, workers=2) as router:
            stranger = await router.connect("worker", 7, waits=False)
            async with asyncio.timeout(WITHIN_S):
                await stranger.closed.wait()
            assert stranger.snapshot == []

    asyncio.run(main())
