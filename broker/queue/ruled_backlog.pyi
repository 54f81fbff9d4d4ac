from leveret.queue.backlog import Backlog
from leveret.queue.rules import Rules

class RuledBacklog(Backlog):
    duties: int
    rules: Rules
    consumer_count: int
    unfinished: bool
    expired: int
    dropped: int
    refused: int

    def __init__(self, rules: Rules) -> None: ...
    def come_due(self) -> None: ...
    def touch(self) -> None: ...
