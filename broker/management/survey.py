"""The node as one picture: the answers of all its processes at one moment, indexed, with the rates of their counters.

Made by `surveyor` for each request (or for those that come together), read by the resources, thrown away. It merges but does not shape:
which fields an object has under which names is each resource's own matter. It asks nobody and reads no clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from leveret.config import Settings
from leveret.management.answers import Answer, Answers
from leveret.management.counters import CHANNEL_COUNTERS, QUEUE_GAUGES, added, whole
from leveret.management.history import Counters, History
from leveret.management.problem import Problem, not_found

RESOURCES = ("memory", "disk")
MOVING = ("connections", "channels")  # what may go from worker to worker
OCTETS = ("recv_oct", "send_oct")
CHURN = {
    "connections_opened": "connection_created",
    "connections_closed": "connection_closed",
    "channels_opened": "channel_created",
    "channels_closed": "channel_closed",
}


def exchange_key(exchange: Answer) -> str:
    """What the router's statistics know an exchange by."""
    return str(exchange["id"])


class Survey:
    """One picture of the node. `settings` are the node's own; `history` holds the samples that rates are told against."""

    def __init__(self, answers: Answers, history: History, settings: Settings) -> None:
        self.answers = answers
        self.settings = settings
        self._history = history

    @property
    def node_name(self) -> str:
        return self.settings.node_name

    def topology(self, kind: str) -> list[Answer]:
        """`vhosts`, `users`, `exchanges`, `queues` or `bindings` as the router last told them.

        Raises `Problem` 503 when it never has: an empty list would be a lie.
        """
        if not self.answers.topology:
            raise Problem(503, "service_unavailable", "the router process does not answer")
        return list(self.answers.topology.get(kind, ()))

    def in_vhost(self, items: Iterable[Answer], vhost: str | None) -> list[Answer]:
        """Those of `items` that lie in `vhost`; all when it is None. Raises `Problem` 404 for a vhost that does not exist."""
        if vhost is None:
            return list(items)
        if all(known["name"] != vhost for known in self.topology("vhosts")):
            raise not_found()
        return [item for item in items if item["vhost"] == vhost]

    def from_workers(self, kind: str) -> Iterator[tuple[int, Answer]]:
        """`connections`, `channels`, `consumers` or `queues` of every worker that answered, each with its worker's index.

        A connection that moves from one worker to another while both are asked may be told by both. It is one all the same.
        """
        seen: set[str] = set()
        for index, answer in self.answers.workers.items():
            for item in answer.get(kind, ()) if answer else ():
                if kind in MOVING:
                    if item["name"] in seen:
                        continue
                    seen.add(item["name"])
                yield index, item

    def worker_answered(self, index: int) -> bool:
        return self.answers.workers.get(index) is not None

    @cached_property
    def queue_statistics(self) -> Mapping[int, Answer]:
        """Statistics of the queues by their id."""
        return {int(queue["id"]): queue for _, queue in self.from_workers("queues")}

    @cached_property
    def consumers_of_channels(self) -> Mapping[str, list[Answer]]:
        """Consumers by their channel's name."""
        found: dict[str, list[Answer]] = {}
        for _, consumer in self.from_workers("consumers"):
            found.setdefault(consumer["channel_details"]["name"], []).append(consumer)
        return found

    @cached_property
    def connections(self) -> Mapping[str, Answer]:
        """Connections by their name."""
        return {connection["name"]: connection for _, connection in self.from_workers("connections")}

    @cached_property
    def owners(self) -> Mapping[str, Answer]:
        """Connections by the id under which the router knows them as owners of exclusive queues."""
        return {connection["owner"]: connection for _, connection in self.from_workers("connections") if "owner" in connection}

    @cached_property
    def queue_totals(self) -> dict[str, int]:
        """Messages in all queues: the sum of each gauge."""
        return {name: sum(int(queue.get(name, 0)) for queue in self.queue_statistics.values()) for name in QUEUE_GAUGES}

    @cached_property
    def exchange_statistics(self) -> Mapping[Hashable, Answer]:
        """Publishes in and out of the exchanges, by `exchange_key`."""
        return exchange_statistics_of(self.answers)

    @property
    def alarms(self) -> Mapping[str, bool]:
        """Resources (`memory`, `disk`) in alarm, by the supervisor; none when it does not answer."""
        return {resource: bool(self.answers.node[resource]["alarm"]) for resource in RESOURCES} if self.answers.node else {}

    def rates(self, kind: str, key: Hashable, counters: Counters) -> dict[str, float]:
        """Change per second of these counters of one thing, by the samples of `counters_of`."""
        return self._history.rates((kind, key), counters, self.answers.clock_s)

    def node_counters(self, kind: str, counters: Mapping[int, Counters]) -> tuple[dict[str, int], dict[str, float]]:
        """The sum of the workers' counters, and of their rates.

        Each worker's rate is taken by itself: the sum's own difference would jump whenever a worker fails to answer or starts anew.
        """
        rates = [
            {name: max(rate, 0.0) for name, rate in self.rates(kind, index, of_worker).items()} for index, of_worker in counters.items()
        ]
        return added(counters.values()), added(rates)


