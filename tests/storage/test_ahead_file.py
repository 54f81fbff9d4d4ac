"""The write-ahead file: what was appended is read back, and of what a crash or a disk may leave only whole records count."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.storage import ahead_file
from leveret.storage.ahead_file import AheadFile
from leveret.storage.ahead_record import BLOCK_BYTES, ID_BYTES, DamagedRecord, encode_record, read_records
from leveret.storage.commit_log import Operation

FILE_ID = bytes(range(ID_BYTES))
HEAD_BYTES = 40
SIZE = 16 * BLOCK_BYTES
OPERATIONS = st.lists(
    st.tuples(st.integers(0, 3), st.binary(max_size=255), st.one_of(st.none(), st.binary(max_size=40), st.just(bytes(5000)))), max_size=8
)


def put(number: int, size: int = 10) -> list[Operation]:
    """A batch that cannot be taken for that of another number."""
    return [(1, number.to_bytes(12, "big"), bytes([number]) * size), (2, number.to_bytes(8, "big"), None)]


def image(*records: bytes) -> bytes:
    """A file with these records at its front."""
    return b"".join(records).ljust(SIZE, b"\0")


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(OPERATIONS, max_size=5), after=st.integers(0, 2**64 - 10))
def test_what_is_written_is_read_back(batches: list[list[Operation]], after: int) -> None:
    records = [encode_record(FILE_ID, after + 1 + number, batch) for number, batch in enumerate(batches)]
    assert all(len(record) % BLOCK_BYTES == 0 for record in records)
    assert read_records(b"".join(records), FILE_ID, after) == batches
    assert read_records(b"".join(records) + bytes(BLOCK_BYTES), FILE_ID, after) == batches


def test_a_record_is_no_longer_than_it_must_be() -> None:
    room = BLOCK_BYTES - HEAD_BYTES - 6 - 12
    assert len(encode_record(FILE_ID, 1, [(1, bytes(12), bytes(room))])) == BLOCK_BYTES
    assert len(encode_record(FILE_ID, 1, [(1, bytes(12), bytes(room + 1))])) == 2 * BLOCK_BYTES


def test_what_no_record_can_hold_is_refused() -> None:
    """Its head has a byte for the size of a key: cut short it would be read back as another one."""
    assert read_records(encode_record(FILE_ID, 1, [(1, bytes(255), None)]), FILE_ID, 0) == [[(1, bytes(255), None)]]
    with pytest.raises(ValueError, match="a key of 256 bytes"):
        encode_record(FILE_ID, 1, [(1, bytes(256), None)])
    with pytest.raises(ValueError, match="a file id of 15 bytes"):
        encode_record(FILE_ID[1:], 1, put(1))


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_record_counts_as_not_written(seed: int) -> None:
    """Any of its sectors may be there or not, over what was there before."""
    dice = random.Random(seed)
    first, last = encode_record(FILE_ID, 1, put(1)), encode_record(FILE_ID, 2, put(2, size=dice.randrange(20_000)))
    old = encode_record(FILE_ID, 1, put(9, size=30_000)) if dice.random() < 0.5 else bytes(len(last))
    torn = bytearray(image(first, old[: len(last)].ljust(len(last), b"\0")))
    sectors = range(len(first), len(first) + len(last), 512)
    written = [sector for sector in sectors if any(last[sector - len(first) : sector - len(first) + 512])]
    for sector in dice.sample(written, dice.randrange(len(written))):
        torn[sector : sector + 512] = last[sector - len(first) : sector - len(first) + 512]
    assert read_records(bytes(torn), FILE_ID, 0) == [put(1)]


def test_every_bit_of_a_record_counts() -> None:
    record = encode_record(FILE_ID, 1, put(1))
    for at in range(HEAD_BYTES + 2 * 6 + 12 + 10 + 8):
        spoiled = bytearray(record)
        spoiled[at] ^= 1 << at % 8
        assert read_records(image(bytes(spoiled)), FILE_ID, 0) == [], f"byte {at}"


def test_records_of_before_do_not_count() -> None:
    records = [encode_record(FILE_ID, number, put(number)) for number in range(1, 5)]
    assert read_records(image(*records), FILE_ID, 4) == []
    again = encode_record(FILE_ID, 5, put(5))
    assert read_records(image(again, *records[1:]), FILE_ID, 4) == [put(5)]
    assert read_records(image(*records), bytes(ID_BYTES), 0) == []


def test_a_message_that_looks_like_a_record_is_none() -> None:
    """Who publishes does not know the file's id."""
    forged = encode_record(b"guessed at".ljust(ID_BYTES), 2, put(66))
    padding = bytes(BLOCK_BYTES - HEAD_BYTES - 6 - 1)
    record = encode_record(FILE_ID, 1, [(1, b"k", padding + forged)])
    assert record[BLOCK_BYTES : 2 * BLOCK_BYTES] == forged
    assert read_records(image(record), FILE_ID, 0) == [[(1, b"k", padding + forged)]]


