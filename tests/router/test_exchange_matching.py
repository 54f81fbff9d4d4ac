"""Exchange types against naive models with random bindings and keys, and the bounds of topic matching (reliability.md 5, row 11)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import accumulate
from operator import or_

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.codec.errors import PreconditionFailed
from leveret.codec.tables import Typed, encode_table
from leveret.router.exchanges.direct import DirectExchange
from leveret.router.exchanges.exchange import EXCHANGE_BIT
from leveret.router.exchanges.fanout import FanoutExchange
from leveret.router.exchanges.headers import HeadersExchange
from leveret.router.exchanges.topic import TopicExchange, split_pattern

NO_ARGUMENTS: dict[str, object] = {}


def words(key: bytes) -> list[bytes]:
    return key.split(b".") if key else []


def topic_matches(pattern: list[bytes], key: list[bytes]) -> bool:
    """The definition, straight from the words: exponential, and right."""
    if not pattern:
        return not key
    if pattern[0] == b"#":
        return any(topic_matches(pattern[1:], key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and pattern[0] in (b"*", key[0]) and topic_matches(pattern[1:], key[1:])


def topic_matches_by_table(pattern: list[bytes], key: list[bytes]) -> bool:
    """The same in words x words steps, for patterns on which the definition would not end."""
    reached = [True] + [False] * len(key)  # whether the pattern so far matches the first n words
    for word in pattern:
        if word == b"#":
            reached = list(accumulate(reached, or_))
        else:
            reached = [False] + [before and word in (b"*", key[at]) for at, before in enumerate(reached[:-1])]
    return reached[-1]


def dotted(*choices: bytes, most: int = 6) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(choices), max_size=most).map(b".".join)


PATTERNS = dotted(b"a", b"b", b"", b"*", b"#", b"long-word-\xc3\xa9")
KEYS = dotted(b"a", b"b", b"", b"c", b"*", b"#", b"long-word-\xc3\xa9")
DESTINATIONS = st.one_of(st.integers(1, 60), st.integers(1, 60).map(lambda id: EXCHANGE_BIT | id))


@st.composite
def binding_histories(draw: st.DrawFn) -> list[tuple[bool, int, bytes]]:
    """Binds and unbinds, each unbind of something that is bound then."""
    bound: list[tuple[int, bytes]] = []
    history: list[tuple[bool, int, bytes]] = []
    for _ in range(draw(st.integers(1, 25))):
        if bound and draw(st.integers(0, 2)) == 0:
            destination, key = bound.pop(draw(st.integers(0, len(bound) - 1)))
            history.append((False, destination, key))
        else:
            destination, key = draw(DESTINATIONS), draw(PATTERNS)
            bound.append((destination, key))
            history.append((True, destination, key))
    return history


MODELS: list[tuple[Callable[[int], DirectExchange | FanoutExchange | TopicExchange], Callable[[bytes, bytes], bool]]] = [
    (DirectExchange, lambda pattern, key: pattern == key),
    (FanoutExchange, lambda pattern, key: True),
    (TopicExchange, lambda pattern, key: topic_matches(words(pattern), words(key))),
    (TopicExchange, lambda pattern, key: topic_matches_by_table(words(pattern), words(key))),
]


@pytest.mark.parametrize(("kind", "matches"), MODELS, ids=["direct", "fanout", "topic", "topic-by-table"])
@settings(max_examples=200, deadline=None)
@given(history=binding_histories(), keys=st.lists(KEYS, min_size=1, max_size=8))
def test_matching_is_what_the_definition_says(kind, matches, history, keys) -> None:
    exchange = kind(1)
    bound: list[tuple[int, bytes]] = []
    for binds, destination, pattern in history:
        if binds:
            exchange.bind(destination, pattern, NO_ARGUMENTS)
            bound.append((destination, pattern))
        else:
            exchange.unbind(destination, pattern, NO_ARGUMENTS)
            bound.remove((destination, pattern))
    for key in keys:
        found = exchange.match(key)
        assert len(found) == len(set(found)), "a destination came twice"
        assert set(found) == {destination for destination, pattern in bound if matches(pattern, key)}
    for destination, pattern in bound:
        exchange.unbind(destination, pattern, NO_ARGUMENTS)
    assert all(exchange.match(key) == [] for key in keys)
    if isinstance(exchange, TopicExchange):
        assert (exchange.node_total, exchange.word_total) == (1, 0), "something is left of patterns that are gone"


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        (b"#", b"", True),
        (b"#", b"a.b.c", True),
        (b"*", b"", False),
        (b"*", b"a", True),
        (b"*", b"a.b", False),
        (b"*.*", b".", True),
        (b"", b"", True),
        (b"", b"a", False),
        (b"a.#", b"a", True),
        (b"#.a", b"a", True),
        (b"a.#.b", b"a.b", True),
        (b"a.#.b", b"a.x.y.b", True),
        (b"a.#.b", b"a.x.y", False),
        (b"a.*.#", b"a", False),
        (b"a.#.*", b"a", False),
        (b"a.*.#", b"a.", True),
        (b"#.#", b"", True),
        (b"*.#.*", b"a", False),
        (b"a.", b"a.", True),
        (b"a.", b"a", False),
        (b".a", b".a", True),
        (b"lazy.#", b"lazy.orange.male.rabbit", True),
        (b"*.orange.*", b"quick.orange.male.rabbit", False),
    ],
)
def test_wildcards_and_empty_words(pattern: bytes, key: bytes, expected: bool) -> None:
    exchange = TopicExchange(1)
    exchange.bind(7, pattern, NO_ARGUMENTS)
    assert exchange.match(key) == ([7] if expected else [])


def test_runs_of_wildcards_have_one_form() -> None:
    assert split_pattern(b"#.#.#.#") == [b"#"]
    assert split_pattern(b"a.#.*.#.b") == [b"a", b"*", b"#", b"b"]
    assert split_pattern(b"") == []
    assert split_pattern(b"..") == [b"", b"", b""]


def seconds_to_match(exchange: TopicExchange, key: bytes) -> float:
    """Processor time, the best of ten: other processes' turns do not count, and what they do to the caches counts little."""
    best = float("inf")
    for _ in range(10):
        begun = time.thread_time()
        exchange.match(key)
        best = min(best, time.thread_time() - begun)
    return best


