"""The rows of the side-by-side bench: what is done to both brokers, and what Leveret is to reach beside RabbitMQ.

Goals are ratios in one run on one machine, the project's own; what waits for the disk alone is told in times of the disk's own write
(`bench.disk`). A row of the message path is a `Load`, and then its latency at half its rate has a goal too.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from leveret.config import OPTIONS
from leveret.supervisor.machine import memory_total_bytes
from leveret.supervisor.memory import watermark_bytes

from bench import celery_load, client_load, depth, disk, opening, pika_load
from bench.figures import Figure
from bench.latency import P99_MAX_MS
from bench.leveret_node import LeveretNode
from bench.load import ALL_ON_ONE_WORKER, ON_ANOTHER_WORKER, ON_PUBLISHERS_WORKER, Load, Timing
from bench.node import Node


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `measure(node, timing)` makes a figure; goals are None where only looking is meant.

    rate_goal: at least so many times RabbitMQ's rate; cpu_goal: at most RabbitMQ's CPU per message divided by this;
    value_max, cpu_us_max, memory_max (bytes): at most so much, whatever RabbitMQ does; higher_is_better: whether the value is a rate;
    confirms: publishers wait for them; durable: persistent messages through durable queues;
    once: only a node that has just started gives a true figure, so there is one round of it; it stands before all others;
    ours_only: RabbitMQ is not asked, since it would take too long.
    """

    name: str
    title: str
    measure: Callable[[Node, Timing], Figure]
    unit: str = "msg/s"
    rate_goal: float | None = None
    cpu_goal: float | None = None
    value_max: float | None = None
    cpu_us_max: float | None = None
    memory_max: float | None = None
    higher_is_better: bool = True
    confirms: bool = False
    durable: bool = False
    once: bool = False
    ours_only: bool = False

    @property
    def load(self) -> Load | None:
        """The load whose latency at half its rate is to be told; None for a row without any."""
        return self.measure if isinstance(self.measure, Load) and self.measure.has_latency else None

    @property
    def p99_max_ms(self) -> float | None:
        return P99_MAX_MS if self.load is not None else None


def loaded(placement: str = ON_PUBLISHERS_WORKER, **options: Any) -> Load:
    """`options` are the fields of a `Plan`."""
    return Load(options, placement)


def one_confirm_at_a_time(node: Node, timing: Timing) -> Figure:
    """One publisher that waits for each confirm of 1 KB, and a consumer: the median wait in times of one 4 KB write + fdatasync."""
    measure = loaded(size=1024, durable=True, persistent=True, confirms=1, ack="each", prefetch=500)
    before = disk.measure()
    figure = measure(node, timing)
    return pika_load.in_disk_times(figure, figure.details["confirm_latency_us"], before + disk.measure(), 0.5)


def idle_connections(node: Node, timing: Timing) -> Figure:
    """Memory of an open connection with one open channel, in KB, and CPU to open both, in us.

    Memory is that of the first round, on a node that has had no others; CPU is the median of the rounds, by the scheduler's clock.
    """
    rounds = [opening.one_by_one(node, rest_s=timing.warmup_s) for _ in range(opening.ROUNDS)]
    details = {"connections": opening.CONNECTIONS, "openings": [dataclasses.asdict(one) for one in rounds]}
    return Figure(rounds[0].bytes_each / 1000, statistics.median(one.all_open_us for one in rounds), details=details)


def start_time(node: Node, _: Timing) -> Figure:
    """Seconds from the command to the first handshake answered, as measured when the node was started."""
    return Figure(node.start_s, None)


