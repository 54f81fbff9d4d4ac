"""The Celery application that test_celery.py runs: its workers import this module, and so does the test that sends the tasks.

The broker is named by `AMQP_URL`, the result backend by `CELERY_BACKEND`, its queue by `CELERY_QUEUE`, its worker by `CELERY_WORKER`. With
`CELERY_EXPIRIES=off` the queues that Celery makes for itself do not expire.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

WORKER = os.environ.get("CELERY_WORKER", "")  # the name of the worker that serves CELERY_QUEUE
application = Celery("application", broker=os.environ.get("AMQP_URL", "amqp://"), backend=os.environ.get("CELERY_BACKEND", "rpc://"))
application.conf.update(
    task_default_queue=os.environ.get("CELERY_QUEUE", "celery"),
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    worker_prefetch_multiplier=2,
    worker_hijack_root_logger=False,
)
if os.environ.get("CELERY_EXPIRIES") == "off":
    application.conf.update(
        result_expires=None, control_queue_ttl=None, control_queue_expires=None, event_queue_ttl=None, event_queue_expires=None
    )

# Not for other applications in the same process: the test imports this module once for each worker that it starts.
task = functools.partial(application.task, shared=False)


@task()
def add(x: int, y: int) -> int:
    """x + y"""
    return x + y


@task()
def total(numbers: list[int]) -> int:
    """The sum: the body of a chord."""
    return sum(numbers)


@task()
def fail(text: str) -> None:
    """Fails with this text."""
    raise ValueError(text)


@task(bind=True, max_retries=5)
def third_time_lucky(self: Task) -> int:
    """Fails twice and is retried; gives the number of retries."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return int(self.request.retries)


@task()
def now() -> float:
    """The time at which it ran, in seconds of the epoch."""
    return time.time()


@task(bind=True, acks_late=True, reject_on_worker_lost=True)
def survive(self: Task) -> bool:
    """Ends its process at the first attempt; gives whether the second was marked as redelivered."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return bool(self.request.delivery_info["redelivered"])


@task(bind=True, acks_late=True)
def hand_back(self: Task) -> Any:
    """Puts its message back into the queue once."""
    if not self.request.delivery_info["redelivered"]:
        raise Reject("once more", requeue=True)
    return self.request.delivery_info["redelivered"]
