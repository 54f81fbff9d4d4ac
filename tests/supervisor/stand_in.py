"""A stand-in for a router, worker or management process, so that the supervisor is tested alone.

Run by the supervisor as `python stand_in.py KIND INDEX`. It is a real child (`run_child`); how it behaves comes from
`LEVERET_TEST_BEHAVIOUR`, a JSON map of process names ("worker-0") to a word:

    serve        be ready, log each alarm, end when told to (the default)
    die          end with status 3 before being ready
    refuse       raise a Refusal
    break        raise an unexpected error
    wait         never be ready
    stubborn     be ready, never end when told to
    hoard        be ready, take 256 MiB in small pieces of C memory, and free all but the last when an alarm comes
    stop-node    be ready, ask for the node's facts, write them to `facts.json` in the data folder, and ask the node to stop
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import sys

from leveret.refusal import CONFIG, Refusal
from leveret.supervisor.child import Child, process_name, run_child

KIND, INDEX = sys.argv[1], int(sys.argv[2])
BEHAVIOUR = json.loads(os.environ.get("LEVERET_TEST_BEHAVIOUR", "{}")).get(process_name(KIND, INDEX), "serve")

log = logging.getLogger(__name__)


PIECE_BYTES = 4000


def hoard() -> list[int]:
    """Pieces of C memory, written to so that they are resident."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    pieces = [libc.malloc(PIECE_BYTES) for _ in range((256 << 20) // PIECE_BYTES)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE_BYTES)
    return pieces


def free_all_but_the_last(pieces: list[int]) -> None:
    """The last one keeps the top of the heap in place, so the C library gives nothing back by itself."""
    libc = ctypes.CDLL(None)
    for piece in pieces[:-1]:
        libc.free(ctypes.c_void_p(piece))
    del pieces[:-1]


async def main(child: Child) -> None:
    match BEHAVIOUR:
        case "die":
            os._exit(3)
        case "refuse":
            raise Refusal("the stand-in will not start", CONFIG)
        case "break":
            raise LookupError("a bug in the stand-in")
        case "wait":
            log.info("waiting in vain")
            await asyncio.Event().wait()
    child.on_alarms = lambda alarms: log.info("heard of alarms: %s", json.dumps(alarms))
    child.ready(listeners=sorted(child.listeners), run_id=child.run_id)
    if BEHAVIOUR == "stop-node":
        facts = await child.supervisor.request("node", {}, timeout_s=10)
        (child.data_dir / "facts.json").write_text(json.dumps(facts))
        await child.request_stop("the stand-in asks for it")
    if BEHAVIOUR == "hoard":
        pieces = hoard()
        child.on_alarms = lambda alarms: free_all_but_the_last(pieces)
    reason = await child.shutdown_requested
    log.info("told to end: %s", reason)
    if BEHAVIOUR == "stubborn":
        await asyncio.Event().wait()


if __name__ == "__main__":
    run_child(KIND, main)
