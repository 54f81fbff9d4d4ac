"""A stand-in for a router, worker or management process, so that the supervisor is tested alone.

Run as `python stand_in.py KIND INDEX`. It is a real child (`run_child`); how it behaves comes from `LEVERET_TEST_BEHAVIOUR`, a JSON map of
child names ("worker-0") to a word:

    serve        be ready, end when told to (the default)
    die          end with status 3 before being ready
    refuse       raise a Refusal
    stubborn     be ready, never end when told to
    alarms       be ready; write each alarm to the file `alarms` in the data folder
    stop-node    be ready, then ask for the node's facts, write them to `facts.json` in the data folder, and ask it to stop
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from leveret.refusal import CONFIG, Refusal
from leveret.supervisor.child import Child, process_name, run_child

KIND, INDEX = sys.argv[1], int(sys.argv[2])
BEHAVIOUR = json.loads(os.environ.get("LEVERET_TEST_BEHAVIOUR", "{}")).get(process_name(KIND, INDEX), "serve")


async def main(child: Child) -> None:
    if BEHAVIOUR == "die":
        os._exit(3)
    if BEHAVIOUR == "refuse":
        raise Refusal("the stand-in will not start", CONFIG)
    if BEHAVIOUR == "alarms":
        with (child.data_dir / "alarms").open("a") as file:
            child.on_alarms = lambda alarms: print(json.dumps(alarms), file=file, flush=True)
            child.ready()
            await child.shutdown_requested
        return
    child.ready(listeners=sorted(child.listeners), run_id=child.run_id)
    if BEHAVIOUR == "stop-node":
        facts = await child.supervisor.request("node", {}, timeout_s=10)
        (child.data_dir / "facts.json").write_text(json.dumps(facts))
        await child.request_stop("the stand-in asks for it")
    await child.shutdown_requested
    if BEHAVIOUR == "stubborn":
        await asyncio.Event().wait()


run_child(KIND, main)
