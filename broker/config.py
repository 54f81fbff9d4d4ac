"""The node's own options: one table, three places to set them, one frozen object that every process reads.

The fields of `Settings` are the table. Each has its name with its unit, its kind, its bounds, its default and its help; the TOML key, the
`LEVERET_…` environment variable and the flag of `leveret start` all follow from the name (`frame_max_bytes`, `LEVERET_FRAME_MAX_BYTES`,
`--frame-max-bytes`). `load` is called once, by the command line, and gives later places precedence: default < file < environment < flag.
The supervisor hands the result to its children as a map (`to_map`, `from_map`). Nothing here opens a socket, makes a folder or keeps state;
what operators set at run time (users, policies, limits) is not here but in the router.

To add an option: add a field here. It needs nothing else to be read, checked, documented and handed to every process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from leveret import __version__
from leveret.refusal import CONFIG, USAGE, Refusal

ENVIRONMENT_PREFIX = "LEVERET_"
SYSTEM_DATA_DIR = Path("/var/lib/leveret")
WORKERS_MAX = 64  # a message's verdict names its workers in one 64-bit word (leveret.link.packets)
FRAME_MIN_BYTES = 4096  # AMQP 0-9-1, 4.2.3: a peer may always send this much
MESSAGE_SIZE_CAP_BYTES = 512 * 1024 * 1024  # RabbitMQ's hard cap
# The durabilities there are, and what each promises of a confirmed persistent message, in the words that people are told.
DURABILITIES: Mapping[str, str] = {
    "disk": "a confirm waits for the disk: what is confirmed survives a power cut",
    "os": "a confirm waits for the operating system only: it survives any crash of the broker, but a power cut may lose the last moments",
}


class Kind(Protocol):
    """How the value of an option is read. `allowed` completes the sentence "… must be …"."""

    @property
    def allowed(self) -> str: ...

    def parse(self, value: object) -> object:
        """A value out of TOML (already typed) or out of the environment or a flag (a `str`). Raises `ValueError` if it is not allowed."""


_SIZE = re.compile(r"(\d+)\s*([KMGT]i?B?|B|)", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(text: str) -> int:
    """Bytes from "1048576", "16 MiB", "16MB" or "16M": powers of two with an `i` or a bare letter, powers of ten as `kB`, `MB`, `GB`, `TB`.

    Raises `ValueError`.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    number, unit = int(found[1]), found[2].lower()
    if unit in ("", "b"):
        return number
    power = _FACTORS[unit[0]]
    return int(number * 1000 ** (power // 10)) if len(unit) == 2 and unit[1] == "b" else number << power


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `least` to `most`. A size may also be written with a unit."""

    least: int
    most: int
    size: bool = False

    @property
    def allowed(self) -> str:
        unit = ' (or a size such as "16 MiB")' if self.size else ""
        return f"a whole number from {self.least} to {self.most}{unit}"

    def parse(self, value: object) -> int:
        if isinstance(value, str):
            value = parse_size(value) if self.size else int(value, 10)
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration in seconds, whole or not."""

    least: float
    most: float

    @property
    def allowed(self) -> str:
        return f"a number of seconds from {self.least:g} to {self.most:g}"

    def parse(self, value: object) -> float:
        if isinstance(value, str):
            value = float(value)
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise ValueError(value)  # a NaN compares false and ends here too
        return float(value)


@dataclass(frozen=True, slots=True)
class Share:
    """A share from 0 to 1, or a per cent."""

    allowed: str = 'a share from 0.0 to 1.0, such as 0.5 or "50%"'

    def parse(self, value: object) -> float:
        if isinstance(value, str):
            text = value.strip()
            value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ValueError(value)
        return float(value)


@dataclass(frozen=True, slots=True)
class Watermark:
    """A share of the memory (0 to 1, a float with a point, or a per cent) or a size in bytes (above 1)."""

    allowed: str = 'a share from 0.0 to 1.0, such as 0.6 or "60%", or a size such as "4 GiB"'

    def parse(self, value: object) -> float:
        if isinstance(value, str):
            text = value.strip()
            if text.endswith("%"):
                value = float(text[:-1]) / 100
                if value > 1:
                    raise ValueError(text)
            elif "." in text:
                value = float(text)
            else:
                value = parse_size(text)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(value)
        if isinstance(value, float) and not 0 <= value <= 1:
            raise ValueError(value)
        if not 0 <= value < 1 << 62:
            raise ValueError(value)
        return float(value)


@dataclass(frozen=True, slots=True)
class Text:
    """Text without control characters, of `least` to `most` bytes as UTF-8."""

    least: int = 0
    most: int = 255

    @property
    def allowed(self) -> str:
        return f"text of {self.least} to {self.most} bytes without control characters"

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise ValueError(value)
        if not self.least <= len(value.encode()) <= self.most:
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Folder:
    """A path, made absolute from the working directory; `~` is the user's home."""

    allowed: str = "the path of a folder"

    def parse(self, value: object) -> Path:
        if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
            raise ValueError(value)
        return Path(os.path.abspath(Path(value).expanduser()))  # noqa: PTH100 (resolve() would follow links that the user may re-point)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join(f'"{word}"' for word in self.words)

    def parse(self, value: object) -> str:
        if value not in self.words:
            raise ValueError(value)
        return str(value)


@dataclass(frozen=True, slots=True)
class Emulation:
    """Empty, or the broker that clients shall take us for."""

    allowed: str = '"" or "rabbitmq-" and a version, such as "rabbitmq-4.2"'

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"|rabbitmq-\d{1,3}\.\d{1,3}(\.\d{1,3})?", value):
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table. `default_text` is what a reader is told when the default depends on the machine."""

    name: str
    kind: Kind
    help: str
    default: object
    default_text: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


_NO_DEFAULT = dataclasses.MISSING


def _option(kind: Kind, help: str, default: Any = _NO_DEFAULT, *, default_text: str = "", secret: bool = False) -> Any:
    return dataclasses.field(default=default, repr=not secret, metadata={"kind": kind, "help": help, "default_text": default_text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every option of a node, checked. Immutable; the same in every process of one node."""

    data_dir: Path = _option(  # noqa: RUF009 (it makes a field, as dataclasses.field does)
        Folder(),
        "Folder for everything that must survive a restart; one broker at a time uses it.",
        default_text="a folder of the user's own; systemd's StateDirectory, or /var/lib/leveret for root under systemd",
    )
    runtime_dir: Path = _option(  # noqa: RUF009
        Folder(),
        "Folder (mode 0700) for the sockets between the node's processes; its path must be short.",
        default_text="$XDG_RUNTIME_DIR/leveret-<hash of data_dir>, or the same in the folder for temporary files",
    )
    node_name: str = _option(
        Text(1, 255), "Name of this node, shown to clients and on the management pages.", "", default_text="leveret@<host name>"
    )
    workers: int = _option(
        Whole(0, WORKERS_MAX), "Worker processes, each with its own connections and queues; 0 means one per core that we may use.", 0
    )
    host: str = _option(
        Text(1), 'Address on which AMQP clients are served; "::" means every address, IPv4 and IPv6.', "::", default_text="every address"
    )
    port: int = _option(Whole(0, 65535), "TCP port for AMQP clients; 0 picks a free one, which the ready line tells.", 5672)
    http_host: str = _option(
        Text(1), 'Address on which the HTTP API is served; "::" means every address.', "::", default_text="every address"
    )
    http_port: int = _option(Whole(0, 65535), "TCP port of the HTTP API; 0 picks a free one.", 15672)
    backlog: int = _option(Whole(1, 65535), "Connections that may wait to be accepted, so that a burst of clients is not refused.", 4096)
    default_user: str = _option(
        Text(1), "User made when the node starts on an empty data folder. The user guest may only come from this machine.", "guest"
    )
    default_pass: str = _option(
        Text(0, 1024), "Password of that user; better set in the file or the environment, because flags show in `ps`.", "guest", secret=True
    )
    default_vhost: str = _option(Text(1), "Virtual host made when the node starts on an empty data folder.", "/")
    anonymous_login_user: str = _option(
        Text(0, 255), "User that a client becomes who logs in by SASL ANONYMOUS; empty: the mechanism is off.", "", default_text="off"
    )
    memory_watermark: float = _option(
        Watermark(),
        "Memory of all processes together above which publishers are held back: a share of the machine's or container's memory, or a size. "
        "0 holds them back always.",
        0.6,
    )
    memory_paging_ratio: float = _option(
        Share(),
        "Share of the memory watermark that waiting messages may take before those far from their turn are moved to disk; 1 never does.",
        0.5,
    )
    disk_free_limit_bytes: int = _option(
        Whole(0, 1 << 50, size=True), "Free space on the data folder's disk below which publishers are held back; 0 never does.", 50_000_000
    )
    heartbeat_s: int = _option(
        Whole(0, 65535), "Heartbeat interval proposed to clients; a peer that is silent for two of them is gone. 0 turns it off.", 60
    )
    frame_max_bytes: int = _option(
        Whole(FRAME_MIN_BYTES, 16 * 1024 * 1024, size=True),
        "Largest frame proposed to clients: it bounds the memory one frame can hold.",
        131072,
    )
    channel_max: int = _option(Whole(1, 65535), "Most channels of one connection, proposed to clients.", 2047)
    message_size_max_bytes: int = _option(
        Whole(1, MESSAGE_SIZE_CAP_BYTES, size=True), "Largest message body; a larger one closes the channel with 406.", 16 * 1024 * 1024
    )
    handshake_timeout_s: float = _option(
        Seconds(0.1, 3600), "Time in which a client must have opened its connection: idle sockets must not pile up.", 10.0
    )
    handshakes_max: int = _option(
        Whole(1, 65535),
        "Connections of one worker that may be in their handshake, 16 KiB each; beyond, the oldest makes room or the new one is refused.",
        4096,
    )
    queue_leader_locator: str = _option(
        Choice(("client-local", "balanced")),
        "Where a new queue lives: on the worker of the client that declares it (fewest hops), or on the worker with the fewest queues.",
        "client-local",
    )
    connection_handover: str = _option(
        Choice(("auto", "off", "always")),
        "Whether a client's connection moves to the worker that has the queues it uses, unnoticed: where that saves work, never, or "
        "whenever it can (for trying it out).",
        "auto",
    )
    durability: str = _option(
        Choice(tuple(DURABILITIES)),
        'When a persistent message is confirmed: "disk", once it is on the disk; "os", once the operating system has it, which survives '
        "a crash of the broker but not a power cut.",
        "disk",
    )
    statistics_interval_ms: int = _option(Whole(100, 3_600_000), "How often the counters behind the rates are read.", 5000)
    shutdown_timeout_s: float = _option(
        Seconds(0.1, 3600), "Time that workers get for closing their connections at a stop, before they are killed.", 10.0
    )
    log_level: str = _option(Choice(("debug", "info", "warning", "error")), "Least important lines that are logged.", "info")
    log_format: str = _option(Choice(("text", "json")), "Log lines for people, or one JSON object a line for machines.", "text")
    emulate: str = _option(
        Emulation(),
        "Product and version told to clients that decide by them (kombu does), unless they are set themselves.",
        "",
        default_text="none",
    )
    product: str = _option(Text(1), "Product name told to clients.", "Leveret")
    version: str = _option(Text(1), "Version told to clients.", __version__)

    def to_map(self) -> dict[str, object]:
        """A map that msgpack takes, from which `from_map` makes an equal object in another process."""
        return {
            field.name: str(value) if isinstance(value := getattr(self, field.name), Path) else value for field in dataclasses.fields(self)
        }

    @classmethod
    def from_map(cls, values: Mapping[str, Any]) -> Settings:
        """The object of which `to_map` gave `values`, which are not checked again."""
        given: dict[str, Any] = dict(values)
        return cls(**given | {option.name: Path(given[option.name]) for option in OPTIONS if isinstance(option.kind, Folder)})


def _options() -> tuple[Option, ...]:
    rows = []
    for field in dataclasses.fields(Settings):
        default = None if field.default is _NO_DEFAULT else field.default
        text = field.metadata["default_text"] or str(default)
        rows.append(Option(field.name, field.metadata["kind"], field.metadata["help"], default, text))
    return tuple(rows)


OPTIONS: tuple[Option, ...] = _options()
_BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}

