"""The codec alone, in nanoseconds an operation: `python -m bench.codec [NAME …] [--rounds N] [--json]`.

No socket, no process. Each bench says what one operation is. The first ones are what the hot path pays per message and run in C
(`codec_loops.pyx`); those that make Python objects are for connections, declares and tools. A figure is the median of the rounds, with the
fastest beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from leveret.codec.frames import FrameReader, encode_content, encode_method_frame
from leveret.codec.methods import BasicPublish, QueueDeclare, QueueDeclareOk
from leveret.codec.properties import NO_PROPERTIES, Properties, decode_properties
from leveret.codec.tables import decode_table, encode_table

from bench import codec_loops as loops

Bench = Callable[[], tuple[int, int]]
BENCHES: dict[str, Bench] = {}
FRAME_MAX = 131072
FIVE_FIELDS = {"x-message-ttl": 60000, "x-max-length": 10_000, "x-dead-letter-exchange": "dlx", "x-durable": True, "x-rate": 2.5}
TYPICAL = Properties(content_type="application/json", delivery_mode=2, headers=FIVE_FIELDS, message_id="0123456789", timestamp=1600000000)
DECLARE = QueueDeclare(queue="bench.queue", durable=True, arguments=FIVE_FIELDS)


def bench(measure: Bench) -> Bench:
    """Register under the function's name; it returns (nanoseconds, operations)."""
    BENCHES[measure.__name__] = measure
    return measure


def timed(run: Callable[[], object], operations: int) -> tuple[int, int]:
    started_ns = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - started_ns, operations


def publishes(count: int, body_size: int) -> bytes:
    """What a client sends for `count` publishes to the default exchange."""
    publish = encode_method_frame(1, BasicPublish(routing_key="bench.queue"))
    return (publish + encode_content(1, 60, NO_PROPERTIES, b"x" * body_size, FRAME_MAX)) * count


def scan_publishes(body_size: int, count: int, times: int) -> tuple[int, int]:
    stream = publishes(count, body_size)
    assert loops.scan(stream, FRAME_MAX, 1) == count * body_size
    return timed(lambda: loops.scan(stream, FRAME_MAX, times), count * times)


@bench
def scan_publish_16B() -> tuple[int, int]:  # noqa: N802 (a bench's name)
    """The three frames of one publish found in a chunk of 500."""
    return scan_publishes(16, 500, 2_000)


@bench
def scan_publish_1KB() -> tuple[int, int]:  # noqa: N802
    """The same with 1 KB bodies, 50 to a chunk."""
    return scan_publishes(1024, 50, 20_000)


@bench
def write_deliver_16B() -> tuple[int, int]:  # noqa: N802
    """basic.deliver, header and body of one message written into an output buffer."""
    return timed(lambda: loops.deliver(b"x" * 16, NO_PROPERTIES, FRAME_MAX, 1_000_000), 1_000_000)


@bench
def write_deliver_1KB() -> tuple[int, int]:  # noqa: N802
    """The same with a 1 KB body and typical properties."""
    return timed(lambda: loops.deliver(b"x" * 1024, TYPICAL.encode(), FRAME_MAX, 1_000_000), 1_000_000)


@bench
def split_body_1MB() -> tuple[int, int]:  # noqa: N802
    """A body of 1 MiB cut into frames of 128 KiB."""
    return timed(lambda: loops.split_body(bytes(1 << 20), FRAME_MAX, 500), 500)


@bench
def view_properties_none() -> tuple[int, int]:
    """The check of a message without properties."""
    return timed(lambda: loops.view(NO_PROPERTIES, 5_000_000), 5_000_000)


@bench
def view_properties_typical() -> tuple[int, int]:
    """The check of content type, delivery mode, message id, timestamp and five headers."""
    return timed(lambda: loops.view(TYPICAL.encode(), 1_000_000), 1_000_000)


@bench
def check_table_100k_fields() -> tuple[int, int]:
    """One field of a hundred thousand: as much as one of five, or it is not linear."""
    table = encode_table({f"{number:06}": None for number in range(100_000)})
    return timed(lambda: loops.check(table, 10), 1_000_000)


@bench
def find_field_last_of_5() -> tuple[int, int]:
    table = encode_table(FIVE_FIELDS)
    return timed(lambda: loops.find(table, b"x-rate", 2_000_000), 2_000_000)


@bench
def decode_publish_object() -> tuple[int, int]:
    """A publish as a Python object: what the hot path does without."""
    payload = BasicPublish(routing_key="bench.queue").encode()
    return timed(lambda: loops.decode(payload, 500_000), 500_000)


@bench
def decode_queue_declare() -> tuple[int, int]:
    """With five arguments."""
    payload = DECLARE.encode()
    return timed(lambda: loops.decode(payload, 100_000), 100_000)


@bench
def write_queue_declare() -> tuple[int, int]:
    """With five arguments, into an output buffer."""
    return timed(lambda: loops.write_method(DECLARE, 100_000), 100_000)


@bench
def write_queue_declare_ok() -> tuple[int, int]:
    method = QueueDeclareOk(queue="bench.queue", message_count=1, consumer_count=1)
    return timed(lambda: loops.write_method(method, 500_000), 500_000)


def repeat(run: Callable[[], object], times: int) -> Callable[[], None]:
    def loop() -> None:
        for _ in range(times):
            run()

    return loop


@bench
def decode_table_5_fields() -> tuple[int, int]:
    table = encode_table(FIVE_FIELDS)
    return timed(repeat(lambda: decode_table(table), 100_000), 100_000)


@bench
def decode_table_5_fields_typed() -> tuple[int, int]:
    table = encode_table(FIVE_FIELDS)
    return timed(repeat(lambda: decode_table(table, typed=True), 100_000), 100_000)


@bench
def encode_table_5_fields() -> tuple[int, int]:
    return timed(repeat(lambda: encode_table(FIVE_FIELDS), 100_000), 100_000)


@bench
def decode_properties_typical() -> tuple[int, int]:
    data = TYPICAL.encode()
    return timed(repeat(lambda: decode_properties(data), 50_000), 50_000)


@bench
def encode_properties_typical() -> tuple[int, int]:
    return timed(repeat(TYPICAL.encode, 50_000), 50_000)


@bench
def read_frames_16B() -> tuple[int, int]:  # noqa: N802
    """One publish of 16 bytes (three frames) through `FrameReader`, as tests and bare clients read."""
    stream = publishes(500, 16)

    def read() -> None:
        reader = FrameReader(FRAME_MAX)
        reader.feed(stream)
        assert sum(1 for _ in reader) == 1500

    return timed(repeat(read, 100), 50_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.codec", description="The codec alone, in ns an operation.")
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
        rounds_ns = [elapsed_ns / operations for elapsed_ns, operations in (BENCHES[name]() for _ in range(options.rounds))]
        results[name] = {"median_ns": round(statistics.median(rounds_ns), 2), "min_ns": round(min(rounds_ns), 2)}
        if not options.json:
            print(f"{name:32} {results[name]['median_ns']:11.2f} ns  (fastest {results[name]['min_ns']:.2f})", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
