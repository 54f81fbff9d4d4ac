"""Properties and content headers: bytes both ways, and the hot path's check of the same mind as the reader that makes objects."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.codec import generate
from leveret.codec.errors import AmqpError, CommandSyntaxError, FrameError
from leveret.codec.properties import (
    NO_PROPERTIES,
    PROPERTIES,
    ContentHeader,
    Properties,
    check_properties,
    decode_content_header,
    decode_properties,
)
from leveret.codec.tables import Timestamp, Typed, encode_table

from tests.codec.field_values import TYPED_TABLES, properties

ALL = Properties(
    content_type="text/plain",
    content_encoding="gzip",
    headers={"a": 1},
    delivery_mode=2,
    priority=5,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    message_id="m",
    timestamp=1600000000,
    type="t",
    user_id="guest",
    app_id="app",
    cluster_id="cluster",
)
ALL_WIRE = bytes.fromhex(
    "fffc 0a 746578742f706c61696e 04 677a6970 00000007 01 61 49 00000001 02 05 01 63 01 72 05 3630303030 01 6d 000000005f5e1000"
    "01 74 05 6775657374 03 617070 07 636c7573746572"
)


def test_the_bytes_of_all_properties_both_ways() -> None:
    assert ALL.encode() == ALL_WIRE
    assert decode_properties(ALL_WIRE) == ALL
    assert type(decode_properties(ALL_WIRE).timestamp) is Timestamp


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, (name, _) in enumerate(PROPERTIES)])
def test_each_property_has_its_flag(place: int, name: str) -> None:
    alone = Properties(**{name: getattr(ALL, name)})
    wire = alone.encode()
    assert wire[:2] == (1 << 15 - place).to_bytes(2, "big")
    assert decode_properties(wire) == alone
    assert list(check_properties(wire)) == [name]
    assert repr(alone) == f"Properties({name}={getattr(ALL, name)!r})"


def test_the_properties_are_the_tables() -> None:
    with generate.TABLE.open("rb") as file:
        (basic,) = (row for row in tomllib.load(file)["classes"] if row["name"] == "basic")
    assert list(PROPERTIES) == [(row["name"], row["type"]) for row in basic["properties"]]


def test_no_properties() -> None:
    assert Properties().encode() == NO_PROPERTIES == b"\0\0"
    assert decode_properties(NO_PROPERTIES) == Properties()
    assert check_properties(NO_PROPERTIES) == {}


def seen_of(drawn: Properties) -> dict[str, bytes | int]:
    """What the hot path's check should see of them."""
    seen: dict[str, bytes | int] = {}
    for name, kind in PROPERTIES:
        value: Any = getattr(drawn, name)
        if value is not None:
            seen[name] = value.encode() if kind == "shortstr" else encode_table(value)[4:] if kind == "table" else value
    return seen


@given(properties())
def test_properties_round_trip_and_are_seen_in_place(drawn: Properties) -> None:
    wire = drawn.encode()
    assert decode_properties(wire) == drawn
    assert decode_properties(wire).encode() == wire
    assert check_properties(wire) == seen_of(drawn)


@given(properties(TYPED_TABLES))
def test_typed_headers_round_trip_to_the_byte(drawn: Properties) -> None:
    wire = drawn.encode()
    assert decode_properties(wire, typed=True) == drawn
    assert decode_properties(wire, typed=True).encode() == wire


@given(properties(TYPED_TABLES))
def test_cut_anywhere_or_longer_both_readers_refuse(drawn: Properties) -> None:
    wire = drawn.encode()
    for wrong in (*(wire[:size] for size in range(len(wire))), wire + b"\0"):
        with pytest.raises(FrameError):
            decode_properties(wrong)
        with pytest.raises(FrameError):
            check_properties(wrong)


def reply_code(read: Any, wire: bytes) -> int:
    """The reply code that `read` refuses `wire` with; 0: it takes it."""
    try:
        read(wire)
    except AmqpError as error:
        return error.reply_code
    return 0


