"""SASL mechanisms: which are offered, whom ANONYMOUS becomes, and what a mechanism that is not offered gets."""

from __future__ import annotations

import pytest
from pika.spec import Connection, Queue

from tests.administration import put_user
from tests.conftest import MakeNode
from tests.node import Broker, Node
from tests.wire import PROTOCOL_HEADER, WireClient

REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the broker logfile."


def offered(broker: Broker) -> list[str]:
    with WireClient(broker) as client:
        client.send(PROTOCOL_HEADER)
        return bytes(client.expect(Connection.Start).mechanisms).decode().split(" ")


def log_in(client: WireClient, mechanism: str, response: bytes = b"") -> None:
    """The whole handshake by that mechanism, up to open-ok."""
    client.start(response, mechanism)
    client.tune()
    client.send_method(0, Connection.Open(virtual_host="/"))
    client.expect(Connection.OpenOk)


@pytest.fixture
def open_node(fresh_node: MakeNode) -> Node:
    """A node that takes anybody, as the user `visitor`, who may only use names that begin with `public`."""
    node = fresh_node(workers=2, anonymous_login_user="visitor")
    put_user(node, "visitor", "unguessable", rights=("^public", "^(public|amq\\.default$)", "^public"))
    return node


@pytest.mark.not_on_peer("RabbitMQ offers ANONYMOUS by default since 4.0, and logs in as guest")
def test_anonymous_is_off_unless_a_user_is_named(broker: Broker) -> None:
    assert offered(broker) == ["PLAIN", "AMQPLAIN"]


def test_an_anonymous_client_is_the_named_user_with_its_rights(open_node: Node) -> None:
    assert offered(open_node) == ["PLAIN", "AMQPLAIN", "ANONYMOUS"]
    for response in (b"", b"whoever@example.org"):
        with WireClient(open_node) as client:
            log_in(client, "ANONYMOUS", response)
            client.open_channel()
            client.send_method(1, Queue.Declare(queue="public.q"))
            client.expect(Queue.DeclareOk)
            client.send_method(1, Queue.Declare(queue="private"))
            text = "ACCESS_REFUSED - configure access to queue 'private' in vhost '/' refused for user 'visitor'"
            client.expect_channel_close(1, 403, text, 50, 10)


def test_passwords_go_on_being_asked_of_everybody_else(open_node: Node) -> None:
    with WireClient(open_node) as client:
        log_in(client, "PLAIN", b"\0guest\0guest")
    with WireClient(open_node) as client:
        client.start(b"\0visitor\0", "PLAIN")
        client.expect_connection_close(403, REFUSED.format("PLAIN"))


def test_anonymous_is_refused_when_its_user_does_not_exist(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=1, anonymous_login_user="nobody")
    with WireClient(node) as client:
        client.start(b"", "ANONYMOUS")
        client.expect_connection_close(403, REFUSED.format("ANONYMOUS"))


@pytest.mark.parametrize("mechanism", ["ANONYMOUS", "EXTERNAL", "plain", "", "SCRAM-SHA-256"])
@pytest.mark.not_on_peer("RabbitMQ may offer ANONYMOUS; the others are checked in test_wire_handshake.py")
def test_a_mechanism_that_is_not_offered_ends_in_silence(broker: Broker, mechanism: str) -> None:
    with WireClient(broker) as client:
        client.start(b"\0guest\0guest", mechanism)
        assert client.expect_end() == b""
