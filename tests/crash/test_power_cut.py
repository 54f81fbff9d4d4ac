"""The power fails: of what a worker wrote since its last sync any part may be there. All such files must be sound, with what was confirmed.

A worker's calls on its environment and its write-ahead file are recorded by strace while publishers get their confirms. Then, for every
sync of the recording, the files that a power cut there could leave are made, verified, and searched for each message that was confirmed by
then. `LEVERET_CRASH_CUTS` is how many messages are published for it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from pathlib import Path

import pika
import pytest
from leveret.storage.ahead_file import AHEAD_NAME
from leveret.storage.commit_log import Table
from leveret.storage.layout import INDEX_KEY, decode_index, decode_segment
from leveret.storage.local_log import LocalLog
from leveret.storage.verify import verify_directory
from leveret.worker.committer import CATCH_UP_S

from tests.crash.consumer import Consumer, drain
from tests.crash.environments import environments
from tests.crash.laboratory import environment_of, tell
from tests.crash.ledger import Confirmed, Ledger, MessageId
from tests.crash.publisher import Publisher, Route
from tests.crash.recording import CALLS, Cut, Descriptor, Sync, Write, cuts, parse
from tests.crash.tracer import Tracer, require_strace
from tests.deadline import eventually
from tests.node import Node

MESSAGES = int(os.environ.get("LEVERET_CRASH_CUTS", "150"))
SEED = int(os.environ.get("LEVERET_CRASH_SEED") or random.SystemRandom().randrange(10**6))
SUBSETS = 2  # random parts of what is unsynced, for each place
STARTS = 2  # cuts from which a whole node is started
QUEUES = ("cut.a", "cut.b")
CHURNED, CHURNER = "cut.churned", "c9"  # consumed all the time, so that commits remove and reuse pages
NAMES = ("data.mdb", AHEAD_NAME)
REST_S = 1.0 + CATCH_UP_S
O_DSYNC = 0o10000
ID = re.compile(rb"([\x04-\x0a])c\d/")  # the property message_id, behind its length


def descriptors_of(pid: int, folder: Path) -> dict[int, Descriptor]:
    """The descriptors of a process on the files of this shard."""
    names = {str(folder / name): name for name in NAMES}
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if (path := os.readlink(link)) in names:
            flags = int(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().split("flags:")[1].split()[0], 8)
            found[int(link.name)] = Descriptor(names[path], bool(flags & O_DSYNC))
    return found


def images_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


def live_messages(directory: Path) -> list[MessageId]:
    """Every message that the shard in `directory` would give to its queues, once for each queue."""
    log = LocalLog(directory, identity=None, shard=None)
    try:
        found = []
        values: dict[int, bytes] = {}
        for key, value in log.scan(Table.SEGMENTS):
            segment_no = int.from_bytes(key[:8], "big")
            values[segment_no] = values.get(segment_no, b"") + value
        for key, value in log.scan(Table.INDEX):
            index = decode_index(value)
            for message in decode_segment(values[INDEX_KEY.unpack(key)[0]]):
                live = sum(not index.runs[target.run].settled >> target.offset & 1 for target in message.targets)
                name = ID.search(message.data)
                assert name, "a message without an id"
                text = message.data[name.end(1) : name.end(1) + name[1][0]]
                found += [MessageId.parse(text.decode())] * live
        return found
    finally:
        log.close()


def at_rest(folder: Path, log: Path | None = None) -> tuple[dict[str, bytes], str]:
    """The files and their recording, once nothing has changed for REST_S: acks and marks are written a little after the last confirm, and
    everything goes into the tables later still."""
    seen: tuple[dict[str, bytes], str] = {}, ""
    since_s = 0.0

    def is_at_rest() -> bool:
        nonlocal seen, since_s
        now = images_of(folder), log.read_text() if log is not None else ""
        if now != seen:
            seen, since_s = now, time.monotonic()
        return time.monotonic() - since_s > REST_S

    eventually(is_at_rest, within_s=30, what="a worker at rest")
    return seen


class Recording:
    """One node with one worker, and what its commits wrote while `Publisher`s published `MESSAGES` messages to two queues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger()
        dice = random.Random(SEED)
        self.node = Node(folder / "data", workers=1).start()
        try:
            self._record(dice)
        finally:
            self.node.kill()

    def _record(self, dice: random.Random) -> None:
        node, ledger = self.node, self.ledger
        with node.connect() as connection:
            channel = connection.channel()
            for queue in QUEUES:
                channel.queue_declare(queue, durable=True)
                channel.queue_bind(queue, "amq.fanout")
            channel.queue_declare(CHURNED, durable=True)
            # The first commits make the write-ahead file, and name it.
            channel.confirm_delivery()
            for _ in range(2):
                channel.basic_publish("", CHURNED, b"", pika.BasicProperties(delivery_mode=2, message_id=f"{CHURNER}/0"))
            channel.queue_purge(CHURNED)
        shard = environment_of(node, 0).parent
        pid = node.workers()[0]
        eventually(lambda: (shard / AHEAD_NAME).exists(), what="a write-ahead file")
        at_rest(shard)
        routes = [[Route("", queue, (queue,)) for queue in QUEUES], [Route("amq.fanout", "", QUEUES)], [Route("", QUEUES[0], QUEUES[:1])]]
        publishers = [
            Publisher(f"c{number}", node, ledger, routes[number], random.Random(dice.random()), rate=400, window=(40, 20, 1)[number])
            for number in range(3)
        ]
        churner = Publisher(CHURNER, node, ledger, [Route("", CHURNED, (CHURNED,))], random.Random(dice.random()), rate=200, window=20)
        consumer = Consumer(node, ledger, CHURNED, random.Random(dice.random()), prefetch=20)
        log = self.folder / "calls.strace"
        self.clock_s = time.time() - time.monotonic()
        descriptors = descriptors_of(pid, shard)
        with Tracer(pid, [shard / name for name in NAMES], CALLS, log, options=("-ttt", "-xx", "-s", str(1 << 22))):
            self.base = images_of(shard)
            assert not log.read_text(), "the node was idle, and wrote all the same"
            consumer.start()
            for publisher in (churner, *publishers):
                publisher.start()
            ledger.wait_for_confirms(MESSAGES)
            for publisher in (churner, *publishers):
                publisher.finish()
            consumer.finish()
            self.final, recorded = at_rest(shard, log)
        self.calls = parse(recorded.splitlines(), descriptors)

    def confirmed_before(self, at_s: float) -> set[MessageId]:
        """What had been confirmed by this moment of the wall clock, and nobody consumes."""
        confirmed = (event for event in self.ledger.events if isinstance(event, Confirmed) and event.at_s + self.clock_s < at_s)
        return {event.message for event in confirmed if event.message.publisher != CHURNER}

    def queues(self) -> dict[MessageId, int]:
        """How many queues each message was published to."""
        return {event.message: len(event.queues) for event in self.ledger.events if hasattr(event, "queues")}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    require_strace()
    tell(f"LEVERET_CRASH_SEED={SEED}")
    return Recording(tmp_path_factory.mktemp("power"))


