"""The laboratory: a node, the load on it, and the harm that is done to it, one round after the other.

Owns `Laboratory`. A round lets messages flow, does harm at a random moment, waits until every process serves again, and lets messages flow
once more. An *epoch* is some rounds with one ledger; at its end the queues are drained, the ledger is checked, and the node is stopped and
started, so that nothing of an old epoch may ever come again. All that is random comes from one seed.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.crash.checker import check
from tests.crash.environments import verify_as_user, verify_environments
from tests.crash.ledger import HarmBegan, HarmEnded, Stopped, now_s
from tests.crash.load import Load
from tests.crash.tracer import Tracer
from tests.deadline import eventually
from tests.hostile.complaints import complaints
from tests.node import Node

EPOCH_ROUNDS = 25
STOP_EVERY = 5  # rounds
FLOW = (20, 400)  # confirms before and after the harm
BACK_WITHIN_S = 60.0  # a child that has died often is started after 5 s, and takes some more on a busy machine
OUR_DOING = ("ended unexpectedly: signal SIGKILL", "the supervisor is gone; ending")
FINDINGS_SHOWN = 3  # of each rule


class Laboratory:
    """A started node under load. Use it as a context: the node and all clients end with it."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node = node
        self.dice = random.Random(seed)
        self.seed = seed
        self.rounds = 0
        self.epoch = 0
        self.confirmed = 0  # messages of epochs that were checked
        self.load: Load | None = None

    def __enter__(self) -> Laboratory:
        self.node.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.load is not None:
            self.load.abandon()
        self.node.kill()

    # --- epochs

    def begin_epoch(self, *, rate: float = 120.0) -> Load:
        """A new ledger, and clients that write into it."""
        assert self.load is None
        self.epoch += 1
        self.load = Load(self.node, self.dice, rate=rate, epoch=self.epoch)
        self.load.declare()
        self.load.start()
        return self.load

    def end_epoch(self) -> None:
        """Let everything be answered and consumed, stop, verify and start the node, drain again, and check the ledger."""
        assert self.load is not None
        self.load.finish_publishing()
        self.load.end_perf()
        self.load.finish_consuming()
        self.restart(as_user=True)
        self.load.drain()  # nothing should have come back; the checker tells
        events, self.load, load = self.load.ledger.events, None, self.load
        findings = check(events)
        self.confirmed += load.ledger.confirmed
        if findings:
            rules = collections.Counter(finding.rule for finding in findings)
            text = [f"seed {self.seed}: in {len(events)} events {', '.join(f'{count} {rule}' for rule, count in rules.most_common())}"]
            shown: collections.Counter[str] = collections.Counter()
            for finding in findings:
                shown[finding.rule] += 1
                if shown[finding.rule] <= FINDINGS_SHOWN:
                    text.append(str(finding))
                    text += load.ledger.story(finding.message) if finding.message else []
            raise AssertionError("\n".join(text))

    # --- rounds

    def round(self) -> str:
        """Let messages flow, do harm of a random kind, and let them flow again; tells what was done."""
        assert self.load is not None
        ledger = self.load.ledger
        self.rounds += 1
        if self.dice.random() < 0.2:
            self.load.begin_perf()
        ledger.wait_for_confirms(self.dice.randint(*FLOW))
        kinds = {"worker": 4, "worker held": 3, "router": 2, "router held": 1, "supervisor": 2, "everything": 3, "management": 1, "two": 2}
        (kind,) = self.dice.choices(list(kinds), list(kinds.values()))
        what = self.harm(kind)
        ledger.wait_for_confirms(self.dice.randint(*FLOW))
        if self.rounds % STOP_EVERY == 0:
            self.restart()
            what += ", then a stop and a start"
        return what

    def harm(self, kind: str) -> str:
        """Kill what `kind` says, and wait until all of it is back; tells what was killed."""
        pids = self.node.processes()
        worker = self.dice.choice([name for name in pids if name.startswith("worker-")])
        if kind == "everything":
            self._kill_node(whole=True)
            return kind
        if kind == "supervisor":
            self._kill_node(whole=False)
            return kind
        if kind == "two":
            other = self.dice.choice([name for name in pids if name not in (worker, "supervisor")])
            self.kill({worker: pids[worker], other: pids[other]}, held=False)
            return f"{worker} and {other}"
        kind, _, held = kind.partition(" ")
        name = worker if kind == "worker" else kind
        self.kill({name: pids[name]}, held=bool(held))
        return f"{name}{' (held down)' if held else ''}"

    def kill(self, victims: dict[str, int], *, held: bool) -> None:
        """SIGKILL these processes (name and pid); `held`: their environments are verified before the supervisor may start them again."""
        with self._under_harm(" and ".join(victims), dirty=any(name.startswith("worker-") for name in victims)):
            if held:
                self._kill_and_verify(victims)
            else:
                for pid in victims.values():
                    os.kill(pid, signal.SIGKILL)
            eventually(lambda: self._are_back(victims), within_s=BACK_WITHIN_S, what=f"{', '.join(victims)} back")

    def fail_call(self, path: Path, call: str, number: int, how: str, log: Path) -> None:
        """Let the `number`th system call `call` of worker 0 on this file be its last (`how` "killed"), or fail with the error `how`.

        The worker must die of either, ENOSPC too: there is room, so the disk is not full but broken.
        """
        name, pid = "worker-0", self.node.workers()[0]
        pidfd = os.pidfd_open(pid)
        inject = f"{'signal=SIGKILL' if how == 'killed' else f'error={how}'}:when={number}"
        with self._under_harm(f"{call} {number} {how} on {path.name}", dirty=True):
            with Tracer(pid, [path], (call,), log, inject) as tracer:
                wait_dead(pidfd)
                assert how == "killed" or tracer.injected()
            eventually(lambda: self._are_back({name: pid}), within_s=BACK_WITHIN_S, what=f"{name} back")

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """SIGSTOP this process for as long as the context lasts. No connection may end, and nothing may be lost."""
        pid = self.node.processes()[name]
        with self._under_harm(f"a pause of {name}", dirty=False):
            os.kill(pid, signal.SIGSTOP)
            try:
                yield
            finally:
                os.kill(pid, signal.SIGCONT)

    def pause_and_kill(self, name: str, within_s: float) -> None:
        """SIGSTOP this process, let others go on for `within_s` seconds, and SIGKILL it."""
        assert self.load is not None
        pid = self.node.processes()[name]
        ledger = self.load.ledger
        with self._under_harm(f"a pause and death of {name}", dirty=True):
            os.kill(pid, signal.SIGSTOP)
            with contextlib.suppress(AssertionError):  # whether anything is confirmed meanwhile is not the question
                ledger.wait_for_confirms(1_000_000, within_s)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: self._are_back({name: pid}), within_s=BACK_WITHIN_S, what=f"{name} back")

    def restart(self, *, as_user: bool = False) -> None:
        """Stop the node as systemd would, verify its environments (`as_user`: with the command as well), and start it again."""
        assert self.load is not None
        ledger = self.load.ledger
        ledger.write(HarmBegan(now_s(), "a stop", dirty=True))  # clients see it as a crash: what is unanswered stays so
        self.node.stop()
        ledger.write(Stopped(now_s()))
        verify_environments(self.node.data_dir)
        if as_user:
            verify_as_user(self.node.data_dir)
        self.node.start()
        ledger.write(HarmEnded(now_s(), "a stop"))

    def _kill_node(self, *, whole: bool) -> None:
        """Kill the supervisor, with everything or alone; what it leaves is verified, and started again."""
        with self._under_harm("everything" if whole else "supervisor", dirty=True):
            self.node.kill(supervisor_alone=not whole)
            verify_environments(self.node.data_dir)
            self.node.start()

    def _kill_and_verify(self, victims: dict[str, int]) -> None:
        assert self.node.process is not None
        supervisor = self.node.process.pid
        os.kill(supervisor, signal.SIGSTOP)
        try:
            pidfds = [os.pidfd_open(pid) for pid in victims.values()]
            for pidfd, pid in zip(pidfds, victims.values(), strict=True):
                os.kill(pid, signal.SIGKILL)
                wait_dead(pidfd)
            for name in victims:
                if name.startswith("worker-"):
                    self._verify_shards_of(int(name.removeprefix("worker-")))
        finally:
            os.kill(supervisor, signal.SIGCONT)

    def _verify_shards_of(self, worker: int) -> None:
        shards = [folder for folder in (self.node.data_dir / "shards").iterdir() if folder.name.isdecimal()]
        own = [folder for folder in shards if int(folder.name) % self.node.worker_count == worker]
        assert own, f"no shards of worker {worker} among {shards}"
        for folder in own:
            verify_environments(folder)

    def _are_back(self, victims: dict[str, int]) -> bool:
        try:
            now = {
                process["name"]: process["pid"]
                for row in self.node.api("nodes")
                for process in row["processes"]
                if process["pid"] and process["running"]
            }
        except httpx.HTTPError as error:
            raise AssertionError(f"the management API: {error}") from error
        return all(now.get(name, pid) != pid for name, pid in victims.items())

    @contextlib.contextmanager
    def _under_harm(self, what: str, *, dirty: bool) -> Iterator[None]:
        assert self.load is not None
        self.load.ledger.write(HarmBegan(now_s(), what, dirty))
        yield
        self.load.ledger.write(HarmEnded(now_s(), what))

    def bugs(self) -> list[str]:
        """Lines of the node's log that tell of a bug; that a process ended, or its supervisor, was ours to do."""
        return [complaint for complaint in complaints(self.node) if not any(sign in complaint.split("\n")[0] for sign in OUR_DOING)]


def environment_of(node: Node, worker: int) -> Path:
    """The data file of the first shard of this worker."""
    shards = sorted(int(folder.name) for folder in (node.data_dir / "shards").iterdir() if folder.name.isdecimal())
    own = [number for number in shards if number % node.worker_count == worker]
    assert own, f"worker {worker} has none of the shards {shards}"
    return node.data_dir / "shards" / str(own[0]) / "data.mdb"


def wait_dead(pidfd: int) -> None:
    """Wait until the process behind `pidfd` has died (it may stay a zombie), and close it."""
    try:
        readable, _, _ = select.select([pidfd], [], [], BACK_WITHIN_S)
        assert readable, f"not dead within {BACK_WITHIN_S} s"
    finally:
        os.close(pidfd)


def tell(text: str) -> None:
    """Show progress at once, whether or not pytest keeps the output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stdout, flush=True)
