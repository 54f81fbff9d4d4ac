"""A client of the node's HTTP API over its control socket, which is how the command line talks to a running broker.

The control socket needs no password: its folder is closed to all users but the broker's own and root. The node is found by its data folder
(`node.json`). Only the standard library, because a status should be quick to come.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leveret.refusal import DATA, NO_PERMISSION, SOFTWARE, TEMPORARY, UNAVAILABLE, Refusal
from leveret.supervisor.runtime import read_node

ANSWER_BYTES_MAX = 256 * 1024 * 1024


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


class ControlClient:
    """One node, found by the first of `data_dirs` in which one is running. `facts` is its `node.json`. Raises `Refusal` 69 if none runs."""

    def __init__(self, data_dirs: Sequence[Path], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        for data_dir in data_dirs:
            facts = read_node(data_dir)
            if facts is not None and _listens(str(facts.get("control_socket", ""))):
                self.facts: dict[str, Any] = facts
                return
        places = " or ".join(str(data_dir) for data_dir in data_dirs)
        raise Refusal(f"no broker is running on {places}; start one with `leveret start`, or name its folder with --data-dir", UNAVAILABLE)

    def get(self, path: str) -> Any:
        """The decoded JSON of a GET. Raises `Refusal`: 65 for an answer that says no, 69 if the node goes away, 75 after the time-out."""
        return self._request("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """The same for a POST of `body` as JSON, or of nothing; None for an answer without a body."""
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, content: Any = None) -> Any:
        line = _UnixConnection(self.facts["control_socket"], self._timeout_s)
        headers = {"Accept": "application/json", "Content-Type": "application/json", "Connection": "close"}
        try:
            line.request(method, path, None if content is None else json.dumps(content), headers)
            answer = line.getresponse()
            body = answer.read(ANSWER_BYTES_MAX)
        except TimeoutError:
            raise Refusal(f"the broker did not answer within {self._timeout_s:g} s", TEMPORARY) from None
        except (OSError, http.client.HTTPException) as error:
            raise Refusal(f"the broker went away while it was asked: {error or type(error).__name__}", UNAVAILABLE) from None
        finally:
            line.close()
        if answer.status >= 400:
            code = {401: NO_PERMISSION, 403: NO_PERMISSION, 503: UNAVAILABLE}.get(answer.status, SOFTWARE if answer.status >= 500 else DATA)
            raise Refusal(f"the broker answered {method} {path} with {answer.status} {answer.reason}{_reason(body)}", code)
        try:
            return json.loads(body) if body else None
        except ValueError:
            raise Refusal(f"the broker's answer to {method} {path} is not JSON", SOFTWARE) from None


def _listens(path: str) -> bool:
    """Whether somebody accepts connections there: a killed broker leaves its files behind, but not its socket's listener."""
    if not path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except PermissionError:
            raise Refusal(f"not allowed to use the control socket {path}: the broker belongs to another user", NO_PERMISSION) from None
        except TimeoutError:
            return True  # a full backlog is somebody's
        except OSError:
            return False
    return True


def _reason(body: bytes) -> str:
    try:
        content = json.loads(body)
        return f": {content['reason']}" if isinstance(content, dict) and "reason" in content else ""
    except ValueError:
        return ""
