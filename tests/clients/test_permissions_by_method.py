"""Which right on which resource each method needs: RabbitMQ's matrix, row by row, with its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pika
import pytest
from leveret.router.commands import CreateVhost
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ProbableAccessDeniedError

from tests.administration import administer, put_user
from tests.node import Node
from tests.refusal import channel_closed

Act = Callable[[BlockingChannel], object]
# Every resource of these tests; a right is taken away by a pattern that matches all of them but one.
RESOURCES = ["q", "q-new", "q-dlx", "x", "x-new", "y", "ae", "amq.default"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node with the queue q, the exchanges x, y and ae, and the user `u`."""
    from tests.conftest import PEER

    if PEER is not None:
        pytest.skip("not on the peer: makes users")
    node = Node(tmp_path_factory.mktemp("node") / "data", workers=2).start()
    with node.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        for exchange in ("x", "y", "ae"):
            channel.exchange_declare(exchange, "direct")
    yield node
    node.stop()


def as_user(node: Node, configure: str, write: str, read: str) -> pika.BlockingConnection:
    """A connection of the user `u`, who has these rights."""
    put_user(node, "u", "secret", rights=(configure, write, read))
    return node.connect(credentials=pika.PlainCredentials("u", "secret"))


def publish(exchange: str) -> Act:
    def act(channel: BlockingChannel) -> None:
        channel.basic_publish(exchange, "q", b"")
        channel.basic_qos()  # an answer, or the refusal

    return act


METHODS: dict[str, tuple[Act, list[tuple[str, str, str]]]] = {
    "exchange.declare": (lambda channel: channel.exchange_declare("x-new", "direct"), [("configure", "exchange", "x-new")]),
    "exchange.declare with an alternate": (
        lambda channel: channel.exchange_declare("x-new", "direct", arguments={"alternate-exchange": "ae"}),
        [("configure", "exchange", "x-new"), ("write", "exchange", "ae"), ("read", "exchange", "x-new")],
    ),
    "exchange.delete": (lambda channel: channel.exchange_delete("x-new"), [("configure", "exchange", "x-new")]),
    "queue.declare": (lambda channel: channel.queue_declare("q-new", durable=True), [("configure", "queue", "q-new")]),
    "queue.declare with dead letters": (
        lambda channel: channel.queue_declare("q-dlx", arguments={"x-dead-letter-exchange": "x"}),
        [("configure", "queue", "q-dlx"), ("read", "queue", "q-dlx"), ("write", "exchange", "x")],
    ),
    "queue.delete": (lambda channel: channel.queue_delete("q-new"), [("configure", "queue", "q-new")]),
    "queue.bind": (lambda channel: channel.queue_bind("q", "x", "k"), [("write", "queue", "q"), ("read", "exchange", "x")]),
    "queue.unbind": (lambda channel: channel.queue_unbind("q", "x", "k"), [("write", "queue", "q"), ("read", "exchange", "x")]),
    "exchange.bind": (lambda channel: channel.exchange_bind("y", "x", "k"), [("write", "exchange", "y"), ("read", "exchange", "x")]),
    "exchange.unbind": (lambda channel: channel.exchange_unbind("y", "x", "k"), [("write", "exchange", "y"), ("read", "exchange", "x")]),
    "basic.publish": (publish("x"), [("write", "exchange", "x")]),
    "basic.publish to the default exchange": (publish(""), [("write", "exchange", "amq.default")]),
    "basic.get": (lambda channel: channel.basic_get("q", auto_ack=True), [("read", "queue", "q")]),
    "basic.consume": (lambda channel: channel.basic_consume("q", lambda *_: None), [("read", "queue", "q")]),
    "queue.purge": (lambda channel: channel.queue_purge("q"), [("read", "queue", "q")]),
}
RIGHTS = ("configure", "write", "read")


def all_but(name: str) -> str:
    """A pattern that every resource but this one matches."""
    return "^(" + "|".join(resource.replace(".", "\\.") for resource in RESOURCES if resource != name) + ")$"


def forget_new(node: Node) -> None:
    """An exchange's alternate, and a queue's dead letter exchange, are looked at when they are new."""
    with node.connect() as connection:
        connection.channel().queue_delete("q-dlx")
        connection.channel().exchange_delete("x-new")


@pytest.mark.parametrize("method", METHODS)
def test_the_rights_of_the_matrix_are_enough(node: Node, method: str) -> None:
    act, needed = METHODS[method]
    forget_new(node)
    patterns = {right: "^(" + "|".join(name for of, _, name in needed if of == right) + ")$" for right in RIGHTS}
    with as_user(node, *(patterns[right] if patterns[right] != "^()$" else "" for right in RIGHTS)) as connection:
        act(connection.channel())


@pytest.mark.parametrize(
    ("method", "right", "kind", "name"),
    [(method, *needed) for method, (_, every) in METHODS.items() for needed in every],
    ids=[f"{method}, {right} {name}" for method, (_, every) in METHODS.items() for right, _, name in every],
)
def test_each_right_of_the_matrix_is_needed(node: Node, method: str, right: str, kind: str, name: str) -> None:
    forget_new(node)
    patterns = [all_but(name) if each == right else ".*" for each in RIGHTS]
    with as_user(node, *patterns) as connection:
        text = f"ACCESS_REFUSED - {right} access to {kind} '{name}' in vhost '/' refused for user 'u'"
        with channel_closed(403, text):
            METHODS[method][0](connection.channel())


@pytest.mark.parametrize("right", [*RIGHTS, None])
@pytest.mark.parametrize("kind", ["queue", "exchange"])
def test_a_passive_declare_needs_any_one_of_the_three(node: Node, kind: str, right: str | None) -> None:
    name = "q" if kind == "queue" else "x"
    with as_user(node, *(f"^{name}$" if each == right else "" for each in RIGHTS)) as connection:
        channel = connection.channel()
        declare = channel.queue_declare if kind == "queue" else channel.exchange_declare
        if right is not None:
            declare(name, passive=True)
        else:
            with channel_closed(403, f"ACCESS_REFUSED - configure access to {kind} '{name}' in vhost '/' refused for user 'u'"):
                declare(name, passive=True)


def test_a_channels_own_methods_need_no_right_at_all(node: Node) -> None:
    with as_user(node, "", "", "") as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        channel.basic_recover(requeue=True)
        channel.basic_cancel("unknown")
        channel.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True)
        channel.flow(active=True)
        channel.confirm_delivery()
        transactional = connection.channel()
        transactional.tx_select()
        transactional.tx_commit()
        transactional.tx_rollback()


def test_rights_that_are_taken_away_are_gone_for_the_next_publish(node: Node) -> None:
    with as_user(node, ".*", ".*", ".*") as connection:
        channel = connection.channel()
        publish("x")(channel)
        put_user(node, "u", "secret", rights=(".*", "", ".*"))
        with channel_closed(403, "ACCESS_REFUSED - write access to exchange 'x' in vhost '/' refused for user 'u'"):
            publish("x")(channel)


def test_without_permissions_in_a_vhost_it_cannot_be_opened(node: Node) -> None:
    administer(node, CreateVhost("other"))
    as_user(node, ".*", ".*", ".*").close()
    with pytest.raises(ProbableAccessDeniedError, match=r"\(530\) \"NOT_ALLOWED - access to vhost 'other' refused for user 'u'\""):
        node.connect(credentials=pika.PlainCredentials("u", "secret"), virtual_host="other")
