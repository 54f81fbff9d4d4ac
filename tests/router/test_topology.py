"""The rules by which the topology changes, with RabbitMQ's texts (features.md 1.5 and 1.6)."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from leveret.codec.errors import AmqpError, InternalError
from leveret.codec.tables import Typed, encode_table
from leveret.router import listing
from leveret.router.commands import (
    Bind,
    ClearPermissions,
    Command,
    ConnectionGone,
    CreateVhost,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    DeleteUser,
    DeleteVhost,
    PutUser,
    SetPermissions,
    Unbind,
    WorkerGone,
)
from leveret.router.entries import RECORDS_VERSION, SHARDS_ID, bring_forward
from leveret.router.topology import ID_MAX, BrokenRecord, Topology

from tests.router.random_commands import WORKERS, args, lists_of_commands


def new(**options: Any) -> Topology:
    topology = Topology(WORKERS, **options)
    topology.apply(CreateVhost("/"))
    return topology


@pytest.fixture
def topology() -> Topology:
    return new()


def exchange_names(topology: Topology, vhost: str = "/") -> set[str]:
    return {name for name in topology.vhosts[vhost].exchanges if not name.startswith("amq.") and name}


def refusal(topology: Topology, command: Command) -> str:
    """The text with which the command is refused; and that it changed nothing."""
    before = list(topology.snapshot()), listing.bindings(topology)
    with pytest.raises(AmqpError) as refused:
        topology.apply(command)
    assert (list(topology.snapshot()), listing.bindings(topology)) == before
    return refused.value.reply_text


def test_a_vhost_comes_with_its_predeclared_exchanges(topology: Topology) -> None:
    listed = {(entry["name"], entry["type"], entry["durable"], entry["internal"]) for entry in listing.exchanges(topology)}
    assert listed == {
        ("", "direct", True, False),
        ("amq.direct", "direct", True, False),
        ("amq.fanout", "fanout", True, False),
        ("amq.headers", "headers", True, False),
        ("amq.match", "headers", True, False),
        ("amq.topic", "topic", True, False),
        ("amq.rabbitmq.trace", "topic", True, True),
    }


SETUP: list[Command] = [
    DeclareExchange("/", "x", "direct"),
    DeclareExchange("/", "ae", "direct", arguments=args(alternate_exchange="spare")),
    DeclareQueue("/", "q", worker=0),
    DeclareQueue("/", "mode", worker=0, arguments=args(x_queue_mode="lazy")),
    DeclareQueue("/", "version", worker=0, arguments=args(x_queue_version=1)),
    DeclareQueue("/", "mine", exclusive=True, owner="c1", worker=0),
    Bind("/", "x", "q", "k"),
    Bind("/", "x", "mine", "k", owner="c1"),
]

LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be originally declared on another "
    "connection or the exclusive property value does not match that of the original declaration."
)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (
            DeclareQueue("/", "q", durable=True),
            "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            DeclareQueue("/", "q", auto_delete=True),
            "inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            DeclareQueue("/", "q", arguments=args(x_max_length=2)),
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '2' of type 'signedint' but current is none",
        ),
        (
            DeclareQueue("/", "mode"),
            "inequivalent arg 'x-queue-mode' for queue 'mode' in vhost '/': "
            "received none but current is the value 'lazy' of type 'longstr'",
        ),
        (
            DeclareQueue("/", "mode", arguments=args(x_queue_mode="default")),
            "inequivalent arg 'x-queue-mode' for queue 'mode' in vhost '/': received 'default' but current is 'lazy'",
        ),
        (
            DeclareQueue("/", "q", arguments=args(x_queue_type="quorum")),
            "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but current is 'classic'",
        ),
        (
            DeclareExchange("/", "x", "fanout"),
            "inequivalent arg 'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'direct'",
        ),
        (
            DeclareExchange("/", "x", durable=True),
            "inequivalent arg 'durable' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            DeclareExchange("/", "x", auto_delete=True),
            "inequivalent arg 'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            DeclareExchange("/", "x", internal=True),
            "inequivalent arg 'internal' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            DeclareExchange("/", "ae"),
            "inequivalent arg 'alternate-exchange' for exchange 'ae' in vhost '/': "
            "received none but current is the value 'spare' of type 'longstr'",
        ),
        (
            DeclareExchange("/", "new", arguments=args(alternate_exchange=5)),
            "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'new' in vhost '/'",
        ),
        (DeclareExchange("/", "new", "x-delayed-message"), "unknown exchange type 'x-delayed-message'"),
        (DeleteExchange("/", "x", if_unused=True), "exchange 'x' in vhost '/' in use"),
        (
            DeclareQueue("/", "new", arguments=args(x_max_priority=1)),
            "invalid arg 'x-max-priority' for queue 'new' in vhost '/': not supported by this version of Leveret",
        ),
        (
            DeclareQueue("/", "new", arguments=args(x_queue_type="quorum")),
            "invalid arg 'x-queue-type' for queue 'new' in vhost '/': not supported by this version of Leveret",
        ),
        (
            Bind("/", "amq.headers", "q", arguments=args(x_match="some")),
            'Invalid x-match field value <<"some">>; expected all, any, all-with-x, or any-with-x',
        ),
        (DeclareQueue("/", "x" * 256), "queue name is longer than 255 bytes"),
        (SetPermissions("u", "/", "(", "", ""), "invalid regular expression '(': missing ): ("),
    ],
)
def test_preconditions_that_fail(topology: Topology, command: Command, text: str) -> None:
    topology.apply(PutUser("u"))
    for made in SETUP:
        topology.apply(made)
    assert refusal(topology, command) == f"PRECONDITION_FAILED - {text}"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (DeclareQueue("/", "amq.x"), "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'"),
        (DeclareExchange("/", "amq.x"), "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'"),
        (DeleteExchange("/", "amq.direct"), "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"),
        (DeleteExchange("/", "amq.none"), "ACCESS_REFUSED - deletion of system exchange 'amq.none' in vhost '/' not allowed"),
        (DeclareExchange("/", ""), "ACCESS_REFUSED - operation not permitted on the default exchange"),
        (DeleteExchange("/", ""), "ACCESS_REFUSED - operation not permitted on the default exchange"),
        (Bind("/", "", "q", "k"), "ACCESS_REFUSED - operation not permitted on the default exchange"),
        (Bind("/", "x", "", "k", "exchange"), "ACCESS_REFUSED - operation not permitted on the default exchange"),
        (Unbind("/", "", "q", "k"), "ACCESS_REFUSED - operation not permitted on the default exchange"),
        (Bind("/", "none", "q"), "NOT_FOUND - no exchange 'none' in vhost '/'"),
        (Bind("/", "none", "nor"), "NOT_FOUND - no exchange 'none' in vhost '/'"),
        (Bind("/", "x", "none"), "NOT_FOUND - no queue 'none' in vhost '/'"),
        (Bind("/", "x", "none", "", "exchange"), "NOT_FOUND - no exchange 'none' in vhost '/'"),
        (DeclareQueue("/", "mine"), LOCKED),
        (DeclareQueue("/", "mine", exclusive=True, owner="c2"), LOCKED),
        (DeclareQueue("/", "mine", owner="c1"), LOCKED),
        (DeclareQueue("/", "q", exclusive=True, owner="c1"), LOCKED.replace("mine", "q")),
        (Bind("/", "x", "mine", owner="c2"), LOCKED),
        (Unbind("/", "x", "mine", "k", owner="c2"), LOCKED),
        (DeclareQueue("none", "q"), "NOT_ALLOWED - vhost none not found"),
        (SetPermissions("nobody", "/", "", "", ""), "NOT_FOUND - no user 'nobody'"),
        (CreateVhost("new", user="nobody"), "NOT_FOUND - no user 'nobody'"),
    ],
)
def test_what_is_refused(topology: Topology, command: Command, text: str) -> None:
    for made in SETUP:
        topology.apply(made)
    assert refusal(topology, command) == text


@pytest.mark.parametrize(
    "command",
    [
        DeclareExchange("/", "amq.topic", "topic", durable=True),
        DeclareExchange("/", "x", "direct"),
        DeclareExchange("/", "x", "direct", arguments=args(unknown="1")),
        DeclareQueue("/", "q"),
        DeclareQueue("/", "q", arguments=args(unknown=1, x_queue_type="classic")),
        DeclareQueue("/", "version", arguments=encode_table({"x-queue-version": Typed("l", 1)})),
        DeclareQueue("/", "version", arguments=encode_table({"x-queue-version": Typed("b", 1)})),
        DeclareQueue("/", "mine", durable=True, exclusive=True, owner="c1"),
        Bind("/", "x", "q", "k"),
        Bind("/", "x", "q", "k", arguments=b""),
        CreateVhost("/"),
    ],
)
def test_a_repeat_that_is_equal_changes_nothing(topology: Topology, command: Command) -> None:
    for made in SETUP:
        topology.apply(made)
    applied = topology.apply(command)
    assert applied.result["created"] is False
    assert (applied.changes, applied.stored) == ([], [])


@pytest.mark.parametrize(
    "command",
    [
        DeleteExchange("/", "none"),
        DeleteQueue("/", "none"),
        DeleteQueue("/", "q", queue_id=12345),
        Unbind("/", "none", "q", "k"),
        Unbind("/", "x", "none", "k"),
        Unbind("/", "x", "q", "other"),
        Unbind("/", "x", "mine", "other", owner="c2"),  # RabbitMQ looks for the binding first, and for the owner then
        Unbind("/", "x", "q", "k", arguments=args(a=1)),
        DeleteVhost("none"),
        DeleteUser("none"),
        ClearPermissions("none", "/"),
        ConnectionGone("none"),
        WorkerGone(2),
    ],
)
def test_removing_what_is_not_there_succeeds_and_changes_nothing(topology: Topology, command: Command) -> None:
    for made in SETUP:
        topology.apply(made)
    applied = topology.apply(command)
    assert not applied.result["deleted"]
    assert (applied.changes, applied.stored) == ([], [])


def test_a_server_named_queue_gets_22_characters_of_base64url(topology: Topology) -> None:
    names = {topology.apply(DeclareQueue("/", worker=1)).result["name"] for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", name) for name in names)


def test_line_ends_are_taken_out_of_declared_names(topology: Topology) -> None:
    assert topology.apply(DeclareQueue("/", "a\r\nb")).result["name"] == "ab"
    topology.apply(DeclareExchange("/", "\nx"))
    assert exchange_names(topology) == {"x"}


def test_declaring_a_queue_tells_the_workers_all_about_it(topology: Topology) -> None:
    applied = topology.apply(DeclareQueue("/", "q", durable=True, worker=2, arguments=args(x_queue_mode="lazy")))
    assert applied.result == {"id": applied.result["id"], "name": "q", "worker": 2, "created": True}
    assert applied.changes == [
        {
            "change": "queue_added",
            "id": applied.result["id"],
            "vhost": "/",
            "name": "q",
            "shard": 2,
            "worker": 2,
            "durable": True,
            "exclusive": False,
            "auto_delete": False,
            "owner": "",
            "arguments": args(x_queue_mode="lazy"),
        }
    ]


def test_an_exclusive_queue_is_never_durable_and_goes_with_its_connection(topology: Topology) -> None:
    topology.apply(DeclareExchange("/", "x", durable=True))
    for name in ("a", "b"):
        declared = topology.apply(DeclareQueue("/", name, durable=True, exclusive=True, owner="c1", worker=1))
        assert declared.changes[0]["durable"] is False
        topology.apply(Bind("/", "x", name, owner="c1"))
    topology.apply(DeclareQueue("/", "other", exclusive=True, owner="c2", worker=1))
    gone = topology.apply(ConnectionGone("c1"))
    assert gone.result == {"deleted": 2}
    assert [change["name"] for change in gone.changes if change["change"] == "queue_removed"] == ["a", "b"]
    assert set(topology.vhosts["/"].queues) == {"other"}
    assert topology.vhosts["/"].exchanges["x"].bindings == {}


def test_a_dead_workers_exclusive_queues_go_and_the_others_stay(topology: Topology) -> None:
    topology.apply(DeclareQueue("/", "mine", exclusive=True, owner="c1", worker=1))
    topology.apply(DeclareQueue("/", "kept", worker=1))
    topology.apply(DeclareQueue("/", "elsewhere", exclusive=True, owner="c2", worker=0))
    topology.apply(WorkerGone(1))
    assert set(topology.vhosts["/"].queues) == {"kept", "elsewhere"}


def test_a_binding_is_source_destination_key_and_arguments(topology: Topology) -> None:
    topology.apply(DeclareExchange("/", "x"))
    topology.apply(DeclareExchange("/", "q"))  # an exchange and a queue of the same name are two destinations
    topology.apply(DeclareQueue("/", "q"))
    different = [
        Bind("/", "x", "q", "k"),
        Bind("/", "x", "q", "other"),
        Bind("/", "x", "q", "k", arguments=args(a=1)),
        Bind("/", "x", "q", "k", "exchange"),
    ]
    assert [topology.apply(bind).result["created"] for bind in different] == [True] * 4
    assert topology.apply(Bind("/", "x", "q", "k", arguments=args(b=2, a=1))).result["created"]
    assert not topology.apply(Bind("/", "x", "q", "k", arguments=args(a=1, b=2))).result["created"], "order of arguments matters not"
    keys = [
        entry["properties_key"] for entry in listing.bindings(topology) if entry["source"] == "x" and entry["destination_type"] == "queue"
    ]
    assert keys[:2] == ["k", "other"]
    assert len(set(keys)) == 4
    assert topology.vhosts["/"].exchanges["x"].matcher.match(b"k") == [
        topology.vhosts["/"].queues["q"].id,
        topology.vhosts["/"].exchanges["q"].destination,
    ]
    for bind in different:
        unbind = Unbind(bind.vhost, bind.source, bind.destination, bind.routing_key, bind.destination_type, bind.arguments)
        assert topology.apply(unbind).result == {"deleted": True}
    assert topology.vhosts["/"].exchanges["x"].matcher.match(b"k") == [topology.vhosts["/"].queues["q"].id]


def test_deleting_a_queue_takes_its_bindings(topology: Topology) -> None:
    for command in SETUP:
        topology.apply(command)
    topology.apply(DeleteQueue("/", "q"))
    topology.apply(ConnectionGone("c1"))
    assert topology.vhosts["/"].exchanges["x"].bindings == {}
    assert topology.vhosts["/"].exchanges["x"].matcher.match(b"k") == []
    assert topology.vhosts["/"].exchanges[""].matcher.match(b"q") == []


def test_the_default_exchange_leads_to_every_queue_by_its_name(topology: Topology) -> None:
    declared = topology.apply(DeclareQueue("/", "caf\u00e9"))
    assert topology.vhosts["/"].exchanges[""].matcher.match("caf\u00e9".encode()) == [declared.result["id"]]
    assert listing.bindings(topology) == [
        {
            "source": "",
            "vhost": "/",
            "destination": "caf\u00e9",
            "destination_type": "queue",
            "routing_key": "caf\u00e9",
            "arguments": {},
            "properties_key": "caf%C3%A9",
        }
    ]


@pytest.mark.parametrize("last", [Unbind("/", "x", "q", "k"), DeleteQueue("/", "q")])
def test_an_auto_delete_exchange_goes_with_its_last_binding_and_not_before_its_first(topology: Topology, last: Command) -> None:
    topology.apply(DeclareExchange("/", "x", auto_delete=True))
    topology.apply(DeclareQueue("/", "q"))
    topology.apply(DeclareQueue("/", "other"))
    topology.apply(Bind("/", "x", "q", "k"))
    topology.apply(Bind("/", "x", "other", "k"))
    topology.apply(Unbind("/", "x", "other", "k"))
    assert exchange_names(topology) == {"x"}
    assert "exchange_removed" in [change["change"] for change in topology.apply(last).changes]
    assert exchange_names(topology) == set()


def test_a_chain_of_a_thousand_auto_delete_exchanges_goes_at_once(topology: Topology) -> None:
    for n in range(1000):
        topology.apply(DeclareExchange("/", f"x{n}", "fanout", auto_delete=True))
        if n:
            topology.apply(Bind("/", f"x{n - 1}", f"x{n}", "", "exchange"))
    topology.apply(DeclareQueue("/", "q"))
    topology.apply(Bind("/", "x999", "q"))
    topology.apply(DeleteQueue("/", "q"))
    assert exchange_names(topology) == set()


def test_deleting_a_vhost_takes_everything_in_it_and_nothing_else(topology: Topology) -> None:
    topology.apply(PutUser("u"))
    topology.apply(CreateVhost("two", user="u"))
    for vhost in ("/", "two"):
        topology.apply(DeclareExchange(vhost, "x", "fanout", auto_delete=True))
        topology.apply(DeclareQueue(vhost, "q"))
        topology.apply(Bind(vhost, "x", "q"))
    stored_before = {stored.id for stored in topology.records()}
    applied = topology.apply(DeleteVhost("two"))
    assert set(topology.vhosts) == {"/"}
    assert {stored.id for stored in applied.stored} == stored_before - {stored.id for stored in topology.records()}
    assert all(stored.record is None for stored in applied.stored)
    assert topology.permissions == {}
    assert len(topology.exchanges) == 8
    assert [entry["vhost"] for entry in listing.queues(topology)] == ["/"]


def test_users_and_permissions_reach_the_workers_and_go_together(topology: Topology) -> None:
    assert topology.apply(PutUser("u", "secret-hash", tags=("administrator",))).changes == [
        {
            "change": "user_put",
            "name": "u",
            "password_hash": "secret-hash",
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["administrator"],
        }
    ]
    assert "secret-hash" not in repr(topology.users["u"])
    assert listing.users(topology) == [{"name": "u", "tags": ["administrator"]}]
    topology.apply(SetPermissions("u", "/", ".*", "", "^a"))
    assert listing.permissions(topology) == [{"user": "u", "vhost": "/", "configure": ".*", "write": "", "read": "^a"}]
    gone = topology.apply(DeleteUser("u"))
    assert [change["change"] for change in gone.changes] == ["permissions_cleared", "user_removed"]
    assert listing.permissions(topology) == []


def test_balanced_placement_goes_where_the_fewest_queues_are() -> None:
    topology = new(place_balanced=True)
    workers = [topology.apply(DeclareQueue("/", f"q{n}", worker=0)).result["worker"] for n in range(7)]
    assert Counter(workers) == {0: 3, 1: 2, 2: 2}
    exclusive = topology.apply(DeclareQueue("/", "mine", exclusive=True, owner="c", worker=2)).result["worker"]
    assert exclusive == 2, "an exclusive queue stays with its connection"


def test_the_locator_argument_decides_over_the_setting() -> None:
    for place_balanced, locator, expected in [(False, "balanced", {0, 1, 2}), (True, "client-local", {1})]:
        topology = new(place_balanced=place_balanced)
        arguments = args(x_queue_leader_locator=locator)
        placed = {topology.apply(DeclareQueue("/", f"q{n}", worker=1, arguments=arguments)).result["worker"] for n in range(3)}
        assert placed == expected


def test_ids_end_with_a_clear_refusal(topology: Topology) -> None:
    topology.next_id = ID_MAX
    topology.apply(DeclareQueue("/", "last"))
    with pytest.raises(InternalError, match="used up its ids"):
        topology.apply(DeclareQueue("/", "too-many"))


# --- what is stored


def test_only_what_is_durable_at_both_ends_is_stored_durably(topology: Topology) -> None:
    stored = {}
    for command in [
        DeclareExchange("/", "durable", durable=True),
        DeclareExchange("/", "transient"),
        DeclareQueue("/", "durable", durable=True),
        DeclareQueue("/", "transient"),
        Bind("/", "durable", "durable"),
        Bind("/", "durable", "transient"),
        Bind("/", "transient", "durable"),
    ]:
        [record] = topology.apply(command).stored
        stored[command] = record.durable
    assert list(stored.values()) == [True, False, True, False, True, False, False]


def replica(changes: list[dict[str, Any]], into: dict[Any, Any]) -> dict[Any, Any]:
    """A worker's replica in its plainest form; what does not fit the state before is an error."""
    for change in changes:
        kind = change["change"]
        fields = {name: value for name, value in change.items() if name != "change"}
        if kind.startswith(("queue_", "exchange_")):
            key: Any = (kind.split("_")[0], fields["id"])
        elif kind.startswith("permissions_"):
            key = ("permissions", fields["user"], fields["vhost"])
        else:
            key = (kind.split("_")[0], fields["name"])
        if kind.endswith(("_removed", "_cleared")):
            del into[key]
        else:
            assert kind in ("user_put", "permissions_set") or key not in into
            into[key] = fields
    return into


