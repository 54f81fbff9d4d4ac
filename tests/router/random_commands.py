"""Random commands for property tests: on two vhosts, three names and two connections, few enough that they meet."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st
from leveret.codec.tables import encode_table
from leveret.router.commands import (
    NO_ARGUMENTS,
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

WORKERS: Final = 3


def args(**values: Any) -> bytes:
    """An argument table; `_` in a name stands for `-`."""
    return encode_table({name.replace("_", "-"): value for name, value in values.items()})


NAMES = st.sampled_from(["a", "b", "c"])
VHOSTS = st.sampled_from(["/", "two"])
OWNERS = st.sampled_from(["c1", "c2"])
TABLES = st.sampled_from([NO_ARGUMENTS, args(k=1), args(k="v")])
COMMANDS = st.one_of(
    st.builds(
        DeclareExchange,
        VHOSTS,
        NAMES,
        st.sampled_from(["direct", "topic", "fanout", "headers"]),
        st.booleans(),
        st.booleans(),
        arguments=st.sampled_from([NO_ARGUMENTS, args(alternate_exchange="a"), args(alternate_exchange="b")]),
    ),
    st.builds(DeleteExchange, VHOSTS, NAMES, st.booleans()),
    st.builds(DeclareQueue, VHOSTS, NAMES, st.booleans(), st.booleans(), owner=OWNERS, worker=st.integers(-1, WORKERS - 1)),
    st.builds(DeleteQueue, VHOSTS, NAMES),
    st.builds(Bind, VHOSTS, NAMES, NAMES, NAMES, st.sampled_from(["queue", "exchange"]), TABLES, OWNERS),
    st.builds(Unbind, VHOSTS, NAMES, NAMES, NAMES, st.sampled_from(["queue", "exchange"]), TABLES, OWNERS),
    st.builds(CreateVhost, VHOSTS),
    st.builds(DeleteVhost, st.just("two")),
    st.builds(PutUser, NAMES, NAMES),
    st.builds(DeleteUser, NAMES),
    st.builds(SetPermissions, NAMES, VHOSTS, NAMES, NAMES, NAMES),
    st.builds(ClearPermissions, NAMES, VHOSTS),
    st.builds(ConnectionGone, OWNERS),
    st.builds(WorkerGone, st.integers(0, WORKERS - 1)),
)


def lists_of_commands(most: int) -> st.SearchStrategy[list[Command]]:
    """Up to `most` commands."""
    return st.lists(COMMANDS, max_size=most)
