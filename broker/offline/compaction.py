"""Compaction of a stopped node's files, one after the other. Each is told of when it is done: a failure at a later one undoes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from leveret.offline.stopped_node import StoppedNode
from leveret.refusal import CANNOT_CREATE, DATA, Refusal
from leveret.storage.compaction import compact
from leveret.storage.environment import ForeignStore, StoreError


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its name for people, and its sizes before and after in bytes."""

    name: str
    before_bytes: int
    after_bytes: int


def compact_node(node: StoppedNode, on_part: Callable[[str], None] = lambda name: None) -> Iterator[Part]:
    """Make each file of the node smaller; `on_part` hears the name of each before.

    Raises `Refusal` at the first that cannot be, which is left as it was: 65 if it is damaged, 73 if the new file cannot be written.
    """
    places = [("definitions", node.definitions), *((f"shard {number}", directory) for number, directory in node.shards().items())]
    for name, directory in places:
        on_part(name)
        try:
            sizes = compact(directory, name)
        except StoreError as error:
            raise Refusal(str(error), DATA if isinstance(error, ForeignStore) else CANNOT_CREATE) from error
        yield Part(name, sizes.before_bytes, sizes.after_bytes)
