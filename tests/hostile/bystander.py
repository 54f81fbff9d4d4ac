"""A bystander: an honest client beside an attack, who measures how long the broker keeps it waiting."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import psutil
from pika.spec import Basic, Queue

from tests.node import Node
from tests.stopwatch import Stopwatch
from tests.wire import WireClient, method_bytes


class Bystander:
    """Gets from an empty queue of its own again and again, in a thread, for as long as the `with` lasts.

    `worst_s` is the longest round trip (without what it waited for a core: tests/stopwatch.py), `count` how many there were, `failure` what
    ended them. Leaving the `with` raises what went wrong.
    """

    def __init__(self, node: Node) -> None:
        self.client = WireClient.opened(node).open_channel()
        self._watch = Stopwatch(serving(node))
        self.client.send_method(1, Queue.Declare(queue="", exclusive=True))
        self._get = method_bytes(1, Basic.Get(queue=self.client.expect(Queue.DeclareOk).queue))
        self.worst_s = 0.0
        self.count = 0
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def reset(self) -> None:
        """Forget what was measured so far."""
        self.worst_s = 0.0

    def round_trip(self) -> float:
        """One get, answered; seconds."""
        self._watch.reset()
        self.client.send(self._get)
        self.client.expect(Basic.GetEmpty)
        return self._watch.read_s

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.001):
                self.worst_s = max(self.worst_s, self.round_trip())
                self.count += 1
        except (OSError, EOFError, AssertionError) as failure:
            self.failure = failure

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(30)
        self.client.close()
        if self.failure is not None and error is None:
            raise self.failure


def serving(node: Node) -> list[int]:
    """The pids of those for whom a client may wait: the workers and the router."""
    return [pid for name, pid in node.processes().items() if name == "router" or name.startswith("worker-")]


def cpu_s(node: Node) -> float:
    """Processor time that the node's workers and its router have used; seconds, in steps of 10 ms.

    What these did not compute, they did not hold anybody up with.
    """
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in serving(node))


def resident_bytes(node: Node) -> int:
    """Memory of the node's workers and router together."""
    total = 0
    for name, pid in node.processes().items():
        if name != "management":
            with contextlib.suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_info().rss
    return total