@settings(max_examples=300, deadline=None)
@given(commands=lists_of_commands(60))
def test_changes_and_records_tell_the_whole_story(commands: list[Command]) -> None:
    """After any commands: the changes make the replica that a snapshot makes, and the records make the topology that they came from."""
    topology = Topology(WORKERS)
    followed: dict[Any, Any] = {}
    store: dict[int, tuple[bool, dict[str, Any]]] = {SHARDS_ID: (True, {"kind": "shards", "count": WORKERS})}
    for command in [CreateVhost("/"), *commands]:
        try:
            applied = topology.apply(command)
        except AmqpError:
            continue
        replica(applied.changes, followed)
        for stored in applied.stored:
            if stored.record is None:
                assert store.pop(stored.id)[0] == stored.durable
            else:
                store[stored.id] = (stored.durable, stored.record)
    assert followed == replica(list(topology.snapshot()), {})
    assert store == {stored.id: (stored.durable, stored.record) for stored in topology.records()}

    restarted = Topology(WORKERS)
    restarted.restore({id: record for id, (_, record) in store.items()}, topology.next_id)
    assert replica(list(restarted.snapshot()), {}) == followed
    assert restarted.next_id == topology.next_id
    assert restarted.queue_counts == topology.queue_counts

    def named(of: Topology) -> list[str]:
        return sorted(map(repr, listing.bindings(of)))

    assert named(restarted) == named(topology)
    for exchange in topology.exchanges.values():
        for key in (b"a", b"b", b"c"):
            assert set(restarted.exchanges[exchange.id].matcher.match(key)) == set(exchange.matcher.match(key))

    after_node_restart = Topology(1)
    durable = {id: record for id, (is_durable, record) in store.items() if is_durable}
    after_node_restart.restore(durable, topology.next_id)
    assert all(queue.durable and queue.worker == 0 for queue in after_node_restart.queues.values())
    assert {id: queue.shard for id, queue in after_node_restart.queues.items()} == {
        id: queue.shard for id, queue in topology.queues.items() if queue.durable
    }
    assert all(exchange.durable for exchange in after_node_restart.exchanges.values())