# Variables of this prefix that are not options: the place of the file, and what the build reads.
_OTHER_VARIABLES = {"LEVERET_CONFIG", "LEVERET_DEBUG"}
# Kubernetes gives every container LEVERET_PORT=tcp://… and its kin for each service called "leveret".
_KUBERNETES = re.compile(r"LEVERET_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))(_\w+)?")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, the file that was read (if any), and sentences about what was passed over."""

    settings: Settings
    file: Path | None
    warnings: tuple[str, ...]


def load(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    config: Path | None = None,
) -> Loaded:
    """Settings from default < file < environment < flags.

    `flags` maps option names to text as given on the command line, or None where a flag was not given. The file is `config`, else
    `$LEVERET_CONFIG`, else the first of `leveret.toml` in the user's configuration folder and in /etc/leveret that exists. Raises `Refusal`
    (78 for the file or the environment, 64 for a flag) with a sentence that names the place, the option and what is allowed.
    """
    file = _file(config, environment)
    values: dict[str, Any] = {}
    warnings: list[str] = []
    if file is not None:
        values |= _from_file(file)
    values |= _from_environment(environment, warnings)
    values |= _from_flags(flags)

    emulate = str(values.get("emulate", ""))
    if emulate:
        broker, _, version = emulate.partition("-")
        values.setdefault("product", {"rabbitmq": "RabbitMQ"}[broker])
        values.setdefault("version", version if version.count(".") == 2 else f"{version}.0")
    values.setdefault("node_name", f"leveret@{socket.gethostname().partition('.')[0] or 'localhost'}")
    data_dir = values.setdefault("data_dir", default_data_dir(environment))
    assert isinstance(data_dir, Path)
    values.setdefault("runtime_dir", default_runtime_dir(data_dir, environment))
    return Loaded(Settings(**values), file, tuple(warnings))


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """systemd's state folder if it gave one; /var/lib/leveret for root under systemd; else a folder of the user's own."""
    if given := environment.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if os.geteuid() == 0 and "INVOCATION_ID" in environment:
        return SYSTEM_DATA_DIR
    import platformdirs  # only here: a start with --data-dir does without it

    return Path(platformdirs.user_data_dir("leveret", appauthor=False))


def default_runtime_dir(data_dir: Path, environment: Mapping[str, str]) -> Path:
    """A short path that is the same for the same data folder and another for every other one."""
    mark = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    if given := environment.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0])
    if (given := environment.get("XDG_RUNTIME_DIR")) and Path(given).is_dir():
        return Path(given) / f"leveret-{mark}"
    import tempfile  # every process imports this module, but only the first one looks for defaults

    return Path(tempfile.gettempdir()) / f"leveret-{os.geteuid()}-{mark}"


def _file(config: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = config or (Path(given) if (given := environment.get("LEVERET_CONFIG")) else None)
    if named is not None:
        return named
    home = environment.get("XDG_CONFIG_HOME") or (f"{environment['HOME']}/.config" if "HOME" in environment else None)
    folders = [Path(home) / "leveret"] if home else []
    return next((path for folder in [*folders, Path("/etc/leveret")] if (path := folder / "leveret.toml").is_file()), None)


def _from_file(file: Path) -> dict[str, object]:
    import tomllib  # as above

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"cannot read the configuration file {file}: {error.strerror}", CONFIG) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refusal(f"the configuration file {file} is not valid TOML: {error}", CONFIG) from None
    values: dict[str, object] = {}
    for key, value in content.items():
        option = _BY_NAME.get(key)
        if option is None:
            raise Refusal(f"{file}: unknown option {_shown(key)}{_nearest(key)}", CONFIG)
        try:
            values[key] = option.kind.parse(value)
        except (ValueError, TypeError):
            raise Refusal(f"{file}: {key} must be {option.kind.allowed}, not {_shown(value, option)}", CONFIG) from None
    return values


def _from_environment(environment: Mapping[str, str], warnings: list[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _OTHER_VARIABLES or _KUBERNETES.fullmatch(variable):
            continue
        option = _BY_NAME.get(variable.removeprefix(ENVIRONMENT_PREFIX).lower())
        if option is None:
            warnings.append(f"the environment variable {_shown(variable)} is not an option and was passed over")
            continue
        if variable == "LEVERET_PORT" and text.startswith("tcp://"):  # Kubernetes' again
            continue
        try:
            values[option.name] = option.kind.parse(text)
        except (ValueError, TypeError):
            raise Refusal(f"environment: {variable} must be {option.kind.allowed}, not {_shown(text, option)}", CONFIG) from None
    return values


def _from_flags(flags: Mapping[str, str | None]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, text in flags.items():
        if text is None:
            continue
        option = _BY_NAME[name]
        try:
            values[name] = option.kind.parse(text)
        except (ValueError, TypeError):
            raise Refusal(f"{option.flag} must be {option.kind.allowed}, not {_shown(text, option)}", USAGE) from None
    return values


def _shown(value: object, option: Option | None = None) -> str:
    """A value as an error may repeat it: quoted, short, without control characters, and never a password."""
    if option is not None and option.name == "default_pass":
        return "what was given"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(key: str) -> str:
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(key, _BY_NAME, n=1)
    return f"; did you mean {near[0]}?" if near else "; `leveret start --help` lists all options"
