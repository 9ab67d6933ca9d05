"""The keeper: the process that owns a local stack for as long as somebody uses it.

Commands come and go, may overlap, and may be killed outright; the stack must outlive the last of
them by nothing, and be pulled from under none. So it belongs to no command but to a keeper. Each
user holds a connection to it, which the kernel closes however the user ends. When nobody wants a
part any more, the keeper stops it; when nobody is left, it stops everything, last started first,
and ends.

A user says one line of JSON, `{"token": ..., "parts": ["api", "worker"]}`, and is answered with
one: a `Place`, or `{"error": ...}`. To leave, it closes its sending side; the keeper closes the
other once everything is stopped that had to be.

    python -m worker.local.keeper DIRECTORY

It inherits the directory's lock from who starts it: there is one keeper at a time.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, cast

from .child import Child, ChildError
from .redis_server import RedisServer, RedisUnusable, free_port
from .vectors import WORDLLAMA_MODEL

PARTS = ("api", "worker")  # beside Redis, in the order of their start
LOCAL_KEY = "vec_local"  # any that looks like one will do
_CONCURRENCY = 8
_READY_SECONDS = 60.0
_COME_SECONDS = 5.0  # how long the first user may take to come in; one that was killed never does
_PATIENCE = 5.0  # for a worker to end its slices; what it still holds the next one takes over
_LOOK_SECONDS = 0.5  # how often the children are looked after
_DEATHS_A_MINUTE = 3  # of one part; more, and starting it again is of no use


class Address(NamedTuple):
    """Where the keeper listens, and the word by which it knows its users."""

    port: int
    token: str


class Place(NamedTuple):
    """Where the parts of a stack are."""

    redis_url: str
    base_url: str
    model: str


def read_address(directory: Path) -> Address | None:
    """Where the keeper of `directory` listens, or last did."""
    try:
        return Address(**json.loads((directory / "keeper.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_address(directory: Path, address: Address) -> None:
    draft = directory / "keeper.json.new"
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(address._asdict()))
    os.replace(draft, directory / "keeper.json")


class Keeper:
    """Starts the parts of a stack when they are wanted, and stops them when they are not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._redis: RedisServer | None = None
        self._base_url = f"http://127.0.0.1:{free_port()}"
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, list[float]] = {part: [] for part in PARTS}

    def start(self, parts: Collection[str]) -> Place:
        """Have Redis and `parts` running. Raises ChildError or RedisUnusable."""
        if self._redis is None:
            self._redis = RedisServer(self._directory / "redis")
        new = [part for part in PARTS if part in parts and part not in self._children]
        try:
            # All at once, then waited for: each spends a second importing.
            for part in new:
                log = self._directory / f"{part}.log"
                self._children[part] = Child(
                    f"the local {part}", self._command(part), log, env=self._environ()
                )
            for part in new:
                self._children[part].wait_for(_READY[part], _READY_SECONDS)
        except ChildError:
            self.stop(new)
            raise
        return Place(self._redis.url, self._base_url, WORDLLAMA_MODEL)

    def stop(self, parts: Collection[str]) -> None:
        """Stop those of `parts` that run, last started first."""
        for part in reversed(PARTS):
            if part in parts and part in self._children:
                self._children.pop(part).stop(_PATIENCE)

    def stop_all(self) -> None:
        """Stop everything, Redis last."""
        self.stop(PARTS)
        if self._redis is not None:
            self._redis.stop()

    def look_after(self) -> None:
        """Start again what has died. Raises ChildError where that would be of no use."""
        if self._redis is not None and not self._redis.child.running:
            raise ChildError(self._redis.child.ended())
        for part, child in list(self._children.items()):
            if child.running:
                continue
            self.stop([part])
            now = time.monotonic()
            deaths = [then for then in self._deaths[part] if then > now - 60] + [now]
            self._deaths[part] = deaths
            if len(deaths) > _DEATHS_A_MINUTE:
                raise ChildError(child.ended())
            print(f"starting again: {child.ended()}", flush=True)
            self.start([part])

    def _command(self, part: str) -> list[str]:
        python = [sys.executable, "-m"]
        if part == "api":
            port = self._base_url.rpartition(":")[2]
            return [*python, "worker.local.api", "--port", port]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        pool = ["-P", "threads", "-c", str(_CONCURRENCY)]
        # INFO, for its line that it is ready.
        return [*python, "celery", "-A", "worker", "worker", "-l", "INFO", *pool, *quiet]

    def _environ(self) -> Mapping[str, str]:
        """The environment of the parts. Other servers and keys that it names do not hold here."""
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


_READY = {"api": "listening on", "worker": r" ready\."}


class Reception:
    """The keeper's door: who is in, and which parts each of them wants."""

    def __init__(self, directory: Path, keeper: Keeper) -> None:
        self._keeper = keeper
        self._users: dict[socket.socket, frozenset[str]] = {}
        self._leaving: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._token = secrets.token_hex(16)
        _write_address(directory, Address(self._listener.getsockname()[1], self._token))

    def serve(self) -> None:
        """Until the last user has gone. Raises ChildError if a part has died for good."""
        deadline = time.monotonic() + _COME_SECONDS
        while self._users or time.monotonic() < deadline:
            for key, _ in self._selector.select(_LOOK_SECONDS):
                user = cast(socket.socket, key.fileobj)
                if user is not self._listener:
                    self._selector.unregister(user)
                    del self._users[user]
                    self._leaving.append(user)
                elif self._admit():
                    deadline = 0.0
            if self._users:
                wanted = set().union(*self._users.values())
                self._keeper.stop([part for part in PARTS if part not in wanted])
                while self._leaving:
                    self._leaving.pop().close()
            self._keeper.look_after()

    def close(self) -> None:
        """Take nobody in any more: whoever comes now starts a keeper after this one."""
        self._selector.close()
        self._listener.close()

    def _admit(self) -> bool:
        user, _ = self._listener.accept()
        user.settimeout(5)
        try:
            with user.makefile("rb") as lines:
                said = json.loads(lines.readline(1000))
            if not hmac.compare_digest(str(said["token"]), self._token):
                raise PermissionError
            parts = frozenset(said["parts"])
        except (OSError, ValueError, TypeError, KeyError):  # not one of ours
            user.close()
            return False
        self._users[user] = parts
        self._selector.register(user, selectors.EVENT_READ)
        try:
            answer: Mapping[str, object] = self._keeper.start(parts)._asdict()
        except (ChildError, RedisUnusable) as error:
            answer = {"error": str(error)}
        with suppress(OSError):  # gone already: its end of the line says so next
            user.sendall(json.dumps(answer).encode() + b"\n")
        return True


def main(directory: Path) -> None:
    """Keep the stack of `directory` until nobody uses it, or SIGTERM."""
    signal.signal(signal.SIGTERM, _end)
    keeper = Keeper(directory)
    reception = Reception(directory, keeper)
    try:
        reception.serve()
    except ChildError as error:
        print(error, flush=True)
    except Exception:
        traceback.print_exc()  # into the log; what is running still has to be stopped
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        reception.close()
        keeper.stop_all()
        # The lines to the users close with the process: who is told has nothing left running.
        os._exit(0)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
