"""The keeper: the process that owns a local stack as long as a command uses it.

Commands start, overlap, end, and may be killed. So the stack has a process of its own. A command
holds a shared lock on the file `PART.users` for each part that it uses; the kernel releases the
lock however the command ends. When the keeper gets the exclusive lock, it stops the part; a new
user waits meanwhile. When it gets the lock of Redis, it stops everything and ends.

The file `stack.json` has a `Stack`: what is ready.

    python -m worker.local.keeper DIRECTORY

It inherits the lock `keeper.lock` from the command that starts it: there is one keeper at a time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from ..settings import Settings
from .child import Child, ChildError
from .lock import Lock
from .redis_server import RedisServer, RedisUnusable, free_port
from .vectors import WORDLLAMA_MODEL

PARTS = ("api", "worker")  # beside Redis, in the order in which they start
LOCAL_KEY = "vec_local"  # any that looks like one will do
_CONCURRENCY = 8
_READY_SECONDS = 60.0
_PATIENCE = 5.0  # for a worker to end its slices; the next worker takes over the rest
_LOOK_SECONDS = 0.05  # between two looks at the users and the children
_DEATHS_A_MINUTE = 3  # of one part; after more it is not started again

_READY = {"api": "listening on", "worker": r" ready\."}


class Addresses(NamedTuple):
    """Where the parts of a stack answer, and the model of the local API."""

    redis_url: str
    base_url: str
    model: str

    def settings(self, settings: Settings, api_key: str | None = LOCAL_KEY) -> Settings:
        """`settings`, but leading here."""
        return replace(
            settings,
            api_key=api_key,
            base_url=self.base_url,
            model=self.model,
            redis_url=self.redis_url,
            broker_url=self.redis_url,
        )


class Stack(NamedTuple):
    """What is ready of a stack, and why something is not."""

    addresses: Addresses
    parts: Collection[str] = ()
    error: str | None = None


def users_lock(directory: Path, part: str) -> Lock:
    """The lock that the users of a part share."""
    return Lock(directory / f"{part}.users")


def read_stack(directory: Path) -> Stack | None:
    """What the keeper of `directory` runs, or the last keeper ran."""
    try:
        addresses, parts, error = json.loads((directory / "stack.json").read_text())
    except (OSError, ValueError):
        return None
    return Stack(Addresses(*addresses), parts, error)


class Keeper:
    """Starts the parts of a stack while they are used, and stops them when they are not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._users = {part: users_lock(directory, part) for part in ("redis", *PARTS)}
        self._redis: RedisServer | None = None
        self._base_url = f"http://127.0.0.1:{free_port()}"
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, list[float]] = {part: [] for part in PARTS}
        self._failed: set[str] = set()  # parts that did not start; not tried again for these users
        self._error: str | None = None

    def serve(self) -> None:
        """Run until the last user is gone. Raises ChildError if a part keeps dying."""
        try:
            self._redis = RedisServer(self._directory / "redis")
        except (ChildError, RedisUnusable) as error:
            self._error = str(error)
        self._tell()
        while not self._users["redis"].take():
            if self._redis is not None:
                self._tend()
                self._look_after()
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """Stop everything, last started first."""
        (self._directory / "stack.json").unlink(missing_ok=True)
        self._stop(PARTS)
        if self._redis is not None:
            self._redis.stop()

    def _tend(self) -> None:
        """Stop the parts that no one uses, and start those that someone uses."""
        unused = [part for part in PARTS if self._users[part].take()]
        if self._failed and self._failed <= set(unused):
            self._failed, self._error = set(), None
            self._tell()
        if not self._children.keys().isdisjoint(unused):
            self._stop(unused)
            self._tell()
        for part in unused:
            self._users[part].release()
        there = {*unused, *self._children, *self._failed}
        new = [part for part in PARTS if part not in there]
        try:
            self._start(new)
        except ChildError as error:
            self._failed, self._error = set(new), str(error)
            self._tell()

    def _start(self, parts: Collection[str]) -> None:
        """Start `parts` and wait until they are ready. Raises ChildError."""
        try:
            # All at once, then waited for: each spends a second importing.
            for part in parts:
                log = self._directory / f"{part}.log"
                self._children[part] = Child(
                    f"the local {part}", self._command(part), log, env=self._environ()
                )
            for part in parts:
                self._children[part].wait_for(_READY[part], _READY_SECONDS)
        except ChildError:
            self._stop(parts)
            raise
        if parts:
            self._tell()

    def _stop(self, parts: Collection[str]) -> None:
        for part in reversed(PARTS):
            if part in parts and part in self._children:
                self._children.pop(part).stop(_PATIENCE)

    def _look_after(self) -> None:
        """Start again what has died. Raises ChildError if it died too often."""
        if self._redis is not None and not self._redis.child.running:
            raise ChildError(self._redis.child.ended())
        for part, child in list(self._children.items()):
            if child.running:
                continue
            self._stop([part])
            now = time.monotonic()
            deaths = [then for then in self._deaths[part] if then > now - 60] + [now]
            self._deaths[part] = deaths
            if len(deaths) > _DEATHS_A_MINUTE:
                raise ChildError(child.ended())
            print(f"starting again: {child.ended()}", flush=True)
            self._start([part])

    def _tell(self) -> None:
        url = "" if self._redis is None else self._redis.url
        running = [] if self._redis is None else ["redis", *self._children]
        stack = Stack(Addresses(url, self._base_url, WORDLLAMA_MODEL), running, self._error)
        draft = self._directory / "stack.json.new"
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(stack))
        os.replace(draft, self._directory / "stack.json")

    def _command(self, part: str) -> list[str]:
        python = [sys.executable, "-m"]
        if part == "api":
            return [*python, "worker.local.api", "--port", self._base_url.rpartition(":")[2]]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        pool = ["-P", "threads", "-c", str(_CONCURRENCY)]
        # INFO: its log must say when it is ready.
        return [*python, "celery", "-A", "worker", "worker", "-l", "INFO", *pool, *quiet]

    def _environ(self) -> Mapping[str, str]:
        """The environment of the parts. It names no other servers and keys than ours."""
        assert self._redis is not None
        return {
            **os.environ,
            "VECTOR_EMBED_API_KEY": LOCAL_KEY,
            "VECTOR_EMBED_BASE_URL": self._base_url,
            "VECTOR_EMBED_MODEL": WORDLLAMA_MODEL,
            "VECTOR_EMBED_REDIS_URL": self._redis.url,
            "VECTOR_EMBED_BROKER_URL": self._redis.url,
            "MALLOC_ARENA_MAX": "2",  # one arena a thread would hold on to 100 MB more
        }


def main(directory: Path) -> None:
    """Keep the stack of `directory` until the last user is gone, or until SIGTERM."""
    signal.signal(signal.SIGTERM, _end)
    keeper = Keeper(directory)
    try:
        keeper.serve()
    except ChildError as error:
        print(error, flush=True)
    except Exception:
        traceback.print_exc()  # into the log; the parts must still be stopped
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keeper.stop()
        # The locks end with the process: their next holder finds nothing running.
        os._exit(0)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
