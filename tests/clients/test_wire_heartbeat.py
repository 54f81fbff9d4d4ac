"""Heartbeats over a bare socket: when the broker sends them, what it takes for life, and when it gives a silent client up."""

from __future__ import annotations

import time

import pika.frame
import pytest
from pika.spec import Basic, Queue

from tests.deadline import busy_factor
from tests.node import Broker
from tests.wire import FRAME_HEARTBEAT, WireClient, frame_bytes

HEARTBEAT = frame_bytes(FRAME_HEARTBEAT, 0, b"")


def test_the_broker_sends_heartbeats_twice_an_interval(broker: Broker) -> None:
    before = time.monotonic()
    with WireClient.opened(broker, heartbeat=2) as client:
        began = time.monotonic()
        for _ in range(3):
            assert isinstance(client.receive(), pika.frame.Heartbeat)
            client.send(HEARTBEAT)
        now = time.monotonic()
        assert now - before > 1.5, "three heartbeats of a two-second interval"
        assert now - began < 6 * busy_factor()


def test_a_silent_client_is_given_up_after_two_to_three_intervals(broker: Broker) -> None:
    began = time.monotonic()
    with WireClient.opened(broker, heartbeat=1) as client:
        client.expect_end()
        assert 1 < time.monotonic() - began < 6 * busy_factor()


@pytest.mark.parametrize("sign_of_life", ["heartbeat", "method"])
def test_anything_a_client_sends_counts_as_life(broker: Broker, sign_of_life: str) -> None:
    with WireClient.opened(broker, heartbeat=1) as client:
        client.open_channel()
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        client.expect(Queue.DeclareOk)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            # The broker's own heartbeats set the pace: two a second.
            while not isinstance(client.receive(), pika.frame.Heartbeat):
                pass
            if sign_of_life == "heartbeat":
                client.send(HEARTBEAT)
            else:
                client.send_method(1, Basic.Qos(prefetch_count=1))
        client.send_method(1, Basic.Get(queue=""))
        frame = client.receive()
        while not (isinstance(frame, pika.frame.Method) and isinstance(frame.method, Basic.GetEmpty)):
            frame = client.receive()


def test_heartbeat_0_turns_it_off(broker: Broker) -> None:
    with WireClient.opened(broker, heartbeat=0) as quiet, WireClient.opened(broker, heartbeat=1) as other:
        other.expect_end()  # by the time the other has been given up, a heartbeat or an end would have come here
        quiet.open_channel()
        assert quiet._received == b""
