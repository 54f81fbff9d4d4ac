"""Fuzz target of the whole protocol, against a started broker.

    python tests/fuzz/fuzz_protocol.py --seconds 120 [--seed 7]
    python tests/fuzz/fuzz_protocol.py --seed 7 --round 815        that round again, alone

A round is a few connections, mostly past a valid handshake, that interleave: any method of the protocol with arguments of the right types,
mostly names that exist; the same with bytes changed; contents whole, cut short and mixed over channels; garbage; and every way to go, from
connection.close to a reset, or not to go at all. All of a round follows from the seed and its number. After each tide of rounds, and at the
end, must hold: no process has died or been restarted; no log line tells of a bug; an honest client beside it all was served all the time,
and soon; and once everybody has gone, so has the memory. Exit status 1 otherwise, with the rounds to repeat.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import struct
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run as a script

from pika.spec import Exchange, Queue  # noqa: E402

from tests.deadline import busy_factor, eventually  # noqa: E402
from tests.hostile.bystander import Bystander, resident_bytes  # noqa: E402
from tests.hostile.complaints import complaints  # noqa: E402
from tests.node import Node  # noqa: E402
from tests.wire import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, PROTOCOL_HEADER, WireClient, frame_bytes, header_payload  # noqa: E402

MIB = 1024 * 1024
TIDE_ROUNDS = 100  # after so many rounds everything that was declared is deleted, so that what is queued stays bounded
LINGERING_MAX = 40  # sockets that were left open, half-open or not
LATENCY_MAX_S = 1.0  # for the honest client; a round's largest message takes far less
MEMORY_LEFT_MAX = 48 * MIB  # beyond what was there after the first tide, in all processes: what allocators keep

QUEUES = [f"q{number}" for number in range(6)]
EXCHANGES = ["", "amq.direct", "amq.topic", "amq.fanout", "amq.headers", *(f"x{number}" for number in range(4))]
KEYS = ["", "k", "a.b.c", "#", "*.b.#", "#.#.#", ".", *QUEUES]
WORDS = [
    "direct",
    "topic",
    "fanout",
    "headers",
    "x-none",
    "t1",
    "t2",
    "PLAIN",
    "en_US",
    "amq.rabbitmq.reply-to",
    "amq.gen-x",
    "\r\n\x1b[1m\0",
]
SHORTS = (0, 1, 2, 255, 256, 2047, 32768, 65535)
NUMBERS = (0, 1, 2, 3, 10, 100, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
TABLE_KEYS = ["x-match", "x-priority", "alternate-exchange", "x-message-ttl", "CC", "BCC", "x-queue-type", "k", "connection_name", ""]


@dataclass(frozen=True)
class MethodShape:
    """One method of the protocol: its name for people, its ids, and its fields' types and names in order."""

    name: str
    class_id: int
    method_id: int
    fields: tuple[tuple[str, str], ...]


def methods_of_the_protocol() -> list[MethodShape]:
    """Every method, whoever may send it."""
    spec = tomllib.loads((ROOT / "codec" / "amqp091.toml").read_text())
    return [
        MethodShape(
            f"{family['name']}.{method['name']}",
            family["id"],
            method["id"],
            tuple((row["type"], row["name"]) for row in method.get("fields", [])),
        )
        for family in spec["classes"]
        for method in family.get("methods", [])
    ]


METHODS = methods_of_the_protocol()
BY_NAME = {shape.name: shape for shape in METHODS}
# What makes things happen comes more often than the rest.
LIVELY = [
    BY_NAME[name]
    for name in (
        "queue.declare", "queue.declare", "queue.bind", "queue.delete", "queue.purge", "exchange.declare", "exchange.bind",
        "exchange.delete",
        "basic.consume", "basic.consume", "basic.get", "basic.get", "basic.ack", "basic.nack", "basic.reject", "basic.qos", "basic.cancel",
        "basic.recover", "confirm.select", "tx.select", "tx.commit", "tx.rollback", "channel.flow", "channel.open", "channel.close",
    )
]  # fmt: skip


def shortstr(text: bytes) -> bytes:
    return bytes([min(len(text), 255)]) + text[:255]


