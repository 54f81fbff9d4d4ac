"""A refusal: something that a user asked for and cannot have, in one sentence, with the exit code that goes with it.

Raised wherever a program of ours meets bad options, a port that is taken or a folder that it may not use. Caught once, by whoever runs the
program (`leveret.ctl.main`, `leveret.supervisor.child`), who prints the sentence and ends with the code. It is never used for what a
client of the broker does wrong: that is `leveret.codec.errors`.

The exit codes are those of `sysexits.h`, as RabbitMQ's command line uses them.
"""

from __future__ import annotations

OK = 0
USAGE = 64  # the command line is wrong
DATA = 65  # the request was understood, but what it names is wrong
UNAVAILABLE = 69  # no broker there, or a port or folder that another one holds
SOFTWARE = 70  # something of ours failed
CANNOT_CREATE = 73  # a folder or file that cannot be made
TEMPORARY = 75  # too slow; may work later
NO_PERMISSION = 77
CONFIG = 78  # the file or the environment is wrong
INTERRUPTED = 130  # Ctrl-C, as shells tell it


class Refusal(Exception):
    """`sentence` is for the user's eyes, without a final newline; `exit_code` is one of those above."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code
