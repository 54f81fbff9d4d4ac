from collections.abc import Callable

from leveret.link.link import Link

class LoadLink(Link):
    count: int
    expected: int
    drained: Callable[[], object] | None
    all_came: Callable[[], object]
    def load(self, body_size: int) -> None: ...
    def send(self, count: int, bytes_per_turn: int) -> int: ...