@dataclass
class Writer:
    """Makes the bytes of one round out of its chance."""

    chance: random.Random

    def table(self, depth: int = 0) -> bytes:
        """A field table with its length: mostly small, sometimes deep, sometimes with a field type that is none."""
        chance = self.chance
        fields = b""
        for _ in range(chance.choice((0, 0, 0, 1, 2, 5))):
            fields += shortstr(chance.choice(TABLE_KEYS).encode()) + self.value(depth)
        return struct.pack(">I", len(fields)) + fields

    def value(self, depth: int) -> bytes:
        chance = self.chance
        kind = chance.choice("tbBsuIilLfdDSSSxTVAFz" if depth < 6 else "tIV")
        match kind:
            case "t" | "b" | "B":
                return kind.encode() + chance.randbytes(1)
            case "s" | "u":
                return kind.encode() + chance.randbytes(2)
            case "I" | "i" | "f":
                return kind.encode() + chance.randbytes(4)
            case "l" | "L" | "d" | "T":
                return kind.encode() + chance.randbytes(8)
            case "D":
                return b"D" + chance.randbytes(5)
            case "S" | "x":
                text = chance.choice([*WORDS, *QUEUES, *EXCHANGES, "all", "any", "classic", "quorum"]).encode()
                return kind.encode() + struct.pack(">I", len(text)) + text
            case "F":
                return b"F" + self.table(depth + 1)
            case "A":
                items = b"".join(self.value(depth + 1) for _ in range(chance.randrange(4)))
                return b"A" + struct.pack(">I", len(items)) + items
        return kind.encode()

    def name(self, field_name: str) -> bytes:
        chance = self.chance
        if chance.random() < 0.03:
            return shortstr(chance.randbytes(chance.choice((1, 5, 255))))
        if "queue" in field_name:
            pool = [*QUEUES, ""]
        elif "exchange" in field_name or field_name in ("source", "destination"):
            pool = EXCHANGES
        elif field_name == "routing_key":
            pool = KEYS
        elif field_name == "consumer_tag":
            pool = ["t1", "t2", ""]
        elif field_name == "type":
            pool = WORDS[:5]
        else:
            pool = WORDS
        return shortstr(chance.choice(pool).encode())

    def method(self, shape: MethodShape) -> bytes:
        """The payload of a method frame with arguments of the right types."""
        chance = self.chance
        data = struct.pack(">HH", shape.class_id, shape.method_id)
        bits = 0
        bit_count = 0
        for kind, name in [*shape.fields, ("end", "")]:
            if kind == "bit":
                # Passive and exclusive would make most of what follows fail.
                wanted = chance.random() < (0.1 if name in ("passive", "exclusive", "internal") else 0.4)
                bits |= wanted << bit_count
                bit_count += 1
                continue
            if bit_count:
                data += bytes([bits & 0xFF])
                bits = bit_count = 0
            match kind:
                case "shortstr":
                    data += self.name(name)
                case "longstr":
                    text = chance.choice((b"", b"\0guest\0guest", chance.randbytes(20)))
                    data += struct.pack(">I", len(text)) + text
                case "octet":
                    data += chance.randbytes(1)
                case "short":
                    data += struct.pack(">H", chance.choice(SHORTS))
                case "long":
                    data += struct.pack(">I", chance.choice(NUMBERS) & 0xFFFFFFFF)
                case "longlong":
                    data += struct.pack(">Q", chance.choice((*NUMBERS, 1, 2, 3, 4, 5)))
                case "timestamp":
                    data += chance.randbytes(8)
                case "table":
                    data += self.table()
        return data

    def properties(self) -> tuple[int, bytes]:
        """Flags and values of some properties."""
        chance = self.chance
        flags, data = 0, b""
        if chance.random() < 0.3:
            flags |= 0x2000
            data += self.table()
        if chance.random() < 0.3:
            flags |= 0x1000
            data += bytes([chance.choice((0, 1, 2, 255))])
        if chance.random() < 0.2:
            flags |= 0x0200
            data += shortstr(chance.choice((b"amq.rabbitmq.reply-to", b"q1", b"")))
        if chance.random() < 0.1:
            flags |= 0x0100
            data += shortstr(chance.choice((b"1000", b"-1", b"x", b"0", b"9" * 255)))
        if chance.random() < 0.05:
            flags |= 0x0010
            data += shortstr(chance.choice((b"guest", b"other", b"\xff")))
        return flags, data

    def content(self, channel_id: int, frame_max: int) -> list[bytes]:
        """A publish as its frames, right."""
        chance = self.chance
        body = chance.randbytes(16) * chance.choice((0, 1, 4, 64, 512, 8192))
        piece = chance.choice((1000, 4088, frame_max - 8)) if len(body) < 10_000 else frame_max - 8
        frames = [
            frame_bytes(FRAME_METHOD, channel_id, self.method(BY_NAME["basic.publish"])),
            frame_bytes(FRAME_HEADER, channel_id, header_payload(60, len(body), *self.properties())),
        ]
        frames += [frame_bytes(FRAME_BODY, channel_id, body[at : at + piece]) for at in range(0, len(body), piece)]
        return frames

    def broken(self, data: bytes) -> bytes:
        """The bytes with one to four of them, or a length, changed, lost or doubled."""
        chance = self.chance
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 4))):
            at = chance.randrange(len(changed)) if changed else 0
            match chance.randrange(6):
                case 0 if changed:
                    changed[at] = chance.choice((0, 1, 127, 128, 206, 255))
                case 1:
                    del changed[at : at + chance.randint(1, 8)]
                case 2:
                    changed[at:at] = chance.randbytes(chance.randint(1, 8))
                case 3:
                    changed[at : at + 4] = struct.pack(">I", chance.choice((0, 1, 255, 4096, 131072, 2**31, 2**32 - 1)))
                case 4:
                    changed[at:at] = changed[at : at + 8] * chance.randint(1, 20)
                case _:
                    del changed[at:]
        return bytes(changed)


