"""Commands as they travel: every one there and back, and a sentence for each body that is none."""

from __future__ import annotations

import re

import msgpack
import pytest
from leveret.codec.tables import encode_table
from leveret.router.commands import COMMANDS, NO_ARGUMENTS, Bind, CreateVhost, DeclareQueue, DeleteVhost, PutUser, from_map, to_map, verb


def test_verbs_are_the_class_names_in_snake_case() -> None:
    assert verb(DeclareQueue) == "declare_queue"
    assert verb(DeleteVhost("/")) == "delete_vhost"
    exchanges, queues = {"declare_exchange", "delete_exchange"}, {"declare_queue", "delete_queue", "connection_gone", "worker_gone"}
    access = {"create_vhost", "delete_vhost", "put_user", "delete_user", "set_permissions", "clear_permissions"}
    assert set(COMMANDS) == exchanges | queues | access | {"bind", "unbind"}


@pytest.mark.parametrize(
    "command",
    [
        DeclareQueue("/", "q", True, False, True, encode_table({"a": 1}), "c1", 3),
        Bind("/", "x", "y", "k", "exchange"),
        PutUser("u", "hash", tags=("administrator", "monitoring")),
        CreateVhost("caf\u00e9"),
    ],
)
def test_a_command_survives_the_link(command) -> None:
    packed = msgpack.packb([verb(command), to_map(command)])
    assert from_map(*msgpack.unpackb(packed)) == command


def test_arguments_may_come_as_a_map_or_empty() -> None:
    assert from_map("declare_queue", {"vhost": "/", "arguments": {"a": 1}}).arguments == encode_table({"a": 1})
    assert from_map("declare_queue", {"vhost": "/", "arguments": b""}).arguments == NO_ARGUMENTS


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("explode", {}, "there is no command 'explode'"),
        ("declare_queue", [1], "declare_queue needs a map of its fields, not list"),
        ("declare_queue", {"name": "q"}, "declare_queue needs vhost"),
        ("bind", {"vhost": "/"}, "bind needs source and destination"),
        ("declare_queue", {"vhost": "/", "colour": 1}, "declare_queue has no field 'colour'"),
        ("declare_queue", {"vhost": "/", "durable": 1}, "declare_queue: durable must be bool, not int"),
        ("declare_queue", {"vhost": b"/"}, "declare_queue: vhost must be str, not bytes"),
        ("put_user", {"name": "u", "tags": "administrator"}, "put_user: tags must be a list of strings"),
        ("declare_queue", {"vhost": "/", "arguments": 5}, "declare_queue: arguments must be a table's bytes or a map, not int"),
        ("declare_queue", {"vhost": "/", "arguments": {"a": object()}}, "declare_queue: arguments cannot be an AMQP table: "),
    ],
)
def test_a_body_that_is_no_command_is_refused_in_a_sentence(name: str, body: object, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        from_map(name, body)