@given(st.binary(max_size=80))
def test_both_readers_are_of_one_mind_about_any_bytes(wire: bytes) -> None:
    assert reply_code(check_properties, wire) == reply_code(decode_properties, wire)


def test_both_readers_are_of_one_mind_about_every_wrong_byte() -> None:
    for place in range(len(ALL_WIRE)):
        for value in range(256):
            changed = ALL_WIRE[:place] + bytes([value]) + ALL_WIRE[place + 1 :]
            assert reply_code(check_properties, changed) == reply_code(decode_properties, changed), (place, value)


def test_further_flag_words_may_only_be_empty() -> None:
    assert decode_properties(bytes.fromhex("8001 0001 0001 0000 01 61")) == Properties(content_type="a")
    assert check_properties(bytes.fromhex("8001 0001 0001 0000 01 61")) == {"content_type": b"a"}
    for wire in ("0001", "0001 8000", "0001 0002", "0001 0001", "0001 0001 4000"):
        with pytest.raises(FrameError, match="malformed message properties"):
            check_properties(bytes.fromhex(wire))
        with pytest.raises(FrameError, match="malformed message properties"):
            decode_properties(bytes.fromhex(wire))


def test_the_bit_that_no_property_has_is_not_looked_at() -> None:
    assert decode_properties(bytes.fromhex("8002 01 61")) == Properties(content_type="a")
    assert check_properties(bytes.fromhex("8002 01 61")) == {"content_type": b"a"}


def test_strings_that_are_not_utf8_go_out_as_they_came() -> None:
    wire = bytes.fromhex("8000 02 fffe")
    assert decode_properties(wire).encode() == wire
    assert check_properties(wire) == {"content_type": b"\xff\xfe"}


def test_headers_too_deep_are_a_syntax_error() -> None:
    headers: dict[str, Any] = {}
    for _ in range(31):
        headers = {"a": headers}
    good = Properties(headers=headers).encode()
    assert decode_properties(good).headers == headers
    check_properties(good)
    deeper = good[:2] + (len(good) - 6 + 7).to_bytes(4, "big") + b"\x01aF" + good[2:]
    for read in (decode_properties, check_properties):
        with pytest.raises(CommandSyntaxError):
            read(deeper)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"content_type": "x" * 256}, ValueError),
        ({"priority": 256}, ValueError),
        ({"priority": -1}, ValueError),
        ({"priority": "1"}, TypeError),
        ({"timestamp": 2**64}, ValueError),
        ({"timestamp": 1.5}, TypeError),
        ({"headers": {"a": object()}}, TypeError),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Properties(**values).encode()
    with pytest.raises(TypeError):
        Properties(content_type=b"bytes")  # type: ignore[arg-type]


def test_typed_headers_keep_their_types() -> None:
    wire = Properties(headers={"a": Typed("b", 1)}).encode()
    assert decode_properties(wire).headers == {"a": 1}
    assert decode_properties(wire, typed=True).headers == {"a": Typed("b", 1)}


def test_the_bytes_of_a_content_header() -> None:
    header = ContentHeader(60, 2**64 - 1, b"\x10\x00\x02")
    assert header.encode() == bytes.fromhex("003c 0000 ffffffffffffffff 1000 02")
    assert decode_content_header(header.encode()) == header
    assert decode_content_header(bytes.fromhex("003c 0001 0000000000000000")) == ContentHeader(60, 0, b"", weight=1)
    assert header != ContentHeader(60, 1)


@pytest.mark.parametrize("size", range(12))
def test_a_content_header_cut_short_is_a_frame_error(size: int) -> None:
    with pytest.raises(FrameError, match=r"type 2, all octets = <<.*>>: unknown_frame"):
        decode_content_header(ContentHeader(60, 5).encode()[:size])
