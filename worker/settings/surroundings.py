"""The surroundings: what Celery and its libraries would read from the environment by themselves.

Each of these variables would change our worker or our commands: another broker, another pool,
another configuration, or a traceback. Ours are only `VECTOR_EMBED_*`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

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


def leave_out_celery() -> None:
    """Remove what Celery would read from this process's environment, before Celery is imported."""
    for name in set(os.environ) - set(without_celery(os.environ)):
        del os.environ[name]
