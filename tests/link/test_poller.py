"""The poller: the order within a turn, and its end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from leveret.link.poller import Poller
from leveret.link.stream import socket_pair
from tests.link.recording_link import RecordingEnding, RecordingLink

from tests.link.loop import WORKER, Journal, linked, run


class NotASocket:
    """Hands over a descriptor that epoll refuses: a plain file's."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def detach(self) -> int:
        return self._descriptor


def test_endings_run_once_a_turn_and_their_output_goes_out_in_it() -> None:
    async def main(poller: Poller) -> None:
        theirs = Journal()
        link, _ = await linked(poller, Journal(), theirs)
        runs: list[str] = []

        def work() -> None:
            runs.append("ran")
            link.send_packet(2, 0, b"from the ending")

        ending = RecordingEnding(work)
        for _ in range(3):
            ending.ask(poller)
        assert runs == [], "not before the turn's end"
        await theirs.heard("packet", 2, 0, b"from the ending")
        assert runs == ["ran"]
        ending.ask(poller)
        await theirs.until(lambda: len(theirs.of("packet")) == 2)
        assert runs == ["ran", "ran"]

    run(main)


def test_an_ending_may_ask_for_another() -> None:
    async def main(poller: Poller) -> None:
        done = asyncio.Event()
        second = RecordingEnding(done.set)
        RecordingEnding(lambda: second.ask(poller)).ask(poller)
        await done.wait()

    run(main)


def test_an_endings_bug_is_reported_and_the_others_run() -> None:
    def bug() -> None:
        raise ArithmeticError("in an ending")

    async def main(poller: Poller) -> None:
        done = asyncio.Event()
        RecordingEnding(bug).ask(poller)
        RecordingEnding(done.set).ask(poller)
        await done.wait()

    run(main, bugs=[ArithmeticError])


def test_close_ends_every_stream_and_may_come_twice() -> None:
    async def main(poller: Poller) -> None:
        journals = [Journal() for _ in range(6)]
        links = [*await linked(poller, *journals[:2]), *await linked(poller, *journals[2:4]), *await linked(poller, *journals[4:])]
        assert poller.streams_open == 6
        links[0].send_packet(2, 0, b"never sent")
        poller.close()
        assert poller.streams_open == 0
        assert all(link.is_closed for link in links)
        assert [journal.of("closed") for journal in journals] == [[()]] * 6
        poller.close()
        await asyncio.sleep(0)  # the end of the turn in which the packet was written

    run(main)


def test_a_stream_that_cannot_be_watched_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main(poller: Poller) -> None:
        for _ in range(3):  # each time with the same descriptor number
            with pytest.raises(PermissionError):
                RecordingLink(poller, NotASocket(tmp_path / "file"), WORKER, Journal())
        assert poller.streams_open == 0
        await linked(poller, Journal(), Journal())

    run(main)


def test_a_closed_streams_descriptor_may_be_used_again_within_the_turn() -> None:
    async def main(poller: Poller) -> None:
        opened: list[RecordingLink] = []

        class Reopening(Journal):
            def on_link_closed(self, link: RecordingLink) -> None:
                one, other = socket_pair()
                opened.append(RecordingLink(poller, one, WORKER, Journal()))
                opened.append(RecordingLink(poller, other, WORKER, Journal()))
                super().on_link_closed(link)

        ours = Reopening()
        _, other = await linked(poller, ours, Journal())
        other.close("gone")
        await ours.heard("closed")
        for link in opened:
            await link.opened
        assert poller.streams_open == 2

    run(main)