def deep_queue(node: Node, timing: Timing) -> Figure:
    """Seconds from the start of a killed node to the first message of its deep queue, and the most memory while it was filled and after."""
    assert isinstance(node, LeveretNode)
    return depth.figure(node.workers, node.durability, DEEP if timing.seconds >= 2 else DEEP // 100)


DEEP: Final = 10_000_000
WATERMARK_BYTES: Final = watermark_bytes(
    next(option.default for option in OPTIONS if option.name == "memory_watermark"), memory_total_bytes()
)
DURABLE: Final[dict[str, Any]] = {"durable": True, "persistent": True, "confirms": 1000, "ack": "each", "prefetch": 500}

ROWS: Final = (
    Row(
        "idle",
        "idle connection + channel; CPU to open both",
        idle_connections,
        "KB",
        value_max=8,
        cpu_us_max=150,
        higher_is_better=False,
        once=True,
    ),
    Row("start", "start to accepting connections, empty data", start_time, "s", value_max=0.5, higher_is_better=False, once=True),
    Row("auto_ack_16", "16 B, auto-ack; queue on the publisher's worker", loaded(), rate_goal=8, cpu_goal=25),
    Row("auto_ack_16_other", "16 B, auto-ack; queue on another worker", loaded(ON_ANOTHER_WORKER), rate_goal=8, cpu_goal=25),
    Row("auto_ack_16_one", "16 B, auto-ack; all on one worker", loaded(ALL_ON_ONE_WORKER), rate_goal=8, cpu_goal=25),
    Row("topic_16", "16 B, auto-ack; topic exchange, 10 keys", loaded(exchange_kind="topic", keys=10), rate_goal=10, cpu_goal=20),
    Row("ack_16", "16 B, ack each, prefetch 500", loaded(ack="each", prefetch=500), rate_goal=8, cpu_goal=20),
    Row("auto_ack_1k", "1 KB, auto-ack", loaded(size=1024), rate_goal=5, cpu_goal=12),
    Row("publish_16", "16 B, publish only", loaded(consumers=0), rate_goal=6, cpu_goal=20, memory_max=WATERMARK_BYTES),
    Row(
        "confirms_64k",
        "64 KB, confirms (100 in flight), acks",
        loaded(size=65_536, confirms=100, ack="each", prefetch=100),
        rate_goal=2.5,
        cpu_goal=4,
        confirms=True,
    ),
    Row(
        "pairs_1k",
        "1 KB, 2 publishers, 2 consumers, acks",
        loaded(size=1024, publishers=2, consumers=2, ack="each", prefetch=500),
        rate_goal=7,
        cpu_goal=12,
    ),
    Row("fanout_10", "16 B, fan-out 1 to 10 queues, delivered", loaded(exchange_kind="fanout", queues=10), rate_goal=8),
    Row(
        "durable_16",
        "16 B, durable, confirms (1,000 in flight), acks",
        loaded(size=16, **DURABLE),
        rate_goal=8,
        cpu_goal=25,
        confirms=True,
        durable=True,
    ),
    Row(
        "durable_1k",
        "1 KB, durable, confirms (1,000 in flight), acks",
        loaded(size=1024, **DURABLE),
        rate_goal=10,
        cpu_goal=20,
        confirms=True,
        durable=True,
    ),
    Row(
        "one_confirm_1k",
        "1 KB, durable, one confirm at a time: p50 / a 4 KB write + fdatasync",
        one_confirm_at_a_time,
        "x disk",
        value_max=2.6,
        higher_is_better=False,
        confirms=True,
        durable=True,
    ),
    *(
        Row(
            f"pika_confirm_{label}",
            f"1 KB, durable, pika, one confirm at a time: {label} / the disk's",
            pika_load.confirming(share),
            "x disk",
            value_max=goal,
            higher_is_better=False,
            confirms=True,
            durable=True,
        )
        for label, share, goal in (("p50", 0.5, 3), ("p99", 0.99, 6))
    ),
    Row("pika_publish_1k", "1 KB, pika publishers", partial(client_load.publishing, "pika_load"), cpu_us_max=8),
    Row("pika_consume_1k", "1 KB, pika consumers, ack each", partial(client_load.consuming, "pika_load"), cpu_us_max=8),
    Row("aio_pika_publish_1k", "1 KB, aio-pika publishers", partial(client_load.publishing, "aio_pika_load"), cpu_us_max=8),
    Row("aio_pika_consume_1k", "1 KB, aio-pika consumers, ack each", partial(client_load.consuming, "aio_pika_load"), cpu_us_max=8),
    Row("celery", "Celery: tasks finished by a worker with its own settings", celery_load.working, "tasks/s", cpu_goal=1),
    Row(
        "deep_queue",
        f"{DEEP:,} persistent messages of 100 B: from a restart to the first one",
        deep_queue,
        "s",
        value_max=depth.RESTART_MAX_S,
        memory_max=depth.MEMORY_MAX,
        higher_is_better=False,
        durable=True,
        ours_only=True,
    ),
)
