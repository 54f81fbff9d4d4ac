"""Users, permissions and virtual hosts of a node under test, by the router's own commands.

Owns nothing: `administer` opens a link to a running node's router, as management does, carries the commands out one after the other and
closes it. When it returns, every worker knows what was changed.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from leveret.auth.users import hash_password
from leveret.config import default_runtime_dir
from leveret.link.dial import connect_link
from leveret.link.link import Hello, Link
from leveret.link.poller import running_poller
from leveret.router.commands import Command, PutUser, SetPermissions, to_map, verb

from tests.node import Node

WITHIN_S = 20.0


class _Silent:
    """The receiver of a link over which nothing is asked of us."""

    def on_link_open(self, link: Link) -> None:
        pass

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        raise ValueError(verb)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        pass

    def on_link_closed(self, link: Link) -> None:
        pass


def administer(node: Node, *commands: Command) -> None:
    """Carry the commands out. Raises the refusal of the first that is refused."""
    asyncio.run(_administer(node, commands))


def put_user(
    node: Node, name: str, password: str, *, tags: tuple[str, ...] = (), rights: tuple[str, str, str] = (".*", ".*", ".*")
) -> None:
    """Make a user, or change it. rights: configure, write and read in the vhost /."""
    administer(node, PutUser(name, hash_password(password), tags=tags), SetPermissions(name, "/", *rights))


async def _administer(node: Node, commands: tuple[Command, ...]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    poller = running_poller()
    socket_path = default_runtime_dir(node.data_dir, environment) / "router.sock"
    link = await connect_link(poller, socket_path, Hello("management", 0, os.getpid()), _Silent())
    try:
        for command in commands:
            await link.request(verb(command), to_map(command), timeout_s=WITHIN_S)
    finally:
        link.close("done")
        poller.close()
