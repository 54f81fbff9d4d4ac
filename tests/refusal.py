"""What the broker refuses, said as a context: the code and text with which it closes a channel or a connection of pika's.

Owns the two contexts `channel_closed` and `connection_closed`; tests put the refused call in one of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker


@contextlib.contextmanager
def channel_closed(code: int, text: str) -> Iterator[None]:
    """The block makes the broker close the channel with exactly this reply."""
    with pytest.raises(ChannelClosedByBroker) as closed:
        yield
    assert (closed.value.reply_code, closed.value.reply_text) == (code, text)


@contextlib.contextmanager
def connection_closed(code: int, text: str) -> Iterator[None]:
    """The block makes the broker close the connection with exactly this reply."""
    with pytest.raises(ConnectionClosedByBroker) as closed:
        yield
    assert (closed.value.reply_code, closed.value.reply_text) == (code, text)
