"""A Celery application with workers of its own: results over rpc, retries, ETA, groups, chains, chords, lost workers, remote control.

The tasks stand in `celery_application.py`. The workers are processes as `celery worker` starts them, one for a module's tests.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import celery
import pytest

from tests.names import unique
from tests.node import Broker

ROOT = Path(__file__).parents[2]
MODULE = "tests.clients.celery_application"
WITHIN_S = 30.0  # for a task, on a busy machine

pytestmark = pytest.mark.timeout(300)


@contextmanager
def running_worker(broker: Broker, log: Path, *, backend: str = "rpc://", expiries: bool = False) -> Iterator[ModuleType]:
    """A worker with two processes, and the application as a client of it sees it."""
    settings = {
        "AMQP_URL": broker.url,
        "CELERY_BACKEND": backend,
        "CELERY_QUEUE": unique("celery"),
        "CELERY_WORKER": f"{unique('worker')}@localhost",
        "CELERY_EXPIRIES": "on" if expiries else "off",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        sys.modules.pop(MODULE, None)
        module = importlib.import_module(MODULE)
        command = [sys.executable, "-m", "celery", "-A", f"{MODULE}:application", "worker", "--concurrency=2", "--loglevel=INFO"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"--hostname={settings['CELERY_WORKER']}"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"C_FORCE_ROOT": "1", "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        try:
            # It takes some seconds to start, in which the times that tests ask for would pass.
            assert module.add.delay(1, 1).get(timeout=2 * WITHIN_S) == 2
            yield module
            process.terminate()  # a warm shutdown: finishes what it has begun
            assert process.wait(WITHIN_S) == 0, log.read_text(errors="replace")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            module.application.close()
            with broker.connect() as connection:
                connection.channel().queue_delete(settings["CELERY_QUEUE"])


@pytest.fixture(scope="module")
def tasks(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with running_worker(broker, tmp_path_factory.mktemp("celery") / "worker.log") as module:
        yield module


def test_a_result_comes_back(tasks: ModuleType) -> None:
    assert tasks.add.delay(20, 22).get(timeout=WITHIN_S) == 42


def test_a_failure_comes_back(tasks: ModuleType) -> None:
    result = tasks.fail.delay("because")
    with pytest.raises(ValueError, match="because"):
        result.get(timeout=WITHIN_S)
    assert result.state == "FAILURE"


def test_a_task_is_retried(tasks: ModuleType) -> None:
    assert tasks.third_time_lucky.delay().get(timeout=WITHIN_S) == 2


def test_tasks_wait_for_their_time(tasks: ModuleType) -> None:
    asked = time.time()
    waiting = [tasks.now.apply_async(countdown=1.5) for _ in range(12)]  # three times what the worker prefetches
    assert all(result.get(timeout=WITHIN_S) >= asked + 1.5 for result in waiting)


def test_more_waiting_tasks_than_the_prefetch_allows_do_not_stop_the_others(tasks: ModuleType) -> None:
    """Those that wait hold no place in the prefetch: the worker raises it while they do, and the broker follows."""
    # An hour, so that none of them makes room, however slow the machine is; the worker gives them back when it ends.
    for _ in range(12):
        tasks.now.apply_async(countdown=3600)
    at_once = [tasks.add.delay(number, 1) for number in range(10)]
    assert [result.get(timeout=WITHIN_S) for result in at_once] == list(range(1, 11))


def test_a_group_of_many(tasks: ModuleType) -> None:
    result = celery.group(tasks.add.s(number, number) for number in range(200))()
    assert result.get(timeout=2 * WITHIN_S) == [2 * number for number in range(200)]


def test_a_chain(tasks: ModuleType) -> None:
    assert celery.chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))().get(timeout=WITHIN_S) == 10


def test_a_task_survives_the_process_that_had_it(tasks: ModuleType) -> None:
    assert tasks.survive.delay().get(timeout=WITHIN_S) is True


def test_a_task_that_is_put_back_comes_again(tasks: ModuleType) -> None:
    assert tasks.hand_back.delay().get(timeout=WITHIN_S) is True


def test_workers_answer_remote_control(tasks: ModuleType) -> None:
    assert tasks.application.control.ping([tasks.WORKER], timeout=WITHIN_S, limit=1) == [{tasks.WORKER: {"ok": "pong"}}]
    inspect = tasks.application.control.inspect([tasks.WORKER], timeout=WITHIN_S, limit=1)
    assert f"{MODULE}.add" in inspect.registered()[tasks.WORKER]


def test_a_chord(broker: Broker, tmp_path: Path) -> None:
    """The rpc backend cannot do chords (its results have one reader); results in files can, with the broker carrying the unlocking."""
    (tmp_path / "results").mkdir()
    with running_worker(broker, tmp_path / "worker.log", backend=f"file://{tmp_path / 'results'}") as tasks:
        result = celery.chord((tasks.add.s(number, 1) for number in range(5)), tasks.total.s())()
        assert result.get(timeout=WITHIN_S) == sum(number + 1 for number in range(5))


def test_the_queues_that_celery_makes_for_itself_expire(broker: Broker, tmp_path: Path) -> None:
    """Celery's own settings, all of them."""
    with running_worker(broker, tmp_path / "worker.log", expiries=True) as tasks:
        assert tasks.add.delay(20, 22).get(timeout=WITHIN_S) == 42
        assert tasks.application.control.ping([tasks.WORKER], timeout=WITHIN_S, limit=1) == [{tasks.WORKER: {"ok": "pong"}}]
