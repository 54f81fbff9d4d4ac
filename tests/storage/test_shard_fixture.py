"""A shard as each format wrote it: it is read, and written on, by whatever comes later."""

from __future__ import annotations

import shutil
from pathlib import Path

import lmdb
import pytest
from leveret.storage.ahead_file import AHEAD_NAME
from leveret.storage.commit_log import Table
from leveret.storage.local_log import FILES, LocalLog
from leveret.storage.verify import verify_directory, verify_log

from tests.storage.recording import RecordingStore

# Twenty messages for queue 3, every fifth for queue 4 too, and one of 70 KB for it; three are settled, queue 3 is marked.
FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "shard-1"
IDENTITY = b"0123456789abcdef0123456789abcdef"
LARGE = bytes(range(256)) * 280


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copy(FORMAT_1 / FILES[0], tmp_path / FILES[0])
    return tmp_path


def test_format_1_is_read(directory: Path) -> None:
    log = LocalLog(directory, identity=IDENTITY, shard=7)
    store = RecordingStore(log)
    queues = store.load()
    assert {number: (queue.live, queue.live_bytes, queue.last_position) for number, queue in queues.items()} == {
        3: (18, 72, 20),
        4: (4, 12 + len(LARGE), 5000),
    }
    assert store.fetch(queues[3]) == [
        (position, 1000 + position, b"message %d" % position) for position in range(1, 21) if position not in (1, 7)
    ]
    assert store.fetch(queues[4]) == [(position, 0, b"message %d" % position) for position in (10, 15, 20)] + [(5000, 2**64 - 1, LARGE)]
    assert [(queue.delivered, queue.lease) for queue in queues.values()] == [(9, 12), (0, 0)]
    assert list(verify_log(log)) == []
    log.close()
    assert list(verify_directory(directory)) == []


def test_format_1_is_written_on(directory: Path) -> None:
    log = LocalLog(directory, identity=IDENTITY, shard=7)
    store = RecordingStore(log)
    queue = store.open_queue(3)
    assert store.settle_many(queue, 2, 19) == 17
    store.put(b"new", [(queue, 21, 0)])
    batch = store.take_batch()
    log.commit(batch.operations)
    store.batch_done(batch)
    log.close()
    log = LocalLog(directory, identity=IDENTITY, shard=7)
    again = RecordingStore(log)
    assert again.fetch(again.open_queue(3)) == [(20, 1020, b"message 20"), (21, 0, b"new")]
    log.close()
    assert list(verify_directory(directory)) == []


# Format 2, as a kill left it. Ten messages are in the tables; ten more, what was settled, and the mark are in the write-ahead file.
FORMAT_2 = Path(__file__).parents[1] / "fixtures" / "shard-2"


def test_format_2_is_read_and_written_on_with_what_lay_ahead(tmp_path: Path) -> None:
    for name in (FILES[0], AHEAD_NAME):
        shutil.copy(FORMAT_2 / name, tmp_path / name)
    assert list(verify_directory(tmp_path)) == []
    log = LocalLog(tmp_path, identity=IDENTITY, shard=7)
    store = RecordingStore(log)
    queues = store.load()
    assert {
        number: (queue.live, queue.live_bytes, queue.last_position, queue.delivered, queue.lease) for number, queue in queues.items()
    } == {
        3: (18, 72, 20, 9, 12),
        4: (4, 16, 20, 0, 0),
    }
    expected = [(position, 1000 + position, b"message %d" % position) for position in range(1, 21) if position not in (1, 7)]
    assert store.fetch(queues[3]) == expected
    assert store.settle_many(queues[3], 2, 19) == 17
    batch = store.take_batch()
    log.commit(batch.operations)
    store.batch_done(batch)
    log.close()
    assert list(verify_directory(tmp_path)) == []
    log = LocalLog(tmp_path, identity=IDENTITY, shard=7)
    again = RecordingStore(log)
    assert again.fetch(again.open_queue(3)) == expected[-1:]
    assert len(again.fetch(again.open_queue(4))) == 4
    log.close()


def test_format_1_becomes_format_2_with_its_first_commit(directory: Path) -> None:
    """The version before does not know of the file ahead, and must not take what is in the tables for all there is."""
    assert stored_format(directory) == 1
    log = LocalLog(directory, identity=IDENTITY, shard=7)
    assert stored_format(directory) == 1, "reading changes nothing"
    log.commit([(Table.QUEUES, b"\0\0\0\3", bytes(16))])
    assert stored_format(directory) == 2
    log.close()


def stored_format(directory: Path) -> int:
    copy = directory / "copy"
    copy.mkdir(exist_ok=True)
    shutil.copy(directory / FILES[0], copy / FILES[0])
    env = lmdb.open(str(copy), max_dbs=4, readonly=True, lock=False)
    with env.begin(db=env.open_db(b"meta", create=False)) as txn:
        number = int.from_bytes(txn.get(b"format"), "little")
    env.close()
    return number
