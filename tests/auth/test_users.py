"""Logins: hashes that RabbitMQ's exports hold, constant work, guest from this machine only (reliability.md 5, rows 15 and 16)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from leveret.auth import users as module
from leveret.auth.users import User, Users, hash_password, is_loopback, verify_password
from leveret.codec.errors import AccessRefused

# From RabbitMQ's documentation of password hashing: salt 908DC60A, password "test12".
RABBITMQ_HASH = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_a_hash_out_of_rabbitmq_verifies() -> None:
    assert hash_password("test12", salt=bytes.fromhex("908DC60A")) == RABBITMQ_HASH
    assert verify_password("test12", RABBITMQ_HASH)
    assert not verify_password("test13", RABBITMQ_HASH)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "md5"])
def test_each_algorithm_is_salt_and_digest(algorithm: str) -> None:
    name = f"rabbit_password_hashing_{algorithm}"
    hashed = hash_password("pass", name)
    raw = base64.b64decode(hashed)
    assert raw[4:] == hashlib.new(algorithm, raw[:4] + b"pass").digest()
    assert verify_password("pass", hashed, name)
    assert verify_password(b"pass", hashed, name)
    assert hash_password("pass", name) != hashed, "the salt is random"


@pytest.mark.parametrize("stored", ["", "not base64!", "AAAA", base64.b64encode(b"x" * 20).decode(), "\u00e9"])
def test_a_hash_that_cannot_be_read_matches_nothing(stored: str) -> None:
    assert not verify_password("pass", stored)
    assert not verify_password("", stored)


def test_an_empty_password_never_logs_in_even_if_its_hash_is_stored() -> None:
    assert not verify_password("", hash_password(""))


def test_an_unknown_algorithm_is_refused_when_hashing_and_matches_nothing() -> None:
    with pytest.raises(ValueError, match="unknown password hashing algorithm 'rot13'"):
        hash_password("pass", "rot13")
    assert not verify_password("pass", hash_password("pass"), "rot13")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::1%lo", True),
        ("", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_what_counts_as_this_machine(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.fixture
def known() -> Users:
    users = Users()
    users.put(User("guest", hash_password("guest"), tags=frozenset({"administrator"})))
    users.put(User("app", hash_password("secret")))
    return users


REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."


def test_the_right_password_logs_in(known: Users) -> None:
    assert known.authenticate("app", "secret", "10.0.0.1").name == "app"
    assert known.authenticate("guest", "guest", "::ffff:127.0.0.1").is_administrator


@pytest.mark.parametrize(
    ("name", "password", "peer"),
    [("app", "wrong", "127.0.0.1"), ("nobody", "secret", "127.0.0.1"), ("guest", "guest", "10.0.0.1"), ("app", "", "127.0.0.1")],
)
def test_every_refusal_reads_the_same(known: Users, name: str, password: str, peer: str) -> None:
    with pytest.raises(AccessRefused) as refused:
        known.authenticate(name, password, peer)
    assert refused.value.reply_text == REFUSED


def test_an_unknown_user_costs_the_same_work_as_a_wrong_password(known: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def counted(*arguments: object) -> bool:
        calls.append(arguments)
        return False

    monkeypatch.setattr(module, "verify_password", counted)
    for name in ("app", "nobody"):
        with pytest.raises(AccessRefused):
            known.authenticate(name, "x", "127.0.0.1")
    assert [call[0] for call in calls] == ["x", "x"]
    assert len(base64.b64decode(str(calls[1][1]))) == len(base64.b64decode(str(calls[0][1])))


def test_a_user_that_was_removed_or_changed_logs_in_accordingly(known: Users) -> None:
    known.put(User("app", hash_password("new")))
    assert known.authenticate("app", "new", "10.0.0.1")
    known.remove("app")
    known.remove("app")
    with pytest.raises(AccessRefused):
        known.authenticate("app", "new", "10.0.0.1")


def test_no_password_hash_in_a_repr(known: Users) -> None:
    user = known.get("app")
    assert user is not None
    assert user.password_hash not in repr(user)