KEY_OF_127_WORDS = b".".join([b"a"] * 127)


@pytest.mark.parametrize(
    "make_pattern",
    [
        lambda n, rng: b".".join([b"#"] * 127) + b".w%d" % n,
        lambda n, rng: b"#.a" * 1 + b".#.a" * (n % 60) + b".w%d" % n,
        lambda n, rng: b".".join(rng.choice([b"#", b"*", b"a", b"b"]) for _ in range(60)) + b".w%d" % n,
        lambda n, rng: b"*." * (n % 120) + b"#.a.#.a.w%d" % n,
    ],
    ids=["hashes", "hashes-and-words", "random", "stars-then-hashes"],
)
def test_a_long_key_against_1000_wildcard_bindings_takes_less_than_5_ms(make_pattern) -> None:
    exchange = TopicExchange(1)
    rng = random.Random(20)
    patterns = [make_pattern(n, rng) for n in range(1000)]
    for n, pattern in enumerate(patterns):
        exchange.bind(n + 1, pattern, NO_ARGUMENTS)
    assert seconds_to_match(exchange, KEY_OF_127_WORDS) < 0.005
    # And the right ones are found, so that it is not an early refusal that is fast.
    for key in (KEY_OF_127_WORDS, KEY_OF_127_WORDS[:-6] + b".w999"):
        expected = {n + 1 for n, pattern in enumerate(patterns) if topic_matches_by_table(words(pattern), words(key))}
        assert set(exchange.match(key)) == expected


