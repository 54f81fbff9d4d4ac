"""The topology as management shows it: plain maps with the field names of RabbitMQ's HTTP API, without what other processes know better.

Called by the router for its `topology` request; changes nothing. Password hashes only leave by `users_with_hashes`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from leveret.router.arguments import plain
from leveret.router.commands import NO_ARGUMENTS
from leveret.router.entries import ExchangeEntry

if TYPE_CHECKING:
    from leveret.router.topology import Topology


def vhosts(topology: Topology) -> list[dict[str, Any]]:
    """RabbitMQ's `/api/vhosts` fields that the router knows."""
    return [
        {"name": vhost.name, "description": vhost.description, "tags": list(vhost.tags), "tracing": False}
        for vhost in topology.vhosts.values()
    ]


def users(topology: Topology) -> list[dict[str, Any]]:
    """`/api/users` without the hashes."""
    return [{"name": user.name, "tags": list(user.tags)} for user in topology.users.values()]


def users_with_hashes(topology: Topology) -> list[dict[str, Any]]:
    """The users as management's logins need them; never shown."""
    return [{name: value for name, value in user.record().items() if name != "kind"} for user in topology.users.values()]


def permissions(topology: Topology) -> list[dict[str, Any]]:
    """`/api/permissions`."""
    return [{name: value for name, value in entry.record().items() if name != "kind"} for entry in topology.permissions.values()]


def exchanges(topology: Topology) -> list[dict[str, Any]]:
    """`/api/exchanges` without the counters, and `id` to find them by."""
    return [
        {
            "id": exchange.id,
            "name": exchange.name,
            "vhost": exchange.vhost,
            "type": exchange.type,
            "durable": exchange.durable,
            "auto_delete": exchange.auto_delete,
            "internal": exchange.internal,
            "arguments": plain(exchange.arguments),
        }
        for exchange in topology.exchanges.values()
    ]


def queues(topology: Topology) -> list[dict[str, Any]]:
    """The directory's part of `/api/queues`; `worker` and `id` lead to the rest, which the owning worker knows."""
    return [
        {
            "id": queue.id,
            "name": queue.name,
            "vhost": queue.vhost,
            "type": "classic",
            "durable": queue.durable,
            "exclusive": queue.exclusive,
            "auto_delete": queue.auto_delete,
            "arguments": plain(queue.arguments),
            "worker": queue.worker,
            "owner": queue.owner,
        }
        for queue in topology.queues.values()
    ]


def bindings(topology: Topology) -> list[dict[str, Any]]:
    """`/api/bindings`, the default exchange's implicit ones included."""
    listed = [_listed_binding("", queue.vhost, queue.name, "queue", queue.name, NO_ARGUMENTS) for queue in topology.queues.values()]
    for exchange in topology.exchanges.values():
        for binding in exchange.bindings.values():
            kind = "exchange" if isinstance(binding.destination, ExchangeEntry) else "queue"
            listed.append(
                _listed_binding(exchange.name, exchange.vhost, binding.destination.name, kind, binding.routing_key, binding.arguments)
            )
    return listed


def _listed_binding(source: str, vhost: str, destination: str, kind: str, routing_key: str, arguments: bytes) -> dict[str, Any]:
    return {
        "source": source,
        "vhost": vhost,
        "destination": destination,
        "destination_type": kind,
        "routing_key": routing_key,
        "arguments": plain(arguments),
        "properties_key": properties_key(routing_key, arguments),
    }


def properties_key(routing_key: str, arguments: bytes) -> str:
    """The name of a binding in URLs of the HTTP API: the quoted key (`~` if it is empty), and `~` and a hash where there are arguments."""
    escaped = quote(routing_key, safe="", errors="surrogateescape").replace("~", "%7E")
    if arguments == NO_ARGUMENTS:
        return escaped or "~"
    digest = hashlib.blake2b(arguments, digest_size=16).digest()
    return f"{escaped}~{base64.urlsafe_b64encode(digest).rstrip(b'=').decode('ascii')}"
