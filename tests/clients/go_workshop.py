"""Go programs, compiled against Debian's libraries: no module proxy is asked.

Owns `go_build`. Debian keeps libraries as a GOPATH below `/usr/share/gocode`, so the programs are compiled in GOPATH mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.clients.toolchain import BUILD, Workshop, require

GOPATH = Path("/usr/share/gocode")


def go_build(name: str, sources: Iterable[Path], packages: Sequence[str], output: str, before: Sequence[Sequence[str]] = ()) -> Path:
    """`go vet` and `go build -o OUTPUT` of `packages` in `build/clients/<name>`, after the commands `before`; gives the folder."""
    require("go")
    environment = {"GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(BUILD / "go-cache"), "GOFLAGS": "", "CGO_ENABLED": "0"}
    return Workshop(name).make(
        sources, *before, ["go", "vet", *packages], ["go", "build", "-o", output, *packages], environment=environment
    )
