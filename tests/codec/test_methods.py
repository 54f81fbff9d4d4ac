"""Methods: exact bytes both ways, every cut and wrong byte answered as RabbitMQ answers it, the generated files true to their table."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.codec import errors, generate, methods
from leveret.codec.errors import AmqpError, CommandSyntaxError, FrameError
from leveret.codec.methods import Method, decode_method
from leveret.codec.tables import encode_table

from tests.codec.field_values import ALL_METHODS, methods_of

with generate.TABLE.open("rb") as table_file:
    PROTOCOL: dict[str, Any] = tomllib.load(table_file)
SPECS = {spec.name: spec for spec in generate.read_methods(PROTOCOL)}
FIELD_TYPES = {name: {field.name: field.type for field in spec.fields} for name, spec in SPECS.items()}
ANY_METHOD = st.sampled_from(ALL_METHODS).flatmap(lambda kind: methods_of(kind, FIELD_TYPES[kind.name]))

# The bytes were written down by hand from the protocol's grammar, not by the encoder.
VECTORS: list[tuple[Method, str]] = [
    (
        methods.ConnectionStart(version_major=0, version_minor=9, server_properties={}, mechanisms=b"PLAIN", locales=b"en_US"),
        "000a000a 00 09 00000000 00000005 504c41494e 00000005 656e5f5553",
    ),
    (
        methods.ConnectionStartOk(client_properties={"p": "q"}, mechanism="PLAIN", response=b"\0u\0p", locale="en_US"),
        "000a000b 00000008 01 70 53 00000001 71 05 504c41494e 00000004 00750070 05 656e5f5553",
    ),
    (methods.ConnectionTune(channel_max=2047, frame_max=131072, heartbeat=60), "000a001e 07ff 00020000 003c"),
    (methods.ConnectionOpen(virtual_host="/"), "000a0028 01 2f 00 00"),
    (methods.ConnectionOpenOk(), "000a0029 00"),
    (
        methods.ConnectionClose(reply_code=320, reply_text="CONNECTION_FORCED", failing_class_id=60, failing_method_id=40),
        "000a0032 0140 11 434f4e4e454354494f4e5f464f52434544 003c 0028",
    ),
    (methods.ConnectionBlocked(reason="low on memory"), "000a003c 0d 6c6f77206f6e206d656d6f7279"),
    (methods.ConnectionUpdateSecret(new_secret=b"s", reason="r"), "000a0046 00000001 73 01 72"),
    (methods.ChannelOpen(), "0014000a 00"),
    (methods.ChannelOpenOk(), "0014000b 00000000"),
    (methods.ChannelFlow(active=True), "00140014 01"),
    (methods.AccessRequest(realm="/data", exclusive=True, passive=False, active=True, write=False, read=True), "001e000a 05 2f64617461 15"),
    (methods.AccessRequestOk(ticket=1), "001e000b 0001"),
    (
        methods.ExchangeDeclare(exchange="e", type="topic", durable=True, internal=True, arguments={"n": None}),
        "0028000a 0000 01 65 05 746f706963 0a 00000003 01 6e 56",
    ),
    (methods.ExchangeUnbindOk(), "00280033"),
    (
        methods.QueueDeclare(queue="q", passive=True, durable=False, exclusive=True, auto_delete=False, nowait=True, arguments={}),
        "0032000a 0000 01 71 15 00000000",
    ),
    (methods.QueueDeclareOk(queue="q", message_count=7, consumer_count=2), "0032000b 01 71 00000007 00000002"),
    (methods.QueueUnbind(queue="q", exchange="e", routing_key="k", arguments={}), "00320032 0000 01 71 01 65 01 6b 00000000"),
    (methods.BasicQos(prefetch_size=0, prefetch_count=500, global_qos=True), "003c000a 00000000 01f4 01"),
    (
        methods.BasicConsume(queue="q", consumer_tag="c", no_local=False, no_ack=True, exclusive=False, nowait=False),
        "003c0014 0000 01 71 01 63 02 00000000",
    ),
    (methods.BasicPublish(exchange="", routing_key="héllo", mandatory=True, immediate=False), "003c0028 0000 00 06 68c3a96c6c6f 01"),
    (
        methods.BasicReturn(reply_code=312, reply_text="NO_ROUTE", exchange="e", routing_key="k"),
        "003c0032 0138 08 4e4f5f524f555445 01 65 01 6b",
    ),
    (
        methods.BasicDeliver(consumer_tag="c", delivery_tag=2**64 - 1, redelivered=True, exchange="", routing_key="k"),
        "003c003c 01 63 ffffffffffffffff 01 00 01 6b",
    ),
    (
        methods.BasicGetOk(delivery_tag=1, redelivered=False, exchange="", routing_key="k", message_count=3),
        "003c0047 0000000000000001 00 00 01 6b 00000003",
    ),
    (methods.BasicGetEmpty(), "003c0048 00"),
    (methods.BasicAck(delivery_tag=5, multiple=True), "003c0050 0000000000000005 01"),
    (methods.BasicReject(delivery_tag=5, requeue=False), "003c005a 0000000000000005 00"),
    (methods.BasicNack(delivery_tag=5, multiple=False, requeue=True), "003c0078 0000000000000005 02"),
    (methods.ConfirmSelect(nowait=True), "0055000a 01"),
    (methods.TxRollbackOk(), "005a001f"),
]


@pytest.mark.parametrize(("method", "hexadecimal"), VECTORS, ids=lambda item: getattr(item, "name", ""))
def test_the_bytes_are_the_protocols_both_ways(method: Method, hexadecimal: str) -> None:
    wire = bytes.fromhex(hexadecimal)
    assert method.encode() == wire
    assert decode_method(wire) == method


@given(ANY_METHOD)
def test_what_is_encoded_is_decoded(method: Method) -> None:
    wire = method.encode()
    again = decode_method(wire)
    assert type(again) is type(method)
    assert again == method
    assert again.encode() == wire


@given(ANY_METHOD)
def test_cut_anywhere_it_is_a_frame_error(method: Method) -> None:
    wire = method.encode()
    for size in range(len(wire)):
        with pytest.raises(FrameError):
            decode_method(wire[:size])


@given(ANY_METHOD, st.binary(min_size=1, max_size=8))
def test_bytes_left_over_are_a_frame_error(method: Method, extra: bytes) -> None:
    with pytest.raises(FrameError, match="cannot decode <<"):
        decode_method(method.encode() + extra)


@given(st.binary(max_size=200), st.sampled_from(ALL_METHODS))
def test_nothing_but_a_codec_error_escapes(fields: bytes, kind: type[Method]) -> None:
    wire = kind.class_id.to_bytes(2, "big") + kind.method_id.to_bytes(2, "big") + fields
    try:
        method = decode_method(wire)
    except AmqpError as error:
        assert error.hard
        assert len(error.reply_text.encode()) <= 255
    else:
        assert decode_method(method.encode()) == method


def test_every_wrong_byte_of_a_method_is_a_codec_error_or_another_method() -> None:
    wire = methods.QueueDeclare(queue="queue", arguments={"a": [1, {"b": "c"}], "d": 2.5}).encode()
    for place in range(len(wire)):
        for value in range(256):
            changed = wire[:place] + bytes([value]) + wire[place + 1 :]
            try:
                method = decode_method(changed)
            except AmqpError as error:
                assert error.reply_code in {501, 502, 503}
            else:
                assert isinstance(method, Method)


# The texts were read off RabbitMQ 3.10.8, except where it drops the connection without one.
@pytest.mark.parametrize(
    ("hexadecimal", "code", "text", "failing"),
    [
        ("0032", 501, "FRAME_ERROR - type 1, all octets = <<0,50>>: unknown_frame", (0, 0)),
        ("0032000a000001", 501, "FRAME_ERROR - cannot decode <<0,0,1>>", (50, 10)),
        ("0032000a0000017100000000007a7a", 501, "FRAME_ERROR - cannot decode <<0,0,1,113,0,0,0,0,0,122,122>>", (50, 10)),
        ("0032000a0000017100000000506162", 501, "FRAME_ERROR - cannot decode <<0,0,1,113,0,0,0,0,80,97,98>>", (50, 10)),
        ("0032000a000002ffff0000000000", 501, "FRAME_ERROR - Malformed UTF-8 in shortstr", (0, 0)),
        ("00320063", 503, "COMMAND_INVALID - unimplemented method", (0, 0)),
        ("0063000a", 503, "COMMAND_INVALID - unimplemented method", (0, 0)),
    ],
)
def test_the_answer_to_a_wrong_method_is_rabbitmqs(hexadecimal: str, code: int, text: str, failing: tuple[int, int]) -> None:
    with pytest.raises(AmqpError) as caught:
        decode_method(bytes.fromhex(hexadecimal))
    assert caught.value.reply_code == code
    assert caught.value.reply_text == text
    assert (caught.value.class_id, caught.value.method_id) == failing


def test_a_long_wrong_method_is_quoted_within_a_short_string() -> None:
    with pytest.raises(FrameError) as caught:
        decode_method(methods.QueuePurge(queue="q").encode() + bytes(100_000))
    assert len(caught.value.reply_text.encode()) == 255
    assert caught.value.reply_text.endswith("...")


def test_a_table_nested_too_deep_in_a_method_is_a_syntax_error() -> None:
    table: dict[str, Any] = {}
    for _ in range(31):
        table = {"a": table}
    assert decode_method(methods.QueueDeclare(arguments=table).encode()) == methods.QueueDeclare(arguments=table)
    inner = encode_table(table)
    deeper = (len(inner) + 3).to_bytes(4, "big") + b"\x01aF" + inner
    with pytest.raises(CommandSyntaxError):
        decode_method(methods.QueueDeclare().encode()[:-4] + deeper)


def test_what_does_not_fit_is_refused_not_cut() -> None:
    with pytest.raises(ValueError, match="at most 255 bytes, not 256"):
        methods.QueueDeclare(queue="é" * 128).encode()
    assert len(methods.QueuePurge(queue="é" * 127 + "a").encode()) == 4 + 2 + 1 + 255 + 1
    with pytest.raises(OverflowError):
        methods.BasicQos(prefetch_count=65536)
    with pytest.raises(OverflowError):
        methods.BasicAck(delivery_tag=-1)
    with pytest.raises(TypeError):
        methods.QueueDeclare(queue=b"bytes")  # type: ignore[arg-type]
    method = methods.QueueDeclare()
    method.queue = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="must be a str"):
        method.encode()


def test_reserved_fields_are_read_and_dropped() -> None:
    wire = bytes.fromhex("000a0028 01 2f 03 616263 01")  # capabilities "abc", insist
    assert decode_method(wire) == methods.ConnectionOpen(virtual_host="/")
    assert decode_method(bytes.fromhex("00320028 ffff 01 71 02")) == methods.QueueDelete(queue="q", if_empty=True)


def test_a_method_tells_what_it_is() -> None:
    method = methods.BasicGet(queue="q", no_ack=True)
    assert (method.class_id, method.method_id, method.kind) == (60, 70, 60 << 16 | 70)
    assert (method.name, method.sent_by, method.synchronous, method.has_content) == ("basic.get", "client", True, False)
    assert method.replies == ("basic.get-ok", "basic.get-empty")
    assert repr(method) == "BasicGet(queue='q', no_ack=True)"
    assert method != methods.BasicGet(queue="q")
    assert method != methods.QueuePurge(queue="q")
    with pytest.raises(TypeError):
        hash(method)


def test_arguments_are_not_shared_between_methods() -> None:
    methods.QueueDeclare().arguments["x"] = 1
    assert methods.QueueDeclare().arguments == {}


def test_there_is_a_class_for_every_row_of_the_table() -> None:
    assert {kind: method.name for kind, method in methods.METHODS.items()} == {
        spec.class_id << 16 | spec.method_id: spec.name for spec in SPECS.values()
    }
    assert len(SPECS) == 66
    for method in ALL_METHODS:
        spec = SPECS[method.name]
        assert method.fields == tuple(field.name for field in spec.visible)
        assert method.synchronous == bool(spec.replies) == bool(method.replies)
        assert method.has_content == (method.name in {"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"})


def test_the_generated_files_are_what_the_table_makes() -> None:
    for name, text in generate.render().items():
        assert (generate.FOLDER / name).read_text(encoding="utf-8") == text, f"{name} is stale: run `python codec/generate.py`"
        assert text.startswith("# Generated from amqp091.toml by generate.py.")


def test_reply_codes_are_the_tables() -> None:
    told = {row["code"]: (row["name"], row["kind"] == "hard") for row in PROTOCOL["reply_codes"] if row["kind"] != "none"}
    assert {code: (kind.reply_name, kind.hard) for code, kind in errors.ERRORS_BY_CODE.items()} == told
