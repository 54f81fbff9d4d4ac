"""The node's two folders: the data folder with its lock, and the runtime folder with the sockets between processes.

`DataDir` makes sure that one broker at a time uses a data folder; `RuntimeDir` makes the folder in which routers, workers and management
meet, closed to every other user. Both are held by the supervisor from before the first child starts until after the last has ended.

    <data folder>/leveret.lock   flock; content: pid. Inherited by the children, so the folder is free only when the last of them is gone
    <data folder>/node.json      0600; present while the node is ready; what `NodeFile` says, for the command line and for tests
    <runtime folder>/*.sock      router.sock, worker-<i>.sock, handoff-<i>.sock, control.sock
    <runtime folder>/loads       what the workers know of each other's load: `leveret.worker.loads`
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leveret.refusal import CANNOT_CREATE, CONFIG, NO_PERMISSION, UNAVAILABLE, Refusal

LOCK_NAME = "leveret.lock"
NODE_NAME = "node.json"
CONTROL_SOCKET_NAME = "control.sock"
LOADS_NAME = "loads"

# sun_path holds 108 bytes with a final NUL (unix(7)); "/handoff-63.sock" is the longest name that we put below the folder.
RUNTIME_PATH_BYTES_MAX = 107 - len("/handoff-63.sock")

# How long the children of a killed supervisor may take to be gone: the kernel kills them with it (PR_SET_PDEATHSIG).
_ORPHANS_WAIT_S = 5.0
# How long a holder that lives is looked at: one that was killed a moment ago has to get a core before it is dead.
_HOLDER_WAIT_S = 1.0
_ORPHANS_LOOK_S = 0.01


def _make_folder(path: Path, what: str) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise Refusal(f"the {what} {path} is not a folder", CANNOT_CREATE) from None
    except OSError as error:
        code = NO_PERMISSION if error.errno in (errno.EACCES, errno.EPERM) else CANNOT_CREATE
        raise Refusal(f"cannot make the {what} {path}: {error.strerror}", code) from None


class DataDir:
    """The data folder, made if missing and locked. Raises `Refusal` if another broker holds it or we may not write there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _make_folder(path, "data folder")
        try:
            self.lock_fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Refusal(f"cannot write to the data folder {path}: {error.strerror}", NO_PERMISSION) from None
        try:
            holder = take_lock(self.lock_fd)
        except OSError as error:
            os.close(self.lock_fd)
            raise Refusal(f"the data folder {path} cannot be locked: {error.strerror}; it must be on a local disk", CONFIG) from None
        if holder is not None:
            os.close(self.lock_fd)
            raise Refusal(
                f"the data folder {path} is in use by another broker (process {holder}); stop it, or choose another --data-dir", UNAVAILABLE
            )
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)
        (path / NODE_NAME).unlink(missing_ok=True)  # a killed predecessor's

    def write_node(self, facts: Mapping[str, Any]) -> None:
        """Put `node.json` there, whole or not at all."""
        new = self.path / (NODE_NAME + ".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)
            file.write("\n")
        new.replace(self.path / NODE_NAME)

    def close(self) -> None:
        """Take `node.json` away and let the folder go, once all children have ended too."""
        (self.path / NODE_NAME).unlink(missing_ok=True)
        os.close(self.lock_fd)


def take_lock(lock_fd: int) -> str | None:
    """Lock a data folder by its open lock file. None if that is done, else who holds it: a process id, or "unknown". Raises `OSError`."""
    began_at = time.monotonic()
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            holder = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip()
            # A live holder is another broker. A dead one's children are being killed; there is nothing to wait on but the lock itself.
            if time.monotonic() - began_at >= (_HOLDER_WAIT_S if _is_alive(holder) else _ORPHANS_WAIT_S):
                return holder or "unknown"
        time.sleep(_ORPHANS_LOOK_S)


def read_node(data_dir: Path) -> dict[str, Any] | None:
    """What the node that uses `data_dir` wrote when it became ready, or None. It may have been killed since: only its socket can tell."""
    try:
        facts = json.loads((data_dir / NODE_NAME).read_text(encoding="utf-8"))
    except PermissionError:
        raise Refusal(f"not allowed to read {data_dir / NODE_NAME}: the broker belongs to another user", NO_PERMISSION) from None
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal() or int(pid) <= 0:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


class RuntimeDir:
    """The runtime folder: ours, mode 0700, emptied of sockets and of the workers' loads, which a killed node left. Raises `Refusal`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if len(os.fsencode(path)) > RUNTIME_PATH_BYTES_MAX:
            raise Refusal(
                f"the runtime folder's path is too long for Unix sockets ({len(os.fsencode(path))} bytes, "
                f"at most {RUNTIME_PATH_BYTES_MAX}): {path}; choose a shorter --runtime-dir",
                CONFIG,
            )
        _make_folder(path, "runtime folder")
        status = path.lstat()
        # Below a folder that all users can write to, somebody may have been there first.
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise Refusal(f"the runtime folder {path} belongs to another user or is a link; choose another --runtime-dir", NO_PERMISSION)
        if status.st_mode & 0o077:
            path.chmod(0o700)
        self._remove_ours()

    @property
    def control_socket(self) -> Path:
        return self.path / CONTROL_SOCKET_NAME

    def _remove_ours(self) -> None:
        for entry in self.path.iterdir():
            if stat.S_ISSOCK(entry.lstat().st_mode) or entry.name == LOADS_NAME:
                entry.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove what is the node's, and the folder if nothing else is in it."""
        try:
            self._remove_ours()
            self.path.rmdir()
        except OSError:  # somebody keeps other things there, or has removed it already
            pass
