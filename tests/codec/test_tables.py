"""Field tables: every type both ways, every cut refused, nesting bombs and floods of fields harmless."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.codec.errors import AmqpError, CommandSyntaxError, FrameError
from leveret.codec.methods import QueueDeclare, decode_method
from leveret.codec.properties import check_properties, decode_properties
from leveret.codec.tables import TYPE_NAMES, Timestamp, Typed, decode_table, encode_table, find_field, type_name

from tests.codec.field_values import TABLES, TYPED_TABLES


def table_of(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


# Type, value in hex, what a plain and what a typed reading gives.
VECTORS: list[tuple[str, str, Any]] = [
    ("S", "00000003 68c3a9", "hé"),
    ("S", "00000000", ""),
    ("S", "00000002 fffe", b"\xff\xfe"),
    ("t", "01", True),
    ("t", "00", False),
    ("b", "80", -128),
    ("B", "ff", 255),
    ("s", "8000", -32768),
    ("u", "ffff", 65535),
    ("I", "80000000", -(2**31)),
    ("i", "ffffffff", 2**32 - 1),
    ("l", "8000000000000000", -(2**63)),
    ("L", "ffffffffffffffff", -1),
    ("f", "3fc00000", 1.5),
    ("d", "c004000000000000", -2.5),
    ("D", "02 00007a69", Decimal("313.37")),
    ("D", "00 ffffffff", Decimal(-1)),
    ("T", "00000000 5f5e1000", Timestamp(1600000000)),
    ("x", "00000002 fffe", b"\xff\xfe"),
    ("V", "", None),
    ("F", "00000000", {}),
    ("A", "00000000", []),
]


@pytest.mark.parametrize(("tag", "hexadecimal", "value"), VECTORS)
def test_every_type_is_read_and_written(tag: str, hexadecimal: str, value: Any) -> None:
    wire = table_of(b"\x01k" + tag.encode() + bytes.fromhex(hexadecimal))
    plain = decode_table(wire)
    assert plain == {"k": value}
    assert type(plain["k"]) is type(value)
    assert decode_table(wire, typed=True) == {"k": Typed(tag, value)}
    assert encode_table({"k": Typed(tag, value)}) == wire


# What plain values become: the smallest integer type of the two, a double, and so on.
@pytest.mark.parametrize(
    ("value", "hexadecimal"),
    [
        (1, "49 00000001"),
        (-(2**31), "49 80000000"),
        (2**31, "6c 0000000080000000"),
        (-(2**63), "6c 8000000000000000"),
        (True, "74 01"),
        (1.5, "64 3ff8000000000000"),
        ("a", "53 00000001 61"),
        (b"a", "78 00000001 61"),
        (bytearray(b"a"), "78 00000001 61"),
        (None, "56"),
        (Timestamp(1), "54 0000000000000001"),
        (datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC), "54 0000000000000002"),
        (datetime(1970, 1, 1, 1, 0, 2, tzinfo=timezone(timedelta(hours=1))), "54 0000000000000002"),
        (Decimal("-1.25"), "44 02 ffffff83"),
        (Decimal("3E+2"), "44 00 0000012c"),
        ([1, "a"], "41 0000000b 49 00000001 53 00000001 61"),
        ((None,), "41 00000001 56"),
        ({"k": None}, "46 00000003 01 6b 56"),
    ],
)
def test_plain_values_have_one_wire_type_each(value: Any, hexadecimal: str) -> None:
    assert encode_table({"k": value}) == table_of(b"\x01k" + bytes.fromhex(hexadecimal))


@given(TABLES)
def test_plain_tables_round_trip(table: dict[str, Any]) -> None:
    assert decode_table(encode_table(table)) == table


@given(TYPED_TABLES)
def test_typed_tables_round_trip_to_the_byte(table: dict[str, Typed]) -> None:
    wire = encode_table(table)
    again = decode_table(wire, typed=True)
    assert again == table
    assert encode_table(again) == wire


@given(TYPED_TABLES)
def test_cut_anywhere_a_table_is_refused(table: dict[str, Typed]) -> None:
    wire = encode_table(table)
    for size in range(len(wire)):
        with pytest.raises(FrameError):
            decode_table(wire[:size])
        if size >= 4:  # the length says what is there, and the content is cut within
            content = wire[4:size]
            try:
                shorter = decode_table(table_of(content), typed=True)
            except FrameError:
                continue
            assert list(shorter.items()) == list(table.items())[: len(shorter)]


@given(st.binary(max_size=100))
def test_any_bytes_are_a_table_or_a_codec_error(content: bytes) -> None:
    wire = table_of(content)
    try:
        table = decode_table(wire, typed=True)
    except AmqpError as error:
        assert error.reply_code in {501, 502}
        with pytest.raises(AmqpError):
            find_field(wire, "k")
    else:
        once = encode_table(table)
        assert encode_table(decode_table(once, typed=True)) == once
        for name, value in table.items():
            assert repr(find_field(wire, name, typed=True)) == repr(value)


@given(TYPED_TABLES, st.text(max_size=3))
def test_a_field_is_found_without_reading_the_others(table: dict[str, Typed], name: str) -> None:
    wire = encode_table(table)
    assert find_field(wire, name, typed=True) == table.get(name)
    for present, value in table.items():
        assert find_field(wire, present, typed=True) == value


@pytest.mark.parametrize("tag", sorted(set(map(chr, range(256))) - set(TYPE_NAMES)))
def test_every_other_type_is_refused(tag: str) -> None:
    wire = table_of(b"\x01k" + tag.encode("latin-1") + bytes(12))
    with pytest.raises(FrameError):
        decode_table(wire)
    with pytest.raises(FrameError):
        find_field(wire, "k")


@pytest.mark.parametrize("tag", "SxFA")
def test_a_length_beyond_the_bytes_left_is_refused(tag: str) -> None:
    for claimed in (1, 2**31 - 1, 2**31, 2**32 - 5, 2**32 - 1):
        wire = table_of(b"\x01k" + tag.encode() + claimed.to_bytes(4, "big"))
        with pytest.raises(FrameError):
            decode_table(wire)
        with pytest.raises(FrameError):
            find_field(wire, "k")


def test_an_inner_table_may_not_reach_into_what_follows_it() -> None:
    inner = table_of(b"\x01aI\0\0")  # the int wants two bytes more, which the outer table has
    with pytest.raises(FrameError):
        decode_table(table_of(b"\x01kF" + inner + b"\x01bt\x01"))


def test_the_first_of_two_fields_with_one_name_counts() -> None:
    wire = table_of(b"\x01kI\0\0\0\x01\x01kt\x01")
    assert decode_table(wire) == {"k": 1}
    assert find_field(wire, "k") == 1


def test_a_name_that_is_not_utf8_goes_out_as_it_came() -> None:
    wire = table_of(b"\x02\xff\xfeV")
    assert encode_table(decode_table(wire)) == wire
    assert decode_table(wire) == {"\udcff\udcfe": None}


def nested(depth: int, array: bool = False) -> bytes:
    """A table that holds `depth` tables or arrays, one within the other, itself counted."""
    content = b""
    for _ in range(depth - 1 - array):
        size = len(content).to_bytes(4, "big")
        content = b"A" + size + content if array else b"\x01aF" + size + content
    return table_of(b"\x01aA" + table_of(content) if array else content)


def flat_nested(depth: int) -> bytes:
    """Like `nested(depth, array=True)` in linear time: the lengths are counted down from the outside."""
    sizes = range(5 * (depth - 2), -1, -5)
    return table_of(b"\x01a" + b"".join(b"A" + size.to_bytes(4, "big") for size in sizes))


@pytest.mark.parametrize("array", [False, True])
def test_nesting_has_a_limit_of_32(array: bool) -> None:
    decode_table(nested(32, array))
    assert find_field(nested(32, array), "none") is None
    for depth in (33, 34, 100):
        with pytest.raises(CommandSyntaxError, match="nested deeper than 32"):
            decode_table(nested(depth, array))
        with pytest.raises(CommandSyntaxError, match="nested deeper than 32"):
            find_field(nested(depth, array), "none")


def in_small_stack(check: Callable[[], None]) -> None:
    """Run `check` on a thread with a stack of 128 KiB, and raise what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            check()
        except BaseException as error:  # noqa: BLE001 (handed to the caller)
            failures.append(error)

    before = threading.stack_size(128 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    if failures:
        raise failures[0]


# 26,000 levels of 5 bytes fill one frame of 128 KiB; 100,000 are half a megabyte.
@pytest.mark.parametrize("depth", [26_000, 100_000])
def test_a_nesting_bomb_is_refused_in_a_small_stack(depth: int) -> None:
    bomb = flat_nested(depth)
    declare = QueueDeclare(queue="q").encode()[:-4] + bomb

    def check() -> None:
        decode_table(nested(32))
        for read in (
            lambda: decode_table(bomb),
            lambda: decode_table(bomb, typed=True),
            lambda: find_field(bomb, "a"),
            lambda: decode_method(declare),
            lambda: decode_properties(b"\x20\x00" + bomb),
            lambda: check_properties(b"\x20\x00" + bomb),
        ):
            with pytest.raises(CommandSyntaxError):
                read()

    in_small_stack(check)


def test_a_table_that_holds_itself_cannot_be_encoded() -> None:
    table: dict[str, Any] = {}
    table["self"] = [table]

    def check() -> None:
        with pytest.raises(ValueError, match="nested deeper than 32"):
            encode_table(table)

    in_small_stack(check)


@pytest.mark.parametrize("wire_field", [b"V", b"t\x01", b"F\0\0\0\0"])
def test_a_flood_of_fields_takes_linear_time(wire_field: bytes) -> None:
    count = 400_000
    named = table_of(b"".join(b"\x04" + number.to_bytes(4, "big") + wire_field for number in range(count)))
    array = table_of(b"\x01aA" + table_of(wire_field * count))
    begun = time.process_time()
    assert len(decode_table(named)) == count
    assert len(decode_table(array)["a"]) == count
    check_properties(b"\x20\x00" + named)
    assert find_field(named, "none") is None
    # A quadratic walk would take minutes; a linear one takes a fifth of a second here.
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (2**63, ValueError),
        (-(2**63) - 1, ValueError),
        (object(), TypeError),
        ({1: 2}, TypeError),
        ({"k" * 256: 1}, ValueError),
        (Decimal("NaN"), ValueError),
        (Decimal("1E+1000000"), ValueError),
        (Decimal("1E-256"), ValueError),
        (Decimal(2**31), ValueError),
        (Timestamp(-1), ValueError),
        (datetime(1969, 12, 31, tzinfo=UTC), ValueError),
        ("\udc80", ValueError),
        (Typed("b", 128), ValueError),
        (Typed("B", -1), ValueError),
        (Typed("I", "1"), TypeError),
        (Typed("I", 1.0), TypeError),
        (Typed("V", 1), TypeError),
        (Typed("D", 1), TypeError),
        (Typed("S", 1), TypeError),
        (Typed("x", "a"), TypeError),
        (Typed("d", "a"), TypeError),
        (Typed("f", 1e300), ValueError),
        (Typed("F", [1]), TypeError),
        (Typed("A", 1), TypeError),
    ],
)
def test_what_has_no_wire_form_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_table({"k": value})


