"""`vec worker`: start a worker process."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import tempfile
from pathlib import Path

import click

from ...settings import read_settings
from ..command import Command, Failure

_FILES = (  # of the environment, which may be relative to where the command was given
    "VECTOR_EMBED_API_KEY_FILE",
    "VECTOR_EMBED_HEARTBEAT_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


@click.command(
    cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True}
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Number of slices to work on at once.",
)
@click.option(
    "--queue",
    metavar="NAME",
    help="Take wake-ups from this queue of the broker.  [default: PREFIX.wakeups]",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def worker(threads: int, queue: str | None, options: tuple[str, ...]) -> None:
    """Start a worker, which embeds what is queued.

    SIGTERM and Ctrl-C end it: it finishes its requests and gives back its other texts. Settings
    come from the environment. All other OPTIONS go to `celery worker`.

    \b
    Example:
      vec worker
      vec worker --threads 16 --loglevel WARNING
    """
    from ...engine.readiness import unfit

    environ = dict(os.environ)
    for name in _FILES:
        if environ.get(name, "").strip():
            environ[name] = os.environ[name] = os.path.abspath(environ[name].strip())
    reason = unfit(read_settings())
    if reason is not None:
        raise Failure(reason)
    # One arena a thread would hold on to 100 MB more.
    environ.setdefault("MALLOC_ARENA_MAX", "2")
    environ["PYTHONPATH"] = _python_path()
    # As errors, Celery's own (that it runs as root) would end it.
    environ.pop("PYTHONWARNINGS", None)
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "worker"]
    command += ["-P", "threads", "-c", str(threads), "--loglevel", "INFO"]
    command += ["-Q", queue] if queue else []
    # Python and Celery import what lies where they start: a stranger's worker.py or redis.py.
    os.chdir(_empty_directory())
    os.execve(sys.executable, [*command, *options], environ)


def _python_path() -> str:
    """PYTHONPATH by which a Python started elsewhere finds this very package."""
    import worker

    assert worker.__file__ is not None
    root = str(Path(worker.__file__).resolve().parent.parent)
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        paths.insert(0, root)
    return os.pathsep.join(paths)


def _empty_directory() -> str:
    """A directory in which nothing lies and only we can write; the same one for all workers."""
    try:
        place = os.path.join(tempfile.gettempdir(), f"vec-worker-{os.getuid()}")
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            found = os.lstat(place)
            private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
            if not private or found.st_uid != os.getuid() or os.listdir(place):
                return tempfile.mkdtemp(prefix="vec-worker-")
    except OSError as error:
        raise Failure(
            f"cannot make an empty directory to work in ({error}): name one that can be written in "
            "TMPDIR"
        ) from None
    return place
