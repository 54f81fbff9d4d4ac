"""Errors: the code, scope and text of each, cut as RabbitMQ cuts, and the same again on the other side of a process boundary."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.codec import errors
from leveret.codec.errors import AmqpError, ChannelException, ConnectionException, NotFound, cut_reply_text, from_code, quoted_bytes
from leveret.codec.methods import BasicPublish, QueueDelete


def test_an_error_says_what_the_close_method_says() -> None:
    error = NotFound("no queue 'q' in vhost '/'", QueueDelete(queue="q"))
    assert (error.reply_code, error.reply_text) == (404, "NOT_FOUND - no queue 'q' in vhost '/'")
    assert (error.class_id, error.method_id, error.hard) == (50, 40, False)
    assert str(error) == error.reply_text


@pytest.mark.parametrize("kind", errors.ERRORS_BY_CODE.values(), ids=lambda kind: kind.reply_name)
def test_scope_and_class_agree(kind: type[AmqpError]) -> None:
    error = kind("why")
    assert error.hard == isinstance(error, ConnectionException) != isinstance(error, ChannelException)
    assert error.reply_text == f"{kind.reply_name} - why"
    assert (error.class_id, error.method_id) == (0, 0)


def test_soft_and_hard_are_the_protocols() -> None:
    soft = {code for code, kind in errors.ERRORS_BY_CODE.items() if not kind.hard}
    assert soft == {311, 312, 313, 403, 404, 405, 406}
    assert set(errors.ERRORS_BY_CODE) - soft == {320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541}


@given(st.text())
def test_a_reply_text_is_a_short_string(explanation: str) -> None:
    error = NotFound(explanation)
    encoded = error.reply_text.encode()
    assert len(encoded) <= 255
    whole = f"NOT_FOUND - {explanation}".encode("utf-8", "replace")
    assert encoded == whole if len(whole) <= 255 else encoded.endswith(b"...")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("a" * 255, "a" * 255),
        ("a" * 256, "a" * 252 + "..."),
        ("é" * 128, "é" * 126 + "..."),
        ("a" + "é" * 128, "a" + "é" * 125 + "..."),  # not through the middle of one
        ("\udc80", "?"),
    ],
)
def test_a_long_text_is_cut_at_252_bytes(text: str, cut: str) -> None:
    assert cut_reply_text(text) == cut


@pytest.mark.parametrize("code", errors.ERRORS_BY_CODE)
def test_an_error_is_made_again_from_what_travelled(code: int) -> None:
    error = errors.ERRORS_BY_CODE[code]("why", BasicPublish())
    again = from_code(error.reply_code, error.reply_text, error.class_id, error.method_id)
    for other in (again, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert (other.reply_text, other.class_id, other.method_id) == (error.reply_text, 60, 40)


def test_a_code_that_nobody_knows_is_kept() -> None:
    error = from_code(999, "ODD - one")
    assert type(error) is ConnectionException
    assert (error.reply_code, error.reply_text, error.hard) == (999, "ODD - one", True)


def test_the_failing_method_is_named_once() -> None:
    error = NotFound("x").caused_by(QueueDelete())
    assert (error.class_id, error.method_id) == (50, 40)
    assert (error.caused_by(BasicPublish()).class_id, error.caused_by(None).method_id) == (50, 40)


@pytest.mark.parametrize(
    ("data", "quoted"),
    [
        (b"", "<<>>"),
        (b"hello", '<<"hello">>'),
        (b'a"b\\c', '<<"a\\"b\\\\c">>'),
        (b"GET / HTTP/1.1\r\n", '<<"GET / HTTP/1.1\\r\\n">>'),
        (b"\0a\xff", "<<0,97,255>>"),
        (b"a\x7f", "<<97,127>>"),
    ],
)
def test_bytes_are_quoted_as_erlang_does(data: bytes, quoted: str) -> None:
    assert quoted_bytes(data) == quoted
