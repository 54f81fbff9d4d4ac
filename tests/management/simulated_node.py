"""A node that is only answers: the other processes as the management process sees them, without any process.

Owns the made-up answers of a router, workers and a supervisor (`SimulatedNode.answers`, plain maps that a test may change), and the
management application on top of them, asked in this process. A process whose answer is None does not answer.
"""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from leveret.auth.users import DEFAULT_HASHING, hash_password
from leveret.config import Settings, load
from leveret.management.application import make_application
from leveret.management.door import Door
from leveret.management.surveyor import Surveyor

T = TypeVar("T")

INTERVAL_S = 5.0
CONNECTION = "127.0.0.1:50001 -> 127.0.0.1:5672"
CHANNEL = f"{CONNECTION} (1)"
USERS: dict[str, Any] = {
    "users": [
        {"name": name, "password_hash": hash_password(name + "-secret"), "hashing_algorithm": DEFAULT_HASHING, "tags": tags}
        for name, tags in (("guest", ["administrator"]), ("watcher", ["monitoring"]), ("planner", ["management"]), ("program", []))
    ],
}
TOPOLOGY: dict[str, Any] = {
    "vhosts": [{"name": "/"}, {"name": "a/b"}],
    "exchanges": [
        {"id": number, "vhost": "/", "durable": True, "auto_delete": False, "internal": False, "arguments": {}, "name": name, "type": kind}
        for number, (name, kind) in enumerate([("", "direct"), ("amq.topic", "topic"), ("logs", "fanout")], start=1)
    ],
    "queues": [
        {
            "id": number,
            "name": name,
            "vhost": vhost,
            "durable": True,
            "auto_delete": False,
            "exclusive": False,
            "arguments": {},
            "worker": worker,
            "owner": "",
        }
        for number, name, vhost, worker in ((11, "orders", "/", 0), (12, "a/b c", "a/b", 1), (13, "mail", "/", 1))
    ],
    "bindings": [
        {
            "source": source,
            "vhost": "/",
            "destination": destination,
            "destination_type": kind,
            "routing_key": key,
            "arguments": {},
            "properties_key": key or "~",
        }
        for source, destination, kind, key in (
            ("", "orders", "queue", "orders"),
            ("logs", "orders", "queue", ""),
            ("amq.topic", "logs", "exchange", "log.#"),
        )
    ],
}


def queue_statistics(number: int, ready: int, unacked: int = 0, **stats: int) -> dict[str, Any]:
    """A worker's numbers of one queue; each message has 10 bytes."""
    return {
        "id": number,
        "messages_ready": ready,
        "messages_unacknowledged": unacked,
        "messages": ready + unacked,
        "message_bytes": (ready + unacked) * 10,
        "message_bytes_ready": ready * 10,
        "message_bytes_unacknowledged": unacked * 10,
        "consumers": 0,
        "message_stats": stats,
    }


WORKER_0: dict[str, Any] = {
    "index": 0,
    "set_aside": [],
    "pid": 102,
    "connections": [
        {
            "name": CONNECTION,
            "user": "guest",
            "vhost": "/",
            "protocol": "AMQP 0-9-1",
            "state": "running",
            "channels": 1,
            "channel_max": 2047,
            "frame_max": 131072,
            "timeout": 60,
            "client_properties": {"product": "Pika", "strange": float("nan"), "raw": b"\xff\x00"},
            "peer_host": "127.0.0.1",
            "peer_port": 50001,
            "owner": "0-1",
            "recv_oct": 1000,
            "send_oct": 500,
            "ssl": False,
        }
    ],
    "channels": [
        {
            "name": CHANNEL,
            "number": 1,
            "connection_name": CONNECTION,
            "user": "guest",
            "vhost": "/",
            "consumer_count": 1,
            "prefetch_count": 10,
            "confirm": True,
            "messages_unacknowledged": 2,
            "state": "running",
            "message_stats": {"publish": 40, "deliver": 7, "get": 1, "ack": 5},
        }
    ],
    "consumers": [
        {
            "queue": {"name": "orders", "vhost": "/"},
            "consumer_tag": "ctag1",
            "ack_required": True,
            "exclusive": False,
            "active": True,
            "prefetch_count": 10,
            "arguments": {},
            "channel_details": {"name": CHANNEL, "number": 1, "connection_name": CONNECTION, "peer_host": "127.0.0.1", "peer_port": 50001},
        }
    ],
    "queues": [queue_statistics(11, ready=30, unacked=2, publish=40, deliver=7, get=1, ack=5)],
    "totals": {
        "message_stats": {"publish": 100, "deliver": 60, "get": 1, "ack": 50},
        "connections_opened": 3,
        "connections_closed": 2,
        "channels_opened": 3,
        "channels_closed": 2,
    },
    "links": [{"peer": "router", "backlog_bytes": 4096, "packets_in": 5, "packets_out": 9, "congested": False}],
    "handovers": {"moved": 2, "arrived": 1},
}
WORKER_1: dict[str, Any] = {
    "index": 1,
    "set_aside": ["/data/shards/1.corrupt-20261124T093000Z"],
    "pid": 103,
    "connections": [],
    "channels": [],
    "consumers": [],
    "queues": [queue_statistics(12, ready=5), queue_statistics(13, ready=7)],
    "totals": {
        "message_stats": {"publish": 11},
        "connections_opened": 1,
        "connections_closed": 1,
        "channels_opened": 0,
        "channels_closed": 0,
    },
    "links": [],
}


