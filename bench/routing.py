"""Routing alone, in nanoseconds an operation: `python -m bench.routing [NAME …] [--rounds N] [--json]`.

No socket, no process: keys into exchanges, publish packets through the distributor into the buffers of workers that are down. Names say
what is looked up and where: `memo` is a key that has been routed before, `miss` one that has not, so that the bindings are matched. Loops
are in C (`routing_loops.pyx`); a figure is the median of the rounds, with the fastest beside it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

from leveret.codec.tables import encode_table
from leveret.router.commands import Bind, CreateVhost, DeclareExchange, DeclareQueue, DeleteQueue
from leveret.router.distributor import Distributor
from leveret.router.exchanges.exchange import Exchange
from leveret.router.topology import Topology

from bench import routing_loops as loops

Bench = Callable[[], tuple[float, int]]
BENCHES: dict[str, Bench] = {}
WORKERS = 2
SEED = 20


def bench(measure: Bench) -> Bench:
    """Register under the function's name; it returns (seconds, operations)."""
    BENCHES[measure.__name__] = measure
    return measure


class Node:
    """A distributor with one exchange `x`; `bind` makes a queue for each binding key."""

    def __init__(self, kind: str, memo_bytes_max: int = 1 << 25) -> None:
        self.distributor = Distributor(None, WORKERS, memo_bytes_max=memo_bytes_max, backlog_high=1 << 40)
        self.topology = Topology(WORKERS, self.distributor)
        self.topology.apply(CreateVhost("/"))
        self.id: int = self.topology.apply(DeclareExchange("/", "x", kind)).result["id"]
        self.queues = 0

    @property
    def exchange(self) -> Exchange:
        return self.topology.exchanges[self.id].matcher

    def bind(self, *keys: str, arguments: bytes = b"", worker: int | None = None) -> Node:
        for key in keys:
            name = f"q{self.queues}"
            self.topology.apply(DeclareQueue("/", name, worker=self.queues % WORKERS if worker is None else worker))
            self.topology.apply(Bind("/", "x", name, key, arguments=arguments))
            self.queues += 1
        return self

    def find(self, keys: list[bytes], rounds: int) -> tuple[float, int]:
        return timed(lambda: loops.find_routes(self.distributor, self.id, keys, rounds), len(keys) * rounds)

    def match(self, keys: list[bytes], rounds: int, properties: bytes = b"") -> tuple[float, int]:
        return timed(lambda: loops.match_all(self.exchange, keys, rounds, properties), len(keys) * rounds)

    def publish(self, key: bytes, body_size: int, count: int) -> tuple[float, int]:
        return timed(lambda: loops.publish(self.distributor, self.id, key, body_size, count), count)


def timed(run: Callable[[], object], operations: int) -> tuple[float, int]:
    started_ns = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started_ns) / 1e9, operations


