"""A recording of what a process wrote to the files of a shard and when it had the disk take it, and the files that a power cut may leave.

Owns `parse`, which reads strace's log of the calls on those files, and `cuts`, which makes of base images and calls all that could be found
after a power cut: what was synced is there, of what was written since any part may be. Pure. `test_power_cut.py` records and judges.

What the disk keeps, and what it may not: a write through a descriptor with O_DSYNC is on the disk when the call is done, any other when an
fdatasync or fsync of its file behind it is done. Until then each page of it may be there or not, in any combination.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

PAGE_BYTES = 4096
CALLS = ("pwrite64", "pwritev", "pwritev2", "writev", "write", "lseek", "fdatasync", "fsync", "ftruncate", "msync")

_LINE = re.compile(r"^(?P<pid>\d+) +(?P<at>\d+\.\d+) (?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. (?P<call>\w+) resumed>(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<call>\w+)\((?P<fd>\d+)(?:, )?(?P<arguments>.*)\) += (?P<result>-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


class Descriptor(NamedTuple):
    """A file by its name; `synced`: opened with O_DSYNC or O_SYNC."""

    name: str
    synced: bool


class Write(NamedTuple):
    """`data` at `offset` of the file `name`; `synced`: it is on the disk when the call is done. `at_s`: the wall clock when it began."""

    at_s: float
    name: str
    offset: int
    data: bytes
    synced: bool


class Sync(NamedTuple):
    """All that was written to the file `name` before it is on the disk when it is done."""

    at_s: float
    name: str


Call = Write | Sync
Images = dict[str, bytearray]  # what is being made, by file


def parse(lines: Iterable[str], descriptors: dict[int, Descriptor]) -> list[Call]:
    """The calls of a log made with `-f -ttt -xx`, in order. descriptors: all that were open when it began.

    `AssertionError` for a line that does not fit, another descriptor, a string that strace has cut, a failed call, and for msync and
    ftruncate, which are not used on files that are written already.
    """
    found: list[Call] = []
    places: dict[int, int] = {}  # fd -> offset
    open_calls: dict[str, tuple[float, str]] = {}  # pid -> when, and the beginning of the line
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        assert match, f"not a line of strace: {line[:120]!r}"
        pid, at_s, rest = match["pid"], float(match["at"]), match["rest"]
        if rest.startswith(("+++", "---")):
            continue
        if rest.endswith("<unfinished ...>"):
            open_calls[pid] = at_s, rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := _RESUMED.match(rest):
            at_s, begun = open_calls.pop(pid)
            rest = begun + resumed["rest"]
        call = _CALL.match(rest)
        assert call, f"not a call: {rest[:120]!r}"
        name, fd, arguments, result = call["call"], int(call["fd"]), call["arguments"], int(call["result"])
        assert result >= 0, f"failed: {rest[:120]!r}"
        assert fd in descriptors, f"nobody knows the descriptor: {rest[:120]!r}"
        file, synced = descriptors[fd]
        if name == "lseek":
            places[fd] = result
        elif name in ("fdatasync", "fsync"):
            found.append(Sync(at_s, file))
        elif name in ("pwrite64", "pwritev", "pwritev2"):
            data = _strings(arguments)
            assert len(data) == result, f"wrote {result} of {len(data)} bytes: {name}"
            offset = int(arguments.rsplit(", ")[-2 if name == "pwritev2" else -1])  # flags are the last word of pwritev2
            found.append(Write(at_s, file, offset, data, synced))
        elif name in ("write", "writev"):
            data = _strings(arguments)
            assert len(data) == result, f"wrote {result} of {len(data)} bytes: {name}"
            found.append(Write(at_s, file, places[fd], data, synced))
            places[fd] += result
        else:
            raise AssertionError(f"nothing that we use makes the call {name}")
    return found


def _strings(arguments: str) -> bytes:
    parts = []
    for text, cut in _STRING.findall(arguments):
        assert not cut, "strace has cut a string: give it a larger -s"
        parts.append(bytes.fromhex(text.replace("\\x", "")))
    return b"".join(parts)


@dataclass(frozen=True)
class Cut:
    """The files that may be found, by name. `calls`: how many calls had begun; `before_s`: the power failed before this moment of the wall
    clock, so what anybody had heard by then must be true of them; `kept`: what they hold of what was unsynced, in words."""

    calls: int
    before_s: float
    kept: str
    images: dict[str, bytes]


def cuts(base: dict[str, bytes], recorded: list[Call], dice: random.Random, *, subsets: int) -> Iterator[Cut]:
    """Just before each sync is done: every beginning of what is unsynced, and `subsets` random sets of its pages; and the end.

    A cut at an earlier call leaves nothing that is not among these, and less had been heard by then.
    """
    disk = {name: bytearray(content) for name, content in base.items()}
    unsynced: list[Write] = []
    for number, call in enumerate(recorded, 1):
        if isinstance(call, Write):
            unsynced.append(call)
        if isinstance(call, Write) and not call.synced:
            continue
        yield from _images(disk, unsynced, dice, number, call.at_s, subsets)
        if isinstance(call, Write):  # it takes along nothing that was written before it
            _put(disk, unsynced.pop())
        else:
            for write in unsynced:
                if write.name == call.name:
                    _put(disk, write)
            unsynced = [write for write in unsynced if write.name != call.name]
    yield from _images(disk, unsynced, dice, len(recorded), float("inf"), subsets)


def _images(disk: Images, unsynced: list[Write], dice: random.Random, number: int, before_s: float, subsets: int) -> Iterator[Cut]:
    images = _copied(disk)
    yield Cut(number, before_s, "nothing unsynced", _frozen(images))
    for count, write in enumerate(unsynced, 1):
        _put(images, write)
        yield Cut(number, before_s, f"the first {count} of {len(unsynced)} unsynced writes", _frozen(images))
    pages = [page for write in unsynced for page in _pages(write)]
    for _ in range(subsets if len(pages) > 1 else 0):
        images = _copied(disk)
        share = dice.random()
        kept = [page for page in pages if dice.random() < share]
        for page in kept:  # in order: of two writes to one page the later one lies over the earlier
            _put(images, page)
        yield Cut(number, before_s, f"{len(kept)} of {len(pages)} unsynced pages", _frozen(images))


def _copied(disk: Images) -> Images:
    return {name: bytearray(image) for name, image in disk.items()}


def _frozen(images: Images) -> dict[str, bytes]:
    return {name: bytes(image) for name, image in images.items()}


def _pages(write: Write) -> list[Write]:
    """The write, cut where pages end."""
    parts = []
    at = 0
    while at < len(write.data):
        size = min(PAGE_BYTES - (write.offset + at) % PAGE_BYTES, len(write.data) - at)
        parts.append(write._replace(offset=write.offset + at, data=write.data[at : at + size]))
        at += size
    return parts


def _put(images: Images, write: Write) -> None:
    image = images[write.name]
    if len(image) < write.offset:
        image.extend(bytes(write.offset - len(image)))
    image[write.offset : write.offset + len(write.data)] = write.data
