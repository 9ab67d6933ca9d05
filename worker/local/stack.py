"""A local stack: a private Redis, an API with real vectors and a worker, while someone uses them.

    with local_stack() as stack:
        settings = read_settings(redis_url=stack.redis_url)

Everything is kept in one directory for the next time. A command that starts while a stack of the
directory runs joins it. The stack ends when its last user ends or is killed: the keeper is a
process of its own.
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
from .keeper import PARTS, Addresses, read_stack, users_lock
from .lock import Lock
from .surroundings import SECRETS, has_home, keep_to_this_machine

_START_SECONDS = 180.0  # for the keeper to have everything running
_STOP_SECONDS = 30.0
_LOOK_SECONDS = 0.02


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
    parts = [part for part, used in zip(PARTS, (True, api or worker, worker)) if used]
    for name in MODULES if len(parts) > 1 else ():
        if importlib.util.find_spec(name) is None:
            told = f"{name} is missing: pip install 'vector-embed-cache-client[local]'"
            raise ModuleNotFoundError(told, name=name)
    base = directory.absolute() if directory else local_directory()
    try:
        # `work` stays empty: python -m and celery import modules from where they start.
        (base / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        locks = [users_lock(base, part) for part in parts]
    except OSError as error:
        raise StackError(
            f"cannot use {base} for the local stack ({error.strerror}): name another directory in "
            "VECTOR_EMBED_LOCAL_DIR"
        ) from None
    try:
        for lock in locks:
            lock.share()  # waits for a keeper that is stopping this part
        yield _join(base, parts)
    finally:
        for lock in locks:
            lock.release()  # also for a forked child that inherited it
            lock.close()
        deadline = time.monotonic() + _STOP_SECONDS
        while any(_is_ending(base, part) for part in parts) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)


def _join(directory: Path, parts: Sequence[str]) -> Addresses:
    """Wait until a keeper, if needed a new one, runs `parts`."""
    deadline = time.monotonic() + _START_SECONDS
    started = False
    while time.monotonic() < deadline:
        with Lock(directory / "keeper.lock") as lock:
            if lock.take():  # there is no keeper
                if started:
                    break
                (directory / "stack.json").unlink(missing_ok=True)
                _start_keeper(directory, lock)
                started = True
        stack = read_stack(directory)
        if stack is not None and set(parts) <= set(stack.parts):
            return stack.addresses
        time.sleep(_LOOK_SECONDS)
    stack = read_stack(directory)
    if stack is not None and stack.error is not None:
        raise StackError(stack.error)
    log = directory / "keeper.log"
    raise StackError(f"the local stack does not start; see {log}\n{log.read_text()[-2000:]}")


def _is_ending(directory: Path, part: str) -> bool:
    """Whether a part still runs that no command uses any more."""
    with Lock(directory / "keeper.lock") as keeper, users_lock(directory, part) as users:
        if keeper.take():  # there is no keeper
            return False
        stack = read_stack(directory)
        runs = part == "redis" or stack is not None and part in stack.parts
        return runs and (users.take() or not users.share(wait=False))


def _start_keeper(directory: Path, lock: Lock) -> None:
    """Start a keeper that holds `lock`. The shell that starts it ends, so it has no parent."""
    command = [sys.executable, "-m", "worker.local.keeper", str(directory)]
    environ = {**os.environ, "PYTHONPATH": python_path()}
    keep_to_this_machine(environ)
    for name in SECRETS:
        environ.pop(name, None)
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
