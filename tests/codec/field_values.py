"""Hypothesis strategies for what goes over the wire: short strings, tables plain and typed, methods, properties.

Bounds are the protocol's, so that everything drawn must be accepted; tests of refusals make their own bytes.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from leveret.codec.methods import METHODS, Method
from leveret.codec.properties import PROPERTIES, Properties
from leveret.codec.tables import Timestamp, Typed

TEXT = st.text(st.characters(codec="utf-8"))
SHORT_STRINGS = TEXT.filter(lambda text: len(text.encode()) <= 255)
INT_RANGES = {
    "b": (-(2**7), 2**7 - 1),
    "B": (0, 2**8 - 1),
    "s": (-(2**15), 2**15 - 1),
    "u": (0, 2**16 - 1),
    "I": (-(2**31), 2**31 - 1),
    "i": (0, 2**32 - 1),
    "l": (-(2**63), 2**63 - 1),
    "L": (-(2**63), 2**63 - 1),
}
TIMESTAMPS = st.integers(0, 2**64 - 1).map(Timestamp)
DECIMALS = st.builds(lambda unscaled, scale: Decimal(unscaled).scaleb(-scale), st.integers(-(2**31), 2**31 - 1), st.integers(0, 15))
NOT_UTF8 = st.binary(min_size=1).map(lambda data: data + b"\xff")


def single_precision(value: float) -> float:
    """The nearest float that four bytes hold."""
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


SCALARS = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(),
    st.none(),
    TIMESTAMPS,
    DECIMALS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SHORT_STRINGS, inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(SHORT_STRINGS, VALUES, max_size=6)

TYPED_SCALARS = st.one_of(
    *(st.builds(Typed, st.just(tag), st.integers(low, high)) for tag, (low, high) in INT_RANGES.items()),
    st.one_of(TEXT, NOT_UTF8).map(lambda value: Typed("S", value)),
    st.binary().map(lambda value: Typed("x", value)),
    st.booleans().map(lambda value: Typed("t", value)),
    st.floats(allow_nan=False, width=32).map(lambda value: Typed("f", value)),
    st.floats(allow_nan=False).map(lambda value: Typed("d", value)),
    DECIMALS.map(lambda value: Typed("D", value)),
    TIMESTAMPS.map(lambda value: Typed("T", value)),
    st.just(Typed("V", None)),
)
TYPED_VALUES = st.recursive(
    TYPED_SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda value: Typed("A", value))
        | st.dictionaries(SHORT_STRINGS, inner, max_size=4).map(lambda value: Typed("F", value))
    ),
    max_leaves=12,
)
TYPED_TABLES = st.dictionaries(SHORT_STRINGS, TYPED_VALUES, max_size=6)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "timestamp": TIMESTAMPS,
    "shortstr": SHORT_STRINGS,
    "longstr": st.binary(max_size=300),
    "table": TABLES,
}


@st.composite
def methods_of(draw: st.DrawFn, kind: type[Method], field_types: dict[str, str], tables: st.SearchStrategy[Any] = TABLES) -> Method:
    """A method of that class with every field drawn; field_types: name -> wire type, as amqp091.toml has them."""
    values = {name: draw(tables if field_types[name] == "table" else FIELDS[field_types[name]]) for name in kind.fields}
    return kind(**values)


@st.composite
def properties(draw: st.DrawFn, headers: st.SearchStrategy[Any] = TABLES) -> Properties:
    """Properties of which each is there or not."""
    values = {name: draw(st.none() | (headers if kind == "table" else FIELDS[kind])) for name, kind in PROPERTIES}
    return Properties(**values)


ALL_METHODS = list(METHODS.values())
