"""Routes that go round, blow up or are not the sender's (rows 11 and 13)."""

from __future__ import annotations

import itertools
import random

import pytest
from pika import BasicProperties
from pika.spec import Basic, Channel, Confirm, Exchange, Queue

from tests.hostile.bystander import cpu_s, serving
from tests.node import Node
from tests.stopwatch import Stopwatch
from tests.wire import FRAME_HEADER, WireClient, frame_bytes, method_bytes, publish_bytes

REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.fixture
def client(small_victim: Node) -> WireClient:
    return WireClient.opened(small_victim).open_channel()


def answers(client: WireClient, method_type: type, count: int) -> None:
    for _ in range(count):
        client.expect(method_type)


def declare_exchanges(client: WireClient, names: list[str], **options: object) -> None:
    client.send(b"".join(method_bytes(1, Exchange.Declare(exchange=name, type="fanout", **options)) for name in names))
    answers(client, Exchange.DeclareOk, len(names))


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_row_13_a_message_goes_round_a_ring_of_exchanges_once(small_victim: Node, client: WireClient, size: int) -> None:
    """Row 13: rings of 1, 2 and 1,000; each queue on it gets the message once, and confirms come."""
    names = [f"ring-{number}" for number in range(size)]
    declare_exchanges(client, names)
    for source, destination in zip(names, names[1:] + names[:1], strict=True):
        client.send_method(1, Exchange.Bind(destination=destination, source=source, routing_key="k"))
    answers(client, Exchange.BindOk, size)
    queues = ["first", "last"]
    for queue, exchange in zip(queues, (names[0], names[-1]), strict=True):
        client.send_method(1, Queue.Declare(queue=queue, exclusive=True))
        client.expect(Queue.DeclareOk)
        client.send_method(1, Queue.Bind(queue=queue, exchange=exchange))
        client.expect(Queue.BindOk)
    client.send_method(1, Confirm.Select())
    client.expect(Confirm.SelectOk)
    used_s, watch = cpu_s(small_victim), Stopwatch(serving(small_victim))
    client.send(publish_bytes(1, names[size // 2], "k", b"round"))
    client.expect(Basic.Ack)
    took_s = watch.read_s
    assert min(took_s, cpu_s(small_victim) - used_s) < 0.1
    for queue in queues:
        client.send_method(1, Queue.Declare(queue=queue, passive=True))
        assert client.expect(Queue.DeclareOk).message_count == 1


@pytest.mark.parametrize("size", [1, 2, 200])
def test_row_13_a_ring_of_alternate_exchanges_ends_as_unroutable(client: WireClient, size: int) -> None:
    """Row 13: nobody on the ring has a binding: the message comes back, once."""
    names = [f"alternate-{number}" for number in range(size)]
    for name, alternate in zip(names, names[1:] + names[:1], strict=True):
        client.send_method(1, Exchange.Declare(exchange=name, type="fanout", arguments={"alternate-exchange": alternate}))
    answers(client, Exchange.DeclareOk, size)
    client.send(publish_bytes(1, names[0], "k", b"", mandatory=True))
    assert client.expect(Basic.Return).reply_code == 312
    client.receive()
    client.send_method(1, Channel.Close(200, "", 0, 0))
    client.expect(Channel.CloseOk)


def test_row_13_a_chain_of_two_thousand_auto_delete_exchanges_falls_as_one(client: WireClient) -> None:
    """Row 13: deleting the last takes its binding, with it the exchange before, and so on to the first."""
    names = [f"chain-{number}" for number in range(2000)]
    declare_exchanges(client, names, auto_delete=True)
    for source, destination in itertools.pairwise(names):
        client.send_method(1, Exchange.Bind(destination=destination, source=source))
    answers(client, Exchange.BindOk, len(names) - 1)
    client.send_method(1, Exchange.Delete(exchange=names[-1]))
    client.expect(Exchange.DeleteOk)
    client.send_method(1, Exchange.Declare(exchange=names[0], passive=True))
    client.expect_channel_close(1, 404, f"NOT_FOUND - no exchange '{names[0]}' in vhost '/'", 40, 10)


def test_row_11_patterns_of_many_hashes_do_not_blow_up(small_victim: Node, client: WireClient) -> None:
    """Row 11: 1,000 bindings such as `#.a.#.b.#.c.#`, and keys of 127 words: each is routed in milliseconds."""
    chance = random.Random(11)
    client.send_method(1, Queue.Declare(queue="q", exclusive=True))
    client.expect(Queue.DeclareOk)
    patterns = {"#.#.#.#.#.#.#.#.z"}
    while len(patterns) < 1000:
        words = [chance.choice("ab") for _ in range(chance.randint(3, 12))]
        patterns.add("#." + ".".join(word + chance.choice((".#", ".*", "")) for word in words) + ".#.z")
    for pattern in patterns:
        client.send_method(1, Queue.Bind(queue="q", exchange="amq.topic", routing_key=pattern))
    answers(client, Queue.BindOk, len(patterns))
    client.send_method(1, Confirm.Select())
    client.expect(Confirm.SelectOk)
    took_s = []
    watch = Stopwatch(serving(small_victim))
    used_s = cpu_s(small_victim)
    for _ in range(10):
        key = ".".join(chance.choice("ab") for _ in range(127))
        watch.reset()
        client.send(publish_bytes(1, "amq.topic", key, b"", mandatory=True))
        assert client.expect(Basic.Return).routing_key == key, "no z: matches nothing, after all the work"
        client.receive()
        client.expect(Basic.Ack)
        took_s.append(watch.read_s)
    each_s = (cpu_s(small_victim) - used_s) / len(took_s)
    print(f"slowest of ten: {max(took_s) * 1000:.1f} ms; {each_s * 1000:.1f} ms of processor time each")
    assert min(sorted(took_s)[5], each_s) < 0.005


def with_reply_to(client: WireClient, key: str, reply_to: str) -> None:
    properties = BasicProperties(reply_to=reply_to).encode()
    encoded = b"".join(properties)
    client.send(
        method_bytes(1, Basic.Publish(exchange="", routing_key=key)) + frame_bytes(FRAME_HEADER, 1, b"\0\x3c\0\0" + bytes(8) + encoded)
    )


def test_row_13_a_reply_name_cannot_be_forged(victim: Node) -> None:
    """Row 13: only who has been asked knows where to answer; a name that is nearly right reaches nobody and harms no worker."""
    requester = WireClient.opened(victim).open_channel()
    requester.send_method(1, Basic.Consume(queue=REPLY_TO, no_ack=True))
    requester.expect(Basic.ConsumeOk)
    responder = WireClient.opened(victim).open_channel()
    responder.send_method(1, Queue.Declare(queue="", exclusive=True))
    queue = responder.expect(Queue.DeclareOk).queue
    responder.send_method(1, Basic.Consume(queue=queue, no_ack=True))
    responder.expect(Basic.ConsumeOk)
    with_reply_to(requester, queue, REPLY_TO)
    responder.expect(Basic.Deliver)
    name = responder.receive().properties.reply_to
    assert name.startswith(REPLY_TO + "."), name
    place, _, secret = name.removeprefix(REPLY_TO + ".").partition(".")
    forged = [
        f"{place}.{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}",
        f"{place}.",
        place,
        f"{place}.{secret}x",
        f"ff{place[2:]}.{secret}",
        f"-1{place[2:]}.{secret}",
        f"-f{place[2:]}.{secret}",
        f"+0{place[2:]}.{secret}",
        f"{place[:2]}-0000001.{secret}",
        f"{place[:2]}ffffffff.{secret}",
        f" 0{place[2:]}.{secret}",
        f"\N{FULLWIDTH DIGIT ZERO}{place[1:]}.{secret}",
        "".join("0" for _ in place) + f".{secret}",
        "." * 11,
    ]
    attackers = [WireClient.opened(victim).open_channel() for _ in range(3)]  # one on each worker
    for attacker in attackers:
        for key in forged:
            attacker.send(publish_bytes(1, "", f"{REPLY_TO}.{key}", b"forged"))
            attacker.send_method(1, Queue.Declare(queue=f"{REPLY_TO}.{key}", passive=True))
            close = attacker.expect(Channel.Close, 1)
            assert close.reply_code == 404, (key, close)
            attacker.send_method(1, Channel.CloseOk())
            attacker.open_channel()
        for method in (
            Queue.Declare(queue=name),
            Queue.Declare(queue=REPLY_TO),
            Queue.Bind(queue=name, exchange="amq.fanout"),
            Basic.Consume(queue=name),
            Basic.Get(queue=name),
            Queue.Purge(queue=name),
        ):
            attacker.send_method(1, method)
            frame = attacker.receive()
            if isinstance(frame.method, Queue.DeclareOk):  # a question whether the requester is there, as in RabbitMQ
                continue
            assert isinstance(frame.method, Channel.Close), (method, frame)
            assert frame.method.reply_code in (403, 404, 405), frame
            attacker.send_method(1, Channel.CloseOk())
            attacker.open_channel()
    responder.send(publish_bytes(1, "", name, b"answer"))
    requester.expect(Basic.Deliver)
    requester.receive()
    assert requester.receive().fragment == b"answer", "nothing forged came before it"
    for client in (requester, responder, *attackers):
        client.close()
