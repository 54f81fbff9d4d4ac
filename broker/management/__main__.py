"""The management process: `python -m leveret.management`, started by the supervisor.

It wires the parts together and waits for the end: links to the other processes, the sampler, and one HTTP server for each listener.
"""

from __future__ import annotations

import asyncio
import logging

import uvloop
from leveret.management.application import make_application
from leveret.management.door import Door
from leveret.management.http_server import HttpServer
from leveret.management.peers import Peers
from leveret.management.surveyor import Surveyor
from leveret.supervisor.child import Child, run_child

log = logging.getLogger(__name__)


async def main(child: Child) -> None:
    """Serve until the supervisor asks for the end."""
    peers = Peers(child.poller, child.runtime_dir, child.settings.workers, child.hello, child.supervisor)
    surveyor = Surveyor(peers, child.settings)

    def stop_node() -> None:
        # The supervisor's answer tells nothing that this process's own shutdown does not.
        child.request_stop("stop requested by the command line").add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    application = make_application(surveyor, stop_node, peers)
    servers = [
        HttpServer(Door(application, is_control=False), [child.listeners["http"]]),
        HttpServer(Door(application, is_control=True), [child.listeners["control"]]),
    ]
    async with asyncio.TaskGroup() as tasks:
        await peers.opened()
        sampler = tasks.create_task(surveyor.sample_for_ever())
        for server in servers:
            tasks.create_task(server.run())
        child.ready()
        reason = await child.shutdown_requested
        log.debug("ending: %s", reason)
        sampler.cancel()
        for server in servers:
            server.end()
    peers.close()


if __name__ == "__main__":
    run_child("management", main, uvloop.new_event_loop)  # its streams are few; HTTP goes by the loop's own transports
