"""The poller: the order within a turn, and its end."""

from __future__ import annotations

import asyncio
import os
import resource
import time
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


class ReadLater(Journal):
    """Asks for late reading with each packet of type 2, before anything behind it is read."""

    def note(self, link: RecordingLink, *event: object) -> None:
        if event[:2] == ("packet", 2):
            link.read_later()
        super().note(link, *event)


def test_a_coalesced_stream_is_read_when_its_time_has_come_and_then_as_usual() -> None:
    async def main(poller: Poller) -> None:
        poller.coalesce_us = 200_000
        theirs = ReadLater()
        ours, late = await linked(poller, Journal(), theirs)
        before_s = time.monotonic()  # not when it was heard: on a busy machine that may be much later than it was asked for
        ours.send_packet(2, 0, b"read me later")
        await theirs.heard("packet", 2)
        reads = late.received_count
        for number in range(3):
            ours.send_packet(3, number, b"")
            await asyncio.sleep(0)
        await theirs.heard("packet", 3, 2)
        assert time.monotonic() - before_s >= 0.195, "it may be read a little early, with others"
        assert [event[1] for event in theirs.of("packet")[1:]] == [0, 1, 2]
        assert late.received_count == reads + 1
        for number in range(3, 6):
            ours.send_packet(3, number, b"")
            await theirs.heard("packet", 3, number)
        assert late.received_count == reads + 4, "nothing waits any more"

    run(main)


def test_a_stream_is_read_as_it_comes_when_there_is_no_descriptor_for_the_timer() -> None:
    async def main(poller: Poller) -> None:
        poller.coalesce_us = 3_600_000_000
        theirs = ReadLater()
        ours, _ = await linked(poller, Journal(), theirs)
        _, most = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
        try:
            ours.send_packet(2, 0, b"")
            await theirs.heard("packet", 2)
            ours.send_packet(3, 0, b"")
            await theirs.heard("packet", 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    run(main)


def test_a_coalesced_stream_may_ask_again_with_each_read() -> None:
    async def main(poller: Poller) -> None:
        theirs = ReadLater()
        ours, _ = await linked(poller, Journal(), theirs)
        for number in range(100):
            ours.send_packet(2, number, b"")
            await theirs.heard("packet", 2, number)

    run(main)


def test_who_hangs_up_is_missed_at_once_and_who_is_closed_is_forgotten() -> None:
    async def main(poller: Poller) -> None:
        poller.coalesce_us = 3_600_000_000
        one, other = ReadLater(), ReadLater()
        hanging_up, left = await linked(poller, Journal(), one)
        ours, closed = await linked(poller, Journal(), other)
        for link, journal in ((hanging_up, one), (ours, other)):
            link.send_packet(2, 0, b"")
            await journal.heard("packet", 2)
        hanging_up.close("gone")
        await one.heard("closed")
        assert left.is_closed
        closed.close("we close it")
        poller.coalesce_us = 0
        third = ReadLater()
        last, _ = await linked(poller, Journal(), third)
        last.send_packet(2, 0, b"")
        await third.heard("packet", 2)

    run(main)
