"""A local stack: a private Redis, an API with real vectors and a worker, while someone uses them.

    with local_stack() as stack:
        settings = read_settings(redis_url=stack.redis_url)

Everything is kept in one directory, also for the next time. A command that starts while a stack of
the directory runs joins it. The stack ends with its last user, also if that is killed: `keeper.py`
is a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..settings.surroundings import python_path
from . import MODULES
from .keeper import Addresses, read_stack, users_lock
from .lock import Lock
from .surroundings import has_home, keep_to_this_machine

_START_SECONDS = 180.0  # for the keeper to have everything running
_STOP_SECONDS = 30.0
_KEEPERS_TRIED = 3  # a keeper may end just before we join it, because its last user is gone


class StackError(Exception):
    """The local stack does not start. The message says why, with the end of a log."""


def local_directory() -> Path:
    """The directory of this user's stack: `VECTOR_EMBED_LOCAL_DIR`, else in the XDG data home.

    Raises StackError for a user without a home directory.
    """
    said = os.environ.get("VECTOR_EMBED_LOCAL_DIR", "").strip()
    if said.startswith("~") or not said:
        home = Path(os.environ.get("XDG_DATA_HOME", ""))
        if (said or not home.is_absolute()) and not has_home():
            raise StackError(
                "this user has no home directory: name a directory for the local stack in "
                "VECTOR_EMBED_LOCAL_DIR, by its whole path"
            )
    if said:
        try:
            return Path(said).expanduser().absolute()
        except RuntimeError:  # ~NAME of a user that does not exist
            raise StackError(f"VECTOR_EMBED_LOCAL_DIR: {said!r} names no home") from None
    if not home.is_absolute():  # as its specification asks
        home = Path.home() / ".local" / "share"
    return home / "vector-embed-cache-client"


@contextmanager
def local_stack(
    *, api: bool = True, worker: bool = True, directory: Path | None = None
) -> Iterator[Addresses]:
    """A running stack in `directory` (`local_directory()` unless given).

    Redis always runs, the API and the worker if asked for; a worker needs the API. At the end, the
    parts that no other command uses are stopped before this returns. Raises StackError, and
    ModuleNotFoundError if the `local` extra is not installed.
    """
    parts = [part for part, wanted in (("api", api or worker), ("worker", worker)) if wanted]
    for name in MODULES if parts else ():
        if importlib.util.find_spec(name) is None:
            told = f"{name} is missing: pip install 'vector-embed-cache-client[local]'"
            raise ModuleNotFoundError(told, name=name)
    base = directory.absolute() if directory else local_directory()
    try:
        # `work` stays empty: python -m and celery import modules from where they start.
        (base / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        user = _User(base)
    except OSError as error:
        raise StackError(
            f"cannot use {base} for the local stack ({error.strerror}): name another directory in "
            "VECTOR_EMBED_LOCAL_DIR"
        ) from None
    try:
        yield user.enter(parts)
    finally:
        user.leave()


class _User:
    """One user of the stack in `directory`: it holds the locks of the parts that it uses."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks: dict[str, Lock] = {}

    def enter(self, parts: Sequence[str]) -> Addresses:
        """Wait until a keeper, if needed a new one, runs Redis and `parts`."""
        for part in ("redis", *parts):
            self._locks[part] = users_lock(self._directory, part)
            self._locks[part].share()  # waits for a keeper that is stopping this part
        deadline = time.monotonic() + _START_SECONDS
        started = 0
        while time.monotonic() < deadline:
            with Lock(self._directory / "keeper.lock") as lock:
                if lock.take():  # there is no keeper
                    if started == _KEEPERS_TRIED:
                        break
                    (self._directory / "stack.json").unlink(missing_ok=True)
                    _start_keeper(self._directory, lock)
                    started += 1
            stack = read_stack(self._directory)
            if stack is not None and set(self._locks) <= set(stack.parts):
                return stack.addresses
            if stack is not None and stack.error is not None:
                raise StackError(stack.error)
            time.sleep(0.02)
        log = self._directory / "keeper.log"
        raise StackError(f"the local stack does not start; see {log}\n{log.read_text()[-2000:]}")

    def leave(self) -> None:
        """Release the locks, and wait until the keeper has stopped what no other command uses."""
        for lock in self._locks.values():
            lock.release()  # also for a forked child that inherited it
            lock.close()
        deadline = time.monotonic() + _STOP_SECONDS
        while any(map(self._is_ending, self._locks)) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _is_ending(self, part: str) -> bool:
        """Whether a part runs that no command uses any more."""
        if part == "redis":
            with Lock(self._directory / "keeper.lock") as keeper:
                if keeper.take():
                    return False
        else:
            stack = read_stack(self._directory)
            if stack is None or part not in stack.parts:
                return False
        with users_lock(self._directory, part) as users:
            return users.take() or not users.share(wait=False)


def _start_keeper(directory: Path, lock: Lock) -> None:
    """Start a keeper that holds `lock`. The shell that starts it ends, so it has no parent."""
    command = [sys.executable, "-m", "worker.local.keeper", str(directory)]
    environ = {**os.environ, "PYTHONPATH": python_path()}
    keep_to_this_machine(environ)
    if not has_home():
        environ["HOME"] = str(directory)  # wordllama asks for one when it is imported
    with (directory / "keeper.log").open("wb") as log:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory / "work",
            env=environ,
            pass_fds=[lock.fd],
            start_new_session=True,
            check=True,
        )
