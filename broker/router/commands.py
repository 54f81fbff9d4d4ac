"""Every change of the topology as one frozen object, the same whether it comes by AMQP, HTTP or the command line.

Workers and management make them and send them to the router as requests: the verb is `verb(command)` (the class name in snake case), the
body `to_map(command)`. `leveret.router.topology` applies them. A command says what somebody wants, it never checks whether that can be had;
permissions have been checked by whoever sends it.

    verb                result of the request
    declare_exchange    {"id", "created"}
    delete_exchange     {"deleted"}
    declare_queue       {"id", "name", "worker", "created"}
    delete_queue        {"deleted"}
    bind                {"created"}
    unbind              {"deleted"}
    create_vhost        {"created"}
    delete_vhost        {"deleted"}
    put_user            {"created"}
    delete_user         {"deleted"}
    set_permissions     {}
    clear_permissions   {"deleted"}
    connection_gone     {"deleted"}: number of queues
    worker_gone         {"deleted"}: number of queues

`arguments` are the bytes of an AMQP field table with its four bytes of length (`leveret.codec.tables.encode_table`), because the texts of
RabbitMQ's refusals name wire types; `from_map` also takes a map of plain values. No arguments: `NO_ARGUMENTS` or `b""`.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leveret.codec.tables import encode_table

NO_ARGUMENTS: Final = b"\0\0\0\0"
ANY_WORKER: Final = -1


@dataclass(frozen=True, slots=True)
class DeclareExchange:
    """Make the exchange, or find one that is equal in all that is given here."""

    vhost: str
    name: str
    type: str = "direct"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: bytes = NO_ARGUMENTS


@dataclass(frozen=True, slots=True)
class DeleteExchange:
    """Remove the exchange and its bindings; one that is not there counts as removed."""

    vhost: str
    name: str
    if_unused: bool = False


@dataclass(frozen=True, slots=True)
class DeclareQueue:
    """Make the queue, or find one that is equal in all that is given here.

    name: empty: the router invents one; owner: the connection's id, unique over the node and its workers' lives (an exclusive queue is its
    alone); worker: index of the worker that asks and on whose shard the queue is placed unless placement says otherwise, or `ANY_WORKER`.
    """

    vhost: str
    name: str = ""
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: bytes = NO_ARGUMENTS
    owner: str = ""
    worker: int = ANY_WORKER


@dataclass(frozen=True, slots=True)
class DeleteQueue:
    """Remove the queue and its bindings; its owner has checked if-unused and if-empty.

    queue_id: only if it is still this queue and not a later one of the same name; 0: whichever has the name.
    """

    vhost: str
    name: str
    queue_id: int = 0


@dataclass(frozen=True, slots=True)
class Bind:
    """Add the binding, or find it there. owner: the connection's id, for exclusive queues."""

    vhost: str
    source: str
    destination: str
    routing_key: str = ""
    destination_type: str = "queue"
    arguments: bytes = NO_ARGUMENTS
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Unbind:
    """Remove the binding; one that is not there counts as removed."""

    vhost: str
    source: str
    destination: str
    routing_key: str = ""
    destination_type: str = "queue"
    arguments: bytes = NO_ARGUMENTS
    owner: str = ""


@dataclass(frozen=True, slots=True)
class CreateVhost:
    """Make the vhost with its predeclared exchanges, or find it. user: who may then do everything in a new one; empty: nobody."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True, slots=True)
class DeleteVhost:
    """Remove the vhost with all that is in it."""

    name: str


@dataclass(frozen=True, slots=True)
class PutUser:
    """Make the user or replace password and tags. password_hash: see `leveret.auth.users.hash_password`; empty: cannot log in by
    password."""

    name: str
    password_hash: str = ""
    hashing_algorithm: str = "rabbit_password_hashing_sha256"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteUser:
    """Remove the user and its permissions."""

    name: str


@dataclass(frozen=True, slots=True)
class SetPermissions:
    """What the user may do in the vhost: three regular expressions on resource names, searched unanchored; "" matches nothing."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class ClearPermissions:
    """The user may no longer use the vhost."""

    user: str
    vhost: str


@dataclass(frozen=True, slots=True)
class ConnectionGone:
    """The connection has ended: its exclusive queues go."""

    owner: str


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """The worker's process has ended and all connections with it: the exclusive queues on it go."""

    worker: int


Command = (
    DeclareExchange
    | DeleteExchange
    | DeclareQueue
    | DeleteQueue
    | Bind
    | Unbind
    | CreateVhost
    | DeleteVhost
    | PutUser
    | DeleteUser
    | SetPermissions
    | ClearPermissions
    | ConnectionGone
    | WorkerGone
)


def verb(command: Command | type[Command]) -> str:
    """The name of the request that carries this command: `DeclareQueue` travels as `declare_queue`."""
    kind = command if isinstance(command, type) else type(command)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


COMMANDS: Final[Mapping[str, type[Command]]] = types.MappingProxyType({verb(kind): kind for kind in typing.get_args(Command)})
_FIELD_TYPES: Final = {kind: typing.get_type_hints(kind) for kind in COMMANDS.values()}


def to_map(command: Command) -> dict[str, Any]:
    """The command's fields, as they go over a link."""
    return {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}


def from_map(name: str, body: object) -> Command:
    """The command that a request `name` with this body carries. Raises `ValueError` (a sentence) if there is none."""
    kind = COMMANDS.get(name)
    if kind is None:
        raise ValueError(f"there is no command {name!r}")
    if not isinstance(body, dict):
        raise ValueError(f"{name} needs a map of its fields, not {type(body).__name__}")
    expected = _FIELD_TYPES[kind]
    fields: dict[str, Any] = {}
    for field, value in body.items():
        if field not in expected:
            raise ValueError(f"{name} has no field {field!r}")
        if field == "arguments":
            fields[field] = _arguments(name, value)
        elif expected[field] == tuple[str, ...]:
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{name}: {field} must be a list of strings")
            fields[field] = tuple(value)
        elif type(value) is not expected[field]:
            raise ValueError(f"{name}: {field} must be {expected[field].__name__}, not {type(value).__name__}")
        else:
            fields[field] = value
    try:
        return kind(**fields)
    except TypeError:
        missing = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING and field.name not in fields]
        raise ValueError(f"{name} needs {' and '.join(missing)}") from None


def _arguments(name: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value or NO_ARGUMENTS
    if isinstance(value, dict):
        try:
            return encode_table(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: arguments cannot be an AMQP table: {error}") from error
    raise ValueError(f"{name}: arguments must be a table's bytes or a map, not {type(value).__name__}")
