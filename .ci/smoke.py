"""The installed broker used from another directory, as its user would: start it, publish and get with pika, look at its status, stop it.

Run by `wheel-smoke` with the Python of a clean venv whose commands come first in PATH. Exits with 1 and a sentence if anything is not as it
should be; never leaves a broker behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import leveret
import pika

CHECKOUT = Path(__file__).resolve().parents[1]
START_S = 30
STOP_S = 30
BODY = b"a message through the wheel"


def started(data_dir: str) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """A broker on free ports, and the facts that it writes to --ready-fd."""
    reader, writer = os.pipe()
    command = ["leveret", "start", "--data-dir", data_dir, "--port", "0", "--http-port", "0", "--host", "127.0.0.1"]
    broker = subprocess.Popen([*command, "--http-host", "127.0.0.1", "--ready-fd", str(writer)], pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader) as ready:
        line = ready.readline()  # ends when the broker does, too
    if not line:
        sys.exit(f"the broker did not start: exit code {broker.wait(START_S)}")
    return broker, json.loads(line)


def used(port: int) -> None:
    """Publish with a confirm, get, acknowledge."""
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("smoke", durable=True)
    channel.basic_publish("", "smoke", BODY, mandatory=True)
    method, _, body = channel.basic_get("smoke")
    if method is None or body != BODY:
        sys.exit(f"got {body!r} instead of {BODY!r}")
    channel.basic_ack(method.delivery_tag)
    connection.close()


def main() -> None:
    if Path(leveret.__file__).is_relative_to(CHECKOUT):
        sys.exit(f"{leveret.__file__} is the checkout, not the installed wheel")
    with tempfile.TemporaryDirectory() as data_dir:
        broker, facts = started(data_dir)
        try:
            used(facts["amqp_port"])
            status = json.loads(subprocess.check_output(["leveret", "status", "--data-dir", data_dir, "--json"], timeout=START_S))
            if [queue["name"] for queue in status["queues"]] != ["smoke"]:
                sys.exit(f"leveret status shows {status['queues']} instead of the queue")
            subprocess.run(["leveret", "stop", "--data-dir", data_dir], check=True, timeout=STOP_S)
            if (code := broker.wait(STOP_S)) != 0:
                sys.exit(f"the broker ended with exit code {code}")
        finally:
            broker.kill()
            broker.wait()
    print(f"leveret {leveret.__version__}: installed, started, used and stopped")


if __name__ == "__main__":
    main()