def test_distinct_chains_of_hashes_over_the_words_of_a_key_do_not_blow_up() -> None:
    """The worst case for a set of states: a thousand patterns, all of which the key keeps alive to its end, none sharing its beginning."""
    exchange = TopicExchange(1)
    key = [b"w%d" % n for n in range(127)]
    rng = random.Random(7)
    for n in range(1000):
        chosen = sorted(rng.sample(range(127), 20))
        exchange.bind(n + 1, b"#." + b".#.".join(key[at] for at in chosen) + b".#.never", NO_ARGUMENTS)
    assert exchange.match(b".".join(key)) == []
    assert seconds_to_match(exchange, b".".join(key)) < 0.005


def test_time_to_match_grows_no_faster_than_the_words_of_the_key() -> None:
    exchange = TopicExchange(1)
    exchange.bind(1, b"#.a.#.a.#.a.#.a.#.b", NO_ARGUMENTS)
    short, long = (seconds_to_match(exchange, b".".join([b"a"] * size)) for size in (12, 120))
    assert long < 40 * short + 0.0005


def test_unbinding_one_of_100_000_from_a_fanout_does_not_walk_them_all() -> None:
    exchange = FanoutExchange(1)
    for destination in range(1, 100_001):
        exchange.bind(destination, b"", NO_ARGUMENTS)
    begun = time.thread_time()
    for destination in range(1, 100_001):
        exchange.unbind(destination, b"", NO_ARGUMENTS)
    assert time.thread_time() - begun < 2, "100,000 walks over 100,000 would take longer"
    assert exchange.match(b"") == []


def test_unbinding_what_is_not_bound_is_our_mistake_and_says_so() -> None:
    for exchange in (DirectExchange(1), FanoutExchange(1), TopicExchange(1), HeadersExchange(1)):
        exchange.bind(1, b"a", NO_ARGUMENTS)
        with pytest.raises(KeyError):
            exchange.unbind(2, b"a", NO_ARGUMENTS)
        exchange.unbind(1, b"a", NO_ARGUMENTS)
        with pytest.raises(KeyError):
            exchange.unbind(1, b"a", NO_ARGUMENTS)


# --- headers


def properties(headers: dict[str, object] | None, content_type: bytes | None = None) -> bytes:
    flags = (1 << 15 if content_type is not None else 0) | (1 << 13 if headers is not None else 0) | 1 << 12
    packed = flags.to_bytes(2, "big")
    if content_type is not None:
        packed += bytes([len(content_type)]) + content_type
    if headers is not None:
        packed += encode_table(headers)
    return packed + b"\x02"  # delivery-mode, so that something follows the headers