@dataclass
class Attacker:
    """One connection of a round."""

    node: Node
    writer: Writer
    client: WireClient = field(init=False)
    frame_max: int = 131072
    pending: list[list[bytes]] = field(default_factory=list)  # contents begun: the frames still to be sent

    def __post_init__(self) -> None:
        self.client = WireClient(self.node, timeout_s=10)

    def shake_hands(self) -> None:
        """A valid handshake, mostly."""
        chance, client = self.writer.chance, self.client
        if chance.random() < 0.1:
            start_ok = frame_bytes(FRAME_METHOD, 0, self.writer.method(BY_NAME["connection.start-ok"]))
            self.send(self.writer.broken(PROTOCOL_HEADER) if chance.random() < 0.3 else PROTOCOL_HEADER)
            self.send(self.writer.broken(start_ok) if chance.random() < 0.5 else start_ok)
            return
        self.frame_max = chance.choice((4096, 131072, 131072))
        login = b"\0guest\0guest"
        table = self.writer.table() if chance.random() < 0.5 else bytes(4)
        start_ok = struct.pack(">HH", 10, 11) + table + shortstr(b"PLAIN") + struct.pack(">I", len(login)) + login + shortstr(b"en_US")
        tune_ok = struct.pack(">HHHIH", 10, 31, chance.choice((1, 10, 2047, 2047, 2047)), self.frame_max, chance.choice((0, 0, 1, 60)))
        opened = struct.pack(">HH", 10, 40) + shortstr(b"/") + shortstr(b"") + b"\0"
        self.send(PROTOCOL_HEADER + b"".join(frame_bytes(FRAME_METHOD, 0, payload) for payload in (start_ok, tune_ok, opened)))
        client.socket.setblocking(False)
        for channel_id in range(1, chance.choice((2, 2, 3, 6))):
            self.send(frame_bytes(FRAME_METHOD, channel_id, self.writer.method(BY_NAME["channel.open"])))

    def send(self, data: bytes) -> None:
        """Send as much as the broker takes for two seconds; an end by the broker is no surprise."""
        sock = self.client.socket
        sock.settimeout(2.0)
        with contextlib.suppress(OSError):
            sock.sendall(data)

    def read(self) -> None:
        """Take what has come, without waiting."""
        self.client.socket.setblocking(False)
        with contextlib.suppress(OSError):
            while self.client.socket.recv(MIB):
                pass

    def channel_id(self) -> int:
        return self.writer.chance.choice((1, 1, 1, 1, 2, 3, 4, 5, 0, 9, 2047, 2048, 65535))

    def act(self) -> None:
        """One step."""
        chance, writer = self.writer.chance, self.writer
        match chance.randrange(20):
            case 0 | 1 | 2 | 3 | 4 | 5:
                payload = writer.method(chance.choice(LIVELY))
                self.send(frame_bytes(FRAME_METHOD, chance.choice((1, 1, 1, 2)), payload))
            case 6:
                self.send(frame_bytes(FRAME_METHOD, self.channel_id(), writer.method(chance.choice(METHODS))))
            case 7 | 8 | 9 | 10:
                self.send(b"".join(writer.content(chance.choice((1, 1, 2)), self.frame_max)) * chance.choice((1, 1, 20)))
            case 11:  # a content begun, to go on later, perhaps with others between
                self.pending.append(writer.content(chance.choice((1, 2, 3)), self.frame_max))
            case 12 | 13 if self.pending:
                frames = chance.choice(self.pending)
                self.send(frames.pop(0))
                if not frames or chance.random() < 0.2:  # whole, or cut short
                    self.pending.remove(frames)
            case 14:
                self.send(writer.broken(frame_bytes(FRAME_METHOD, 1, writer.method(chance.choice(LIVELY)))))
            case 15:
                self.send(writer.broken(b"".join(writer.content(1, self.frame_max))))
            case 16:
                frame_type = chance.choice((1, 2, 3, 8, 0, 4, 255))
                self.send(frame_bytes(frame_type, self.channel_id(), chance.randbytes(chance.choice((0, 4, 14, 100)))))
            case 17:
                self.send(frame_bytes(FRAME_METHOD, 1, writer.broken(writer.method(chance.choice(METHODS)))))
            case 18:
                self.send(frame_bytes(FRAME_METHOD, chance.choice((1, 2, 3)), struct.pack(">HHHBHH", 20, 40, 200, 0, 0, 0)))
                self.send(frame_bytes(FRAME_METHOD, chance.choice((1, 2, 3)), struct.pack(">HHB", 20, 10, 0)))
            case _:
                self.read()

    def leave(self) -> bool:
        """Go, in one of many ways; False: stay, and do nothing."""
        chance, sock = self.writer.chance, self.client.socket
        match chance.randrange(6):
            case 0:
                self.send(frame_bytes(FRAME_METHOD, 0, struct.pack(">HHHBHH", 10, 50, 200, 0, 0, 0)))
            case 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            case 2:  # nothing more to say, and listening
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                return False
            case 3:
                return False
            case 4:
                self.read()
        self.client.close()
        return True


