"""A doorbell: it rings for as long as there is a reason, is silent when told, and outlives what it calls."""

from __future__ import annotations

import asyncio
import socket

from leveret.link.doorbell import Doorbell
from leveret.link.poller import Poller

from tests.link.loop import run


def test_it_rings_in_every_turn_until_the_reason_is_gone() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            taken: list[bytes] = []
            done = asyncio.Event()

            def on_ring() -> None:
                taken.append(ours.recv(1))
                if len(taken) == 3:
                    done.set()

            bell = Doorbell(poller, ours, on_ring)
            theirs.send(b"abc")
            await done.wait()
            assert taken == [b"a", b"b", b"c"]
            bell.close("done")
            theirs.send(b"d")
            await asyncio.sleep(0)
            assert ours.recv(1) == b"d", "the descriptor is still its owner's"

    run(main)


def test_silent_it_does_not_ring_and_then_makes_up_for_it() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = socket.socketpair()
        other, others = socket.socketpair()
        with ours, theirs, other, others:
            rung = asyncio.Event()
            passed = asyncio.Event()
            bell = Doorbell(poller, ours, lambda: (rung.set(), ours.recv(1)))
            bystander = Doorbell(poller, other, lambda: (passed.set(), other.recv(1)))
            bell.be_silent()
            theirs.send(b"x")
            others.send(b"x")
            await passed.wait()  # a whole turn
            assert not rung.is_set()
            bell.listen_again()
            bell.listen_again()
            await rung.wait()
            for each in (bell, bystander):
                each.close("done")
                each.close("is harmless")
            bell.listen_again()

    run(main)


def test_a_bug_in_what_it_calls_is_reported_and_it_goes_on_ringing() -> None:
    async def main(poller: Poller) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            done = asyncio.Event()

            def on_ring() -> None:
                if ours.recv(1) == b"!":
                    raise ZeroDivisionError
                done.set()

            bell = Doorbell(poller, ours, on_ring)
            theirs.send(b"!.")
            await done.wait()
            bell.close("done")

    run(main, [ZeroDivisionError])
