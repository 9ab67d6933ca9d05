"""Turn a corpus into vectors, in the background: `enqueue` texts, workers embed them, read the
`Collection`.

from worker import Collection, enqueue

enqueue(["first text", "second text"], collection="wiki")
status = Collection("wiki").wait()
"""

try:
    from .collection import Collection, CollectionError, DeadLetter, Status
    from .job import Job, Rejection
    from .producer import Receipt, enqueue
    from .record import Record
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"worker needs {missing.name}: pip install 'vector-embed-cache-client[worker]'",
        name=missing.name,
    ) from None

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
