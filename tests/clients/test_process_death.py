"""A process of the node dies: whose clients notice, what goes on meanwhile, and what is there when it is back."""

from __future__ import annotations

import os
import signal
import threading

import httpx
import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, NackError, UnroutableError

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Node
from tests.placement import connect_on


@pytest.fixture
def node(fresh_node: MakeNode) -> Node:
    """A node of two workers."""
    return fresh_node(workers=2)


def is_back(node: Node, name: str, old_pid: int) -> bool:
    """Whether the process runs again under another pid and answers."""
    for process in node.api("nodes")[0]["processes"]:
        if process["name"] == name:
            return process["pid"] not in (None, old_pid) and bool(process["running"])
    return False


def wait_back(node: Node, name: str, old_pid: int) -> None:
    assert eventually(lambda: is_back(node, name, old_pid), what=f"{name} is back")


def publish_until_confirmed(channel: pika.adapters.blocking_connection.BlockingChannel, exchange: str, key: str, body: bytes) -> None:
    """Publish again while the broker says nack or returns it; the connection and the channel must stay."""

    def confirmed() -> bool:
        try:
            channel.basic_publish(exchange, key, body, mandatory=True)
        except (NackError, UnroutableError):
            return False
        return True

    assert eventually(confirmed, what="a confirm")


# --- a worker


def test_the_other_workers_clients_do_not_notice_a_workers_death(node: Node) -> None:
    spared, lost = connect_on(node, 0), connect_on(node, 1)
    channel = spared.channel()
    channel.confirm_delivery()
    channel.queue_declare("here", durable=True)
    inbox = Inbox(channel, "here", auto_ack=True)
    pid = node.kill_process("worker-1")
    # While worker 1 is down and coming back: a steady exchange, default and named.
    channel.queue_bind("here", "amq.topic", "x.#")
    rounds = 0
    while rounds < 20 or not is_back(node, "worker-1", pid):
        channel.basic_publish("", "here", b"direct", mandatory=True)
        channel.basic_publish("amq.topic", "x.y", b"routed", mandatory=True)
        assert inbox.bodies(2) == [b"direct", b"routed"]
        rounds += 1
        assert rounds < 20_000, "worker 1 does not come back"
    with pytest.raises(AMQPConnectionError):
        lost.process_data_events(time_limit=30)
        lost.channel()
    assert spared.is_open
    spared.close()


def test_a_dead_workers_durable_queues_come_back_and_serve(node: Node) -> None:
    home, away = connect_on(node, 1), connect_on(node, 0)
    declaring = home.channel()
    declaring.queue_declare("durable", durable=True)
    declaring.queue_bind("durable", "amq.direct", "k")
    exclusive = declaring.queue_declare("", exclusive=True).method.queue
    pid = node.kill_process("worker-1")
    channel = away.channel()
    channel.confirm_delivery()
    publish_until_confirmed(channel, "", "durable", b"straight")
    publish_until_confirmed(channel, "amq.direct", "k", b"routed")
    inbox = Inbox(channel, "durable", auto_ack=True)
    assert inbox.bodies(2) == [b"straight", b"routed"]
    wait_back(node, "worker-1", pid)

    def exclusive_is_gone() -> bool:
        try:
            away.channel().queue_declare(exclusive, passive=True)
        except ChannelClosedByBroker as closed:
            return bool(closed.reply_code == 404)
        return False

    assert eventually(exclusive_is_gone, what="the exclusive queue of the lost connection is gone")
    on_new_worker = connect_on(node, 1)
    assert on_new_worker.channel().queue_declare("durable", passive=True).method.consumer_count == 1
    on_new_worker.close()
    away.close()


def test_a_consumer_whose_queues_worker_dies_goes_on_or_is_told(node: Node) -> None:
    with connect_on(node, 1) as home:
        home.channel().queue_declare("there", durable=True)
    away = connect_on(node, 0)
    channel, publishing = away.channel(), away.channel()
    publishing.confirm_delivery()
    publishing.basic_publish("", "there", b"before", mandatory=True)
    inbox = Inbox(channel, "there")
    held = inbox.take_one()
    pid = node.kill_process("worker-1")
    publish_until_confirmed(publishing, "", "there", b"after")

    def cancelled_or_served() -> bool:
        away.process_data_events(time_limit=0.2)
        return inbox.cancelled or bool(inbox.waiting)

    assert eventually(cancelled_or_served, what="a delivery or basic.cancel")
    if inbox.cancelled:
        inbox = Inbox(channel, "there")
    delivery = inbox.take_one()
    assert delivery.body == b"after"
    channel.basic_ack(held.tag)  # of the queue that died: too late to matter, and no reason to close the channel
    channel.basic_ack(delivery.tag)
    wait_back(node, "worker-1", pid)
    assert channel.queue_declare("there", passive=True).method.consumer_count == 1
    away.close()


