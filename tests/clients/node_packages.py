"""Packages for Node's programs, installed once from the lock file: `tests/clients/javascript/package-lock.json`.

Owns `node_environment`. The lock file holds versions and checksums and no registry's address, so that every machine asks its own.
"""

from __future__ import annotations

from pathlib import Path

from tests.clients.toolchain import Workshop, require

LOCKED = [Path(__file__).parent / "javascript" / name for name in ("package.json", "package-lock.json")]


def node_environment() -> dict[str, str]:
    """What a Node program needs in its environment to find the packages; installs them at first use."""
    require("javascript")
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    folder = Workshop("javascript").make(LOCKED, ["cp", *map(str, LOCKED), "."], install)
    return {"NODE_PATH": str(folder / "node_modules")}
