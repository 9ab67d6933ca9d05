"""`vec worker`: start a worker process."""

from __future__ import annotations

import os
import stat
import sys
import tempfile

import click

from ...settings import read_settings
from ...settings.keyfile import count_endpoints
from ...settings.surroundings import python_path
from ..command import Command, Failure

THREADS, MOST_THREADS = 8, 64  # by default: for each endpoint, and at most

_FILES = (  # variables with paths, which may be relative to the current directory
    "VECTOR_EMBED_API_KEY_FILE",
    "VECTOR_EMBED_KEYS_FILE",
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
    show_default="8 for each endpoint",
    help="Number of slices to work on at once.",
)
@click.option(
    "--queue",
    metavar="NAME",
    help="Take wake-ups from this queue of the broker.  [default: PREFIX.wakeups]",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def worker(threads: int | None, queue: str | None, options: tuple[str, ...]) -> None:
    """Start a worker, which embeds what is queued.

    SIGTERM and Ctrl-C end it: it finishes its requests and gives back its other texts. Settings
    come from the environment. All other OPTIONS go to `celery worker`.

    \b
    Example:
      vec worker
      vec worker --threads 16 --loglevel WARNING
    """
    from ...engine.readiness import hindrance

    environ = dict(os.environ)
    for name in _FILES:
        if environ.get(name, "").strip():
            environ[name] = os.environ[name] = os.path.abspath(environ[name].strip())
    settings = read_settings()
    reason = hindrance(settings)
    if reason is not None:
        raise Failure(reason)
    threads = threads or min(MOST_THREADS, THREADS * count_endpoints(settings))
    # With one arena for each thread, a worker would keep 100 MB more.
    environ.setdefault("MALLOC_ARENA_MAX", "2")
    environ["PYTHONPATH"] = python_path()
    # If warnings were errors, Celery's own (that it runs as root) would end the worker.
    environ.pop("PYTHONWARNINGS", None)
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "worker"]
    command += ["-P", "threads", "-c", str(threads), "--loglevel", "INFO"]
    command += ["-Q", queue] if queue else []
    # Python and Celery import modules from where they start, such as another's worker.py.
    os.chdir(_empty_directory())
    os.execve(sys.executable, [*command, *options], environ)


def _empty_directory() -> str:
    """An empty directory that only we can write; the same one for all workers."""
    try:
        path = os.path.join(tempfile.gettempdir(), f"vec-worker-{os.getuid()}")
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            found = os.lstat(path)
            private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
            if not private or found.st_uid != os.getuid() or os.listdir(path):
                return tempfile.mkdtemp(prefix="vec-worker-")
    except OSError as error:
        raise Failure(
            f"cannot make an empty directory to work in ({error}): name one that can be written in "
            "TMPDIR"
        ) from None
    return path
