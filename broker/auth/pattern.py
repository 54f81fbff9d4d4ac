"""A pattern: one of a permission's regular expressions, matched in time linear in the name.

`leveret.auth.permissions` makes and asks them. The names come from clients, so an engine that backtracks would let a client hold a whole
worker with one name: `(a+)+$` costs Python's `re` two to the power of the name's length. RE2 never backtracks and bounds its memory.

What RE2 does not have is refused, with two exceptions that people have in their definitions: look-aheads at the very start
(`^(?!amq\\.).*`), which are patterns of their own tried at the same place, and `\\Z`. As in RabbitMQ `\\d`, `\\w` and `\\s` are ASCII's.
"""

from __future__ import annotations

import re
from typing import Final

import re2
from leveret.codec.errors import PreconditionFailed

PATTERN_CHARACTERS_MAX: Final = 1024

_LOOK_AHEAD: Final = re.compile(r"\(\?([=!])")
# An escape, a character class (a `]` right at its start is one of its characters), or any one character.
_TOKEN: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|.", re.DOTALL)
_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # it would write to standard error; the error itself says as much
_OPTIONS.never_capture = True


class Pattern:
    """A compiled expression. Raises `PreconditionFailed` (a sentence) if it is too long, none, or cannot be matched in linear time."""

    __slots__ = ("_engine", "_forbidden", "_required")

    def __init__(self, expression: str) -> None:
        if len(expression) > PATTERN_CHARACTERS_MAX:
            raise PreconditionFailed(
                f"a permission's regular expression has {len(expression)} characters, {PATTERN_CHARACTERS_MAX} are allowed"
            )
        required, forbidden, rest = _split(expression)
        try:
            self._engine = _compiled(rest) if expression else None
            self._required = [_compiled(part) for part in required]
            self._forbidden = [_compiled(part) for part in forbidden]
        except re2.error as error:
            raise PreconditionFailed(f"invalid regular expression '{expression}': {_why(error)}") from error

    def matches(self, name: str) -> bool:
        """Whether the expression is found somewhere in the name; "" is found nowhere."""
        if self._engine is None:
            return False
        return (
            self._engine.search(name) is not None
            and all(part.match(name) is not None for part in self._required)
            and not any(part.match(name) is not None for part in self._forbidden)
        )


def _compiled(expression: str) -> re2._Regexp:
    return re2.compile("".join(r"\z" if piece == r"\Z" else piece for piece in _TOKEN.findall(expression)), _OPTIONS)


def _split(expression: str) -> tuple[list[str], list[str], str]:
    """Look-aheads that follow `^` at once: what must match there, what must not, and the expression without them.

    With another branch beside it (`^(?!a)b|c`) a look-ahead would count for its own branch only, and stays for RE2 to refuse.
    """
    required: list[str] = []
    forbidden: list[str] = []
    rest = expression[1:] if expression.startswith("^") else ""
    while found := _LOOK_AHEAD.match(rest):
        end = _end_of_group(rest)
        if end is None:
            break
        (required if found[1] == "=" else forbidden).append(rest[found.end() : end])
        rest = rest[end + 1 :]
    if not (required or forbidden) or _has_branches(rest):
        return [], [], expression
    return required, forbidden, "^" + rest


def _end_of_group(text: str) -> int | None:
    """Where the group that `text` begins with is closed."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] == "(") - (token[0] == ")")
        if depth == 0:
            return token.start()
    return None


def _has_branches(text: str) -> bool:
    """Whether a `|` stands outside all groups."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] == "(") - (token[0] == ")")
        if token[0] == "|" and depth == 0:
            return True
    return False


def _why(error: re2.error) -> str:
    reason = error.args[0] if error.args else error
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    if "invalid perl operator" in text or "invalid escape sequence" in text:
        # Said of look-around and back-references, which people know and would look for a mistake in.
        text += " (look-around, other than look-aheads right after ^, and back-references are not supported)"
    return text
