"""A private RabbitMQ node from Debian's package, on spare ports and with its own data folder, as the peer of the side-by-side bench.

It never touches a node that the system itself runs: node name, ports, Erlang's port mapper, cookie and every path are its own. RabbitMQ
answers a confirm for classic queues without fsync, which every table that shows it must say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench.node import NodeFailed, end, wait_ready
from bench.ports import spare_port

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
_READY_S = 90.0


class Peer:
    """RabbitMQ, running. `Peer()` returns when it is ready; use it as a context manager, or call `stop()`.

    Raises NodeFailed when the package is not installed or the node does not come up.
    """

    name = "RabbitMQ"
    fsyncs_before_confirm = False

    def __init__(self) -> None:
        server = PROGRAMS / "rabbitmq-server"
        if not server.exists():
            raise NodeFailed(
                f"{server} is missing; the peer comes with Debian's package:\n  apt-get install --no-install-recommends rabbitmq-server"
            )
        self.version = _version(server)
        self.label = f"{self.name} {self.version} (no fsync before a confirm)"
        self.port = spare_port()
        self.http_port = spare_port()
        self._folder = Path(tempfile.mkdtemp(prefix="leveret-bench-peer-"))
        self._environment = self._write_files()
        self._log = self._folder / "console.log"
        # Started here rather than by the node, so that its pid is known and it ends with us.
        self._epmd = subprocess.Popen(
            ["epmd", "-address", "127.0.0.1", "-port", self._environment["ERL_EPMD_PORT"]],
            env=self._environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        began = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(server)],
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_ready(self._process, self.port, self._log, self.name, _READY_S)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - began

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def uri(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def stop(self) -> None:
        end(self._process, 20.0)
        end(self._epmd, 2.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_files(self) -> dict[str, str]:
        folder = self._folder
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.http_port}\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
        )
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
        return keep | {
            "HOME": str(folder),  # the Erlang cookie is written here
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(spare_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "peer@localhost",
            "RABBITMQ_DIST_PORT": str(spare_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such-file"),
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the Erlang machine: SIGTERM reaches it, and one tree holds it all
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput",
        }


def _version(server: Path) -> str:
    """The number in the folder that the program's link leads to (`rabbitmq_server-3.10.8`)."""
    return next((part.partition("-")[2] for part in server.resolve().parts if part.startswith("rabbitmq_server-")), "(version unknown)")