def typed(arguments: dict[str, object]) -> dict[str, object]:
    tags = {bool: "t", int: "I", str: "S", type(None): "V"}
    return {name: value if isinstance(value, Typed) else Typed(tags[type(value)], value) for name, value in arguments.items()}


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 3}, True),
        ({"a": 1, "b": "x"}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": "x"}, {"b": "x"}, True),
        ({"x-match": "any", "a": 1, "b": "x"}, {"a": 2, "b": "y"}, False),
        ({"a": None}, {"a": "whatever"}, True),
        ({"a": None}, {"b": "whatever"}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": Typed("l", 1)}, True),
        ({"a": Typed("l", 1)}, {"a": Typed("L", 1)}, True),
        ({"a": Typed("b", -1)}, {"a": Typed("l", -1)}, True),
        ({"a": Typed("b", -1)}, {"a": Typed("B", 255)}, False),
        ({"a": Typed("u", 65535)}, {"a": Typed("s", -1)}, False),
        ({"a": Typed("i", 2**32 - 1)}, {"a": Typed("I", -1)}, False),
        ({"a": Typed("i", 2**32 - 1)}, {"a": Typed("l", 2**32 - 1)}, True),
        ({"a": Typed("T", 1)}, {"a": 1}, True),
        ({"a": Typed("T", 2**64 - 1)}, {"a": Typed("l", -1)}, False),
        ({"a": Typed("T", 2**64 - 1)}, {"a": Typed("T", 2**64 - 1)}, True),
        ({"a": Typed("d", 1.0)}, {"a": 1}, True),
        ({"a": 1}, {"a": Typed("f", 1.0)}, True),
        ({"a": Typed("d", 1.5)}, {"a": Typed("f", 1.5)}, True),
        ({"a": Typed("d", 1.5)}, {"a": 1}, False),
        ({"a": Typed("d", 2.0**53)}, {"a": Typed("l", 2**53 + 1)}, False),
        ({"a": Typed("d", float("inf"))}, {"a": Typed("l", 2**63 - 1)}, False),
        ({"a": Typed("d", 0.0)}, {"a": Typed("d", -0.0)}, True),
        ({"a": Typed("S", "x")}, {"a": Typed("x", b"x")}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": Typed("V", None)}, {"a": Typed("V", None)}, True),
        ({"a": 1}, {"a": Typed("V", None)}, False),
        ({}, {}, True),
        ({}, None, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({"x-a": 1}, {}, True),
        ({"x-match": "all-with-x", "x-a": 1}, {}, False),
        ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 1}, True),
        ({"x-match": "any-with-x", "x-a": 1, "b": 2}, {"x-a": 1}, True),
    ],
)
def test_headers_are_compared_as_x_match_says(arguments, headers, expected) -> None:
    for content_type in (None, b"text/plain"):
        exchange = HeadersExchange(1)
        exchange.bind(9, b"ignored", typed(arguments))
        assert exchange.match(b"", properties(headers, content_type)) == ([9] if expected else [])
        exchange.unbind(9, b"ignored", typed(arguments))
        assert exchange.match(b"", properties(headers, content_type)) == []


HEADER_VALUES = st.one_of(st.integers(0, 2), st.sampled_from(["x", "y"]), st.booleans(), st.none())
TABLES = st.dictionaries(st.sampled_from(["a", "b", "c", "x-d"]), HEADER_VALUES, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    bindings=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["all", "any", "all-with-x", "any-with-x"]), TABLES), max_size=12),
    headers=TABLES,
)
def test_headers_match_as_a_naive_model_does(bindings, headers) -> None:
    def same(wanted: object, name: str) -> bool:
        if name not in headers:
            return False
        return wanted is None or (type(wanted) is type(headers[name]) and wanted == headers[name])

    exchange = HeadersExchange(1)
    expected = set()
    for destination, x_match, table in bindings:
        exchange.bind(destination, b"", typed({"x-match": x_match, **table}))
        asked = {name: value for name, value in table.items() if "with-x" in x_match or not name.startswith("x-")}
        verdicts = [same(value, name) for name, value in asked.items()]
        if all(verdicts) if x_match.startswith("all") else any(verdicts):
            expected.add(destination)
    assert set(exchange.match(b"", properties(headers))) == expected


def test_a_wrong_x_match_is_refused_with_rabbitmqs_text() -> None:
    exchange = HeadersExchange(1)
    with pytest.raises(PreconditionFailed) as refused:
        exchange.bind(1, b"", typed({"x-match": "most"}))
    assert refused.value.reply_text == (
        'PRECONDITION_FAILED - Invalid x-match field value <<"most">>; expected all, any, all-with-x, or any-with-x'
    )


@settings(max_examples=200, deadline=None)
@given(junk=st.binary(max_size=60))
def test_properties_that_cannot_be_read_match_nothing_and_harm_nothing(junk: bytes) -> None:
    exchange = HeadersExchange(1)
    exchange.bind(1, b"", typed({"a": "x"}))
    assert exchange.match(b"", junk) == []
    assert exchange.match(b"", properties({"a": "x"})) == [1]
