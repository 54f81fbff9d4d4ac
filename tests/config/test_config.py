"""The node's options: where they may be set, what wins, and the sentences for what is wrong."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from leveret.config import OPTIONS, Settings, default_data_dir, default_runtime_dir, load, parse_size
from leveret.refusal import CONFIG, USAGE, Refusal

NOWHERE = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}


def loaded(flags: dict[str, str | None] | None = None, environment: dict[str, str] | None = None, toml: Path | None = None) -> Settings:
    return load({"data_dir": "/data"} | (flags or {}), NOWHERE | (environment or {}), toml).settings


def written(folder: Path, text: str) -> Path:
    file = folder / "leveret.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("file", "environment", "flag", "expected"),
    [
        (None, None, None, 5672),
        ("1001", None, None, 1001),
        (None, "1002", None, 1002),
        (None, None, "1003", 1003),
        ("1001", "1002", None, 1002),
        ("1001", None, "1003", 1003),
        (None, "1002", "1003", 1003),
        ("1001", "1002", "1003", 1003),
    ],
)
def test_flag_beats_environment_beats_file_beats_default(
    tmp_path: Path, file: str | None, environment: str | None, flag: str | None, expected: int
) -> None:
    settings = loaded(
        {"port": flag},
        {"LEVERET_PORT": environment} if environment else {},
        written(tmp_path, f"port = {file}\n" if file else ""),
    )
    assert settings.port == expected


# Every option once: as TOML, as text (environment and flags), and the value that both give.
EXAMPLES: dict[str, tuple[str, str, Any]] = {
    "data_dir": ('"/var/x"', "/var/x", Path("/var/x")),
    "runtime_dir": ('"/run/x"', "/run/x", Path("/run/x")),
    "node_name": ('"n@h"', "n@h", "n@h"),
    "workers": ("3", "3", 3),
    "host": ('"127.0.0.1"', "127.0.0.1", "127.0.0.1"),
    "port": ("0", "0", 0),
    "http_host": ('"127.0.0.1"', "127.0.0.1", "127.0.0.1"),
    "http_port": ("65535", "65535", 65535),
    "backlog": ("128", "128", 128),
    "default_user": ('"ann"', "ann", "ann"),
    "default_pass": ('"s3cret"', "s3cret", "s3cret"),
    "default_vhost": ('"v"', "v", "v"),
    "anonymous_login_user": ('"v"', "v", "v"),
    "memory_watermark": ("0.5", "50%", 0.5),
    "memory_paging_ratio": ("0.25", "25%", 0.25),
    "disk_free_limit_bytes": ('"1 GiB"', "1073741824", 1 << 30),
    "heartbeat_s": ("0", "0", 0),
    "frame_max_bytes": ("4096", "4KiB", 4096),
    "channel_max": ("65535", "65535", 65535),
    "message_size_max_bytes": ('"512 MiB"', "512M", 512 << 20),
    "handshake_timeout_s": ("2", "2", 2.0),
    "handshakes_max": ("9", "9", 9),
    "connection_handover": ('"off"', "off", "off"),
    "durability": ('"os"', "os", "os"),
    "queue_leader_locator": ('"balanced"', "balanced", "balanced"),
    "statistics_interval_ms": ("1000", "1000", 1000),
    "shutdown_timeout_s": ("0.5", "0.5", 0.5),
    "log_level": ('"debug"', "debug", "debug"),
    "log_format": ('"json"', "json", "json"),
    "emulate": ('"rabbitmq-4.2"', "rabbitmq-4.2", "rabbitmq-4.2"),
    "product": ('"P"', "P", "P"),
    "version": ('"9"', "9", "9"),
}


def test_every_option_has_an_example_here_and_a_help() -> None:
    assert set(EXAMPLES) == {option.name for option in OPTIONS} == {field.name for field in dataclasses.fields(Settings)}
    for option in OPTIONS:
        assert option.help.endswith(".")
        assert option.default_text


@pytest.mark.parametrize("name", EXAMPLES)
def test_option_can_be_set_in_each_place(tmp_path: Path, name: str) -> None:
    toml, text, expected = EXAMPLES[name]
    other = {"data_dir": None if name == "data_dir" else "/data"}
    assert getattr(load(other, NOWHERE, written(tmp_path, f"{name} = {toml}\n")).settings, name) == expected
    assert getattr(load(other, NOWHERE | {f"LEVERET_{name.upper()}": text}).settings, name) == expected
    assert getattr(load(other | {name: text}, NOWHERE).settings, name) == expected


@pytest.mark.parametrize(
    ("name", "toml", "allowed"),
    [
        ("port", "-1", "a whole number from 0 to 65535, not -1"),
        ("port", "65536", "a whole number from 0 to 65535, not 65536"),
        ("port", '"http"', "a whole number from 0 to 65535, not 'http'"),
        ("port", "true", "a whole number from 0 to 65535, not True"),
        ("port", "1.5", "a whole number from 0 to 65535, not 1.5"),
        ("workers", "65", "a whole number from 0 to 64, not 65"),
        ("frame_max_bytes", "4095", "(or a size such as"),
        ("message_size_max_bytes", '"513 MiB"', "a whole number from 1 to 536870912"),
        ("message_size_max_bytes", '"16 XB"', "not '16 XB'"),
        ("memory_watermark", "1.1", "a share from 0.0 to 1.0"),
        ("memory_watermark", "-0.1", "a share from 0.0 to 1.0"),
        ("memory_watermark", "nan", "a share from 0.0 to 1.0"),
        ("memory_watermark", "inf", "a share from 0.0 to 1.0"),
        ("memory_watermark", '"101%"', "a share from 0.0 to 1.0"),
        ("memory_watermark", "[0.6]", "a share from 0.0 to 1.0"),
        ("memory_paging_ratio", "1.5", "a share from 0.0 to 1.0"),
        ("memory_paging_ratio", "nan", "a share from 0.0 to 1.0"),
        ("handshake_timeout_s", "0", "a number of seconds from 0.1 to 3600"),
        ("handshake_timeout_s", "nan", "a number of seconds from 0.1 to 3600"),
        ("log_level", '"loud"', 'one of "debug", "info", "warning", "error", not \'loud\''),
        ("connection_handover", "true", 'one of "auto", "off", "always", not True'),
        ("queue_leader_locator", "1", 'one of "client-local", "balanced", not 1'),
        ("emulate", '"rabbitmq"', 'such as "rabbitmq-4.2"'),
        ("default_user", '""', "text of 1 to 255 bytes without control characters, not ''"),
        ("default_user", '"a\\nb"', "text of 1 to 255 bytes without control characters, not 'a\\nb'"),
        ("default_vhost", '"' + "é" * 128 + '"', "text of 1 to 255 bytes"),
        ("data_dir", '""', "the path of a folder, not ''"),
        ("data_dir", "7", "the path of a folder, not 7"),
    ],
)
def test_bad_value_in_the_file_is_a_sentence_with_file_key_and_what_is_allowed(tmp_path: Path, name: str, toml: str, allowed: str) -> None:
    file = written(tmp_path, f"{name} = {toml}\n")
    with pytest.raises(Refusal) as refused:
        load({}, NOWHERE, file)
    assert refused.value.exit_code == CONFIG
    assert refused.value.sentence.startswith(f"{file}: {name} must be ")
    assert allowed in refused.value.sentence
    assert "\n" not in refused.value.sentence


def test_bad_value_elsewhere_names_the_variable_or_the_flag() -> None:
    with pytest.raises(Refusal, match=r"^environment: LEVERET_PORT must be a whole number from 0 to 65535, not 'x'$") as refused:
        loaded(environment={"LEVERET_PORT": "x"})
    assert refused.value.exit_code == CONFIG
    with pytest.raises(Refusal, match=r"^--http-port must be a whole number from 0 to 65535, not '\\x1b\[31m'$") as refused:
        loaded({"http_port": "\x1b[31m"})
    assert refused.value.exit_code == USAGE


def test_password_is_never_repeated() -> None:
    with pytest.raises(Refusal) as refused:
        loaded({"default_pass": "hunter2" + "x" * 2000})
    assert "hunter2" not in refused.value.sentence
    assert "hunter2" not in repr(loaded({"default_pass": "hunter2"}))


def test_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    file = written(tmp_path, "htp_port = 1\n")
    with pytest.raises(Refusal, match=re.escape(f"{file}: unknown option 'htp_port'; did you mean http_port?")) as refused:
        load({}, NOWHERE, file)
    assert refused.value.exit_code == CONFIG
    with pytest.raises(Refusal, match="lists all options"):
        load({}, NOWHERE, written(tmp_path, "[zzz]\n"))


def test_file_that_is_no_toml_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"is not valid TOML: .*line 2") as refused:
        load({}, NOWHERE, written(tmp_path, "port = 1\nport = \n"))
    assert refused.value.exit_code == CONFIG
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match="is not valid TOML"):
        load({}, NOWHERE, tmp_path / "bytes.toml")
    for missing in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(Refusal, match="cannot read the configuration file"):
            load({}, NOWHERE, missing)


def test_file_is_found_by_variable_and_in_the_user_s_folder(tmp_path: Path) -> None:
    (tmp_path / "leveret").mkdir()
    at_home = written(tmp_path / "leveret", "port = 1\n")
    named = written(tmp_path, "port = 2\n")
    found = load({"data_dir": "/data"}, {"XDG_CONFIG_HOME": str(tmp_path)})
    assert (found.file, found.settings.port) == (at_home, 1)
    found = load({"data_dir": "/data"}, {"XDG_CONFIG_HOME": str(tmp_path), "LEVERET_CONFIG": str(named)})
    assert (found.file, found.settings.port) == (named, 2)


def test_unknown_variable_is_a_warning_because_others_set_them_too() -> None:
    found = load({"data_dir": "/data"}, NOWHERE | {"LEVERET_PROT": "1"})
    assert found.warnings == ("the environment variable 'LEVERET_PROT' is not an option and was passed over",)
    # Kubernetes sets these in every container when a service is called "leveret".
    kubernetes = {
        "LEVERET_PORT": "tcp://10.0.0.1:5672",
        "LEVERET_SERVICE_HOST": "10.0.0.1",
        "LEVERET_SERVICE_PORT": "5672",
        "LEVERET_SERVICE_PORT_AMQP": "5672",
        "LEVERET_PORT_5672_TCP": "tcp://10.0.0.1:5672",
        "LEVERET_PORT_5672_TCP_ADDR": "10.0.0.1",
    }
    found = load({"data_dir": "/data"}, NOWHERE | kubernetes)
    assert found.warnings == ()
    assert found.settings.port == 5672


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("16 MiB", 16 << 20),
        ("16MiB", 16 << 20),
        ("16M", 16 << 20),
        ("16MB", 16_000_000),
        ("2gb", 2_000_000_000),
        ("1 kB", 1000),
        ("1k", 1024),
        ("3 TiB", 3 << 40),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.text(max_size=12))
def test_what_is_no_size_raises_value_error_and_nothing_else(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        assert re.fullmatch(r"[0-9]+", text) is None
    else:
        assert 0 <= size < 10**12 << 40


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("Leveret", None)),
        ({"emulate": "rabbitmq-4.2"}, ("RabbitMQ", "4.2.0")),
        ({"emulate": "rabbitmq-3.13.7"}, ("RabbitMQ", "3.13.7")),
        ({"emulate": "rabbitmq-4.2", "version": "4.2.9"}, ("RabbitMQ", "4.2.9")),
        ({"product": "Mine"}, ("Mine", None)),
    ],
)
def test_product_and_version_told_to_clients(flags: dict[str, str | None], expected: tuple[str, str | None]) -> None:
    from leveret import __version__

    settings = loaded(flags)
    assert (settings.product, settings.version) == (expected[0], expected[1] or __version__)


def test_settings_survive_the_way_to_a_child() -> None:
    settings = loaded({"memory_watermark": "4 GiB", "default_pass": "ü", "workers": "2"})
    assert settings.memory_watermark == 4 << 30
    assert Settings.from_map(msgpack.unpackb(msgpack.packb(settings.to_map()))) == settings


def test_default_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data_dir({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir({"INVOCATION_ID": "x"}) == Path("/var/lib/leveret")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir({"INVOCATION_ID": "x"}) == tmp_path / "leveret"
    one, other = (default_runtime_dir(Path(path), {"XDG_RUNTIME_DIR": str(tmp_path)}) for path in ("/a", "/b"))
    assert one.parent == other.parent == tmp_path
    assert one != other
    assert one == default_runtime_dir(Path("/a"), {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert default_runtime_dir(Path("/a"), {"XDG_RUNTIME_DIR": "/gone"}).name.startswith("leveret-1000-")
    assert default_runtime_dir(Path("/a"), {"RUNTIME_DIRECTORY": "/run/leveret"}) == Path("/run/leveret")


def test_relative_folders_are_made_absolute_and_home_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    assert loaded({"data_dir": "x/../y"}).data_dir == tmp_path / "y"
    assert loaded({"data_dir": "~/y"}).data_dir == Path("/home/ann/y")
