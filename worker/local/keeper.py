"""The keeper: the process that owns a local stack as long as a command uses it.

Commands start, overlap, end, and may be killed. So the stack has a process of its own. A command
holds a shared lock on the file `PART.users` for each part that it uses; the kernel releases the
lock however the command ends. When the keeper gets the exclusive lock, it stops the part; a new
user waits meanwhile. When it gets the lock of Redis, it stops everything and ends. It also ends if
Redis dies, or if a part does not start or dies too often.

The file `stack.json` has a `Stack`: what is ready, or why the keeper has ended.

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
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..settings import Settings
from .child import Child, ChildError
from .lock import Lock
from .redis_server import RedisServer, RedisUnusable, free_port
from .vectors import WORDLLAMA_MODEL

PARTS = ("redis", "api", "worker")  # in the order in which they start
LOCAL_KEY = "vec_local"  # any that looks like one will do
_CONCURRENCY = 8
_READY_SECONDS = 60.0
_STOP_SECONDS = {
    "redis": 10.0,  # to save its data
    "api": 5.0,
    "worker": 5.0,  # to end its slices; the next worker takes over the rest
}
_LOOK_SECONDS = 0.05  # between two looks at the users and the children
_DEATHS_A_MINUTE = 3  # after more, nothing is started again

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
            api_key_file=None,
            keys_file=None,
            base_url=self.base_url,
            model=self.model,
            redis_url=self.redis_url,
            broker_url=self.redis_url,
        )


class Stack(NamedTuple):
    """What is ready of a stack; or nothing, and why it has ended."""

    addresses: Addresses
    parts: Collection[str]
    error: str | None


def users_lock(directory: Path, part: str) -> Lock:
    """The lock that the users of a part share."""
    return Lock(directory / f"{part}.users")


def read_stack(directory: Path) -> Stack | None:
    """What the keeper of `directory` runs, or why the last keeper has ended."""
    try:
        addresses, parts, error = json.loads((directory / "stack.json").read_text())
    except (OSError, ValueError):
        return None
    return Stack(Addresses(*addresses), parts, error)


class Keeper:
    """Starts the parts of a stack while they are used, and stops them when they are not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._users = {part: users_lock(directory, part) for part in PARTS}
        self._children: dict[str, Child] = {}
        self._redis_url = ""
        self._base_url = f"http://127.0.0.1:{free_port()}"
        self._deaths: deque[float] = deque(maxlen=_DEATHS_A_MINUTE + 1)

    def serve(self) -> None:
        """Run until the last user is gone. Raises ChildError or RedisUnusable."""
        server = RedisServer(self._directory / "redis")
        self._children["redis"], self._redis_url = server.child, server.url
        self._tell()
        while not self._users["redis"].take():
            self._tend()
            time.sleep(_LOOK_SECONDS)

    def stop(self, error: str | None) -> None:
        """Stop everything. `error`: why, if there are users."""
        self._tell(ready=(), error=error)
        self._stop(PARTS)

    def _tend(self) -> None:
        """Stop what no one uses or has died, and start what someone uses."""
        unused = [part for part in PARTS[1:] if self._users[part].take()]
        dead = [part for part, child in self._children.items() if not child.running]
        for part in dead:
            self._note_death(part)
        if not self._children.keys().isdisjoint([*unused, *dead]):
            self._stop([*unused, *dead])
            self._tell()
        for part in unused:
            self._users[part].release()
        if new := [part for part in PARTS if part not in {*unused, *self._children}]:
            self._start(new)
            self._tell()

    def _start(self, parts: Collection[str]) -> None:
        """Start `parts` and wait until they are ready. Raises ChildError."""
        # All at once, then waited for: each spends a second importing.
        for part in parts:
            log = self._directory / f"{part}.log"
            self._children[part] = Child(
                f"the local {part}", self._command(part), log, env=self._environ()
            )
        for part in parts:
            self._children[part].wait_for(_READY[part], _READY_SECONDS)

    def _stop(self, parts: Collection[str]) -> None:
        """Stop `parts`, last started first."""
        for part in reversed(PARTS):
            if part in parts and part in self._children:
                self._children.pop(part).stop(_STOP_SECONDS[part])

    def _note_death(self, part: str) -> None:
        """Raise ChildError if this part is not to be started again."""
        said = self._children[part].ended()
        self._deaths.append(time.monotonic())
        often = len(self._deaths) > _DEATHS_A_MINUTE and self._deaths[-1] - self._deaths[0] < 60
        if part == "redis" or often:
            raise ChildError(said)
        print(f"starting again: {said}", flush=True)

    def _tell(self, ready: Collection[str] | None = None, error: str | None = None) -> None:
        """Write `stack.json`. `ready`: all that runs, unless given."""
        addresses = Addresses(self._redis_url, self._base_url, WORDLLAMA_MODEL)
        stack = Stack(addresses, list(self._children) if ready is None else ready, error)
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
        return {
            **os.environ,
            "VECTOR_EMBED_API_KEY": LOCAL_KEY,
            "VECTOR_EMBED_BASE_URL": self._base_url,
            "VECTOR_EMBED_MODEL": WORDLLAMA_MODEL,
            "VECTOR_EMBED_REDIS_URL": self._redis_url,
            "VECTOR_EMBED_BROKER_URL": self._redis_url,
            "MALLOC_ARENA_MAX": "2",  # one arena a thread would hold on to 100 MB more
        }


def main(directory: Path) -> None:
    """Keep the stack of `directory` until the last user is gone, or until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keeper, reason = Keeper(directory), None
    try:
        keeper.serve()
    except (ChildError, RedisUnusable) as error:
        reason = str(error)
        print(reason, flush=True)
    except Exception:
        traceback.print_exc()  # into the log; the parts must still be stopped
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keeper.stop(reason)
        # The locks end with the process: their next holder finds nothing running.
        os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