def totals_of(answers: Answers) -> dict[int, dict[str, int]]:
    """Message counters over the life of each worker that answered."""
    return {
        index: whole(answer.get("totals", {}).get("message_stats"), CHANNEL_COUNTERS) for index, answer in answers.workers.items() if answer
    }


def churn_of(answers: Answers) -> dict[int, dict[str, int]]:
    """Connections and channels opened and closed over the life of each worker that answered, under RabbitMQ's names."""
    return {
        index: {shown: int(answer.get("totals", {}).get(name, 0)) for name, shown in CHURN.items()}
        for index, answer in answers.workers.items()
        if answer
    }


def about_connection(connection: Answer) -> dict[str, Any]:
    """What other objects show of a connection."""
    return {name: connection.get(name) for name in ("name", "peer_host", "peer_port")}


def queue_gauges(queue: Answer) -> dict[str, int]:
    return {name: int(queue.get(name, 0)) for name in QUEUE_GAUGES}


def octets(connection: Answer) -> dict[str, int]:
    return {name: int(connection.get(name, 0)) for name in OCTETS}


def queue_counters(queue: Answer) -> dict[str, int]:
    return whole(queue.get("message_stats"), CHANNEL_COUNTERS)


channel_counters = queue_counters


def exchange_counters(statistics: Answer) -> dict[str, int]:
    return {name: int(statistics.get(name, 0)) for name in ("publish_in", "publish_out")}


def counters_of(answers: Answers) -> dict[Hashable, Counters]:
    """Everything that has a rate, as one sample for `History`."""
    sample: dict[Hashable, Counters] = {}
    for index, counters in totals_of(answers).items():
        sample["totals", index] = counters
    for index, counters in churn_of(answers).items():
        sample["churn", index] = counters
    depth = dict.fromkeys(QUEUE_GAUGES, 0)
    for answer in answers.workers.values():
        for connection in answer.get("connections", ()) if answer else ():
            sample["connection", connection["name"]] = octets(connection)
        for channel in answer.get("channels", ()) if answer else ():
            sample["channel", channel["name"]] = channel_counters(channel)
        for queue in answer.get("queues", ()) if answer else ():
            gauges = queue_gauges(queue)
            sample["queue", int(queue["id"])] = queue_counters(queue) | gauges
            for name, value in gauges.items():
                depth[name] += value
    sample["depth", ""] = depth
    for key, statistics in exchange_statistics_of(answers).items():
        sample["exchange", key] = exchange_counters(statistics)
    for process in answers.node["processes"] if answers.node else ():
        sample["process", process["pid"]] = cpu_counters(process)
    return sample


def cpu_counters(process: Answer) -> dict[str, int]:
    """Processor time of a process in microseconds."""
    return {"cpu_us": int((process["cpu_user_s"] + process["cpu_system_s"]) * 1e6)}


def exchange_statistics_of(answers: Answers) -> dict[Hashable, Answer]:
    """Statistics of the exchanges under their `exchange_key`."""
    return dict((answers.router or {}).get("exchanges", {}))


def named(items: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    """The object with this name. Raises `Problem` 404."""
    for item in items:
        if item["name"] == name:
            return item
    raise not_found()
