"""A local stack: a private Redis, an API with real vectors, a worker, as long as one is used.

    with local_stack() as stack:
        settings = read_settings(redis_url=stack.redis_url)

Everything lies in one directory, and what is stored there is there again the next time. Whoever
comes while a stack of the directory is running joins it; it ends when the last user has left, also
if that was killed. A process of its own sees to that: see `keeper.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .keeper import Place, read_address
from .lock import Lock
from .surroundings import has_home, keep_to_this_machine

_JOIN_SECONDS = 60.0  # to reach the keeper; one that is stopping is waited for
_START_SECONDS = 180.0  # for the keeper to have everything running
_STOP_SECONDS = 30.0
_KEEPERS_TRIED = 3  # one may end, its last user gone, just before we reach it


class StackError(Exception):
    """The local stack cannot be had. The message says why, with the end of the log concerned."""


def local_directory() -> Path:
    """Where the stack of this user lies: `VECTOR_EMBED_LOCAL_DIR`, else in the XDG data home.

    Raises StackError for a user without a home.
    """
    said = os.environ.get("VECTOR_EMBED_LOCAL_DIR", "").strip()
    if said.startswith("~") or not said:
        home = Path(os.environ.get("XDG_DATA_HOME", ""))
        if (said or not home.is_absolute()) and not has_home():
            raise StackError(
                "this user has no home directory: name a place for the local stack in "
                "VECTOR_EMBED_LOCAL_DIR, by its whole path"
            )
    if said:
        try:
            return Path(said).expanduser().absolute()
        except RuntimeError:  # ~somebody who is not there
            raise StackError(f"VECTOR_EMBED_LOCAL_DIR: {said!r} names no home") from None
    if not home.is_absolute():  # as its specification asks
        home = Path.home() / ".local" / "share"
    return home / "vector-embed-cache-client"


@contextmanager
def local_stack(
    *, api: bool = True, worker: bool = True, directory: Path | None = None
) -> Iterator[Place]:
    """A running stack in `directory` (`local_directory()` unless given).

    Redis is always there, the API and the worker if asked for; a worker brings the API with it. On
    leaving, what nobody else uses is stopped before this returns. Raises StackError, and
    ModuleNotFoundError if the `local` extra is not installed.
    """
    parts = [part for part, wanted in (("api", api or worker), ("worker", worker)) if wanted]
    if parts:
        _check_installed("starlette", "uvicorn", "wordllama")
    place = directory.absolute() if directory else local_directory()
    try:
        # `work` stays empty: python -m and celery import what lies where they start.
        (place / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        user = _User(place)
    except OSError as error:
        raise StackError(
            f"cannot use {place} for the local stack ({error.strerror}): name another place in "
            "VECTOR_EMBED_LOCAL_DIR"
        ) from None
    try:
        yield user.enter(parts)
    finally:
        user.leave()


class _User:
    """One user's line to the keeper of `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._line: socket.socket | None = None

    def enter(self, parts: Sequence[str]) -> Place:
        """Reach the keeper, or start one, and have `parts` running."""
        deadline = time.monotonic() + _JOIN_SECONDS
        started = 0
        while time.monotonic() < deadline:
            place = self._ask(parts)
            if place is not None:
                return place
            with Lock(self._directory / "keeper.lock") as lock:
                if lock.take():  # there is no keeper
                    if started == _KEEPERS_TRIED:
                        break
                    (self._directory / "keeper.json").unlink(missing_ok=True)
                    _start_keeper(self._directory, lock)
                    started += 1
            time.sleep(0.02)
        log = self._directory / "keeper.log"
        raise StackError(f"the local stack does not start; see {log}\n{log.read_text()[-2000:]}")

    def leave(self) -> None:
        """Say goodbye, and wait until the keeper has stopped what was there for us alone."""
        if self._line is None:
            return
        with self._line as line, suppress(OSError):
            line.shutdown(socket.SHUT_WR)
            line.settimeout(_STOP_SECONDS)
            while line.recv(1000):
                pass

    def _ask(self, parts: Sequence[str]) -> Place | None:
        """The keeper's answer; None if there is no keeper, or one that is about to end."""
        address = read_address(self._directory)
        if address is None:
            return None
        try:
            line = socket.create_connection(("127.0.0.1", address.port), timeout=5)
        except OSError:
            return None
        self._line = line
        asked = json.dumps({"token": address.token, "parts": parts})
        try:
            line.sendall(asked.encode() + b"\n")
            line.settimeout(_START_SECONDS)
            with line.makefile("rb") as lines:
                said = json.loads(lines.readline() or b"null")
        except socket.timeout:
            raise StackError(f"the local stack is not ready after {_START_SECONDS:.0f} s") from None
        except OSError:
            said = None
        if said is None:
            self._line = None
            line.close()
            return None
        if "error" in said:
            raise StackError(said["error"])
        return Place(**said)


def _start_keeper(directory: Path, lock: Lock) -> None:
    """Start a keeper that holds `lock`, and belongs to no one: the shell that starts it ends."""
    command = [sys.executable, "-m", "worker.local.keeper", str(directory)]
    environ = {**os.environ, "PYTHONPATH": _python_path()}
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


def _python_path() -> str:
    """PYTHONPATH by which a Python started elsewhere finds this very package."""
    import worker

    assert worker.__file__ is not None
    root = str(Path(worker.__file__).parent.parent)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        paths.insert(0, root)
    return os.pathsep.join(paths)


def _check_installed(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            told = f"{name} is missing: pip install 'vector-embed-cache-client[local]'"
            raise ModuleNotFoundError(told, name=name)
