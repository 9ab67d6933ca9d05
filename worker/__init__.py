"""Turn a corpus into vectors, in the background.

Put texts into a collection, let the workers embed them, and read the vectors:

    from worker import Collection, enqueue

    enqueue(["first text", "second text"], collection="wiki")
    status = Collection("wiki").wait()

The rooms. Each one imports only rooms below it:

    cli                      the commands: words on the screen and exit codes
    export, local            vectors out of Redis; the private stack of --local
    tasks, celery, health    what is started from outside: the Celery task and app, the probe
    producer                 enqueue: jobs into the backlog
    engine                   one slice of work: batches, requests, verdicts, wake-ups, heartbeat
    collection               what a program may ask of a collection
    monitor                  who is alive, statistics of requests, metrics
    throttle                 may I send now? The answer for the whole fleet
    store                    Redis: the connection, the keys, the atomic steps
    corpus                   files to jobs and rejections
    settings                 the environment as one value
    types, logs              the values and what each word means; logging
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .collection import Collection
    from .producer import Receipt, enqueue
    from .store.errors import CollectionError
    from .types import DeadLetter, Job, Record, Rejection, Status

__all__ = [
    "Collection",
    "CollectionError",
    "DeadLetter",
    "Job",
    "Receipt",
    "Record",
    "Rejection",
    "Status",
    "enqueue",
]

_HOMES = {
    "Collection": "collection",
    "CollectionError": "store.errors",
    "DeadLetter": "types",
    "Job": "types",
    "Receipt": "producer",
    "Record": "types",
    "Rejection": "types",
    "Status": "types",
    "enqueue": "producer",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # On first use: Celery takes a second to import, and the commands' --help needs none of it.
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                f"worker needs {missing.name}: pip install 'vector-embed-cache-client[worker]'",
                name=missing.name,
            ) from None
        globals()[name] = value
        return value
