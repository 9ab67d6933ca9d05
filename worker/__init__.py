"""Turn a corpus into vectors, in the background.

Put texts into a collection, let the workers embed them, and read the vectors:

    from worker import Collection, enqueue

    enqueue(["first text", "second text"], collection="wiki")
    wiki = Collection("wiki")
    wiki.wait()
    ids, vectors = wiki.to_numpy()

The names in `__all__` are for programs: they change only with a new minor version and a line in the
changelog. All other modules may change at any time.

The rooms. Each one imports only rooms below it:

    cli                      the commands: words on the screen and exit codes
    export, local            vectors out of Redis; the private stack of --local
    tasks, celery            what is started from outside: the Celery task and app
    testing                  enqueue without Redis, for people who test their code
    producer                 enqueue: jobs into the backlog
    collection               what a program may ask of a collection
    engine                   one slice of work: batches, requests, verdicts, wake-ups, heartbeat
    monitor                  who is alive, statistics of requests, metrics
    throttle                 may I send now? The answer for the whole fleet
    store                    Redis: the connection, the keys, the atomic steps
    corpus                   files to jobs and rejections
    health                   the probe of a worker
    settings                 the environment as one value
    types                    the values, and what each word means
    layout                   what a stored vector is: its length and the type of its numbers
    logs                     logging
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .collection import Collection
    from .corpus.texts import Text
    from .engine.query import NotSent, ThrottledAsyncClient, ThrottledClient
    from .layout import LayoutError
    from .local.session import Local
    from .local.stack import StackError
    from .producer import Receipt, ReceiptStatus, aenqueue, enqueue
    from .settings import Settings, SettingsError, read_settings
    from .store.connection import RedisUnfit
    from .store.errors import (
        BacklogFull,
        CollectionError,
        CollectionGone,
        LayoutChanged,
        LayoutsDiffer,
        ModelsDiffer,
        RedisAway,
        UnknownCollection,
    )
    from .types import (
        Comparison,
        DeadLetter,
        Dropped,
        Hit,
        Job,
        Kept,
        Rate,
        Record,
        Rejection,
        Shrunk,
        Status,
        ThrottleStatus,
    )

__all__ = [
    "BacklogFull",
    "Collection",
    "CollectionError",
    "CollectionGone",
    "Comparison",
    "DeadLetter",
    "Dropped",
    "Hit",
    "Job",
    "Kept",
    "LayoutChanged",
    "LayoutError",
    "LayoutsDiffer",
    "Local",
    "ModelsDiffer",
    "NotSent",
    "Rate",
    "Receipt",
    "ReceiptStatus",
    "Record",
    "RedisAway",
    "RedisUnfit",
    "Rejection",
    "Settings",
    "SettingsError",
    "Shrunk",
    "StackError",
    "Status",
    "Text",
    "ThrottleStatus",
    "ThrottledAsyncClient",
    "ThrottledClient",
    "UnknownCollection",
    "aenqueue",
    "enqueue",
    "read_settings",
]

_HOMES = {
    "collection": ("Collection",),
    "corpus.texts": ("Text",),
    "engine.query": ("NotSent", "ThrottledAsyncClient", "ThrottledClient"),
    "local.session": ("Local",),
    "local.stack": ("StackError",),
    "producer": ("Receipt", "ReceiptStatus", "aenqueue", "enqueue"),
    "settings": ("Settings", "SettingsError", "read_settings"),
    "store.connection": ("RedisUnfit",),
    "layout": ("LayoutError",),
    "store.errors": (
        "BacklogFull",
        "CollectionError",
        "CollectionGone",
        "LayoutChanged",
        "LayoutsDiffer",
        "ModelsDiffer",
        "RedisAway",
        "UnknownCollection",
    ),
    "types": (
        "Comparison",
        "DeadLetter",
        "Dropped",
        "Hit",
        "Job",
        "Kept",
        "Rate",
        "Record",
        "Rejection",
        "Shrunk",
        "Status",
        "ThrottleStatus",
    ),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # On first use: Celery takes a second to import, and the commands' --help needs none of it.
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(f".{home}", __name__), name)
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                f"worker needs {missing.name}: pip install 'vector-embed-cache-client[worker]'",
                name=missing.name,
            ) from None
        globals()[name] = value
        return value
