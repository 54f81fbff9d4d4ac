import asyncio
from collections.abc import Callable
from typing import Any

from leveret.link.poller import Ending
from leveret.storage.commit_log import CommitLog
from leveret.worker.message_store import MessageStore
from leveret.worker.state import WorkerState

class Committer(Ending):
    wall_offset_ms: int
    stores: list[MessageStore]
    scratch: MessageStore | None
    make_scratch: Callable[[], CommitLog] | None
    memory_max: int
    failed: asyncio.Future[Exception]
    full: bool
    commit_s: float
    commits: int
    commits_failed: int
    committed_bytes: int
    def __init__(self, state: WorkerState) -> None: ...
    def add_store(self, store: MessageStore) -> None: ...
    def start(self) -> None: ...
    def written(self) -> asyncio.Future[None]: ...
    def close(self) -> None: ...
    def statistics(self) -> dict[str, Any]: ...
