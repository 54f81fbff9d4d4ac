"""The headers of dead letters: spliced as bytes, read back as a client does; and when a letter goes round in a circle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.codec.errors import FrameError
from leveret.codec.properties import Properties, decode_properties
from leveret.queue.deaths import closes_cycle, with_death

DEATHS = ("x-death", "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange")
LAST = ("x-last-death-queue", "x-last-death-reason", "x-last-death-exchange")


def die(properties: bytes, *, own: bool = True, queue: str = "q", reason: str = "expired", new_key: bool = False, time_s: int = 7) -> bytes:
    return with_death(properties, own, queue.encode(), reason.encode(), b"x", b"k", new_key, time_s)


def headers_of(properties: bytes) -> dict[str, Any]:
    headers = decode_properties(properties).headers
    assert headers is not None
    return headers


def test_the_first_death() -> None:
    headers = headers_of(die(Properties(expiration="5", headers={"a": 1, "CC": ["c"]}).encode(), own=False))
    assert headers == {
        "a": 1,
        "CC": ["c"],
        "x-first-death-queue": "q",
        "x-first-death-reason": "expired",
        "x-first-death-exchange": "x",
        "x-last-death-queue": "q",
        "x-last-death-reason": "expired",
        "x-last-death-exchange": "x",
        "x-death": [
            {
                "count": 1,
                "reason": "expired",
                "queue": "q",
                "time": 7,
                "exchange": "x",
                "routing-keys": ["k", "c"],
                "original-expiration": "5",
            }
        ],
    }


def test_the_same_death_is_counted_and_moves_to_the_front() -> None:
    properties = Properties().encode()
    for time_s, (queue, reason) in enumerate([("q", "expired"), ("r", "expired"), ("q", "rejected"), ("q", "expired")]):
        properties = die(properties, queue=queue, reason=reason, time_s=time_s)
    headers = headers_of(properties)
    assert [(death["queue"], death["reason"], death["count"], int(death["time"])) for death in headers["x-death"]] == [
        ("q", "expired", 2, 0),
        ("q", "rejected", 1, 2),
        ("r", "expired", 1, 1),
    ]
    assert (headers["x-first-death-queue"], headers["x-last-death-reason"]) == ("q", "expired")


def test_with_a_new_key_the_copies_go() -> None:
    headers = headers_of(die(Properties(headers={"CC": ["c"], "BB": 1}).encode(), new_key=True))
    assert "CC" not in headers
    assert headers["BB"] == 1
    assert headers["x-death"][0]["routing-keys"] == ["k", "c"]


def test_what_a_client_wrote_is_replaced_however_often_it_stands_there() -> None:
    """A table may hold a name twice on the wire; clients read the last of them."""
    forged = b"\x07x-deathS\0\0\0\x01a" + b"\x07x-deathV" + b"\x01aI\0\0\0\x05" + b"\x13x-first-death-queueV" + b"\x07x-deathI\0\0\0\x05"
    properties = b"\x20\0" + len(forged).to_bytes(4, "big") + forged
    written = die(properties, own=False)
    assert written.count(b"\x07x-death") == 1
    headers = headers_of(written)
    assert headers["a"] == 5
    assert headers["x-death"][0]["count"] == 1
    assert headers["x-first-death-queue"] == "q"


def test_empty_further_words_of_flags_are_left_out() -> None:
    assert headers_of(die(b"\x10\x01\0\0\x02"))["x-death"][0]["queue"] == "q"
    assert decode_properties(die(b"\x10\x01\0\0\x02")).delivery_mode == 2


def test_what_are_no_properties_is_refused() -> None:
    with pytest.raises(FrameError):
        die(b"\x20\0\0\0\0\x09")


TEXT = st.text(max_size=20)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": TEXT,
        "content_encoding": TEXT,
        "delivery_mode": st.integers(0, 255),
        "priority": st.integers(0, 255),
        "correlation_id": TEXT,
        "reply_to": TEXT,
        "expiration": TEXT,
        "message_id": TEXT,
        "timestamp": st.integers(0, 2**64 - 1),
        "type": TEXT,
        "user_id": TEXT,
        "app_id": TEXT,
        "cluster_id": TEXT,
        "headers": st.dictionaries(
            st.one_of(TEXT, st.sampled_from((*DEATHS, *LAST, "x-first-death-other"))),
            st.recursive(st.one_of(st.integers(-(2**31), 2**31 - 1), TEXT, st.booleans(), st.none()), st.lists, max_leaves=5),
            max_size=8,
        ),
    },
)


@given(PROPERTIES)
def test_everything_else_stays(fields: dict[str, Any]) -> None:
    """All other properties and headers, through a first and a second death."""
    once = die(Properties(**fields).encode(), own=False)
    twice = die(once, queue="r")
    for written, deaths in ((once, 1), (twice, 2)):
        read = decode_properties(written)
        headers = read.headers
        assert headers is not None
        assert [death["count"] for death in headers["x-death"]] == [1] * deaths
        kept = {name: value for name, value in headers.items() if name not in (*DEATHS, *LAST)}
        assert kept == {name: value for name, value in fields.get("headers", {}).items() if name not in (*DEATHS, *LAST)}
        read.headers = None
        wanted = {name: value for name, value in fields.items() if name not in ("headers", "expiration")}
        assert read == Properties(**wanted)


@pytest.mark.parametrize(
    ("deaths", "circle"),
    [
        ([], False),
        ([("q", "expired")], True),
        ([("r", "expired")], False),
        ([("q", "expired"), ("r", "maxlen")], True),
        ([("q", "rejected"), ("r", "expired")], False),
        ([("q", "expired"), ("r", "rejected")], False),
        ([("r", "rejected"), ("q", "expired"), ("s", "expired")], True),
    ],
)
def test_a_circle_is_one_that_nobody_rejected(deaths: list[tuple[str, str]], circle: bool) -> None:
    properties = Properties().encode()
    for queue, reason in deaths:
        properties = die(properties, queue=queue, reason=reason)
    assert closes_cycle(properties, b"q") == circle
