"""The directory: the router's changes one by one, and whole snapshots compared with what is there."""

from __future__ import annotations

from typing import Any

import pytest
from leveret.auth.users import hash_password
from leveret.codec.errors import AccessRefused
from leveret.worker.directory import Directory, ExchangeEntry, QueueEntry


def vhost(name: str) -> dict[str, Any]:
    return {"change": "vhost_added", "name": name}


def exchange(number: int, name: str, vhost: str = "/", **settings: Any) -> dict[str, Any]:
    change = {"change": "exchange_added", "id": number, "name": name, "vhost": vhost, "type": "direct", "durable": True}
    return change | {"auto_delete": False, "internal": False, "arguments": b""} | settings


def queue(number: int, name: str, vhost: str = "/", **settings: Any) -> dict[str, Any]:
    change = {"change": "queue_added", "id": number, "name": name, "vhost": vhost, "durable": True, "auto_delete": False}
    return change | {"exclusive": False, "arguments": b"", "owner": "", "shard": 1, "worker": 1} | settings


def user(name: str, password: str = "secret", **settings: Any) -> dict[str, Any]:
    change = {"change": "user_put", "name": name, "password_hash": hash_password(password)}
    return change | {"hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["monitoring"]} | settings


def permissions(user: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*") -> dict[str, Any]:
    return {"change": "permissions_set", "user": user, "vhost": vhost, "configure": configure, "write": write, "read": read}


TOPOLOGY = [
    vhost("/"),
    vhost("é"),
    exchange(1, "x"),
    queue(2, "q", worker=3),
    queue(3, "q", "é", owner="run/1.2.3", exclusive=True),
]


@pytest.fixture
def directory() -> Directory:
    made = Directory()
    for change in (
        vhost("/"),
        vhost("é"),
        exchange(1, "x"),
        queue(2, "q", worker=3),
        queue(3, "q", "é", owner="run/1.2.3", exclusive=True),
    ):
        made.apply(change)
    return made


def restore(directory: Directory, snapshot: list[dict[str, Any]]) -> None:
    """What a worker does with a snapshot."""
    for change in directory.begin_snapshot(snapshot):
        directory.apply(change)
    for change in snapshot:
        if not directory.has(change):
            directory.apply(change)


def names(directory: Directory) -> dict[str, tuple[set[str], set[str]]]:
    return {name: (set(found.exchanges), set(found.queues)) for name, found in directory.vhosts.items()}


def test_entries_are_found_by_name_in_their_vhost(directory: Directory) -> None:
    assert names(directory) == {"/": ({"x"}, {"q"}), "é": (set(), {"q"})}
    entry = directory.vhosts["/"].queues["q"]
    assert (entry.id, entry.worker, entry.owner, entry.exclusive, entry.local) == (2, 3, "", False, None)
    assert str(entry) == "queue 'q' in vhost '/'"
    mine = directory.vhosts["é"].queues["q"]
    assert (mine.id, mine.owner, mine.exclusive) == (3, "run/1.2.3", True)
    assert directory.queues == {2: entry, 3: mine}
    found = directory.vhosts["/"].exchanges["x"]
    assert (found.id, found.type, found.durable, found.auto_delete, found.internal) == (1, "direct", True, False, False)
    assert str(found) == "exchange 'x' in vhost '/'"


def test_apply_gives_the_entry_that_came_or_went(directory: Directory) -> None:
    came = directory.apply(queue(9, "new"))
    assert isinstance(came, QueueEntry) and came is directory.queues[9]
    went = directory.apply({"change": "queue_removed", "id": 9, "vhost": "/", "name": "new", "worker": 1})
    assert went is came and 9 not in directory.queues and "new" not in directory.vhosts["/"].queues
    x = directory.apply({"change": "exchange_removed", "id": 1, "vhost": "/", "name": "x"})
    assert isinstance(x, ExchangeEntry) and x.id == 1
    assert directory.apply(user("ann")) is None


def test_every_change_raises_the_version(directory: Directory) -> None:
    versions = [directory.version]
    for change in (
        vhost("third"),
        user("ann"),
        permissions("ann", "third"),
        {"change": "permissions_cleared", "user": "ann", "vhost": "third"},
        {"change": "user_removed", "name": "ann"},
        {"change": "vhost_removed", "name": "third"},
    ):
        directory.apply(change)
        versions.append(directory.version)
    assert versions == sorted(set(versions)), "whoever keeps a verdict must see that it is old"


def test_a_name_that_comes_again_is_a_new_entry(directory: Directory) -> None:
    for number in range(10, 200):
        directory.apply({"change": "queue_removed", "id": directory.vhosts["/"].queues["q"].id, "vhost": "/", "name": "q", "worker": 3})
        directory.apply(queue(number, "q"))
    assert directory.vhosts["/"].queues["q"].id == 199
    assert set(directory.queues) == {3, 199}


def test_users_and_permissions_follow_the_changes(directory: Directory) -> None:
    directory.apply(user("ann"))
    directory.apply(permissions("ann", "/", write="^a"))
    assert directory.users.authenticate("ann", "secret", "10.0.0.1").tags == {"monitoring"}
    directory.permissions.check("ann", "/", "write", "queue", "apple")
    with pytest.raises(AccessRefused):
        directory.permissions.check("ann", "/", "write", "queue", "pear")
    directory.apply({"change": "permissions_cleared", "user": "ann", "vhost": "/"})
    assert not directory.permissions.may_open("ann", "/")
    directory.apply({"change": "user_removed", "name": "ann"})
    with pytest.raises(AccessRefused):
        directory.users.authenticate("ann", "secret", "10.0.0.1")


def test_a_snapshot_of_what_is_there_changes_no_entry(directory: Directory) -> None:
    before = (directory.vhosts["/"].queues["q"], directory.vhosts["/"].exchanges["x"])
    assert directory.begin_snapshot(TOPOLOGY) == []
    assert [change for change in TOPOLOGY if not directory.has(change)] == TOPOLOGY[:2], "vhosts may be repeated"
    restore(directory, TOPOLOGY)
    assert (directory.vhosts["/"].queues["q"], directory.vhosts["/"].exchanges["x"]) == before, "the same objects: what is in them stays"


def test_a_snapshot_removes_what_it_does_not_have_and_adds_what_is_new(directory: Directory) -> None:
    snapshot = [vhost("/"), vhost("new"), exchange(7, "y"), queue(2, "q", worker=3), queue(8, "r", "new")]
    kept = directory.queues[2]
    restore(directory, snapshot)
    assert names(directory) == {"/": ({"y"}, {"q"}), "new": (set(), {"r"})}
    assert directory.queues.keys() == {2, 8} and directory.queues[2] is kept


def test_a_snapshot_with_another_queue_of_the_same_name_replaces_it(directory: Directory) -> None:
    restore(directory, [vhost("/"), exchange(20, "x"), queue(21, "q", worker=0)])
    assert directory.vhosts["/"].queues["q"].id == 21
    assert directory.vhosts["/"].exchanges["x"].id == 20
    assert directory.queues.keys() == {21}


def test_a_snapshot_repeats_users_and_permissions_whole(directory: Directory) -> None:
    for change in (user("ann"), user("bob"), permissions("ann", "/"), permissions("bob", "/")):
        directory.apply(change)
    restore(directory, [vhost("/"), user("ann", "changed"), permissions("ann", "/", read="")])
    assert directory.users.get("bob") is None and not directory.permissions.may_open("bob", "/")
    directory.users.authenticate("ann", "changed", "")
    assert not directory.permissions.may("ann", "/", "read", "q")


def test_an_unknown_change_is_a_bug_and_said_so(directory: Directory) -> None:
    with pytest.raises(AttributeError):
        directory.apply({"change": "queue_painted"})