class Fuzzer:
    """Rounds against one node, and what must hold between them."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node = node
        self.seed = seed
        self.pids = node.processes()
        self.lingering: list[Attacker] = []
        self.rounds = 0
        self.first_tide_bytes = 0

    def round(self, number: int) -> None:
        """Round `number` of this seed."""
        chance = random.Random(f"{self.seed}/{number}")
        attackers = [Attacker(self.node, Writer(chance)) for _ in range(chance.choice((1, 2, 3, 5)))]
        for attacker in attackers:
            attacker.shake_hands()
        for _ in range(chance.choice((5, 20, 60))):
            chance.choice(attackers).act()
        for attacker in attackers:
            if not attacker.leave():
                self.lingering.append(attacker)
        while len(self.lingering) > LINGERING_MAX:
            self.lingering.pop(0).client.close()
        self.rounds += 1

    def ebb(self) -> None:
        """Everybody goes, and everything that was declared is deleted."""
        for attacker in self.lingering:
            attacker.client.close()
        self.lingering.clear()
        eventually(lambda: self.node.api("overview")["object_totals"]["connections"] <= 1, 30, "all but the bystander have gone")
        with WireClient.opened(self.node) as client:
            client.open_channel()
            for row in self.node.api("queues"):
                if row["exclusive"]:  # the bystander's; the others' have gone with them
                    continue
                client.send_method(1, Queue.Delete(queue=row["name"]))
                client.expect(Queue.DeleteOk)
            for row in self.node.api("exchanges"):
                if row["name"] and not row["name"].startswith("amq."):
                    client.send_method(1, Exchange.Delete(exchange=row["name"]))
                    client.expect(Exchange.DeleteOk)

    def check(self, bystander: Bystander) -> None:
        """Raise `AssertionError` if the rounds have done harm."""
        assert self.node.processes() == self.pids, "a process has died"
        found = complaints(self.node)
        assert not found, "complaints in the log:\n" + "\n\n".join(found[:5])
        assert bystander.failure is None, f"the honest client was not served: {bystander.failure!r}"
        limit_s = LATENCY_MAX_S * busy_factor()
        assert bystander.worst_s < limit_s, f"the honest client waited {bystander.worst_s:.2f} s"
        self.ebb()
        memory = resident_bytes(self.node)
        self.first_tide_bytes = self.first_tide_bytes or memory
        left = memory - self.first_tide_bytes
        print(f"{self.rounds} rounds; honest client's worst {bystander.worst_s * 1000:.0f} ms; memory {left / MIB:+.1f} MiB", flush=True)
        assert left < MEMORY_LEFT_MAX, f"{left / MIB:.1f} MiB have stayed"
        bystander.reset()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=None, help="random unless given")
    arguments.add_argument("--round", type=int, default=None, help="only this one")
    asked = arguments.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="leveret-fuzz-") as folder:
        node = Node(Path(folder) / "data", workers=2, config={"handshake_timeout_s": 2.0}).start()
        fuzzer = Fuzzer(node, seed)
        try:
            with Bystander(node) as bystander:
                if asked.round is not None:
                    fuzzer.round(asked.round)
                    fuzzer.check(bystander)
                    return 0
                until = time.monotonic() + asked.seconds
                while time.monotonic() < until:
                    for _ in range(TIDE_ROUNDS):
                        fuzzer.round(fuzzer.rounds)
                        if time.monotonic() >= until:
                            break
                    fuzzer.check(bystander)
        except (AssertionError, OSError, EOFError) as failure:
            first = max(0, fuzzer.rounds - TIDE_ROUNDS)
            print(
                f"FAILED with --seed {seed}, in one of the rounds {first} to {fuzzer.rounds}:\n{failure}\n\n{node.log_tail(20)}",
                file=sys.stderr,
            )
            return 1
        finally:
            node.kill()
    print(f"{fuzzer.rounds} rounds, no harm done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
