"""The surroundings: what Celery, its libraries and Python read from the environment by themselves.

Celery's variables would change our worker or our commands: another broker, another pool, another
configuration, or a traceback. Ours are only `VECTOR_EMBED_*`.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

_PREFIXES = ("CELERY", "KOMBU_", "C_", "_MP_FORK_")
_NAMES = frozenset(
    {
        # options of the command `celery`
        *("APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE", "SKIP_CHECKS"),
        # of celery, kombu and billiard
        *("DJANGO_SETTINGS_MODULE", "FORKED_BY_MULTIPROCESSING", "MULTIPROCESSING_FORKING_DISABLE"),
        *("MP_LOG", "MP_MAIN_FILE", "PICKLE_PROTOCOL", "DISABLE_TRACEBACKS", "REMAP_SIGTERM"),
        *("AUTOSCALE_KEEPALIVE", "EVENTLET_NOBLOCK", "NOSETPS", "TIMER_DEBUG", "USE_FAST_LOCALS"),
    }
)


def without_celery(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that Celery reads."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _NAMES and not name.startswith(_PREFIXES)
    }


def python_path() -> str:
    """PYTHONPATH by which a Python that starts in another directory finds this very package."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        paths.insert(0, root)
    return os.pathsep.join(paths)


def leave_out_celery() -> None:
    """Remove what Celery would read from this process's environment, before Celery is imported."""
    for name in set(os.environ) - set(without_celery(os.environ)):
        del os.environ[name]
