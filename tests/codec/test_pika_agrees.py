"""pika's own codec as oracle: what we write it reads as the same values, and what it writes we read, byte for byte where both may write.

Known to differ, and left out of the draws: pika reads floats and doubles as ints, decimals through its context's precision and timestamps
as datetimes; it writes None for an empty table as we do, and every int that came as `l` as `l`.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from typing import Any

import pika
import pika.data
import pika.frame
import pika.spec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.codec import generate, methods
from leveret.codec.frames import FrameReader, encode_content, encode_method_frame
from leveret.codec.methods import METHODS, Method, decode_method
from leveret.codec.properties import Properties, decode_content_header, decode_properties
from leveret.codec.tables import Typed, decode_table, encode_table

from tests.codec.field_values import SHORT_STRINGS, TEXT, methods_of, properties

with generate.TABLE.open("rb") as table_file:
    FIELD_TYPES = {spec.name: {field.name: field.type for field in spec.fields} for spec in generate.read_methods(tomllib.load(table_file))}
# What the installed pika does not know cannot be compared; `test_pika_knows_nearly_every_method` bounds it.
SHARED = sorted(set(METHODS) & set(pika.spec.methods))
# Attributes that we call otherwise, because a method's own class id stands there already.
PIKA_NAMES = {"failing_class_id": "class_id", "failing_method_id": "method_id"}
PLAIN = st.recursive(
    st.one_of(
        TEXT,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(),
        st.none(),
        st.integers(-(10**6), 10**6).map(lambda number: Decimal(number) / 100),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT_STRINGS, inner, max_size=3),
    max_leaves=8,
)
PLAIN_TABLES = st.dictionaries(SHORT_STRINGS, PLAIN, max_size=5)


def pika_table(table: dict[str, Any]) -> bytes:
    pieces: list[bytes] = []
    pika.data.encode_table(pieces, table)
    return b"".join(pieces)


def test_pika_knows_nearly_every_method() -> None:
    unknown = {METHODS[kind].name for kind in set(METHODS) - set(SHARED)}
    assert unknown <= {"connection.blocked", "connection.unblocked", "connection.update-secret", "connection.update-secret-ok"}
    assert set(pika.spec.methods) <= set(METHODS)


@given(PLAIN_TABLES)
def test_pika_reads_our_tables(table: dict[str, Any]) -> None:
    wire = encode_table(table)
    assert pika.data.decode_table(wire, 0) == (table, len(wire))


@given(PLAIN_TABLES)
def test_we_read_pikas_tables(table: dict[str, Any]) -> None:
    assert decode_table(pika_table(table)) == table


@pytest.mark.parametrize("tag", "bBsuIilL")
def test_pika_reads_our_integer_types(tag: str) -> None:
    value = -5 if tag in "bsIlL" else 5
    assert pika.data.decode_table(encode_table({"k": Typed(tag, value)}), 0)[0] == {"k": value}


ANY_SHARED = st.sampled_from(SHARED).flatmap(lambda kind: methods_of(METHODS[kind], FIELD_TYPES[METHODS[kind].name], PLAIN_TABLES))


# pika only writes update-secret: its reader of it does not fill in the fields.
@given(ANY_SHARED.filter(lambda method: method.name != "connection.update-secret"))
def test_pika_reads_our_methods(method: Method) -> None:
    kind = pika.spec.methods[method.kind]
    theirs = kind.__new__(kind)
    theirs.decode(method.encode(), 4)
    assert theirs.synchronous == method.synchronous
    for name in method.fields:
        ours, value = getattr(method, name), getattr(theirs, PIKA_NAMES.get(name, name))
        if isinstance(ours, bytes):
            # By field and version pika keeps a long string as bytes, as str, or as what `str(bytes)` prints.
            assert value in (ours, str(ours), ours.decode("utf-8", "replace")), name
        else:
            assert value == ours, name


@given(ANY_SHARED)
def test_we_read_pikas_methods(method: Method) -> None:
    values = {PIKA_NAMES.get(name, name): getattr(method, name) for name in method.fields}
    theirs = pika.spec.methods[method.kind](**values)
    payload = method.kind.to_bytes(4, "big") + b"".join(theirs.encode())
    assert decode_method(payload) == method
    if "table" not in FIELD_TYPES[method.name].values():
        assert payload == method.encode()


@given(properties(PLAIN_TABLES))
def test_pika_reads_our_properties_and_we_its(drawn: Properties) -> None:
    wire = drawn.encode()
    theirs = pika.BasicProperties()
    theirs.decode(wire, 0)
    names = [name for name in pika.BasicProperties().__dict__ if hasattr(drawn, name)]
    assert len(names) == 14
    for name in names:
        assert getattr(theirs, name) == getattr(drawn, name), name
    assert decode_properties(b"".join(pika.BasicProperties(**{name: getattr(drawn, name) for name in names}).encode())) == drawn


@given(st.integers(0, 65535), st.binary(max_size=10_000), properties(PLAIN_TABLES))
def test_frames_are_the_same_frames(channel: int, body: bytes, drawn: Properties) -> None:
    publish = methods.BasicPublish(exchange="e", routing_key="k", mandatory=True)
    ours = encode_method_frame(channel, publish) + encode_content(channel, 60, drawn.encode(), body, 4096)
    frames = []
    while ours:
        taken, frame = pika.frame.decode_frame(ours)
        assert taken > 0
        frames.append(frame)
        ours = ours[taken:]
    method, header, *bodies = frames
    assert (method.channel_number, method.method.routing_key, method.method.mandatory) == (channel, "k", True)
    assert (header.channel_number, header.body_size) == (channel, len(body))
    assert b"".join(frame.fragment for frame in bodies) == body
    assert all(len(frame.fragment) <= 4088 for frame in bodies)

    reader = FrameReader(4096)
    reader.feed(b"".join(frame.marshal() for frame in frames))
    read = list(reader)
    assert decode_method(read[0].payload) == publish
    assert decode_content_header(read[1].payload).body_size == len(body)
    assert b"".join(frame.payload for frame in read[2:]) == body
