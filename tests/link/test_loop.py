"""asyncio on the poller: timers, calls, threads and foreign descriptors come through beside streams, and none of them starves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from leveret.link.loop import PollerLoop, PollerSelector
from leveret.link.poller import Poller
from tests.link.recording_link import RecordingEnding

from tests.link.loop import Journal, linked

WITHIN_S = 30.0


@pytest.fixture(autouse=True)
def _below() -> None:
    """Once is enough: these make their own loop."""


def drive(main: Callable[[PollerLoop], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PollerLoop)
        try:
            return await asyncio.wait_for(main(loop), WITHIN_S)
        finally:
            loop.poller.close()

    with asyncio.Runner(loop_factory=PollerLoop) as runner:
        return runner.run(bounded())


class PingPong:
    """Two links that answer each other for ever, from C to C but for a note: `rounds` counts them."""

    def __init__(self) -> None:
        self.rounds = 0
        self.ours, self.theirs = Journal(), Journal()

    async def begin(self, poller: Poller) -> None:
        link, back = await linked(poller, self.ours, self.theirs)
        for journal in (self.ours, self.theirs):
            journal.note = self._answer  # type: ignore[method-assign]
        self._links = {id(link): link, id(back): back}
        link.send_packet(2, 0, b"ping")

    def _answer(self, link: Any, *event: Any) -> None:
        self.rounds += 1
        link.send_packet(2, 0, b"pong")


def test_a_timer_comes_in_time_and_not_early_while_streams_are_busy() -> None:
    async def main(loop: PollerLoop) -> tuple[int, list[float]]:
        game = PingPong()
        await game.begin(loop.poller)
        late_s: list[float] = []
        for wait_s in (0.0, 0.001, 0.02, 0.05):
            due_s = loop.time() + wait_s
            fired = loop.create_future()
            loop.call_at(due_s, fired.set_result, None)
            await fired
            late_s.append(loop.time() - due_s)
        return game.rounds, late_s

    rounds, late_s = drive(main)
    assert rounds > 20, "nothing was going on beside the timers"
    # asyncio takes a timer as due when it is within its clock's resolution.
    assert min(late_s) >= -time.get_clock_info("monotonic").resolution
    assert max(late_s) < 5.0


def test_calls_and_tasks_go_on_while_streams_are_busy() -> None:
    async def main(loop: PollerLoop) -> None:
        game = PingPong()
        await game.begin(loop.poller)
        before = game.rounds
        for _ in range(200):
            await asyncio.sleep(0)  # each is a round of the loop, with a turn of the poller in it
        assert game.rounds >= before + 200

    drive(main)


def test_a_call_made_within_a_turn_is_run_at_its_end() -> None:
    async def main(loop: PollerLoop) -> None:
        called = asyncio.Event()
        ours, theirs = Journal(), Journal()
        link, _ = await linked(loop.poller, ours, theirs)
        theirs.note = lambda *_: loop.call_soon(called.set)  # type: ignore[method-assign, assignment]
        link.send_packet(2, 0, b"whatever")
        # No other timer is there: without the call the wait would be for ever.
        await called.wait()

    drive(main)


def test_a_call_made_as_a_turn_ends_outside_any_is_run_before_the_next_timer() -> None:
    """A task asks for an ending, and that for a call: by then the loop has reckoned how long it may wait."""

    async def main(loop: PollerLoop) -> None:
        called = asyncio.Event()
        await asyncio.sleep(0)
        timer = loop.call_later(WITHIN_S / 3, called.set)
        RecordingEnding(lambda: loop.call_soon(called.set)).ask(loop.poller)
        await called.wait()
        assert timer.when() > loop.time(), "only the timer has woken the loop"
        timer.cancel()

    drive(main)


def test_a_timer_set_within_a_turn_shortens_the_wait() -> None:
    async def main(loop: PollerLoop) -> None:
        fired = asyncio.Event()
        link, _ = await linked(loop.poller, Journal(), theirs := Journal())
        theirs.note = lambda *_: loop.call_later(0.01, fired.set)  # type: ignore[method-assign, assignment]
        link.send_packet(2, 0, b"whatever")
        await fired.wait()

    drive(main)


def test_output_written_outside_a_turn_goes_out() -> None:
    async def main(loop: PollerLoop) -> None:
        link, _ = await linked(loop.poller, Journal(), theirs := Journal())
        await asyncio.sleep(0)
        link.send_packet(2, 0, b"from a task")
        await theirs.heard("packet", 2, 0, b"from a task")

    drive(main)


def test_a_thread_wakes_it_up() -> None:
    async def main(loop: PollerLoop) -> None:
        assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()
        called = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.set,))
        thread.start()
        await called.wait()
        thread.join()

    drive(main)


def test_a_signal_wakes_it_up() -> None:
    async def main(loop: PollerLoop) -> None:
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await came.wait()
        loop.remove_signal_handler(signal.SIGUSR1)

    drive(main)


def test_readers_and_writers_of_foreign_descriptors() -> None:
    async def main(loop: PollerLoop) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            writable, readable = asyncio.Event(), asyncio.Event()
            loop.add_writer(ours, writable.set)
            loop.add_reader(ours, readable.set)
            await writable.wait()
            assert not readable.is_set()
            assert loop.remove_writer(ours)
            theirs.send(b"x")
            await readable.wait()
            assert ours.recv(1) == b"x"
            readable.clear()
            theirs.close()  # a hang-up is something to read
            await readable.wait()
            assert ours.recv(1) == b""
            assert loop.remove_reader(ours)
            assert not loop.remove_reader(ours)

    drive(main)


def test_a_reader_removed_by_a_streams_work_in_the_same_turn_is_not_called() -> None:
    async def main(loop: PollerLoop) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            called: list[str] = []
            done = asyncio.Event()
            link, _ = await linked(loop.poller, Journal(), hearer := Journal())
            loop.add_reader(ours, called.append, "called")

            def note(*_: Any) -> None:
                loop.remove_reader(ours)
                loop.call_later(0.01, done.set)

            hearer.note = note  # type: ignore[method-assign, assignment]
            theirs.send(b"x")
            link.send_packet(2, 0, b"whatever")  # goes out before the next wait, so both are ready in the same turn
            await done.wait()
            assert called == []

    drive(main)


def test_the_selector_refuses_what_it_does_not_know() -> None:
    loop = PollerLoop()
    selector = PollerSelector(loop.poller)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        selector.register(ours.fileno(), 1)
        with pytest.raises(KeyError):
            selector.register(ours.fileno(), 1)
        assert selector.get_key(ours).events == selector.get_map()[ours.fileno()].events == 1
        assert list(selector.get_map()) == [ours.fileno()]
        assert selector.unregister(ours.fileno()).fd == ours.fileno()
        with pytest.raises(KeyError):
            selector.unregister(ours.fileno())
        with pytest.raises(ValueError, match="has no descriptor"):
            selector.register(None, 1)
        with pytest.raises(OSError):
            selector.register(4095, 1)
        assert 4095 not in selector.get_map()
    loop.poller.close()
    loop.close()
    assert loop.poller.fileno() == -1
