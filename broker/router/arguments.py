"""Arguments of exchanges, queues and bindings: field tables as bytes, compared and worded as RabbitMQ does.

They stay the client's own bytes until a rule needs a value. Pure; called by the topology only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from leveret.codec.errors import PreconditionFailed
from leveret.codec.tables import Typed, decode_table, encode_table, type_name
from leveret.queue.rules import OVERFLOWS, TTL_MS_MAX
from leveret.router.commands import NO_ARGUMENTS

# Arguments of a classic queue that a redeclare must repeat, in the order in which RabbitMQ looks at them.
QUEUE_ARGUMENTS_COMPARED: Final = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
)
EXCHANGE_ARGUMENTS_COMPARED: Final = ("alternate-exchange",)
KEY_BYTES_MAX: Final = 255

# What a queue argument asks for and this version cannot do. Taking it silently would break a promise to whoever relies on it.
QUEUE_ARGUMENTS_REFUSED: Final = frozenset(
    {
        "x-dead-letter-strategy",
        "x-max-priority",
        "x-single-active-consumer",
        "x-delivery-limit",
        "x-consumer-timeout",
        "x-max-age",
        "x-stream-max-segment-size-bytes",
        "x-stream-filter-size-bytes",
        "x-delayed-retry-type",
        "x-delayed-retry-min",
        "x-delayed-retry-max",
        "x-message-deduplication",
    }
)

_Check = Callable[[Typed, Mapping[str, Typed]], str | None]
_INTEGERS: Final = frozenset("bBsuIilL")


def _not_integer(value: Typed) -> str | None:
    return None if value.tag in _INTEGERS else f'"expected integer, got {type_name(value.tag)}"'


def _not_count(value: Typed, table: Mapping[str, Typed]) -> str | None:
    return _not_integer(value) or (f"{{value_negative,{value.value}}}" if value.value < 0 else None)


def _not_ttl(value: Typed, table: Mapping[str, Typed]) -> str | None:
    return _not_count(value, table) or (f"{{value_too_large,{value.value}}}" if value.value > TTL_MS_MAX else None)


def _not_expires(value: Typed, table: Mapping[str, Typed]) -> str | None:
    return _not_integer(value) or ("{value_zero,0}" if value.value == 0 else _not_ttl(value, table))


def _not_string(value: Typed) -> str | None:
    return None if value.tag == "S" else f"{{unacceptable_type,{type_name(value.tag)}}}"


def _not_dead_letter_key(value: Typed, table: Mapping[str, Typed]) -> str | None:
    reason = _not_string(value)
    if reason is None and "x-dead-letter-exchange" not in table:
        return "routing_key_but_no_dlx_defined"
    if reason is None and len(value.value if isinstance(value.value, bytes) else value.value.encode()) > KEY_BYTES_MAX:
        return f"a routing key has at most {KEY_BYTES_MAX} bytes"
    return reason


def _not_overflow(value: Typed, table: Mapping[str, Typed]) -> str | None:
    return _not_string(value) or (None if value.value in OVERFLOWS else "invalid_overflow")


# What is wrong with a value, in the order in which RabbitMQ looks at them.
QUEUE_ARGUMENTS_CHECKED: Final[Mapping[str, _Check]] = {
    "x-expires": _not_expires,
    "x-message-ttl": _not_ttl,
    "x-dead-letter-routing-key": _not_dead_letter_key,
    "x-max-length": _not_count,
    "x-max-length-bytes": _not_count,
    "x-overflow": _not_overflow,
}

_CLASSIC: Final = Typed("S", "classic")
_KINDS: Final = dict.fromkeys("bBsuIilL", "number") | {"f": "float", "d": "float"}


def decoded(arguments: bytes) -> dict[str, Typed]:
    """The table with its wire types; no bytes are no arguments."""
    if arguments in (b"", NO_ARGUMENTS):
        return {}
    return decode_table(arguments, typed=True)


def plain(arguments: bytes) -> dict[str, Any]:
    """The table with plain values: for JSON and for people."""
    if arguments in (b"", NO_ARGUMENTS):
        return {}
    return decode_table(arguments)


def normal(arguments: bytes) -> bytes:
    """The same table with its fields sorted by name: equal tables are equal bytes."""
    if arguments in (b"", NO_ARGUMENTS):
        return NO_ARGUMENTS
    table = decoded(arguments)
    return encode_table({name: table[name] for name in sorted(table)})


def check_queue_arguments(arguments: bytes, described: str) -> None:
    """Refuse what is no value for an argument, in RabbitMQ's words and order, and what this version cannot do.

    described: "queue 'q' in vhost '/'". Raises `PreconditionFailed`.
    """
    table = decoded(arguments)
    if not table:
        return
    exchange = table.get("x-dead-letter-exchange")
    if exchange is not None and exchange.tag != "S":
        raise PreconditionFailed(f"invalid type '{type_name(exchange.tag)}' for arg 'x-dead-letter-exchange' in {described}")
    for name, wrong in QUEUE_ARGUMENTS_CHECKED.items():
        value = table.get(name)
        reason = wrong(value, table) if value is not None else None
        if reason is not None:
            raise PreconditionFailed(f"invalid arg '{name}' for {described}: {reason}")
    for name, value in table.items():
        refused = value.value != "classic" if name == "x-queue-type" else name in QUEUE_ARGUMENTS_REFUSED
        if refused:
            raise PreconditionFailed(f"invalid arg '{name}' for {described}: not supported by this version of Leveret")


def check_same_queue_arguments(current: bytes, received: bytes, described: str) -> None:
    """A redeclare must repeat the arguments that matter, integers of different widths being equal; no queue type is `classic`."""
    if current == received:
        return
    now, new = decoded(current), decoded(received)
    now.setdefault("x-queue-type", _CLASSIC)
    new.setdefault("x-queue-type", _CLASSIC)
    for name in QUEUE_ARGUMENTS_COMPARED:
        _check_same(name, now.get(name), new.get(name), described)


def check_same_exchange_arguments(current: bytes, received: bytes, described: str) -> None:
    """The same for an exchange."""
    if current == received:
        return
    now, new = decoded(current), decoded(received)
    for name in EXCHANGE_ARGUMENTS_COMPARED:
        _check_same(name, now.get(name), new.get(name), described)


def check_same_field(name: str, current: bool | str, received: bool | str, described: str) -> None:
    """A redeclare must repeat the property."""
    if current != received:
        raise inequivalent(name, described, f"'{_shown(received)}'", f"'{_shown(current)}'")


def inequivalent(name: str, described: str, received: str, current: str) -> PreconditionFailed:
    """RabbitMQ's refusal of a redeclare."""
    return PreconditionFailed(f"inequivalent arg '{name}' for {described}: received {received} but current is {current}")


def _check_same(name: str, current: Typed | None, received: Typed | None, described: str) -> None:
    if current == received:
        return
    if current is not None and received is not None:
        # Both are there: RabbitMQ shows the bare values. Widths of integers make no difference.
        if current.value != received.value or _kind(current) != _kind(received):
            raise inequivalent(name, described, f"'{_shown(received.value)}'", f"'{_shown(current.value)}'")
        return
    raise inequivalent(name, described, _with_type(received), _with_type(current))


def _kind(value: Typed) -> str:
    return _KINDS.get(value.tag, value.tag)


def _with_type(value: Typed | None) -> str:
    return "none" if value is None else f"the value '{_shown(value.value)}' of type '{type_name(value.tag)}'"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
