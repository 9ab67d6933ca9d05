"""Machines that can be broken: a Redis that comes back on its port, and commands as a person runs
them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import redis
from servers import TcpProxy, _Line

from worker.local.child import Child
from worker.local.redis_server import find_program, free_port
from worker.store.connection import ROOMS, script_source

_CONFIG = """\
bind 127.0.0.1
port {port}
dir "{directory}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""
_ENTRY = "import sys, worker.cli; sys.argv[0] = {0!r}; worker.cli.{1}()"


class Redis:
    """A private redis-server with an append-only file: killed, it begins again where it was."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        program = find_program()
        assert program is not None, "no redis-server 6.2 or newer: install redis-server"
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._port = port
        self._data = directory / "data"
        self._data.mkdir(exist_ok=True)
        self._log = directory / "redis.log"
        config = directory / "redis.conf"
        config.write_text(_CONFIG.format(port=port, directory=self._data))
        self._command = [program.path, str(config)]
        self.child = self._start()

    def kill(self) -> None:
        """SIGKILL: it can write nothing more down."""
        self.child.kill()

    def freeze(self) -> None:
        """SIGSTOP: its lines stay open, and nothing answers."""
        self.child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.child.send(signal.SIGCONT)

    def restart(self, *, kill: bool = True) -> None:
        """End it, by SIGKILL or politely, and begin again with the same data on the same port."""
        if kill:
            self.child.kill()
        else:
            self.child.stop(20)
        self.child = self._start()

    def start(self) -> None:
        """Begin again after a kill."""
        self.child = self._start()

    def remember(self) -> None:
        """Copy its data as they are now, for `go_back`."""
        shutil.copytree(self._data, self._data.with_name("before"))

    def go_back(self) -> None:
        """SIGKILL, and begin again with the data of the last `remember`."""
        self.child.kill()
        shutil.rmtree(self._data)
        shutil.copytree(self._data.with_name("before"), self._data)
        self.child = self._start()

    def client(self) -> redis.Redis:
        """A client of its own; answers are bytes."""
        return redis.Redis.from_url(self.url)

    def stop(self) -> None:
        """End it, frozen or not."""
        self.thaw()
        self.child.stop(10)

    def _start(self) -> Child:
        child = Child("redis-server", self._command, self._log)
        deadline = time.monotonic() + 60
        while child.running and time.monotonic() < deadline:
            if self._answers():
                return child
            time.sleep(0.01)
        child.kill()
        raise AssertionError(child.ended())

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as line:
                line.sendall(b"PING\r\n")
                return line.recv(100) == b"+PONG\r\n"
        except OSError:
            return False


def environment(redis_url: str, **environ: str) -> dict[str, str]:
    """The environment of a command that knows `redis_url` and nothing else of ours."""
    kept = {name: value for name, value in os.environ.items() if "VECTOR_EMBED" not in name}
    kept.pop("REDIS_URL", None)
    return {**kept, "VECTOR_EMBED_REDIS_URL": redis_url, **environ}


def command(name: str, *arguments: str) -> list[str]:
    """The words that run `vec` or `vec-enqueue` with this Python."""
    entry = _ENTRY.format(name, name.replace("-", "_"))
    return [sys.executable, "-c", entry, *arguments]


def run(
    env: Mapping[str, str], directory: Path, name: str, *arguments: str, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(name, *arguments),
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


HASTY = """\
from worker import collection, throttle
from worker.engine import process

collection.LEASE_SECONDS = throttle.FLIGHT_SECONDS = 3
process.GRACE_SECONDS = 0
"""


def customized(directory: Path, code: str) -> dict[str, str]:
    """An environment in which Python runs `code` before anything else."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(directory), *sys.path])}


class Gate(TcpProxy):
    """A proxy that also counts the requests that contain some bytes, and can keep them back."""

    def __init__(self, url: str, marker: bytes) -> None:
        self.seen = 0
        self.holding = False  # what contains the marker goes no further, nor what follows it
        self.before: Callable[[int], object] = lambda seen: None  # they are let through
        self._marker = marker
        super().__init__(url)

    def _carry_requests(self, line: _Line) -> None:
        with line:
            while data := line.client.recv(65536):
                if self._marker in data:
                    with self._lock:
                        self.seen = seen = self.seen + 1
                    self.before(seen)
                    if self.holding:
                        while line.client.recv(65536):
                            pass
                        return
                line.server.sendall(data)


def step(name: str) -> bytes:
    """What a request for the atomic step `name` contains: the sha1 of its script."""
    room = next(ROOMS.glob(f"*/{name}.lua")).parent.name
    return hashlib.sha1(script_source(f"{room}/{name}").encode()).hexdigest().encode()


def resident_megabytes(pid: int) -> float:
    """The memory that a process has now."""
    said = Path(f"/proc/{pid}/status").read_text()
    return int(said.partition("VmRSS:")[2].split()[0]) / 1000