def test_who_subscribes_while_the_queues_worker_is_down_is_served_when_it_is_back(node: Node) -> None:
    with connect_on(node, 1) as home:
        home.channel().queue_declare("there", durable=True)
    away, beside = connect_on(node, 0), connect_on(node, 0)
    channel, publishing = away.channel(), beside.channel()
    publishing.confirm_delivery()
    assert node.process is not None
    supervisor, pid = node.process.pid, node.workers()[1]
    os.kill(supervisor, signal.SIGSTOP)  # the worker stays down for as long as we like
    try:
        os.kill(pid, signal.SIGKILL)

        def is_missed() -> bool:
            try:
                publishing.basic_publish("", "there", b"x", mandatory=True)
            except NackError:
                return True
            return False

        assert eventually(is_missed, what="worker 0 knows that worker 1 is down")
        started = threading.Event()
        inbox: list[Inbox] = []

        def subscribe() -> None:
            started.set()
            inbox.append(Inbox(channel, "there", auto_ack=True))

        thread = threading.Thread(target=subscribe, daemon=True)
        thread.start()
        assert started.wait(30)
        for _ in range(50):  # by then the worker has long read the consume
            publishing.queue_declare("", exclusive=True)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_back(node, "worker-1", pid)
    thread.join(30)
    publish_until_confirmed(publishing, "", "there", b"at last")
    assert inbox[0].bodies(1) == [b"at last"]
    away.close()
    beside.close()


def test_a_worker_may_die_again_and_again(node: Node) -> None:
    with connect_on(node, 0) as spared:
        channel = spared.channel()
        for _ in range(3):
            pid = node.kill_process("worker-1")
            wait_back(node, "worker-1", pid)
            with connect_on(node, 1) as connection:
                queue = connection.channel().queue_declare("", exclusive=True).method.queue
                channel.basic_publish("", queue, b"hello")
                channel.queue_declare("", exclusive=True)  # the publish has gone out before this is answered
                assert Inbox(connection.channel(), queue, auto_ack=True).bodies(1) == [b"hello"]


# --- the router


def test_the_routers_death_loses_no_connection_and_publishes_resume(node: Node) -> None:
    connections = [connect_on(node, worker) for worker in (0, 1)]
    channels = [connection.channel() for connection in connections]
    channels[0].exchange_declare("transient-x", "topic")
    queues = []
    for channel in channels:
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "transient-x", f"{queue}.#")
        queues.append(queue)
    inboxes = [Inbox(channel, queue, auto_ack=True) for channel, queue in zip(channels, queues, strict=True)]
    pid = node.kill_process("router")
    for channel, other in zip(channels, queues[::-1], strict=True):
        channel.basic_publish("", other, b"needs no router", mandatory=True)
        publish_until_confirmed(channel, "transient-x", f"{other}.a", b"routed again")
    for inbox in inboxes:
        assert inbox.bodies(2) == [b"needs no router", b"routed again"]
    wait_back(node, "router", pid)
    for channel in channels:
        new = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(new, "transient-x", "new")
    publish_until_confirmed(channels[0], "transient-x", "new", b"to both")
    for connection in connections:
        assert connection.is_open
        connection.close()


def test_durable_objects_outlive_the_router(node: Node) -> None:
    with node.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.exchange_declare("x", "topic", durable=True)
        channel.queue_bind("q", "x", "*.b")
        channel.confirm_delivery()
        channel.basic_publish("x", "a.b", b"before", mandatory=True)
        pid = node.kill_process("router")
        wait_back(node, "router", pid)
        publish_until_confirmed(channel, "x", "a.b", b"after")
        assert Inbox(channel, "q", auto_ack=True).bodies(2) == [b"before", b"after"], "the queue's messages stay with its worker"


def test_declares_made_while_the_router_is_down_are_answered_when_it_is_back(node: Node) -> None:
    with node.connect() as connection:
        channel = connection.channel()
        pid = node.kill_process("router")
        assert channel.queue_declare("q", durable=True).method.queue == "q"
        wait_back(node, "router", pid)
        with connect_on(node, 0) as first, connect_on(node, 1) as second:
            for other in (first, second):
                other.channel().queue_declare("q", passive=True)


# --- management and the supervisor


def test_the_management_process_comes_back_and_clients_do_not_notice(node: Node) -> None:
    with node.connect() as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        old = node.kill_process("management")

        def answers_again() -> bool:
            try:
                return node.processes()["management"] != old
            except (httpx.HTTPError, AssertionError, KeyError):
                return False

        channel.basic_publish("", queue, b"x")
        assert Inbox(channel, queue, auto_ack=True).bodies(1) == [b"x"]
        assert eventually(answers_again, what="the management API")


def test_no_process_outlives_a_killed_supervisor(node: Node) -> None:
    pids = node.processes()
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    node.process = None

    def gone() -> bool:
        return not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())

    assert eventually(gone, what="all processes are gone")
    node.start()


def test_a_queue_that_is_deleted_while_a_method_is_on_its_way_to_it_is_missing_by_its_name(node: Node) -> None:
    """One worker is stopped, so that it hears of the deletion only after it has asked the queue's worker."""
    with connect_on(node, 0) as asking, connect_on(node, 1) as deleting, connect_on(node, 1) as looking:
        deleter, looker, asker = deleting.channel(), looking.channel(), asking.channel()
        deleter.queue_declare("q")
        refused: list[pika.exceptions.AMQPError] = []
        asker._impl.add_on_close_callback(lambda _channel, reason: refused.append(reason))
        os.kill(node.workers()[0], signal.SIGSTOP)
        try:
            asker._impl.queue_declare("q", passive=True, callback=lambda _answer: None)
            asking.process_data_events(0)  # it is in the socket now
            deleter._impl.queue_delete("q")
            deleting.process_data_events(0)
            with pytest.raises(ChannelClosedByBroker):
                eventually(lambda: looker.queue_declare("q", passive=True) is None)
        finally:
            os.kill(node.workers()[0], signal.SIGCONT)
        eventually(lambda: asking.process_data_events(0.05) or refused)
    assert (refused[0].reply_code, refused[0].reply_text) == (404, "NOT_FOUND - no queue 'q' in vhost '/'")
