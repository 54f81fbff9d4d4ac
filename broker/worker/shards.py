"""The worker's shards: their stores, opened once the router has told which they are, and what was in them given back to the queues.

`worker` makes it and calls it when a queue comes or goes. What a message is to a store says `message_store`, when it is written
`committer`. A shard whose file cannot be used is set aside and begins empty; the other shards serve as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from leveret import refusal
from leveret.refusal import Refusal
from leveret.storage.environment import ForeignStore, StoreError, page_problems
from leveret.storage.local_log import RESERVE_BYTES, Durability, LocalLog
from leveret.storage.quarantine import in_quarantine, set_aside, shard_of
from leveret.supervisor.machine import memory_total_bytes
from leveret.supervisor.memory import watermark_bytes
from leveret.worker.message_store import MessageStore
from leveret.worker.queue_journal import QueueJournal

if TYPE_CHECKING:
    from pathlib import Path

    from leveret.config import Settings
    from leveret.storage.queue_index import QueueIndex
    from leveret.worker.committer import Committer
    from leveret.worker.directory import QueueEntry
    from leveret.worker.state import ShardQueue

log = logging.getLogger(__name__)

# A file in the shard's folder: its store has failed in a process before us. Before it is used again, all of its pages are looked at.
SUSPECT = "suspect"


class Shards:
    """stores: by shard number, empty before `open`."""

    def __init__(self, settings: Settings, index: int, committer: Committer) -> None:
        self.stores: dict[int, MessageStore] = {}
        self._settings = settings
        self._committer = committer
        self._index = index
        self._recovered: dict[int, tuple[MessageStore, QueueIndex]] = {}  # by queue id: not given to a queue yet
        watermark = watermark_bytes(settings.memory_watermark, memory_total_bytes())
        if settings.memory_paging_ratio < 1:
            committer.memory_max = int(watermark * settings.memory_paging_ratio) // settings.workers
        committer.make_scratch = lambda: LocalLog(settings.data_dir / "scratch" / str(index), "scratch")

    def open(self, numbers: list[int], identity: str) -> None:
        """Open the stores that are not open yet. Raises `Refusal` if one can neither be used nor set aside."""
        for number in numbers:
            if number not in self.stores:
                self.stores[number] = self._open(self._settings.data_dir / "shards" / str(number), number, identity.encode())
                self._committer.add_store(self.stores[number])

    def _open(self, directory: Path, number: int, identity: bytes) -> MessageStore:
        began_s = time.monotonic()
        try:
            try:
                store, recovered = self._load(directory, number, identity)
            except ForeignStore as error:
                log.error("%s", error)
                log.error("it was set aside as %s; the shard begins empty", set_aside(directory))
                store, recovered = self._load(directory, number, identity)
        except StoreError as error:
            raise Refusal(str(error), refusal.CANNOT_CREATE) from error
        self._recovered |= {queue_id: (store, index) for queue_id, index in recovered.items()}
        if recovered:
            log.info(
                "shard %d holds %d messages of %d queues (read in %.2f s)",
                number,
                sum(queue.live for queue in recovered.values()),
                len(recovered),
                time.monotonic() - began_s,
            )
        return store

    def _load(self, directory: Path, number: int, identity: bytes) -> tuple[MessageStore, dict[int, QueueIndex]]:
        durability: Durability = "os" if self._settings.durability == "os" else "disk"
        if (directory / SUSPECT).exists():
            log.warning("the store of shard %d has failed before: looking at all of its pages", number)
            problems = page_problems(directory)
            if problems:
                raise ForeignStore(f"the messages of shard {number} in {directory} are damaged: {problems[0]}")
            (directory / SUSPECT).unlink(missing_ok=True)
        # The disk alarm comes at the limit. Where there is room in another file it may not, and this one stops growing by half of it.
        reserve = max(RESERVE_BYTES, self._settings.disk_free_limit_bytes // 2)
        local = LocalLog(directory, durability, identity=identity, shard=number, reserve_bytes=reserve)
        store = MessageStore(local, number, self._committer.wall_offset_ms)
        try:
            return store, store.load()
        except BaseException:
            local.close()
            raise

    def room_bytes(self) -> int:
        """What the files of these shards could take without growing. Raises `StoreFailed` if one cannot be read."""
        sizes = [store.log.sizes() for store in self.stores.values()]
        return sum(max(0, each.file_bytes - each.used_bytes) for each in sizes)

    def keep(self, queue: ShardQueue, entry: QueueEntry) -> None:
        """Give a new queue its journal, and the messages that were kept for it. An exclusive queue does not outlive its connection."""
        if not entry.durable or entry.exclusive:
            queue.keep_journal(QueueJournal(queue, self._committer, None, None), False)
            return
        store = self.stores[entry.shard]
        index = self._recovered.pop(entry.id)[1] if entry.id in self._recovered else store.open_queue(entry.id)
        queue.keep_journal(QueueJournal(queue, self._committer, store, index), True)
        queue.recover(index.live, index.live_bytes, index.first_position, index.last_position, max(index.delivered, index.lease))

    def mark_suspect(self) -> None:
        """A store has failed, and nobody knows what its disk still holds: the next process looks before it serves, or it would fail over
        the same page again and again."""
        for number in self.stores:
            with contextlib.suppress(OSError):  # a disk that takes not even this is seen at the next start
                (self._settings.data_dir / "shards" / str(number) / SUSPECT).touch()

    def set_aside(self) -> list[str]:
        """Paths of what was set aside of this worker's shards, in this run or an earlier one."""
        found = in_quarantine(self._settings.data_dir / "shards")
        return [str(path) for path in found if shard_of(path) % self._settings.workers == self._index]

    def forget_unknown(self) -> None:
        """All queues have come: what is left belongs to queues that were deleted while their worker was down."""
        for queue_id, (store, index) in self._recovered.items():
            if index.live:
                log.info("dropping %d messages of a queue that was deleted (id %d)", index.live, queue_id)
            store.drop(index)
        self._recovered.clear()
        self._committer.start()
