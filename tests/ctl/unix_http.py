"""A stand-in for the management process: an HTTP server on a Unix socket that answers from a table, and a `node.json` that leads to it."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class StandInApi:
    """Serves until `close`.

    `answers` maps "GET /api/nodes" (without the query) to (status, body); `asked` lists the requests with their query, `bodies`
    what came with each.
    """

    def __init__(self, data_dir: Path, answers: dict[str, tuple[int, Any]], pid: int | None = None) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.on_request: Callable[[str], None] = lambda request: None
        # A short path of its own: pytest's may be longer than a Unix socket's name can be.
        self._path = Path(f"/tmp/leveret-test-{os.getpid()}-{os.urandom(4).hex()}.sock")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def address_string(self) -> str:
                return "unix"

            def log_message(self, *arguments: object) -> None:
                pass

            def _answer(self) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                outer.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                outer.on_request(self.path)
                status, body = answers.get(f"{self.command} {self.path.partition('?')[0]}", (404, {"reason": "Not Found"}))
                content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer  # noqa: N815

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that gave up

        self._server = Server(str(self._path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.facts = {
            "pid": pid or os.getpid(),
            "run_id": "r",
            "node_name": "leveret@test",
            "version": "0.1.0",
            "amqp_host": "::",
            "amqp_port": 5672,
            "http_host": "::",
            "http_port": 15672,
            "control_socket": str(self._path),
            "data_dir": str(data_dir),
        }
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "node.json").write_text(json.dumps(self.facts))

    def close(self) -> None:
        """Stop listening; `node.json` stays, as after a kill."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)
