"""Servers for tests: a private Redis, the local API, real workers, a proxy that cuts lines.

All listen on the loopback, live for the run, and are ended by their process ids.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx
import redis

from worker.local.child import Child

T = TypeVar("T")
API_KEY = "vec_test"


def wait_for_heartbeat(client: redis.Redis) -> None:
    """Wait until the worker has looked at what Redis says now: at the end of the second beat from
    here on it has.
    """
    seen: set[object] = set()

    def have_beaten() -> bool:
        seen.add(tuple(client.zrange("vec:workers", 0, -1, withscores=True)))
        return len(seen) > 2

    wait_until(have_beaten, 30, "two beats of the worker")


def wait_until(
    predicate: Callable[[], T], timeout: float = 10.0, what: str = "", every: float = 0.02
) -> T:
    """The first true value of `predicate`. Raises AssertionError if there is none in `timeout`."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {timeout} s: {what or predicate}; last value {value!r}")
        time.sleep(every)


class APILog(NamedTuple):
    """What the API was asked and answered since its reset.

    `charged` counts texts paid for, `distinct` those in the cache; `statuses` and `batches` count
    answers by status (0: none) and by number of texts; `recent` has (time, path, texts, status);
    `by_key` counts the answers by key and status.
    """

    requests: int
    texts: int
    charged: int
    distinct: int
    in_flight: int
    most_in_flight: int
    statuses: Mapping[int, int]
    batches: Mapping[int, int]
    recent: list[tuple[float, str, int, int]]
    by_key: Mapping[str, Mapping[int, int]]


class API:
    """A private `faulty_api` process. Keys that begin with `vec_` are good unless faults differ."""

    def __init__(self, log: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "faulty_api", *arguments]
        self.child = Child("the local API", command, log, cwd=Path(__file__).parent)
        try:
            self.base_url: str = self.child.wait_for(r"listening on (http://\S+)\n", 30)[1]
        except BaseException:
            self.child.kill()
            raise
        self._control = httpx.Client(base_url=self.base_url, timeout=120)

    def faults(self, **faults: object) -> None:
        """Replace all faults. See `faulty_api.faults`: `faults(rules=[{"answer": "nan"}])`."""
        answer = self._control.put("/_faults", json=faults)
        assert answer.status_code == 204, answer.text

    def log(self) -> APILog:
        """What it was asked and answered so far."""
        said = self._control.get("/_log").json()
        for counts in ("statuses", "batches"):
            said[counts] = {int(key): count for key, count in said[counts].items()}
        said["by_key"] = {
            key: {int(status): count for status, count in counts.items()}
            for key, counts in said["by_key"].items()
        }
        return APILog(**{**said, "recent": [tuple(one) for one in said["recent"]]})

    def reset(self) -> None:
        """Forget everything, all faults off."""
        self._control.post("/_reset").raise_for_status()

    def stop(self) -> None:
        """End it."""
        self._control.close()
        self.child.stop()


class WorkerProcess:
    """A real Celery worker process, ready when this returns."""

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str],
        *,
        concurrency: int = 8,
        pool: str = "threads",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-l", "INFO"]
        command += ["-P", pool, "-c", str(concurrency)]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        env = {name: value for name, value in os.environ.items() if not _is_ours(name)}
        # A directory of its own: `celery -A worker` would import a worker.py lying where it starts.
        self.child = Child(
            "the worker",
            command,
            directory / "worker.log",
            env={**env, **environ, "MALLOC_ARENA_MAX": "2"},
            cwd=directory,
        )
        try:
            self.child.wait_for(r" ready\.", 60)
        except BaseException:
            self.child.kill()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.child.pid

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self.child.log.read_text(errors="replace")

    def stop(self, patience: float = 30.0) -> None:
        """SIGTERM: it finishes its slices first."""
        self.child.stop(patience)

    def kill(self) -> None:
        """SIGKILL: it can do nothing more."""
        self.child.kill()

    def freeze(self) -> None:
        """SIGSTOP: it looks dead, but is not."""
        self.child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it continues as if nothing had happened."""
        self.child.send(signal.SIGCONT)


def _is_ours(name: str) -> bool:
    return name.upper().startswith("VECTOR_EMBED") or name == "REDIS_URL"


class TcpProxy:
    """Stands between a client and the server at `url`, and cuts connections on request.

    `url` is a Redis or an HTTP URL; `self.url` is the same one through the proxy. `cuts` counts the
    replies cut so far. `rate`: how many bytes of replies pass in a second, of all lines together.
    """

    def __init__(self, url: str, rate: float = math.inf) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        login, at, _ = parts.netloc.rpartition("@")
        place = f"{login}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(netloc=place).geturl()
        self.cuts = 0
        self.refused = 0  # lines that were cut at once
        self._order: tuple[bytes, int] | None = None
        self._times = 0  # that it is still to be obeyed
        self._for_good = False
        self._refusing = False
        self._rate = rate
        self._free_at = 0.0  # when the next bytes of a reply may pass
        self._lines: list[_Line] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut_next_reply(
        self, after_bytes: int = 0, *, to: bytes = b"", times: int = 1, for_good: bool = False
    ) -> None:
        """Let the next request through, and `after_bytes` bytes of its reply; then cut its line.

        `to`: wait for a request that contains these bytes, such as the name of a command.
        `times`: do it again. `for_good`: after the last time, refuse all lines.
        """
        with self._lock:
            self._order = (to, after_bytes)
            self._times = times
            self._for_good = for_good

    def refuse(self, refusing: bool = True) -> None:
        """Cut every line, and each new one at once, until `refuse(False)`."""
        with self._lock:
            self._refusing = refusing
            lines = list(self._lines) if refusing else []
        for line in lines:
            line.cut()

    def close(self) -> None:
        """End it, all lines cut."""
        self.refuse()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                line = _Line(client, socket.create_connection(self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._lines.append(line)
                refused = self._refusing
            if refused:
                self.refused += 1
                line.cut()
            for carry in (self._carry_requests, self._carry_replies):
                thread = threading.Thread(target=carry, args=(line,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry_requests(self, line: _Line) -> None:
        with line:
            while data := line.client.recv(65536):
                with self._lock:
                    if self._order is not None and self._order[0] in data:
                        line.allowance = self._order[1]
                        self._times -= 1
                        if not self._times:
                            self._order = None
                line.server.sendall(data)

    def _carry_replies(self, line: _Line) -> None:
        with line:
            while data := line.server.recv(65536):
                time.sleep(self._wait(len(data)))
                if line.allowance is None:
                    line.client.sendall(data)
                    continue
                line.client.sendall(data[: line.allowance])
                line.allowance -= len(data)
                if line.allowance < 0:
                    if self._for_good and self._order is None:
                        self.refuse()
                    self.cuts += 1
                    return

    def _wait(self, size: int) -> float:
        """Seconds until this many bytes of a reply may pass."""
        with self._lock:
            now = time.monotonic()
            wait = max(0.0, self._free_at - now)
            self._free_at = now + wait + size / self._rate
        return wait


class _Line:
    """A connection through the proxy. Whichever of its two directions ends, it is cut."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.allowance: int | None = None  # bytes of the reply that may still pass
        self._open_directions = 2
        self._lock = threading.Lock()  # they end at once

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, traceback: object) -> bool:
        self.cut()
        with self._lock:
            self._open_directions -= 1
            over = not self._open_directions
        if over:
            self.client.close()
            self.server.close()
        return isinstance(error, OSError)
