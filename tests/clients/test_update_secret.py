"""connection.update-secret: a client shows a new secret of the same user on its open connection."""

from __future__ import annotations

import pytest
from leveret.router.commands import ClearPermissions, DeleteUser

from tests.administration import administer, put_user
from tests.conftest import MakeNode
from tests.node import Broker, Node
from tests.refusal import connection_closed
from tests.wire import WireClient

REFUSED = "NOT_ALLOWED - New secret was refused by one of the backends"


@pytest.fixture
def node(fresh_node: MakeNode) -> Node:
    """A node with the user `app`, password `old`."""
    node = fresh_node(workers=2)
    put_user(node, "app", "old")
    node.user, node.password = "app", "old"
    return node


@pytest.mark.not_on_peer("RabbitMQ's internal users know no update of a secret")
def test_the_right_secret_is_taken_and_everything_goes_on(broker: Broker) -> None:
    with broker.connect() as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        connection.update_secret(broker.password, "as every hour")
        channel.basic_publish("", queue, b"still here")
        assert channel.basic_get(queue, auto_ack=True)[2] == b"still here"


@pytest.mark.not_on_peer("RabbitMQ's internal users know no update of a secret")
@pytest.mark.parametrize("secret", ["wrong", "", "guest\0"])
def test_a_wrong_secret_closes_the_connection(broker: Broker, secret: str) -> None:
    connection = broker.connect()
    with connection_closed(530, REFUSED):
        connection.update_secret(secret, "")


def test_after_a_change_of_password_the_new_one_counts(node: Node) -> None:
    connection, other = node.connect(), node.connect()
    put_user(node, "app", "new")
    connection.update_secret("new", "rotation")
    assert connection.channel().queue_declare("", exclusive=True).method.queue
    with connection_closed(530, REFUSED):
        other.update_secret("old", "rotation")
    connection.close()


def test_a_deleted_user_has_no_secret_any_more(node: Node) -> None:
    connection = node.connect()
    administer(node, DeleteUser("app"))
    with connection_closed(530, REFUSED):
        connection.update_secret("old", "")


def test_a_user_who_may_no_longer_use_the_vhost_is_told_so(node: Node) -> None:
    connection = node.connect()
    administer(node, ClearPermissions("app", "/"))
    with connection_closed(530, "NOT_ALLOWED - access to vhost '/' refused for user 'app'"):
        connection.update_secret("old", "")


def test_before_the_connection_is_open_it_is_out_of_turn(broker: Broker) -> None:
    with WireClient(broker) as client:
        client.start()
        client.send(b"\x01\0\0\0\0\0\x0a\0\x0a\0\x46\0\0\0\0\0\xce")
        client.expect_end()
