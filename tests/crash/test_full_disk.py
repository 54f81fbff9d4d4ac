"""A disk that fills up: publishers are held back or told no, consumers drain, it recovers by itself, and nothing confirmed is lost.

The data directory is a small tmpfs, which takes the right to mount: without it the tests are skipped, in CI they fail.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.checker import check
from tests.crash.consumer import Consumer, drain
from tests.crash.environments import verify_environments
from tests.crash.ledger import Blocked, HarmBegan, HarmEnded, Ledger, Nacked, Stopped, now_s
from tests.crash.publisher import Publisher, Route
from tests.node import Node

DISK_BYTES = 48 << 20
BODY_BYTES = 40_000
QUEUE = "full"
FULL_WITHIN_S = 60.0
BACK_WITHIN_S = 90.0  # less than a publisher waits for connection.unblocked


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with DISK_BYTES of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        message = f"cannot mount a small tmpfs: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def node(small_disk: Path) -> Iterator[Node]:
    """A node on the small disk; not started."""
    made = Node(small_disk, workers=2)
    yield made
    made.kill()


def declare(node: Node) -> None:
    with node.connect() as connection:
        connection.channel().queue_declare(QUEUE, durable=True)


def publisher(node: Node, ledger: Ledger, rate: float = 600) -> Publisher:
    """Fills the disk in about two seconds."""
    return Publisher("p", node, ledger, [Route("", QUEUE, (QUEUE,))], random.Random(1), rate=rate, window=16, sizes=lambda _: BODY_BYTES)


def alarms(ledger: Ledger) -> list[bool]:
    """Each connection.blocked (True) and connection.unblocked (False)."""
    return [event.blocked for event in ledger.events if isinstance(event, Blocked)]


def settle(node: Node, ledger: Ledger, consumer: Consumer) -> None:
    """Consume everything, stop and start, and hold the ledger against what is there."""
    ledger.wait(consumer.idle.is_set, BACK_WITHIN_S, "the queue is empty")
    consumer.finish()
    ledger.write(HarmBegan(now_s(), "a stop", dirty=True))
    node.stop()
    ledger.write(Stopped(now_s()))
    verify_environments(node.data_dir)
    node.start()
    ledger.write(HarmEnded(now_s(), "a stop"))
    drain(node, ledger, QUEUE)
    assert [str(finding) for finding in check(ledger.events)] == []


@pytest.mark.timeout(360)
def test_publishers_are_held_back_before_the_disk_is_full_and_go_on_when_consumers_have_made_room(node: Node) -> None:
    node.config["disk_free_limit_bytes"] = 16 << 20
    node.start()
    declare(node)
    ledger = Ledger()
    publishing = publisher(node, ledger, rate=100)  # 4 MB a second: the disk is looked at once a second
    publishing.start()
    ledger.wait(lambda: publishing.blocked, FULL_WITHIN_S, "connection.blocked")
    assert shutil.disk_usage(node.data_dir).free > 4 << 20, "blocked long before the disk is full"
    confirmed = ledger.confirmed
    # Nothing is refused: what was under way when the alarm came is confirmed or waits unread.
    consumer = Consumer(node, ledger, QUEUE, random.Random(2), prefetch=20)
    consumer.start()
    ledger.wait(lambda: alarms(ledger)[:2] == [True, False], BACK_WITHIN_S, "connection.unblocked")
    ledger.wait(lambda: ledger.confirmed > confirmed + 100, BACK_WITHIN_S, "confirms after the alarm")
    publishing.finish()
    settle(node, ledger, consumer)


@pytest.mark.timeout(360)
def test_a_full_disk_refuses_publishes_keeps_what_it_confirmed_and_recovers_by_itself(node: Node) -> None:
    node.config["disk_free_limit_bytes"] = 0  # no alarm: the disk really fills up
    node.start()
    declare(node)
    pids = node.workers()
    ledger = Ledger()
    ledger.write(HarmBegan(now_s(), "a full disk", dirty=False))
    publishing = publisher(node, ledger)
    publishing.start()

    def refused() -> int:
        return sum(isinstance(event, Nacked) for event in ledger.events)

    ledger.wait(lambda: refused() > 10 or publishing.blocked, FULL_WITHIN_S, "nacks, or connection.blocked")
    assert ledger.confirmed > 100, "most of the disk was used before"
    consumer = Consumer(node, ledger, QUEUE, random.Random(2), prefetch=20)
    consumer.start()
    confirmed = ledger.confirmed
    ledger.wait(lambda: ledger.confirmed > confirmed + 100, BACK_WITHIN_S, "confirms after the disk was full")
    publishing.finish()
    ledger.wait(consumer.idle.is_set, BACK_WITHIN_S, "the queue is empty")
    ledger.write(HarmEnded(now_s(), "a full disk"))
    assert node.workers() == pids, "a full disk is no reason to end"
    settle(node, ledger, consumer)


@pytest.mark.timeout(360)
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_node_whose_disk_is_full_starts_and_can_be_drained(node: Node, how: str) -> None:
    node.config["disk_free_limit_bytes"] = 0
    node.start()
    declare(node)
    ledger = Ledger()
    ledger.write(HarmBegan(now_s(), "a full disk", dirty=True))
    publishing = publisher(node, ledger)
    publishing.start()
    ledger.wait(lambda: any(isinstance(event, Nacked) for event in ledger.events) or publishing.blocked, FULL_WITHIN_S, "a full disk")
    publishing.abandon()
    ballast = node.data_dir / "ballast"
    fill(ballast)
    if how == "stopped":
        node.stop()
    else:
        node.kill()
    verify_environments(node.data_dir)
    # What a start itself writes (a file of some lines) has to have room; messages have none.
    os.truncate(ballast, max(0, ballast.stat().st_size - (256 << 10)))
    node.start()
    publishing.finish()
    consumer = Consumer(node, ledger, QUEUE, random.Random(2), prefetch=20)
    consumer.start()
    ledger.wait(consumer.idle.is_set, BACK_WITHIN_S, "the queue is empty")
    ballast.unlink()
    ledger.write(HarmEnded(now_s(), "a full disk"))
    settle(node, ledger, consumer)


def fill(path: Path) -> None:
    """Write zeros until there is no room left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
