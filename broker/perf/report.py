"""What came of a load: rates, latencies, who used how much CPU, and whether every message is accounted for; as a table and as JSON.

Pure data and its presentation. A figure that something other than the broker limited says so (`limit`), and a load that lost, repeated or
reordered messages says that (`faults`) before it says how fast it was.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from leveret.perf.histogram import Histogram
from leveret.perf.plan import STAMP_BYTES, Plan
from leveret.perf.process_tree import Usage
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

JSON_VERSION: Final = 1
PERCENTILES: Final = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
_BUSY_SHARE: Final = 0.93  # a loader that ran or waited for a core for more of the time was itself the limit
_MACHINE_SHARE: Final = 0.95


@dataclass(frozen=True, slots=True)
class LoaderUse:
    """One loader process in the measured time. `starved_s` is how long it was ready to run and no core was free."""

    name: str
    elapsed_s: float
    cpu_s: float
    starved_s: float

    @classmethod
    def of(cls, measured: dict[str, Any]) -> LoaderUse:
        return cls(f"{measured['role']} {measured['index']}", measured["elapsed_s"], measured["cpu_s"], measured["starved_s"])

    @property
    def busy_share(self) -> float:
        return (self.cpu_s + self.starved_s) / self.elapsed_s if self.elapsed_s else 0.0


@dataclass(frozen=True, slots=True)
class BrokerUse:
    """The broker's process tree in the measured time: seconds between the two samples, CPU seconds by process, largest resident size."""

    elapsed_s: float
    cpu_s: float
    by_process: list[tuple[str, int, float]]  # name, pid, CPU seconds
    rss_max_bytes: int

    @classmethod
    def between(cls, samples: list[tuple[float, list[Usage]]], rss_max_bytes: int) -> BrokerUse:
        (before_s, before), (after_s, after) = samples
        earlier = {usage.pid: usage.cpu_s for usage in before}
        by_process = [(usage.name, usage.pid, usage.cpu_s - earlier.get(usage.pid, 0.0)) for usage in after]
        rss = max(rss_max_bytes, sum(usage.rss_bytes for usage in before), sum(usage.rss_bytes for usage in after))
        return cls(after_s - before_s, sum(cpu for _, _, cpu in by_process), by_process, rss)


