"""A shard as the first format wrote it: it is read, and written on, by whatever comes later."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
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
