"""A script: the steps that are performed on two brokers, as data that can be printed, replayed and shortened.

Owns `Step`, `Script` and the references by which a step names what only a performance knows (a generated queue name, the tag of a
delivery). `tests.differential.random_scripts` makes them, `tests.differential.performance` carries them out. Nothing here opens a socket.

Names such as `q0` and `x1` are the script's own: a performance puts a prefix before them, so that no script meets the remains of another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

OWN_NAME = re.compile(r"[qx]\s*\d+")


@dataclass(frozen=True)
class Generated:
    """The name of the nth server-named queue of the performance, counted from 0; a name that nobody has when there are fewer."""

    number: int


@dataclass(frozen=True)
class GeneratedTag:
    """The nth consumer tag that the server made in the performance, counted from 0; a tag that nobody has when there are fewer."""

    number: int


@dataclass(frozen=True)
class Unacked:
    """The tag of one of the deliveries unacked on the step's channel: the nth, counted around in a circle; 1 when there is none."""

    number: int


@dataclass(frozen=True)
class Settled:
    """The tag that this channel settled last; 1 when it has settled none."""


@dataclass(frozen=True)
class ReplyAddress:
    """The reply-to of the message delivered last to anybody; a name that nobody has when none came with one."""


@dataclass(frozen=True)
class Step:
    """One thing that a client does.

    connection: `A`, `B`, …; channel: 0 to 65535. operation: a method's name (`queue.declare`) with its fields in `arguments`, or
    `publish` (fields of basic.publish, `properties`, `body`, `size` to which it is filled up, `count`, `split`: body bytes of the first
    frames), `raw` (`frames`: a list of type and payload), `drop` (the socket closes without a word).
    ready: what the step needs is made good before it: a closed connection is opened anew, a closed channel too. Otherwise it is sent as
    things stand: to a channel that was never opened, or that the server has closed and that still waits for close-ok.
    lingers: should the server close the channel in this step, its close-ok is not sent before the next step that needs the channel.
    """

    connection: str
    channel: int
    operation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    ready: bool = True
    lingers: bool = False

    def __str__(self) -> str:
        marks = ("" if self.ready else "  [as things stand]") + ("  [lingers]" if self.lingers else "")
        fields = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.connection}.{self.channel} {self.operation}({fields}){marks}"


@dataclass(frozen=True)
class Script:
    """Steps in order. `origin` says where they come from: a seed, or a name."""

    origin: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join(f"  {number:2} {step}" for number, step in enumerate(self.steps))
