from leveret.queue.journal import Journal
from leveret.storage.queue_index import QueueIndex
from leveret.worker.committer import Committer
from leveret.worker.message_store import MessageStore
from leveret.worker.state import ShardQueue

class QueueJournal(Journal):
    queue: ShardQueue
    committer: Committer
    store: MessageStore | None
    index: QueueIndex | None
    def __init__(self, queue: ShardQueue, committer: Committer, store: MessageStore | None, index: QueueIndex | None) -> None: ...
    def forget(self) -> None: ...