def place(cut: Cut, directory: Path) -> Path:
    """The cut's files as those of a shard."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, image in cut.images.items():
        (directory / name).write_bytes(image)
    return directory


@pytest.mark.timeout(600)
def test_what_was_confirmed_before_the_power_failed_is_there(recording: Recording, tmp_path: Path) -> None:
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    writes = sum(isinstance(call, Write) for call in recording.calls)
    tell(f"{len(recording.calls)} calls, {writes} of them writes, for {recording.ledger.confirmed} confirmed messages")
    assert writes and any(isinstance(call, Sync) for call in recording.calls)
    assert any(call.synced for call in recording.calls if isinstance(call, Write)), (
        "the page that makes the tables' commit valid goes to disk"
    )
    for name in NAMES:
        assert any(isinstance(call, Sync) for call in recording.calls if call.name == name), name
    queues = recording.queues()
    directory = memory / f"leveret-cut-{os.getpid()}"
    count = 0
    try:
        for cut in cuts(recording.base, recording.calls, random.Random(SEED), subsets=SUBSETS):
            what = f"seed {SEED}, in or after call {cut.calls} of {len(recording.calls)}, {cut.kept}"
            place(cut, directory)
            assert [f"{finding.where}: {finding.what}" for finding in verify_directory(directory)] == [], what
            found = live_messages(directory)
            copies = {message: found.count(message) for message in set(found)}
            assert all(copies[message] <= queues[message] for message in copies), f"a message twice in a queue; {what}"
            missing = [message for message in recording.confirmed_before(cut.before_s) if copies.get(message) != queues[message]]
            assert missing == [], what
            count += 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    tell(f"{count} times the files that a power cut may leave, each of them whole")
    assert count > sum(isinstance(call, Sync) for call in recording.calls)
    is_complete = cut.images == recording.final  # not in the assert, which would show megabytes
    assert is_complete, "the recording is not all that was written"


@pytest.mark.timeout(600)
def test_a_node_starts_from_what_a_power_cut_left(recording: Recording, tmp_path: Path) -> None:
    """All the way: definitions as they were, the shard's file as it was cut, and clients that ask for their messages."""
    dice = random.Random(SEED)
    count = sum(1 for _ in cuts(recording.base, recording.calls, random.Random(SEED), subsets=SUBSETS))
    chosen = dice.sample(range(count // 3, count), STARTS)
    for number, cut in enumerate(cuts(recording.base, recording.calls, random.Random(SEED), subsets=SUBSETS)):
        if number not in chosen:
            continue
        data = tmp_path / "data"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(recording.node.data_dir, data, ignore=shutil.ignore_patterns("*.lock", "lock.mdb", "node.json", "scratch"))
        place(cut, environment_of(Node(data, workers=1), 0).parent)
        node = Node(data, workers=1).start()
        try:
            ledger = Ledger()
            for queue in QUEUES:
                drain(node, ledger, queue)
        finally:
            node.stop()
        got = [event.message for event in ledger.events if type(event).__name__ == "Received"]
        queues = recording.queues()
        expected = recording.confirmed_before(cut.before_s)
        assert expected, "a cut so early says nothing"
        assert [message for message in expected if got.count(message) != queues[message]] == []
        assert len(environments(data)) >= 2


# --- the recording itself

LOG = r"""
10 100.5 lseek(7, 8192, SEEK_SET) = 8192
10 100.6 writev(7, [{iov_base="\x61\x62", iov_len=2}, {iov_base="\x63", iov_len=1}], 2) = 3
11 100.7 pwrite64(7, "\x64" <unfinished ...>
11 100.8 <... pwrite64 resumed>, 1, 4096) = 1
10 100.9 fdatasync(7)   = 0
10 101.0 pwrite64(8, "\x65\x66", 2, 10) = 2
10 101.1 --- SIGUSR1 {si_signo=SIGUSR1} ---
10 101.2 pwrite64(9, "\x67", 1, 0) = 1
10 101.3 pwritev2(9, [{iov_base="\x68", iov_len=1}, {iov_base="", iov_len=0}], 2, 12288, 0) = 1
""".strip().split("\n")


def test_the_log_of_strace_becomes_writes_and_syncs() -> None:
    assert parse(LOG, {7: Descriptor("data", False), 8: Descriptor("data", True), 9: Descriptor("ahead", False)}) == [
        Write(100.6, "data", 8192, b"abc", False),
        Write(100.7, "data", 4096, b"d", False),
        Sync(100.9, "data"),
        Write(101.0, "data", 10, b"ef", True),
        Write(101.2, "ahead", 0, b"g", False),
        Write(101.3, "ahead", 12288, b"h", False),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('10 1.0 pwrite64(7, "\\x61"..., 100, 0) = 100', "cut a string"),
        ('10 1.0 pwrite64(7, "\\x61\\x62", 2, 0) = 1', "wrote 1 of 2"),
        ('10 1.0 pwrite64(7, "\\x61", 1, 0) = -1 EIO (Input/output error)', "failed"),
        ("10 1.0 msync(7, 4096, MS_SYNC) = 0", "makes the call msync"),
        ('10 1.0 pwrite64(6, "\\x61", 1, 0) = 1', "nobody knows the descriptor"),
        ("nonsense", "not a line"),
    ],
)
def test_a_log_that_does_not_tell_all_is_refused(line: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        parse([line], {7: Descriptor("data", False)})


def test_cuts_are_every_mixture_of_what_is_not_synced() -> None:
    calls = [Write(1.0, "f", 0, b"a", False), Write(2.0, "f", 4095, b"bc", False), Sync(3.0, "f"), Write(4.0, "f", 1, b"d", True)]
    found = [(cut, cut.images["f"]) for cut in cuts({"f": b""}, calls, random.Random(1), subsets=300)]
    full = b"a" + bytes(4094) + b"bc"
    in_sync = {image for cut, image in found if cut.calls == 3}
    assert in_sync == {b"", b"a", full, full[:4096], bytes(4095) + b"b", bytes(4096) + b"c", bytes(4095) + b"bc", b"a" + bytes(4095) + b"c"}
    assert {cut.before_s for cut, _ in found if cut.calls == 3} == {3.0}
    assert {image for cut, image in found if cut.before_s == 4.0} == {full, b"ad" + full[2:]}
    assert [image for cut, image in found if cut.before_s == float("inf")] == [b"ad" + full[2:]]


def test_a_write_that_goes_through_takes_no_other_along() -> None:
    calls = [Write(1.0, "f", 4096, b"data", False), Write(2.0, "f", 0, b"head", True)]
    found = cuts({"f": bytes(4096)}, calls, random.Random(1), subsets=30)
    assert b"head" + bytes(4092) in {cut.images["f"] for cut in found if cut.before_s == float("inf")}


def test_a_sync_is_about_its_own_file_only() -> None:
    calls = [Write(1.0, "f", 0, b"a", False), Write(2.0, "g", 0, b"b", False), Sync(3.0, "g"), Sync(4.0, "f")]
    found = list(cuts({"f": b"", "g": b""}, calls, random.Random(1), subsets=30))
    assert {(cut.images["f"], cut.images["g"]) for cut in found if cut.before_s == 3.0} == {
        (f, g) for f in (b"", b"a") for g in (b"", b"b")
    }
    assert {(cut.images["f"], cut.images["g"]) for cut in found if cut.before_s == 4.0} == {(b"", b"b"), (b"a", b"b")}