def test_infinities_and_nan_pass() -> None:
    wire = encode_table({"a": math.inf, "b": Typed("f", -math.inf), "c": math.nan})
    table = decode_table(wire)
    assert table["a"] == math.inf
    assert table["b"] == -math.inf
    assert math.isnan(table["c"])


def test_types_have_rabbitmqs_names() -> None:
    integers = {"b": "byte", "B": "unsignedbyte", "s": "short", "u": "unsignedshort", "I": "signedint", "i": "unsignedint"}
    numbers = {"l": "long", "L": "long", "f": "float", "d": "double", "D": "decimal", "T": "timestamp", "t": "bool"}
    others = {"S": "longstr", "x": "binary", "F": "table", "A": "array", "V": "void"}
    assert {tag: type_name(tag) for tag in TYPE_NAMES} == integers | numbers | others
    with pytest.raises(ValueError, match="no field type 'Z'"):
        type_name("Z")
    with pytest.raises(ValueError, match="no field type 'SS'"):
        Typed("SS", "")


def test_typed_values_are_hashable_and_differ_by_type() -> None:
    wire = encode_table({"a": [1, {"b": "c"}], "d": Typed("l", 1), "e": 1})
    table = decode_table(wire, typed=True)
    assert {table["a"], table["d"], table["e"], Typed("I", 1)} == {table["a"], Typed("l", 1), Typed("I", 1)}
    assert hash(table["a"]) == hash(decode_table(wire, typed=True)["a"])
    assert Typed("I", 1) != 1
    with pytest.raises(AttributeError):
        table["d"].value = 2  # type: ignore[misc]


def test_a_decimal_is_exact_in_any_context() -> None:
    wire = table_of(b"\x01kD\xff\x7f\xff\xff\xff")
    assert decode_table(wire)["k"] == Decimal((0, (2, 1, 4, 7, 4, 8, 3, 6, 4, 7), -255))
    assert encode_table(decode_table(wire)) == wire
