"""The steps of an online backup, by the control socket alone. `leveret backup` takes them one after the other; each waits until it is done.

    POST /api/control/backup                   {"directory"}   makes the folder; {"shards": [{"number", "worker", "used_bytes"}]}
    POST /api/control/backup/shards/<number>   {"directory"}   its owner copies the shard; {"bytes"}
    POST /api/control/backup/definitions       {"directory"}   the router copies the definitions; {"bytes"}

The folder becomes a data folder. Without definitions no node takes it for one, so they come last: a backup that was broken off cannot be
mistaken for a whole one, and every message in it has its queue, unless that was deleted meanwhile. Each part is as of one moment, and the
moments differ. Nothing is kept here between the steps.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Body, Depends, Request
from leveret.management.answers import Answer
from leveret.management.json_reply import Json
from leveret.management.login import only_control
from leveret.management.problem import Problem
from starlette.responses import Response

routes = APIRouter(prefix="/control/backup", include_in_schema=False, dependencies=[Depends(only_control)])


class Orders(Protocol):
    """The processes of the node (`leveret.management.peers`)."""

    @property
    def worker_count(self) -> int: ...

    async def order(self, kind: str, index: int, verb: str, body: Mapping[str, Any]) -> Answer: ...


def orders_of(request: Request) -> Orders:
    orders: Orders = request.app.state.orders
    return orders


def backup_folder(directory: Annotated[str, Body(embed=True, max_length=4096)]) -> Path:
    """The folder that the request names. Raises `Problem` 400 if it is no absolute path."""
    if not directory.startswith("/") or "\0" in directory:
        raise bad(f"the backup's folder must be an absolute path, not {directory!r}")
    return Path(directory)


def bad(sentence: str) -> Problem:
    return Problem(400, "bad_request", sentence)


AllOrders = Annotated[Orders, Depends(orders_of)]
Folder = Annotated[Path, Depends(backup_folder)]


def make_folder(folder: Path) -> None:
    """Make it with mode 0700, or find it empty. Raises `Problem` 400."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.scandir(folder) as entries:
            if any(True for _ in entries):
                raise bad(f"{folder} is not empty; a backup goes into a folder of its own")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise bad(f"the broker may not write to {folder}")
    except FileExistsError:
        raise bad(f"{folder} is not a folder") from None
    except OSError as error:
        raise bad(f"the broker cannot use {folder}: {error.strerror}") from None


@routes.post("")
async def begin(folder: Folder, orders: AllOrders) -> Response:
    """Refuses a folder that is not empty, and one whose disk has less room than the shards' pages in use take."""
    await asyncio.to_thread(make_folder, folder)
    answers = await asyncio.gather(*(orders.order("worker", index, "shards", {}) for index in range(orders.worker_count)))
    shards = [shard | {"worker": index} for index, answer in enumerate(answers) for shard in answer["shards"]]
    needed = sum(int(shard["used_bytes"]) for shard in shards)
    free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
    if needed > free:
        raise bad(f"the backup needs {needed / 2**20:,.0f} MiB, and the disk of {folder} has {free / 2**20:,.0f} MiB left")
    return Json({"shards": sorted(shards, key=lambda shard: int(shard["number"]))}, status_code=201)


@routes.post("/shards/{number}")
async def copy_shard(number: int, folder: Folder, orders: AllOrders) -> Response:
    owner = number % orders.worker_count
    return Json(await orders.order("worker", owner, "backup", {"shard": number, "directory": str(folder)}), status_code=201)


@routes.post("/definitions")
async def copy_definitions(folder: Folder, orders: AllOrders) -> Response:
    return Json(await orders.order("router", 0, "backup", {"directory": str(folder)}), status_code=201)
