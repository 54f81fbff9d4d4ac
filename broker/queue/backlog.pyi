from leveret.queue.journal import Journal

class Backlog:
    ready_count: int
    ready_bytes: int
    journal: Journal | None
    stores: bool
    paged_count: int
    paged_bytes: int
    handed_through: int

    def keep_journal(self, journal: Journal, stores: bool) -> None: ...
    def recover(self, count: int, size: int, first: int, last: int, handed_through: int) -> None: ...
