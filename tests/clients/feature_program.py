"""A program in another language that tries its client library on a broker, one feature a run.

Owns the contract between such programs (`tests/clients/go/`, `javascript/`, `java/`, `ruby/`, `php/`) and the tests that run them: called
with a feature's name, told of the broker by `AMQP_URL` and of names it may use by `AMQP_PREFIX`, a program prints `N checks held` and exits
with 0, or says on standard error what did not hold and exits with 1. A feature is registered in the source by a call `feature("name"`; so
`features` finds them all before anything is compiled.
"""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.node import Broker

WITHIN_S = 90.0  # for one feature; each waits at most 30 s for anything, and mostly for milliseconds
REGISTERED = re.compile(r"^\s*(?:var _ = )?feature\(?\s*[\"']([^\"']+)[\"']", re.MULTILINE)
HELD = re.compile(r"^(\d+) checks held$", re.MULTILINE)


def features(sources: Iterable[Path], *, beyond_peer: Collection[str] = (), apart: Collection[str] = ()) -> list[Any]:
    """The registered features as pytest parameters, those `apart` left out; those `beyond_peer` are not run against RabbitMQ."""
    names = [name for source in sorted(sources) for name in REGISTERED.findall(source.read_text())]
    assert names, "no features found"
    assert len(names) == len(set(names)), f"registered twice: {sorted(name for name in names if names.count(name) > 1)}"
    assert {*beyond_peer, *apart} <= set(names), f"no such features: {({*beyond_peer, *apart}) - set(names)}"
    beyond = pytest.mark.not_on_peer("RabbitMQ refuses it, or 3.10 says it otherwise")
    return [pytest.param(name, marks=[beyond] if name in beyond_peer else []) for name in names if name not in apart]


def start(command: Sequence[str], feature: str, broker: Broker, **environment: str) -> subprocess.Popen[str]:
    """Start a program on one feature."""
    told = {"AMQP_URL": broker.url, "AMQP_PREFIX": f"program-{uuid.uuid4().hex[:12]}"}
    return subprocess.Popen(
        [*command, feature],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | told | environment,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a program's end; `AssertionError` with what it said unless all its checks held, and there was one."""
    try:
        out, error = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, error = process.communicate()
        raise AssertionError(f"still running after {WITHIN_S} s:\n{out}{error}") from None
    held = HELD.search(out)
    assert process.returncode == 0 and held, f"exit status {process.returncode}:\n{out}{error}"
    assert int(held[1]) > 0, "nothing was checked"


def run(command: Sequence[str], feature: str, broker: Broker, **environment: str) -> None:
    """Run a program on one feature to its end; `AssertionError` with what it said unless all its checks held."""
    finish(start(command, feature, broker, **environment))