def stored_queue(shard: Any) -> dict[int, dict[str, Any]]:
    """The records of a node with three shards and a queue."""
    topology = new()
    queue = topology.apply(DeclareQueue("/", "q", durable=True)).stored[0].record
    assert queue is not None
    return {stored.id: stored.record for stored in topology.records() if stored.record} | {9: queue | {"shard": shard}}


def kept_through(topology: Topology, workers: int) -> Topology:
    """What a node with that many workers makes of the topology after a restart."""
    restarted = Topology(workers)
    restarted.restore({stored.id: stored.record for stored in topology.records() if stored.durable and stored.record}, topology.next_id)
    return restarted


def places(topology: Topology) -> dict[str, tuple[int, int]]:
    return {queue.name: (queue.shard, queue.worker) for queue in topology.queues.values()}


def test_a_queue_keeps_its_shard_however_many_workers_there_are() -> None:
    three = new()
    for n in range(3):
        three.apply(DeclareQueue("/", f"q{n}", durable=True, worker=n))
    assert (three.shards, places(three)) == (3, {"q0": (0, 0), "q1": (1, 1), "q2": (2, 2)})

    two = kept_through(three, 2)
    assert (two.shards, places(two)) == (3, {"q0": (0, 0), "q1": (1, 1), "q2": (2, 0)})
    assert two.queue_counts == [2, 1]
    two.apply(DeclareQueue("/", "new", durable=True, worker=0))
    assert places(two)["new"] == (0, 0), "shards beyond the workers only drain"

    five = kept_through(two, 5)
    assert (five.shards, places(five)) == (5, {"q0": (0, 0), "q1": (1, 1), "q2": (2, 2), "new": (0, 0)})
    five.apply(DeclareQueue("/", "far", durable=True, worker=4))
    assert five.shards_record() == (SHARDS_ID, True, {"kind": "shards", "count": 5})

    one = kept_through(five, 1)
    assert (one.shards, {worker for _, worker in places(one).values()}) == (5, {0})
    assert places(kept_through(one, 5)) == places(five), "and back where they were"


