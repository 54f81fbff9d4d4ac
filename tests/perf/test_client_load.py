"""Loads by other people's clients against a started node: each does its work, is counted, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pika
import pytest

from bench import celery_load, client_load, pika_load
from bench.figures import Figure
from bench.leveret_node import LeveretNode
from bench.load import Timing
from bench.node import Node

LOADS: dict[str, Callable[[Node, Timing], Figure]] = {
    "pika publish": partial(client_load.publishing, "pika_load"),
    "pika consume": partial(client_load.consuming, "pika_load"),
    "pika confirm": pika_load.confirming(0.5),
    "aio-pika publish": partial(client_load.publishing, "aio_pika_load"),
    "aio-pika consume": partial(client_load.consuming, "aio_pika_load"),
    "celery": celery_load.working,
}


@pytest.fixture(scope="module")
def node() -> Iterator[LeveretNode]:
    with LeveretNode(2) as started:
        yield started.settle()


@pytest.mark.parametrize("load", LOADS)
def test_a_load_is_counted_and_leaves_no_queue(node: LeveretNode, load: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(client_load.PROCESSES, "3")
    figure = LOADS[load](node, Timing(seconds=1.0, warmup_s=0.1))
    assert figure.faults == ()
    assert figure.value > 0
    assert (figure.memory_bytes or 0) > 1e6
    if "publish" in load or "consume" in load:
        assert figure.details["processes"] == 3
    queue = celery_load.QUEUE if load == "celery" else client_load.QUEUE
    with pika.BlockingConnection(pika.URLParameters(node.uri + "%2F")) as connection, pytest.raises(pika.exceptions.ChannelClosedByBroker):
        connection.channel().queue_declare(queue, passive=True)


def test_a_client_that_fails_is_a_fault_and_no_figure(node: LeveretNode) -> None:
    figure = client_load.measured(node, Timing(seconds=0.1, warmup_s=0.0), "pika_load", "no such work", "no such queue", 1)
    assert (figure.value, figure.cpu_us) == (0.0, None)
    assert figure.faults == ("a process of bench.pika_load failed",)
