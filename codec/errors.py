"""Everything that can be answered with a reply code: one exception class per code, soft (closes the channel) or hard (the connection).

Raised by the codec for malformed bytes and by the broker for refused requests; caught in two places only, the channel's loop and the
connection's. It carries what the close method says, and never decides who hears it. The texts are RabbitMQ's: `NAME - explanation`.
"""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

REPLY_TEXT_BYTES_MAX: Final = 255
REPLY_SUCCESS: Final = 200


class FailingMethod(Protocol):
    """What an error wants to know of the method that failed; every class of `leveret.codec.methods` has it."""

    @property
    def class_id(self) -> int: ...
    @property
    def method_id(self) -> int: ...


def cut_reply_text(text: str) -> str:
    """`text` within the 255 bytes of a short string. A longer one ends in `...` after at most 252 bytes, as RabbitMQ cuts it."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= REPLY_TEXT_BYTES_MAX:
        return encoded.decode("utf-8")
    return encoded[: REPLY_TEXT_BYTES_MAX - 3].decode("utf-8", "ignore") + "..."


class AmqpError(Exception):
    """An error with a reply code (see `ChannelException` and `ConnectionException`; their subclasses are what is raised).

    reply_code: 311..541; reply_text: the whole text, at most 255 bytes of UTF-8; class_id, method_id: of the method that failed, 0 and 0
    if none did; hard: whether the connection must close, not only the channel.
    """

    code: ClassVar[int] = 541
    reply_name: ClassVar[str] = "INTERNAL_ERROR"
    hard: ClassVar[bool] = True

    reply_code: int
    reply_text: str
    class_id: int
    method_id: int

    def __init__(self, explanation: str, method: FailingMethod | None = None) -> None:
        self._say(
            self.code,
            cut_reply_text(f"{self.reply_name} - {explanation}"),
            method.class_id if method is not None else 0,
            method.method_id if method is not None else 0,
        )

    def _say(self, code: int, text: str, class_id: int, method_id: int) -> None:
        Exception.__init__(self, text)
        self.reply_code = code
        self.reply_text = text
        self.class_id = class_id
        self.method_id = method_id

    def caused_by(self, method: FailingMethod | None) -> AmqpError:
        """This error, naming `method` as the one that failed unless it names one already."""
        if method is not None and not self.class_id:
            self.class_id = method.class_id
            self.method_id = method.method_id
        return self

    def __reduce__(self) -> tuple[object, tuple[int, str, int, int]]:
        return from_code, (self.reply_code, self.reply_text, self.class_id, self.method_id)


class ChannelException(AmqpError):
    """Soft: the channel closes, the connection and its other channels go on. On channel 0 it is answered like a hard one."""

    hard = False


class ConnectionException(AmqpError):
    """Hard: the connection closes."""

    hard = True


class ContentTooLarge(ChannelException):
    code = 311
    reply_name = "CONTENT_TOO_LARGE"


class NoRoute(ChannelException):
    code = 312
    reply_name = "NO_ROUTE"


class NoConsumers(ChannelException):
    code = 313
    reply_name = "NO_CONSUMERS"


class AccessRefused(ChannelException):
    code = 403
    reply_name = "ACCESS_REFUSED"


class NotFound(ChannelException):
    code = 404
    reply_name = "NOT_FOUND"


class ResourceLocked(ChannelException):
    code = 405
    reply_name = "RESOURCE_LOCKED"


class PreconditionFailed(ChannelException):
    code = 406
    reply_name = "PRECONDITION_FAILED"


class ConnectionForced(ConnectionException):
    code = 320
    reply_name = "CONNECTION_FORCED"


class InvalidPath(ConnectionException):
    code = 402
    reply_name = "INVALID_PATH"


class FrameError(ConnectionException):
    code = 501
    reply_name = "FRAME_ERROR"


class CommandSyntaxError(ConnectionException):
    code = 502
    reply_name = "SYNTAX_ERROR"


class CommandInvalid(ConnectionException):
    code = 503
    reply_name = "COMMAND_INVALID"


class ChannelError(ConnectionException):
    """Hard in spite of its name: a method on a channel that is not open, or opened twice."""

    code = 504
    reply_name = "CHANNEL_ERROR"


class UnexpectedFrame(ConnectionException):
    code = 505
    reply_name = "UNEXPECTED_FRAME"


class ResourceError(ConnectionException):
    code = 506
    reply_name = "RESOURCE_ERROR"


class NotAllowed(ConnectionException):
    code = 530
    reply_name = "NOT_ALLOWED"


class NotImplementedByBroker(ConnectionException):
    code = 540
    reply_name = "NOT_IMPLEMENTED"


class InternalError(ConnectionException):
    code = 541
    reply_name = "INTERNAL_ERROR"


ERRORS_BY_CODE: Final[dict[int, type[AmqpError]]] = {
    error.code: error for scope in (ChannelException, ConnectionException) for error in scope.__subclasses__()
}


def from_code(code: int, text: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """The error that a peer (a client's broker, another process of ours) told of: `text` is the whole reply text.

    A code that the protocol does not know makes a bare `ConnectionException` that carries it.
    """
    kind = ERRORS_BY_CODE.get(code, ConnectionException)
    error = kind.__new__(kind)
    error._say(code, cut_reply_text(text), class_id, method_id)
    return error


def quoted_bytes(data: bytes) -> str:
    """`data` as Erlang prints a binary in RabbitMQ's reply texts: `<<>>`, `<<"printable">>` or `<<0,10,255>>`."""
    if data and all(32 <= byte < 127 or 9 <= byte <= 13 for byte in data):
        text = data.decode("ascii").replace("\\", "\\\\").replace('"', '\\"')
        for plain, escaped in (("\t", "\\t"), ("\n", "\\n"), ("\v", "\\v"), ("\f", "\\f"), ("\r", "\\r")):
            text = text.replace(plain, escaped)
        return f'<<"{text}">>'
    return numbered_bytes(data)


def numbered_bytes(data: bytes) -> str:
    """`data` as Erlang prints a binary without looking for text: `<<104,105>>`."""
    return f"<<{','.join(map(str, data))}>>"
