"""Frames: found whole wherever the stream is cut, refused as soon as their 7-byte head tells, and split at frame_max to the byte."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.codec import generate
from leveret.codec.errors import FrameError
from leveret.codec.frames import (
    HEARTBEAT,
    PROTOCOL_HEADER,
    FrameReader,
    ReceivedFrame,
    encode_content,
    encode_deliver,
    encode_frame,
    encode_method_frame,
)
from leveret.codec.methods import BasicDeliver, BasicPublish, QueueDeclare, decode_method
from leveret.codec.properties import NO_PROPERTIES, ContentHeader, Properties, decode_content_header

FRAMES = st.builds(ReceivedFrame, st.sampled_from([1, 2, 3, 8]), st.integers(0, 65535), st.binary(max_size=60))


def wire_of(frames: list[ReceivedFrame]) -> bytes:
    return b"".join(encode_frame(frame.type, frame.channel, frame.payload) for frame in frames)


def read_all(reader: FrameReader, *pieces: bytes) -> list[ReceivedFrame]:
    read: list[ReceivedFrame] = []
    for piece in pieces:
        reader.feed(piece)
        read += reader
    return read


def test_the_bytes_of_a_frame() -> None:
    assert encode_frame(3, 258, b"hi") == bytes.fromhex("03 0102 00000002 6869 ce")
    assert encode_method_frame(1, BasicPublish(routing_key="k")) == bytes.fromhex("01 0001 0000000a 003c0028 0000 00 01 6b 00 ce")
    assert bytes.fromhex("08 0000 00000000 ce") == HEARTBEAT
    assert b"AMQP" + bytes([0, 0, 9, 1]) == PROTOCOL_HEADER


def test_constants_are_the_tables() -> None:
    with generate.TABLE.open("rb") as file:
        protocol = tomllib.load(file)
    for number in protocol["frame_types"].values():
        assert encode_frame(number, 0, b"")[-1] == protocol["protocol"]["frame_end"]
        reader = FrameReader()
        assert read_all(reader, encode_frame(number, 0, b"")) == [ReceivedFrame(number, 0, b"")]


@given(st.lists(FRAMES, max_size=5))
def test_a_stream_of_frames_is_read_back(frames: list[ReceivedFrame]) -> None:
    reader = FrameReader(4096)
    assert read_all(reader, wire_of(frames)) == frames
    assert reader.unread == 0


@given(st.lists(FRAMES, min_size=1, max_size=3))
def test_cut_at_every_byte_it_is_the_same_stream(frames: list[ReceivedFrame]) -> None:
    wire = wire_of(frames)
    for cut in range(len(wire) + 1):
        assert read_all(FrameReader(4096), wire[:cut], wire[cut:]) == frames
    assert read_all(FrameReader(4096), *(bytes([byte]) for byte in wire)) == frames


def test_an_unfinished_frame_is_waited_for() -> None:
    wire = encode_frame(1, 1, b"payload")
    for size in range(len(wire)):
        reader = FrameReader(4096)
        assert read_all(reader, wire[:size]) == []
        assert reader.unread == size


@pytest.mark.parametrize("frame_max", [4096, 131072])
def test_a_frame_may_be_eight_bytes_too_large_and_no_more(frame_max: int) -> None:
    largest = encode_frame(3, 1, bytes(frame_max))
    assert len(largest) == frame_max + 8
    assert len(read_all(FrameReader(frame_max), largest)) == 1
    head = b"\x03\x00\x01" + (frame_max + 1).to_bytes(4, "big")
    reader = FrameReader(frame_max)
    assert read_all(reader, head[:6]) == []
    with pytest.raises(FrameError) as caught:
        read_all(reader, head[6:])
    assert caught.value.reply_text == f"FRAME_ERROR - type 3, all octets = <<>>: {{frame_too_large,{frame_max + 1},{frame_max - 8}}}"


def test_four_gigabytes_are_refused_on_the_head_alone() -> None:
    reader = FrameReader(4096)
    with pytest.raises(FrameError, match=r"\{frame_too_large,4294967295,4088\}"):
        read_all(reader, b"\x01\x00\x00\xff\xff\xff\xff")
    assert reader.unread == 7


def test_without_a_frame_max_no_size_is_too_large() -> None:
    body = bytes(1_000_000)
    assert read_all(FrameReader(0), encode_frame(3, 1, body)) == [ReceivedFrame(3, 1, body)]


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b"\x01\0\1\0\0\0\4\0\x32\0\x0aX", "type 1, all octets = <<0,50,0,10>>: {invalid_frame_end_marker,88}"),
        (b"\x03\0\1\0\0\0\x14abcdefghijklmnopqrst\0", 'type 3, first 16 octets = <<"abcdefghijklmnop">>: {invalid_frame_end_marker,0}'),
        (b"\x09\0\1\0\0\0\5hello\xce", 'type 9, all octets = <<"hello">>: unknown_frame'),
        (b"\x00\0\1\0\0\0\0\xce", "type 0, all octets = <<>>: unknown_frame"),
        (b"\x04\0\1\0\0\0\0\xce", "type 4, all octets = <<>>: unknown_frame"),
    ],
)
def test_the_answer_to_a_wrong_frame_is_rabbitmqs(wire: bytes, text: str) -> None:
    reader = FrameReader(131072)
    with pytest.raises(FrameError) as caught:
        read_all(reader, wire)
    assert caught.value.reply_text == f"FRAME_ERROR - {text}"
    assert (caught.value.class_id, caught.value.method_id) == (0, 0)
    with pytest.raises(FrameError):  # the stream stays broken
        next(reader)


def test_good_frames_before_a_wrong_one_are_read() -> None:
    reader = FrameReader(4096)
    reader.feed(HEARTBEAT + b"\x63\0\0\0\0\0\0\xce")
    assert next(reader) == ReceivedFrame(8, 0, b"")
    with pytest.raises(FrameError):
        next(reader)


@pytest.mark.parametrize("frame_type", [number for number in range(256) if number not in {1, 2, 3, 8}])
def test_every_other_type_is_refused(frame_type: int) -> None:
    with pytest.raises(FrameError, match="unknown_frame"):
        read_all(FrameReader(4096), encode_frame(frame_type, 0, b""))


@given(st.binary(max_size=200), st.sampled_from([0, 4096]))
def test_any_bytes_are_frames_or_a_frame_error(data: bytes, frame_max: int) -> None:
    reader = FrameReader(frame_max)
    reader.feed(data)
    read: list[ReceivedFrame] = []
    try:
        for frame in reader:
            read.append(frame)
    except FrameError:
        pass
    assert data.startswith(wire_of(read))
    assert reader.unread == len(data) - len(wire_of(read))


# Body size, frame_max, sizes of the body frames' payloads.
@pytest.mark.parametrize(
    ("size", "frame_max", "pieces"),
    [
        (0, 4096, []),
        (1, 4096, [1]),
        (4087, 4096, [4087]),
        (4088, 4096, [4088]),
        (4089, 4096, [4088, 1]),
        (8176, 4096, [4088, 4088]),
        (8177, 4096, [4088, 4088, 1]),
        (100_000, 0, [100_000]),
        (300_000, 131072, [131064, 131064, 37872]),
        (5, 9, [1, 1, 1, 1, 1]),
    ],
)
def test_a_body_is_split_at_frame_max(size: int, frame_max: int, pieces: list[int]) -> None:
    body = bytes(number % 251 for number in range(size))
    wire = encode_content(7, 60, NO_PROPERTIES, body, frame_max)
    header, *bodies = read_all(FrameReader(max(frame_max, 22) if frame_max else 0), wire)
    assert decode_content_header(header.payload) == ContentHeader(60, size)
    assert [len(frame.payload) for frame in bodies] == pieces
    assert b"".join(frame.payload for frame in bodies) == body
    assert {(frame.type, frame.channel) for frame in bodies} <= {(3, 7)}


@given(
    st.binary(max_size=255),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.binary(max_size=255),
    st.binary(max_size=255),
    st.binary(max_size=9000),
    st.sampled_from([0, 4096, 8192]),
)
def test_a_delivery_is_its_method_and_its_content(
    tag: bytes, delivery_tag: int, redelivered: bool, exchange: bytes, key: bytes, body: bytes, frame_max: int
) -> None:
    names = [name.decode("latin-1").encode("ascii", "replace") for name in (tag, exchange, key)]
    tag, exchange, key = names
    listed = Properties(content_type="text/plain", headers={"a": 1}).encode()
    wire = encode_deliver(3, tag, delivery_tag, redelivered, exchange, key, listed, body, frame_max)
    method = BasicDeliver(
        consumer_tag=tag.decode(),
        delivery_tag=delivery_tag,
        redelivered=redelivered,
        exchange=exchange.decode(),
        routing_key=key.decode(),
    )
    assert wire == encode_method_frame(3, method) + encode_content(3, 60, listed, body, frame_max)


def test_a_frame_max_without_room_and_names_too_long_are_refused() -> None:
    for frame_max in (1, 8):
        with pytest.raises(ValueError, match="no room for a body"):
            encode_content(1, 60, NO_PROPERTIES, b"x", frame_max)
        with pytest.raises(ValueError, match="no room for a body"):
            encode_deliver(1, b"c", 1, False, b"", b"k", NO_PROPERTIES, b"x", frame_max)
    with pytest.raises(ValueError, match="at most 255 bytes"):
        encode_deliver(1, b"c" * 256, 1, False, b"", b"k", NO_PROPERTIES, b"x")


def test_a_method_that_cannot_be_encoded_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="at most 255 bytes"):
        encode_method_frame(1, QueueDeclare(queue="x" * 256))
    with pytest.raises(TypeError, match="no field type for object"):
        encode_method_frame(1, QueueDeclare(arguments={"a": 1, "b": object()}))


def test_a_method_travels_in_a_frame() -> None:
    method = QueueDeclare(queue="q", arguments={"x-max-length": 5})
    (frame,) = read_all(FrameReader(4096), encode_method_frame(9, method))
    assert (frame.type, frame.channel) == (1, 9)
    assert decode_method(frame.payload) == method
