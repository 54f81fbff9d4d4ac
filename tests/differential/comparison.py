"""Comparing two transcripts: equal, differing as intended, open by the protocol, or wrong.

Owns `compare` and the reviewed list `intended.toml`. The first step that differs decides: the rest of a script is compared only if what
differed was words alone. Pure: reads the list once, touches no broker.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from tests.differential.performance import Record, Transcript
from tests.differential.script import Script

INTENDED_PATH = Path(__file__).with_name("intended.toml")


@dataclass(frozen=True)
class Intended:
    """One entry of the list; the file says what each part means."""

    name: str
    operation: re.Pattern[str]
    rabbitmq: re.Pattern[str]
    leveret: re.Pattern[str]
    parts: bool
    versions: str
    reason: str

    def covers(self, operation: str, theirs: list[str], ours: list[str]) -> bool:
        """Whether this entry explains these lines, which only one side has each."""
        if not self.operation.fullmatch(operation) and not self.operation.fullmatch(operation.removesuffix(" lingering")):
            return False
        their_matches = [self.rabbitmq.fullmatch(line) for line in theirs]
        our_matches = [self.leveret.fullmatch(line) for line in ours]
        if not self.parts:
            if len(theirs) != len(ours) or not all(their_matches) or not all(our_matches):
                return False
            return all(_agree(one, other) for one, other in zip(their_matches, our_matches, strict=True))
        if not self.rabbitmq.pattern or not self.leveret.pattern:
            return any(their_matches) or any(our_matches)
        return any(_agree(one, other) for one in their_matches if one for other in our_matches if other)


def _agree(one: re.Match[str] | None, other: re.Match[str] | None) -> bool:
    """Whether the groups that both have say the same."""
    assert one is not None
    assert other is not None
    ones, others = one.groupdict(), other.groupdict()
    return all(ones[name] == others[name] for name in ones.keys() & others.keys())


def read_intended(path: Path = INTENDED_PATH) -> list[Intended]:
    """The list. Raises `ValueError` for an entry that lacks something or says nothing."""
    entries = []
    for row in tomllib.loads(path.read_text(encoding="utf-8")).get("difference", []):
        wrong = {"name", "operation", "rabbitmq", "leveret", "parts", "versions", "reason"} ^ row.keys()
        if wrong:
            raise ValueError(f"{row.get('name', row)}: missing or unknown {sorted(wrong)}")
        if not (row["name"] and row["versions"] and row["reason"] and (row["rabbitmq"] or row["leveret"])):
            raise ValueError(f"{row['name']}: an entry needs a name, versions, a reason and at least one side")
        patterns = {side: re.compile(row[side], re.DOTALL) for side in ("operation", "rabbitmq", "leveret")}
        entries.append(Intended(**row | patterns))
    assert len({entry.name for entry in entries}) == len(entries), "two entries have the same name"
    return entries


@dataclass
class Verdict:
    """What `compare` found. step: the index of the first step that differs wrongly, None if none does; `len(steps)` is the end's.

    intended: names of the entries that were used. is_open: the two went ways of their own where the protocol leaves it open.
    """

    step: int | None = None
    operation: str = ""
    theirs: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)
    intended: list[str] = field(default_factory=list)
    is_open: bool = False
    compared: int = 0


def compare(script: Script, theirs: Transcript, ours: Transcript, intended: list[Intended]) -> Verdict:
    """Compare what RabbitMQ and Leveret showed, step by step."""
    verdict = Verdict()
    operations = [step.operation + (" lingering" if step.lingers else "") for step in script.steps] + ["end"]
    for number, (operation, their_record, our_record) in enumerate(zip(operations, theirs.records, ours.records, strict=True)):
        verdict.compared = number + 1
        if their_record.streams == our_record.streams:
            continue
        if differs_openly(their_record, our_record):
            verdict.is_open = True
            return verdict
        their_lines, our_lines = only_in_each(their_record, our_record)
        entry = next((entry for entry in intended if entry.covers(operation, their_lines, our_lines)), None)
        if entry is None:
            verdict.step, verdict.operation, verdict.theirs, verdict.ours = number, operation, their_lines, our_lines
            return verdict
        verdict.intended.append(entry.name)
        if entry.parts:
            return verdict
    return verdict


def only_in_each(theirs: Record, ours: Record) -> tuple[list[str], list[str]]:
    """The lines of each side that are not in the other's same stream; all lines of a stream that differs in order alone."""
    their_lines: list[str] = []
    our_lines: list[str] = []
    for stream in sorted(theirs.streams.keys() | ours.streams.keys()):
        one, other = theirs.streams.get(stream, []), ours.streams.get(stream, [])
        if one == other:
            continue
        only_one = [line for line in one if line not in other]
        only_other = [line for line in other if line not in one]
        if not only_one and not only_other:
            only_one, only_other = one, other
        their_lines += [f"{stream}: {line}" for line in only_one]
        our_lines += [f"{stream}: {line}" for line in only_other]
    return their_lines, our_lines


def differs_openly(theirs: Record, ours: Record) -> bool:
    """Whether only the receivers of deliveries differ, or their order among several consumers: that is the broker's choice."""

    def rest(record: Record) -> dict[str, list[str]]:
        return {stream: lines for stream, lines in record.streams.items() if not stream.endswith(" deliveries")}

    return rest(theirs) == rest(ours) and sorted(theirs.loose) == sorted(ours.loose) and (_consumers(theirs) > 1 or _consumers(ours) > 1)


def _consumers(record: Record) -> int:
    """To how many consumers something was delivered."""
    tags = set()
    for stream, lines in record.streams.items():
        if stream.endswith(" deliveries"):
            tags |= {(stream, line.split("consumer_tag=", 1)[1].split(",", 1)[0]) for line in lines}
    return len(tags)
