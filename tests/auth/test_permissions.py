"""Permissions: RabbitMQ's rules and texts, and verdicts that follow changes."""

from __future__ import annotations

import tracemalloc

import pytest
from leveret.auth import permissions as module
from leveret.auth.permissions import Permissions, check_pattern
from leveret.codec.errors import AccessRefused, NotAllowed, PreconditionFailed


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (".*", "anything", True),
        (".*", "", True),
        ("", "anything", False),
        ("", "", False),
        ("", "\n", False),
        ("^app-", "app-1", True),
        ("^app-", "my-app-1", False),
        ("app", "my-app-1", True),
        ("^amq\\.default$", "", True),
    ],
)
def test_expressions_are_searched_and_empty_ones_match_nothing(pattern: str, name: str, expected: bool) -> None:
    permissions = Permissions()
    permissions.set("u", "/", "", pattern, "")
    for _ in range(2):  # the second time from memory
        assert permissions.may("u", "/", "write", name) is expected
    assert not permissions.may("u", "/", "configure", name)
    assert not permissions.may("u", "other", "write", name)
    assert not permissions.may("other", "/", "write", name)


@pytest.mark.parametrize(
    ("right", "kind", "name", "text"),
    [
        ("configure", "queue", "q", "ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'u'"),
        ("write", "exchange", "", "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'u'"),
        ("read", "queue", "q", "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'u'"),
    ],
)
def test_refusals_have_rabbitmqs_text(right, kind, name, text) -> None:
    permissions = Permissions()
    permissions.set("u", "/", "", "", "")
    with pytest.raises(AccessRefused) as refused:
        permissions.check("u", "/", right, kind, name)
    assert refused.value.reply_text == text


def test_a_passive_declare_needs_any_one_right() -> None:
    permissions = Permissions()
    permissions.set("u", "/", "", "", "^q$")
    permissions.check_any("u", "/", "queue", "q")
    with pytest.raises(AccessRefused, match="configure access to queue 'other'"):
        permissions.check_any("u", "/", "queue", "other")


def test_a_vhost_opens_only_for_whom_it_is_granted() -> None:
    permissions = Permissions()
    permissions.set("u", "/", "", "", "")
    permissions.check_open("u", "/")
    with pytest.raises(NotAllowed) as refused:
        permissions.check_open("u", "two")
    assert refused.value.reply_text == "NOT_ALLOWED - access to vhost 'two' refused for user 'u'"


def test_verdicts_follow_every_change() -> None:
    permissions = Permissions()
    assert not permissions.may("u", "/", "read", "q")
    permissions.set("u", "/", "", "", ".*")
    assert permissions.may("u", "/", "read", "q")
    permissions.set("u", "/", "", "", "x")
    assert not permissions.may("u", "/", "read", "q")
    permissions.set("u", "/", "", "", ".*")
    permissions.clear("u", "/")
    permissions.clear("u", "/")
    assert not permissions.may("u", "/", "read", "q")
    permissions.set("u", "/", "", "", ".*")
    permissions.clear_all()
    assert not permissions.may("u", "/", "read", "q")


def test_remembered_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERDICTS_MAX", 10)
    permissions = Permissions()
    permissions.set("u", "/", "", "", "7")
    for n in range(1000):
        assert permissions.may("u", "/", "read", str(n)) is ("7" in str(n))
        assert len(permissions._verdicts) <= 10


def test_names_that_come_and_go_take_no_memory() -> None:
    """Each client has its own queues' names; what is remembered of them once made a busy worker's heap grow by a sixth."""
    permissions = Permissions()
    permissions.set("user", "/", ".*", ".*", ".*")
    tracemalloc.start()
    try:
        for n in range(50_000):
            permissions.may("user", "/", "write", f"a-queue-of-some-client-{n:08}")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(", "invalid regular expression '\\('"),
        ("a{2,1}", "invalid regular expression"),
        ("(a)\\1", "back-references are not supported"),
        ("a(?!b)", "look-around, other than look-aheads right after"),
        ("^(?!a)b|c", "look-around"),
        ("^(?!a", "invalid regular expression"),
        ("((a{1000}){1000}){1000}", "invalid regular expression"),
        ("x" * 1025, "has 1025 characters, 1024 are allowed"),
    ],
)
def test_a_bad_expression_is_refused_in_a_sentence(pattern: str, sentence: str) -> None:
    with pytest.raises(PreconditionFailed, match=sentence):
        check_pattern(pattern)
    check_pattern("")