def process(name: str, kind: str, index: int, pid: int) -> dict[str, Any]:
    """The supervisor's facts of one process."""
    return {
        "name": name,
        "kind": kind,
        "index": index,
        "pid": pid,
        "state": "running",
        "cpu_user_s": 1.5,
        "cpu_system_s": 0.5,
        "rss_bytes": 50_000_000,
        "private_bytes": 30_000_000,
        "restarts": 0,
        "uptime_s": 12.5,
        "facts": {},
    }


NODE: dict[str, Any] = {
    "name": "leveret@test",
    "version": "0.1.0",
    "pid": 100,
    "uptime_s": 13.0,
    "data_dir": "/data",
    "workers": 2,
    "durability": "os",
    "files_max": 4096,
    "processes": [
        process("supervisor", "supervisor", 0, 100),
        process("router", "router", 0, 101),
        process("worker-0", "worker", 0, 102),
        process("worker-1", "worker", 1, 103),
        process("management", "management", 0, 104),
    ],
    "memory": {"total_bytes": 8_000_000_000, "limit_bytes": 4_000_000_000, "used_bytes": 150_000_000, "alarm": False},
    "disk": {"free_bytes": 9_000_000_000, "limit_bytes": 50_000_000, "alarm": False},
    "listeners": [
        {"name": "amqp", "address": "127.0.0.1", "port": 5672},
        {"name": "http", "address": "127.0.0.1", "port": 15672},
        {"name": "control", "address": "/run/control.sock", "port": 0},
    ],
}


class SimulatedNode:
    """The processes (an `Asks` for the surveyor) and the application that asks them.

    `answers` maps (kind, index, verb) to what is answered; `asked` lists what was asked, in order. `stopped` counts stops asked for.
    """

    def __init__(self, runner: asyncio.Runner) -> None:
        self.answers: dict[tuple[str, int, str], Any] = copy.deepcopy(
            {
                ("router", 0, "topology"): TOPOLOGY,
                ("router", 0, "users"): USERS,
                ("router", 0, "statistics"): {"exchanges": {"3": {"publish_in": 20, "publish_out": 40}}, "links": []},
                ("worker", 0, "statistics"): WORKER_0,
                ("worker", 1, "statistics"): WORKER_1,
                ("supervisor", 0, "node"): NODE,
            }
        )
        self.asked: list[tuple[str, int, str]] = []
        self.is_asked = asyncio.Event()
        self.stopped = 0
        self.settings: Settings = load({"node_name": "leveret@test", "statistics_interval_ms": str(int(INTERVAL_S * 1000))}, {}).settings
        self.surveyor = Surveyor(self, self.settings)
        self.application = make_application(self.surveyor, self._stop, self)
        self.ordered: list[tuple[str, int, str, Any]] = []
        self._runner = runner

    workers: Sequence[int] = (0, 1)

    async def ask(self, kind: str, index: int, verb: str) -> Any:
        self.asked.append((kind, index, verb))
        self.is_asked.set()
        await asyncio.sleep(0)
        return self.answers[kind, index, verb]

    @property
    def worker_count(self) -> int:
        return len(self.workers)

    async def order(self, kind: str, index: int, verb: str, body: Any) -> Any:
        self.ordered.append((kind, index, verb, body))
        answer = self.answers[kind, index, verb]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _stop(self) -> None:
        self.stopped += 1

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop of the application."""
        return self._runner.run(work)

    def sample(self) -> None:
        """Record a sample for the rates, as the process does at each interval."""
        self.run(self.surveyor.sample())

    def request(
        self,
        method: str,
        path: str,
        *,
        user: str | None = "guest",
        password: str | None = None,
        control: bool = False,
        peer: str = "127.0.0.1",
        headers: dict[str, str] | None = None,
        content: Any = None,
    ) -> httpx.Response:
        """One HTTP request through the door, by the user with its own password, from the address `peer` or by the control socket."""
        given = dict(headers or {})
        if user is not None and not control:
            secret = f"{user}-secret" if password is None else password
            given["authorization"] = "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()
        transport = httpx.ASGITransport(Door(self.application, is_control=control), raise_app_exceptions=False, client=(peer, 50000))

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                return await client.request(method, path, headers=given, content=content)

        return self.run(ask())

    def get(self, path: str, **options: Any) -> Any:
        """The JSON of a GET that must succeed."""
        response = self.request("GET", path, **options)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        return response.json()


@contextmanager
def simulated_node() -> Iterator[SimulatedNode]:
    """A node whose users are known, with its own event loop."""
    with asyncio.Runner() as runner:
        node = SimulatedNode(runner)
        node.sample()
        yield node
