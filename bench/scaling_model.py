"""The model of docs/scaling.md: what a node of many cores carries, from what a message costs on two. Closed formulas, no measuring.

A message passes through workers, and through the one router if its exchange has a name. Each process is one thread on one core, so there
are two limits: all cores together, and the router's one core. The model assumes load that is spread evenly over the workers, and it adds
what a measurement on few workers does not show: with more workers a turn's packets go out on more links, so that fewer share a system call.
`bench.scaling` measures the costs, compares the model with runs, and prints its tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

USED: Final = 0.9  # of each core: kernel threads, timers, and a spread that is never quite even
SYSTEM_CALLS_US: Final = 6.0  # one write on a link and the read of it at the other end, both with their part of epoll
PACKETS_A_TURN: Final = 1000.0  # that a loaded worker sends to all others in one turn: less than a third of what one read can hold
DIRECTORY_CHANGE_US: Final = 30.0  # of each worker for a change of the topology that it takes into its replica


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU of a message: 16 bytes, transient, acknowledged one by one, everything on one worker; and what is added to it.

    local: publisher, queue and consumer on one worker. publish_hop: the publisher is on another worker than the queue (both workers'
    part). deliver_hop: the consumer is. routed: the workers' part of the way through the router. router: the router's own, for a message
    to queues of one worker. router_copy: for each further worker that gets a copy. copy: the worker's, for each further queue. route: to
    look a remembered route up, of `router`. durable: for a persistent message in a durable queue with confirms.
    """

    local: float
    publish_hop: float
    deliver_hop: float
    routed: float
    router: float
    router_copy: float
    copy: float
    route: float
    durable: float


@dataclass(frozen=True, slots=True)
class Mix:
    """A load. near: share of publishers and of consumers that are on their queue's worker, beyond chance (0: by chance alone).

    named: share of messages that go through a named exchange. queues: that each of those reaches. durable: share that is kept on disk.
    changes_per_s: of the topology (declares, bindings).
    """

    name: str
    near: float = 0.0
    named: float = 0.0
    queues: int = 1
    durable: float = 0.0
    changes_per_s: float = 0.0

    def __post_init__(self) -> None:
        if not all(0.0 <= share <= 1.0 for share in (self.near, self.named, self.durable)) or self.queues < 1 or self.changes_per_s < 0:
            raise ValueError(f"no such mix: {self}")


@dataclass(frozen=True, slots=True)
class Throughput:
    """published_per_s and delivered_per_s; limit: "cores" or "router"; worker_us and router_us: CPU of a published message."""

    published_per_s: float
    delivered_per_s: float
    limit: str
    worker_us: float
    router_us: float


def local_share(near: float, workers: int) -> float:
    """Of clients that are on their queue's worker: those that are near, and of the others one in `workers`."""
    return near + (1.0 - near) / workers


def workers_reached(queues: int, workers: int) -> float:
    """On how many workers `queues` queues lie that are spread at random."""
    return workers * (1.0 - (1.0 - 1.0 / workers) ** queues)


def link_us(workers: int, packets_a_turn: float = PACKETS_A_TURN) -> float:
    """A packet's share of the system calls of its link, when a turn's packets go to all other workers."""
    if workers < 2:
        return 0.0
    return SYSTEM_CALLS_US / max(1.0, packets_a_turn / (workers - 1))


def message_us(costs: Costs, mix: Mix, workers: int, *, verdicts_in_workers: bool = False) -> tuple[float, float]:
    """CPU of one published message: (all workers', the router's), in microseconds."""
    away = 1.0 - local_share(mix.near, workers)
    hop_us = link_us(workers)
    queues = 1.0 + mix.named * (mix.queues - 1)
    reached = workers_reached(mix.queues, workers)
    publish_us = away * (costs.publish_hop + hop_us)
    worker = costs.local + (queues - 1.0) * costs.copy + queues * away * (costs.deliver_hop + hop_us) + mix.durable * costs.durable
    worker += (1.0 - mix.named) * publish_us
    if verdicts_in_workers:
        # The worker looks the route up itself and sends a copy to each other worker that has a queue.
        return worker + mix.named * (costs.route + reached * publish_us), 0.0
    # To and from the router there is one link for each worker, however many there are; half of `routed` is taking a copy in.
    worker += mix.named * costs.routed * (1.0 + (reached - 1.0) / 2.0)
    return worker, mix.named * (costs.router + (reached - 1.0) * costs.router_copy)


def throughput(
    costs: Costs, mix: Mix, cores: int, *, client_us: float = 0.0, used: float = USED, verdicts_in_workers: bool = False
) -> Throughput:
    """What a node of one worker a core carries. client_us: CPU of the load generator for a message, if it runs on the same cores."""
    if cores < 1:
        raise ValueError("a node has at least one core")
    worker, router = message_us(costs, mix, cores, verdicts_in_workers=verdicts_in_workers)
    changing = mix.changes_per_s * DIRECTORY_CHANGE_US * cores
    for_messages = max(0.0, cores * used * 1e6 - changing)
    by_cores = for_messages / (worker + router + client_us)
    by_router = used * 1e6 / router if router else float("inf")
    published = min(by_cores, by_router)
    copies = 1.0 + mix.named * (mix.queues - 1)
    return Throughput(published, published * copies, "router" if by_router < by_cores else "cores", worker, router)


def router_full_at(costs: Costs, mix: Mix, most: int = 256) -> int | None:
    """The number of cores from which on the router is the limit; None: not up to `most`."""
    return next((cores for cores in range(1, most + 1) if throughput(costs, mix, cores).limit == "router"), None)
