"""Verification of a stopped node's data: every file by itself, and whether they belong together. Nothing is changed or repaired.

The files' own rules are in `leveret.storage.verify` and `leveret.storage.definitions`, the topology's in `leveret.router.topology`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from leveret.offline.stopped_node import StoppedNode
from leveret.router.entries import RECORDS_VERSION, Record, bring_forward
from leveret.router.topology import BrokenRecord, Topology
from leveret.storage.commit_log import Table
from leveret.storage.definitions import read_definitions
from leveret.storage.environment import StoreError, page_problems
from leveret.storage.layout import decode_index
from leveret.storage.local_log import LocalLog
from leveret.storage.quarantine import in_quarantine
from leveret.storage.verify import verify_directory

FINDINGS_MAX: Final = 20  # so many of one part are told; a broken page makes hundreds

# Called with the name of a part, how much of it is done, and how much there is; 0 while that is not known.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """One part of the data. findings: what is wrong with it, at most FINDINGS_MAX and a word about the rest; told: what is in it."""

    name: str
    findings: tuple[str, ...]
    told: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What the shards are compared with."""

    identity: str
    shard_count: int
    shard_of_queue: dict[int, int]


def verify_node(node: StoppedNode, on_progress: OnProgress = lambda name, done, total: None) -> Iterator[Checked]:
    """Check the definitions, then each shard, and tell of each when it is done. Memory: the definitions, and one shard's index."""
    on_progress("definitions", 0, 0)
    known, checked = _check_definitions(node.definitions)
    yield checked
    for number, directory in node.shards().items():
        on_progress(f"shard {number}", 0, 0)
        yield _check_shard(number, directory, known, on_progress)
    for aside in in_quarantine(node.data_dir / "shards"):
        yield Checked(aside.name, (), "set aside earlier; not served, and not checked")


def _check_definitions(directory: Path) -> tuple[_Known | None, Checked]:
    name = "definitions"
    if problems := page_problems(directory):
        return None, Checked(name, _bounded(problems), "")
    try:
        stored = read_definitions(directory)
    except StoreError as error:
        return None, Checked(name, (str(error),), "")
    records: dict[int, Record] = dict(stored.records)
    if stored.records_version != RECORDS_VERSION:
        changes = bring_forward(stored.records_version, records)
        if changes is None:
            sentence = f"their records have version {stored.records_version}, this broker reads version {RECORDS_VERSION} and those before"
            return None, Checked(name, (sentence,), "")
        records = {record_id: record for record_id, record in (records | changes).items() if record is not None}
    topology = Topology(1)
    try:
        topology.restore(records, stored.next_id)
    except BrokenRecord as error:
        return None, Checked(name, (str(error),), "")
    findings = []
    if stored.next_id <= max(records, default=0):
        findings.append(f"their next id is {stored.next_id}, and there is a record {max(records)}")
    known = _Known(stored.identity, topology.shards, {queue.id: queue.shard for queue in topology.queues.values()})
    counts = ((len(topology.vhosts), "vhost"), (len(topology.exchanges), "exchange"), (len(topology.queues), "queue"))
    told = ", ".join(_counted(count, noun) for count, noun in counts) + f" on {_counted(topology.shards, 'shard')}"
    return known, Checked(name, tuple(findings), told)


def _check_shard(number: int, directory: Path, known: _Known | None, on_progress: OnProgress) -> Checked:
    name = f"shard {number}"

    def progress(done: int, total: int) -> None:
        on_progress(name, done, total)

    findings = _bounded(f"{where}: {what}" for where, what in verify_directory(directory, progress))
    if findings:
        return Checked(name, findings, "")
    try:
        log = LocalLog(directory, identity=known.identity.encode() if known is not None else None, shard=number)
    except StoreError as error:
        return Checked(name, (str(error),), "")
    try:
        return _compare(name, number, log, known)
    except StoreError as error:
        return Checked(name, (str(error),), "")
    finally:
        log.close()


def _compare(name: str, number: int, log: LocalLog, known: _Known | None) -> Checked:
    """A sound shard, beside the definitions if those are sound too."""
    live: dict[int, int] = {}
    for _, value in log.scan(Table.INDEX):
        for run in decode_index(value).runs:
            live[run.queue_id] = live.get(run.queue_id, 0) + run.live
    live = {queue_id: count for queue_id, count in live.items() if count}
    told = f"{_counted(sum(live.values()), 'message')} of {_counted(len(live), 'queue')}"
    if known is None:
        return Checked(name, (), f"{told}; whose they are is not known without definitions")
    findings = []
    if number >= known.shard_count:
        findings.append(f"the definitions know of {_counted(known.shard_count, 'shard')} only: nobody would serve it")
    elsewhere = [queue_id for queue_id in live if known.shard_of_queue.get(queue_id, number) != number]
    findings += [f"queue {queue_id} lives on shard {known.shard_of_queue[queue_id]}, and has messages here" for queue_id in elsewhere]
    # A queue's definition goes first, what it held when its worker hears of that: a kill between the two is no damage.
    if ownerless := sum(count for queue_id, count in live.items() if queue_id not in known.shard_of_queue):
        told += f", {ownerless:,} of them of deleted queues (dropped at the next start)"
    return Checked(name, _bounded(findings), told)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _bounded(findings: Iterable[str]) -> tuple[str, ...]:
    told: list[str] = []
    more = 0
    for finding in findings:
        if len(told) < FINDINGS_MAX:
            told.append(finding)
        else:
            more += 1
    return (*told, f"... and {more} more") if more else tuple(told)
