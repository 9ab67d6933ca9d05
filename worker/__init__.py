"""Turn a corpus into vectors, in the background.

Put texts into a collection, let the workers embed them, and read the vectors:

    from . import Collection, enqueue

    enqueue(["first text", "second text"], collection="wiki")
    status = Collection("wiki").wait()
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .collection import Collection, CollectionError, DeadLetter, Status
    from .producer import Receipt, enqueue
    from .types import Job, Record, Rejection

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
    "CollectionError": "collection",
    "DeadLetter": "collection",
    "Job": "types",
    "Receipt": "producer",
    "Record": "types",
    "Rejection": "types",
    "Status": "collection",
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