@dataclass(frozen=True, slots=True)
class Report:
    """Rates are messages/s of the measured time; counts are of the whole load, warm-up and draining included.

    `server` is what the broker called itself, "" if nothing.
    """

    plan: Plan
    server: str
    published_per_s: float
    received_per_s: float
    published: int
    received: int
    left_in_queues: int | None
    confirmed: int
    nacked: int
    unconfirmed: int
    returned: int
    redelivered: int
    overtaken: int
    foreign: int
    unsettled: int  # publishers whose last messages the broker had not taken when they gave up
    latency: Histogram
    confirm_latency: Histogram
    loaders: list[LoaderUse]
    broker: BrokerUse | None
    machine_busy_share: float  # of all cores, by whomever, in the measured time

    @property
    def messages_per_s(self) -> float:
        """The rate that the load is judged by: delivered messages, or published ones where nobody consumes."""
        return self.received_per_s if self.plan.consumers else self.published_per_s

    @property
    def broker_cpu_us(self) -> float | None:
        """CPU microseconds of the broker's whole process tree per message (see `messages_per_s`)."""
        if self.broker is None or not self.messages_per_s or not self.broker.elapsed_s:
            return None
        return self.broker.cpu_s / self.broker.elapsed_s / self.messages_per_s * 1e6

    @property
    def generator_cpu_us(self) -> float | None:
        """CPU microseconds of all loaders together per message (see `messages_per_s`)."""
        if not self.messages_per_s:
            return None
        return sum(loader.cpu_s / loader.elapsed_s for loader in self.loaders if loader.elapsed_s) / self.messages_per_s * 1e6

    @property
    def limit(self) -> str:
        """What kept the rate from being higher, as far as it shows: "rate" (as asked), "generator", "machine", or "" (the broker)."""
        if self.plan.rate and self.published_per_s >= 0.98 * self.plan.rate * self.plan.publishers:
            return "rate"
        busiest = max((loader.busy_share for loader in self.loaders), default=0.0)
        if self.machine_busy_share >= _MACHINE_SHARE:
            return "machine"
        return "generator" if busiest >= _BUSY_SHARE else ""

    @property
    def missing(self) -> int | None:
        """Messages that were published and are neither received, left in the queues nor refused; None when that cannot be known.

        A message that the broker settled by itself, or that came from another publisher, is outside what a load can count.
        """
        if self.plan.copies is None or not self.plan.publishers or self.left_in_queues is None or self.foreign or self.unsettled:
            return None
        return (self.published - self.nacked - self.returned) * self.plan.copies - (self.received - self.redelivered) - self.left_in_queues

    @property
    def faults(self) -> list[str]:
        """What a broker must not do and did, in words."""
        found = []
        if self.missing is not None and self.missing > 0:
            found.append(f"{self.missing:,} messages are missing")
        if self.missing is not None and self.missing < 0:
            found.append(f"{-self.missing:,} messages came more often than they were published")
        if self.overtaken:
            found.append(f"{self.overtaken:,} messages came after a later one of the same publisher")
        if self.unconfirmed:
            found.append(f"{self.unconfirmed:,} publishes were never confirmed")
        if self.unsettled:
            found.append(f"{self.unsettled:,} publishers could not get rid of their last messages")
        if self.nacked:
            found.append(f"{self.nacked:,} publishes were nacked")
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, for `--json`. The address is told without its password."""
        url = urlsplit(self.plan.uri)
        plan = self.plan.to_json() | {"uri": f"{url.scheme}://{url.hostname}:{url.port or 5672}{url.path}"}
        return {
            "version": JSON_VERSION,
            "plan": plan,
            "server": self.server,
            "messages_per_s": self.messages_per_s,
            "published_per_s": self.published_per_s,
            "received_per_s": self.received_per_s,
            "broker_cpu_us_per_message": self.broker_cpu_us,
            "generator_cpu_us_per_message": self.generator_cpu_us,
            "machine_busy_share": self.machine_busy_share,
            "limit": self.limit,
            "missing": self.missing,
            "faults": self.faults,
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "latency_us": _percentiles_us(self.latency),
            "confirm_latency_us": _percentiles_us(self.confirm_latency),
            "loaders": [dataclasses.asdict(loader) | {"busy_share": loader.busy_share} for loader in self.loaders],
            "broker": dataclasses.asdict(self.broker) if self.broker else None,
        }

    def table(self) -> RenderableType:
        """What the user sees at the end."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column()
        if self.server:
            table.add_row("broker", "", self.server)
        if self.plan.publishers:
            table.add_row("published", f"{self.published_per_s:,.0f}", f"msg/s   {_volume(self.published_per_s * self.plan.size)}")
        if self.plan.consumers:
            volume = _volume(self.received_per_s * self.plan.size) if self.plan.publishers else ""
            table.add_row("received", f"{self.received_per_s:,.0f}", f"msg/s   {volume}")
        for name, histogram in (("latency", self.latency), ("confirm", self.confirm_latency)):
            if histogram.total:
                told = "   ".join(f"{label} {_duration(histogram.percentile_ns(share))}" for label, share in PERCENTILES[1:])
                table.add_row(name, _duration(histogram.percentile_ns(0.5)), f"p50   {told}   max {_duration(histogram.max_ns)}")
        if self.broker is not None and self.broker_cpu_us is not None:
            processes = ", ".join(
                f"{name} {cpu / self.broker.elapsed_s:.0%}"
                for name, _, cpu in self.broker.by_process
                if cpu / self.broker.elapsed_s >= 0.005
            )
            table.add_row("broker CPU", f"{self.broker_cpu_us:,.3f}", f"us/msg   {processes}")
            table.add_row("broker memory", f"{self.broker.rss_max_bytes / 1e6:,.0f}", "MB resident at most")
        busy = ", ".join(f"{loader.name} {loader.busy_share:.0%}" for loader in self.loaders[:6])
        cost = "" if self.generator_cpu_us is None else f"{self.generator_cpu_us:,.3f}"
        table.add_row("generator CPU", cost, f"us/msg   busy: {busy}{' ...' if len(self.loaders) > 6 else ''}")
        counts = f"{self.published:,} published, {self.received:,} received"
        if self.left_in_queues is not None:
            counts += f", {self.left_in_queues:,} left in queues"
        for count, word in (
            (self.confirmed, "confirmed"),
            (self.returned, "returned"),
            (self.redelivered, "redelivered"),
            (self.foreign, "foreign"),
        ):
            counts += f", {count:,} {word}" if count else ""
        table.add_row("accounted", "", counts)
        notes: list[RenderableType] = [table]
        if self.limit in ("generator", "machine"):
            what = "the load generator was the limit" if self.limit == "generator" else "all cores of the machine were busy"
            notes.append(Text(f"{what}: the broker may be faster than this", style="yellow"))
        if self.plan.consumers and self.plan.size < STAMP_BYTES:
            notes.append(Text(f"bodies under {STAMP_BYTES} bytes carry no whole stamp: order was not checked", style="dim"))
        notes += [Text(fault, style="bold red") for fault in self.faults]
        return Group(*notes)


_COUNTS: Final = (
    "published",
    "received",
    "left_in_queues",
    "confirmed",
    "nacked",
    "unconfirmed",
    "returned",
    "redelivered",
    "overtaken",
    "foreign",
    "unsettled",
)


def _percentiles_us(histogram: Histogram) -> dict[str, float] | None:
    if not histogram.total:
        return None
    told = {label: histogram.percentile_ns(share) / 1e3 for label, share in PERCENTILES}
    return told | {"mean": histogram.mean_ns / 1e3, "max": histogram.max_ns / 1e3, "samples": histogram.total}


def _duration(value_ns: int) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value_ns >= size:
            return f"{value_ns / size:.3g} {unit}"
    return f"{value_ns} ns"


def _volume(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:,.1f} MB/s"