def devices(count: int) -> tuple[list[str], list[bytes]]:
    """Binding keys as sensors use them, and keys of which each matches one exactly, one by `*` and one by `#` if they are there."""
    rng = random.Random(SEED)
    sites = [f"site{n}" for n in range(count // 10 or 1)]
    patterns = [rng.choice([f"{site}.*.temperature", f"{site}.#", f"{site}.room{n}.humidity"]) for n, site in enumerate(sites * 10)]
    keys = [f"{rng.choice(sites)}.room{rng.randrange(100)}.temperature".encode() for _ in range(1000)]
    return patterns[:count], keys


@bench
def direct_hit_memo() -> tuple[float, int]:
    """One key of a direct exchange with a thousand, routed before."""
    return Node("direct").bind(*(f"key-{n}" for n in range(1000))).find([b"key-500"], 2_000_000)


@bench
def direct_1000_keys_memo() -> tuple[float, int]:
    """A thousand keys in turn, all routed before."""
    return Node("direct").bind(*(f"key-{n}" for n in range(1000))).find([b"key-%d" % n for n in range(1000)], 2000)


@bench
def direct_miss() -> tuple[float, int]:
    """Matched and prepared each time, because the memo may hold nothing."""
    return Node("direct", memo_bytes_max=0).bind(*(f"key-{n}" for n in range(1000))).find([b"key-%d" % n for n in range(1000)], 300)


@bench
def topic_1000_bindings_memo() -> tuple[float, int]:
    """A thousand keys against a thousand patterns, all routed before."""
    patterns, keys = devices(1000)
    return Node("topic").bind(*patterns).find(keys, 2000)


@bench
def topic_1000_bindings_miss() -> tuple[float, int]:
    """The same, matched and prepared each time."""
    patterns, keys = devices(1000)
    return Node("topic", memo_bytes_max=0).bind(*patterns).find(keys, 200)


@bench
def topic_1000_bindings_match() -> tuple[float, int]:
    """The matching alone of the same."""
    patterns, keys = devices(1000)
    return Node("topic").bind(*patterns).match(keys, 500)


@bench
def topic_100000_bindings_match() -> tuple[float, int]:
    """With a hundred times as many: as much for each, or the trie does not do its work."""
    patterns, keys = devices(100_000)
    return Node("topic").bind(*patterns).match(keys, 200)


@bench
def topic_127_words_1000_hash_chains_match() -> tuple[float, int]:
    """The worst that 1,000 bindings can do to a key of 127 words: patterns that share nothing and stay possible to its end."""
    rng = random.Random(SEED)
    words = [f"w{n}" for n in range(127)]
    node = Node("topic")
    node.bind(*("#." + ".#.".join(words[at] for at in sorted(rng.sample(range(127), 20))) + ".#.never" for _ in range(1000)))
    return node.match([".".join(words).encode()], 200)


@bench
def fanout_10_queues_memo() -> tuple[float, int]:
    """Ten queues on two workers."""
    return Node("fanout").bind(*[""] * 10).find([b"k"], 2_000_000)


@bench
def fanout_10000_queues_match() -> tuple[float, int]:
    """Ten thousand queues, collected each time."""
    return Node("fanout").bind(*[""] * 10_000).match([b"k"], 200)


@bench
def headers_100_bindings_match() -> tuple[float, int]:
    """Five headers against a hundred bindings of two, of which one holds."""
    node = Node("headers")
    for n in range(100):
        node.bind("", arguments=encode_table({"format": "pdf", "kind": n}))
    headers = encode_table({"format": "pdf", "kind": 7, "size": 12345, "author": "somebody", "urgent": True})
    return node.match([b""], 200_000, (1 << 13).to_bytes(2, "big") + headers)


@bench
def publish_16_bytes_1_queue() -> tuple[float, int]:
    """A packet read, routed and written for one worker."""
    return Node("topic").bind("a.#").publish(b"a.b.c", 16, 2_000_000)


@bench
def publish_1_kb_1_queue() -> tuple[float, int]:
    return Node("topic").bind("a.#").publish(b"a.b.c", 1024, 1_000_000)


@bench
def publish_16_bytes_10_queues_2_workers() -> tuple[float, int]:
    """One copy for each worker."""
    return Node("fanout").bind(*[""] * 10).publish(b"", 16, 1_000_000)


@bench
def bind_and_unbind_among_100000() -> tuple[float, int]:
    """A queue declared, bound, and deleted while a hundred thousand others are bound to the same exchange; an operation is all three."""
    patterns, _ = devices(100_000)
    node = Node("topic").bind(*patterns)

    def churn() -> None:
        for n in range(2000):
            node.topology.apply(DeclareQueue("/", "temporary", worker=0))
            node.topology.apply(Bind("/", "x", "temporary", f"site{n}.#"))
            node.topology.apply(DeleteQueue("/", "temporary"))

    return timed(churn, 2000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description="Routing alone, in ns an operation.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; default all: {', '.join(BENCHES)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    results = {}
    for name in options.names or BENCHES:
        rounds_ns = [seconds * 1e9 / operations for seconds, operations in (BENCHES[name]() for _ in range(options.rounds))]
        results[name] = {"median_ns": round(statistics.median(rounds_ns), 2), "min_ns": round(min(rounds_ns), 2)}
        if not options.json:
            print(f"{name:40} {results[name]['median_ns']:11.2f} ns  (fastest {results[name]['min_ns']:.2f})", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
