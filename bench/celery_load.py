"""Celery as users run it: a worker with its own settings (prefork, a process for each core), and a program that calls a task over and over.

The figure is tasks/s that the worker finished, and the broker's CPU per task. A task is a persistent message in a durable queue, taken,
acknowledged, and its result ignored; beside it go Celery's own events and control queues. Each finished task leaves one byte in a file,
whose size is the count: no result backend, and nothing more for the broker to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import pika
from celery import Celery
from leveret.perf.process_tree import cpu_s, process_tree

from bench.client_load import sleep_until
from bench.figures import Figure
from bench.load import Timing
from bench.memory import MemoryWatch
from bench.node import Node, end

QUEUE: Final = "bench-celery"
_URI: Final = "LEVERET_BENCH_CELERY_URI"
_FINISHED: Final = "LEVERET_BENCH_CELERY_FINISHED"
_READY_S: Final = 60.0
_STOP_S: Final = 1.0  # what the worker has begun interests nobody any more, and its pool waits for its own processes, now and then for ever
_WAITING_MAX: Final = 2_000  # calls that no worker has finished: the caller waits there, or a slow worker would drown

app = Celery("bench", broker=os.environ.get(_URI, ""))
app.conf.update(task_ignore_result=True, task_default_queue=QUEUE)


@app.task(name="bench.add")  # type: ignore[untyped-decorator]
def add(left: int, right: int) -> int:
    descriptor = os.open(os.environ[_FINISHED], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b".")
    os.close(descriptor)
    return left + right


def working(node: Node, timing: Timing) -> Figure:
    """Tasks/s through one Celery worker, while one process calls them as fast as the worker finishes them. It must be loaded first."""
    with tempfile.TemporaryDirectory(prefix="leveret-bench-celery-") as folder:
        finished = Path(folder) / "finished"
        finished.touch()
        environment = os.environ | {_URI: node.uri + "/", _FINISHED: str(finished)}
        log = Path(folder) / "worker.log"
        worker = [sys.executable, "-m", "celery", "--app", "bench.celery_load", "--quiet", "worker", "--loglevel", "ERROR"]
        with log.open("wb") as console:
            running = [
                subprocess.Popen(
                    [*worker, "--concurrency", str(len(os.sched_getaffinity(0)))],
                    env=environment,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                ),
                subprocess.Popen([sys.executable, "-m", "bench.celery_load"], env=environment, start_new_session=True),
            ]
        watch = MemoryWatch(node)
        try:
            if not _first_finished(finished, running):
                return Figure(0.0, None, faults=("the Celery worker finished no task: " + log.read_text(errors="replace")[-500:],))
            time.sleep(timing.warmup_s)  # a measured time, not a wait for an event
            began_s, used_s, done = time.monotonic(), cpu_s(process_tree(node.pid)), finished.stat().st_size
            sleep_until(began_s + timing.seconds)
            took_s, used_s = time.monotonic() - began_s, cpu_s(process_tree(node.pid)) - used_s
            done = finished.stat().st_size - done
            watch.look()
        finally:
            for process in reversed(running):
                end(process, _STOP_S)
            _delete_queue(node)
    return Figure(
        done / took_s, used_s / done * 1e6 if done else None, "generator", memory_bytes=watch.most.all_bytes, details={"tasks": done}
    )


def _first_finished(finished: Path, running: list[subprocess.Popen[bytes]]) -> bool:
    deadline_s = time.monotonic() + _READY_S
    while not finished.stat().st_size:
        if time.monotonic() > deadline_s or any(process.poll() is not None for process in running):
            return False
        time.sleep(0.05)  # another process writes the file
    return True


def _delete_queue(node: Node) -> None:
    with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection:
        connection.channel().queue_delete(QUEUE)


def main() -> None:
    """Call the task until the parent ends us, never further ahead than `_WAITING_MAX` of what has been finished."""
    finished = Path(os.environ[_FINISHED])
    called = 0
    while True:
        while called - finished.stat().st_size < _WAITING_MAX:
            add.delay(called, 1)
            called += 1
        time.sleep(0.005)  # another process writes the file


if __name__ == "__main__":
    # By its import name, which the task's name and the worker go by, and not as __main__.
    from bench import celery_load

    celery_load.main()