def test_records_of_version_1_had_a_worker_for_their_shard() -> None:
    queue = {"kind": "queue", "name": "q", "worker": 4, "durable": True}
    assert bring_forward(1, {1: {"kind": "vhost", "name": "/"}, 7: queue, 8: queue | {"worker": 2}}) == {
        0: {"kind": "shards", "count": 5},
        7: {"kind": "queue", "name": "q", "durable": True, "shard": 4},
        8: {"kind": "queue", "name": "q", "durable": True, "shard": 2},
    }
    assert bring_forward(1, {}) == {0: {"kind": "shards", "count": 1}}
    assert bring_forward(0, {7: queue}) is None
    assert bring_forward(RECORDS_VERSION + 1, {7: queue}) is None


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ({1: {"kind": "shovel"}}, "unknown kind: shovel"),
        ({1: {"kind": "vhost", "name": "/"}}, "record 1 of the stored definitions, a vhost, does not fit"),
        ({0: {"kind": "shards", "count": 65}}, "record 0 of the stored definitions, a shards, does not fit: ValueError.'65 shards'"),
        ({0: {"kind": "shards", "count": 0}}, "'0 shards'"),
        ({0: {"kind": "shards", "count": "many"}}, "record 0 of the stored definitions, a shards, does not fit"),
        ({1: {"kind": "shards", "count": 2}}, "record 1 of the stored definitions, a shards, does not fit"),
        (stored_queue(shard=3), "record 9 of the stored definitions, a queue, does not fit: .*it is on shard 3, and there are 3"),
        (stored_queue(shard=-1), "it is on shard -1, and there are 3"),
        (stored_queue(shard="0"), "record 9 of the stored definitions, a queue, does not fit"),
        ({1: {"kind": "binding", "source": 7, "destination": 8, "routing_key": "", "arguments": b""}}, "record 1 of the stored"),
    ],
)
def test_a_store_that_does_not_fit_together_is_refused_in_a_sentence(records: dict[int, dict[str, Any]], sentence: str) -> None:
    with pytest.raises(BrokenRecord, match=sentence):
        Topology(1).restore(records, 10)
