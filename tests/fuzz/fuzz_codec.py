"""Fuzz target of the codec. Invariant: whatever the bytes, only an `AmqpError` escapes, and what was decoded encodes to bytes that decode
to the same and encode to the same again.

    python tests/fuzz/fuzz_codec.py -max_total_time=60 tests/fuzz/corpus/codec

The first byte of an input chooses the entry point (`ENTRIES`), the rest is what it reads. The extension modules are not instrumented, so
the fuzzer sees which kinds of values and errors come out (`shape_of`), not which lines of C ran, and most seeds look alike to it. So two
of three inputs are made by our own `mutate`, half of them from any seed of the corpus, which has one for every method and type. New finds
go to `build/fuzz/codec/` unless a folder for them is named before the corpus.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leveret.codec.errors import AmqpError
from leveret.codec.frames import FrameReader, ReceivedFrame, encode_frame
from leveret.codec.methods import decode_method
from leveret.codec.properties import check_properties, decode_content_header, decode_properties
from leveret.codec.tables import Typed, decode_table, encode_table, find_field

FINDS = Path(__file__).resolve().parents[2] / "build" / "fuzz" / "codec"


def shape_of(value: Any) -> int:
    """The depth of a decoded value. Its branches are what tells the fuzzer one kind of value from another."""
    if isinstance(value, Typed):
        return shape_of(value.value)
    if isinstance(value, dict):
        return 1 + max((shape_of(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((shape_of(item) for item in value), default=0)
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return -1 if value < 0 else 0
    if isinstance(value, str):
        return 0 if value.isascii() else -1
    if value is None:
        return 0
    return -1 if isinstance(value, float | bytes) else 0


def check_method(data: bytes) -> None:
    method = decode_method(data)
    wire = method.encode()
    again = decode_method(wire)
    assert type(again) is type(method)
    assert again.encode() == wire
    for field in method.fields:
        shape_of(getattr(method, field))


def check_typed_table(data: bytes) -> None:
    table = decode_table(data, typed=True)
    assert shape_of(table) <= 32
    wire = encode_table(table)
    assert encode_table(decode_table(wire, typed=True)) == wire
    for name, value in table.items():
        assert repr(find_field(data, name, typed=True)) == repr(value)


def check_plain_table(data: bytes) -> None:
    table = decode_table(data)
    shape_of(table)
    wire = encode_table(table)
    assert encode_table(decode_table(wire)) == wire


def check_both_property_readers(data: bytes) -> None:
    try:
        seen = check_properties(data)
    except AmqpError as error:
        code = error.reply_code
        try:
            decode_properties(data)
        except AmqpError as other:
            assert other.reply_code == code
            return
        raise AssertionError("only one of the two readers refuses it") from error
    properties = decode_properties(data, typed=True)
    assert {name for name in seen if getattr(properties, name) is not None} == set(seen)
    shape_of(properties.headers)
    wire = properties.encode()
    assert decode_properties(wire, typed=True).encode() == wire


def check_content_header(data: bytes) -> None:
    header = decode_content_header(data)
    assert header.encode() == data


def check_frame_stream(data: bytes) -> None:
    """The first byte says into how large pieces the stream is cut: that must not change what is read."""
    piece = data[0] if data else 0
    stream = data[1:]
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)] if piece else [stream]
    whole, cut = FrameReader(4096), FrameReader(4096)
    read: list[ReceivedFrame] = []
    failures = []
    for reader, parts in ((whole, [stream]), (cut, pieces)):
        read.clear()
        try:
            for part in parts:
                reader.feed(part)
                read.extend(reader)
        except AmqpError as error:
            failures.append(error)
        assert stream.startswith(b"".join(encode_frame(frame.type, frame.channel, frame.payload) for frame in read))
    assert len(failures) in (0, 2)
    if failures:
        raise failures[0]


ENTRIES: list[Callable[[bytes], None]] = [
    check_method,
    check_typed_table,
    check_plain_table,
    check_both_property_readers,
    check_content_header,
    check_frame_stream,
]


def check_input(data: bytes) -> None:
    """One input of the fuzzer, or one file of the corpus."""
    if not data:
        return
    try:
        ENTRIES[data[0] % len(ENTRIES)](data[1:])
    except AmqpError as error:
        assert error.reply_code in {501, 502, 503}
        assert len(error.reply_text.encode()) <= 255


def mutate(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to four small changes that a table or method feels: types, lengths, repeated and lost pieces. The entry stays."""
    changed = bytearray(data or b"\0")
    for _ in range(chance.randint(1, 4)):
        place = chance.randint(1, len(changed))
        piece = changed[place : place + chance.randint(0, 12)]
        match chance.randrange(5):
            case 0:
                changed[place : place + 1] = bytes([chance.choice(b"SItbBsuildfDTFAxV\x00\x01\x7f\x80\xff")])
            case 1:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                del changed[place : place + len(piece)]
            case 3:
                changed[place:place] = piece * chance.randint(1, 8)
            case _:
                changed[place:place] = len(piece).to_bytes(4, "big") + piece
    return bytes(changed)


def main(arguments: list[str]) -> None:
    import atheris

    folders = [argument for argument in arguments[1:] if not argument.startswith("-")]
    if len(folders) < 2:
        # libFuzzer writes what it finds into the first folder: not into the committed corpus.
        FINDS.mkdir(parents=True, exist_ok=True)
        arguments = [*arguments[:1], *(item for item in arguments[1:] if item not in folders), str(FINDS), *folders]
    for function in (shape_of, *ENTRIES, check_input):
        globals()[function.__name__] = atheris.instrument_func(function)
    ENTRIES[:] = [globals()[function.__name__] for function in ENTRIES]

    seeds = [seed.read_bytes() for folder in folders for seed in Path(folder).iterdir()]

    def mutator(data: bytes, size_max: int, seed: int) -> bytes:
        chance = random.Random(seed)
        match chance.randrange(3):
            case 0:
                return bytes(atheris.Mutate(data, size_max))
            case 1 if seeds:
                return mutate(chance.choice(seeds), chance)[:size_max]
            case _:
                return mutate(data, chance)[:size_max]

    atheris.Setup(arguments, check_input, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