@pytest.mark.parametrize("count", [0, 1, 3, 2**32 - 1])
def test_a_record_that_is_whole_and_says_what_is_not_so_is_told(count: int) -> None:
    """No disk does that; whoever wrote it was wrong, and half of a batch must not be taken for all of it."""
    record = bytearray(encode_record(FILE_ID, 1, put(1)))
    record[28:32] = count.to_bytes(4, "little")
    data = record[HEAD_BYTES : HEAD_BYTES + 2 * 6 + 12 + 10 + 8]
    record[32:40] = xxhash.xxh3_64_intdigest(data, seed=xxhash.xxh3_64_intdigest(record[:32])).to_bytes(8, "little")
    with pytest.raises(DamagedRecord, match=f"record 1 has {count} operations"):
        read_records(image(bytes(record)), FILE_ID, 0)


def test_a_damaged_record_with_another_behind_it_is_told() -> None:
    """They are written one after the other: it was on the disk once."""
    records = [encode_record(FILE_ID, number, put(number, size=5000)) for number in range(1, 5)]
    spoiled = bytearray(image(*records))
    spoiled[len(records[0]) + 100] ^= 1
    with pytest.raises(DamagedRecord, match="record 2 is damaged, and record 3 behind it is not"):
        read_records(bytes(spoiled), FILE_ID, 0)
    with pytest.raises(DamagedRecord, match="record 1 is damaged, and record 2"):
        read_records(image(bytes(BLOCK_BYTES), *records[1:]), FILE_ID, 0)


@pytest.mark.parametrize("size", [0, 1, 39, 40, 81, 82, 4095, 4097, 8000])
def test_a_file_that_ends_early_has_what_is_whole(size: int) -> None:
    content = image(encode_record(FILE_ID, 1, put(1)), encode_record(FILE_ID, 2, put(2, size=9000)))[:size]
    assert read_records(content, FILE_ID, 0) == ([put(1)] if size >= HEAD_BYTES + 2 * 6 + 12 + 10 + 8 else [])


def test_it_is_written_once_from_end_to_end_and_then_in_place(tmp_path: Path) -> None:
    path = tmp_path / "ahead.wal"
    ahead = AheadFile(path, SIZE)
    state = path.stat()
    assert (state.st_size, state.st_mode & 0o777) == (SIZE, 0o600)
    assert state.st_blocks * 512 >= SIZE, "no holes: to fill one takes the file system's journal"
    assert ahead.is_empty
    for number in range(1, 4):
        record = ahead.encode(put(number))
        assert ahead.fits(len(record))
        ahead.append(record)
        assert (ahead.is_empty, ahead.sequence) == (False, number)
    assert read_records(path.read_bytes(), ahead.file_id, 0) == [put(1), put(2), put(3)]
    assert (ahead.fits(SIZE - 3 * BLOCK_BYTES), ahead.fits(SIZE - 3 * BLOCK_BYTES + 1)) == (True, False)
    ahead.begin_again()
    assert ahead.is_empty
    ahead.append(ahead.encode(put(4)))
    assert read_records(path.read_bytes(), ahead.file_id, 3) == [put(4)]
    assert path.stat().st_size == SIZE
    ahead.close()


def test_one_that_is_there_is_taken_as_it_is_under_another_id(tmp_path: Path) -> None:
    path = tmp_path / "ahead.wal"
    first = AheadFile(path, SIZE)
    first.append(first.encode(put(1)))
    first.close()
    before = path.read_bytes()
    second = AheadFile(path, SIZE)
    assert path.read_bytes() == before
    assert second.file_id != first.file_id
    assert (second.is_empty, second.sequence) == (True, 0)
    second.close()


@pytest.mark.parametrize("size", [0, 5, SIZE - 1, SIZE + 1])
def test_one_of_another_size_is_written_anew(tmp_path: Path, size: int) -> None:
    path = tmp_path / "ahead.wal"
    path.write_bytes(b"x" * size)
    AheadFile(path, SIZE).close()
    assert path.read_bytes() == bytes(SIZE)


def test_one_that_cannot_be_made_leaves_no_descriptor_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        AheadFile(tmp_path / "none" / "ahead.wal", SIZE)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ahead_file.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        AheadFile(tmp_path / "ahead.wal", SIZE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_half_a_write_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = AheadFile(tmp_path / "ahead.wal", SIZE)
    record = ahead.encode(put(1))
    monkeypatch.setattr(ahead_file.os, "pwrite", lambda *_: BLOCK_BYTES - 1)
    with pytest.raises(OSError, match="4095 of 4096 bytes were written"):
        ahead.append(record)
    assert (ahead.is_empty, ahead.sequence) == (True, 0)
    ahead.close()
