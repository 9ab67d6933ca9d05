"""What the tests of faults break."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import API, API_KEY

from worker.local.child import Child
from worker.local.redis_server import RedisServer

from .machines import HASTY, Redis, command, customized, environment, run
from .points import Points


class Shell:
    """A person at a prompt in `directory`, beside one Redis."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Child] = []

    def __call__(
        self, url: str, name: str, *arguments: str, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run(environment(url, **environ), self.directory, name, *arguments)

    def start(self, url: str, name: str, *arguments: str, **environ: str) -> Child:
        """Start a command."""
        child = Child(
            name,
            command(name, *arguments),
            self.directory / f"command-{len(self._started)}.log",
            env=environment(url, **environ),
            cwd=self.directory,
        )
        self._started.append(child)
        return child

    def end(self) -> None:
        """End what a test left running."""
        for child in self._started:
            child.kill()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A prompt in an empty directory."""
    prompt = Shell(tmp_path)
    yield prompt
    prompt.end()


@pytest.fixture(scope="module")
def points(
    running_redis: RedisServer, running_api: API, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Points]:
    """The points of processes that use the run's Redis and API."""
    made = Points(
        tmp_path_factory.mktemp("points"),
        {
            "VECTOR_EMBED_API_KEY": API_KEY,
            "VECTOR_EMBED_BASE_URL": running_api.base_url,
            "VECTOR_EMBED_REDIS_URL": running_redis.url,
        },
    )
    yield made
    made.close()


@pytest.fixture
def mortal_redis(running_redis: RedisServer, tmp_path: Path) -> Iterator[Redis]:
    """A redis-server of the test's own, with an append-only file. It skips where there is none."""
    server = Redis(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def hasty(tmp_path: Path) -> dict[str, str]:
    """The environment of a worker that takes others for dead after 3 seconds, not after 15."""
    return customized(tmp_path / "hasty", HASTY)
