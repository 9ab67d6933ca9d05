"""What the store raises.

    ValueError
        CollectionError
            UnknownCollection
            CollectionGone
            ModelsDiffer
            LayoutsDiffer
            LayoutChanged
            ExportedByAnother
    Exception
        DimensionsDiffer
        BacklogFull
    redis.ConnectionError
        RedisAway

What Redis itself raises is a `redis.RedisError`; what makes a Redis unusable for us is `RedisUnfit`
in `connection.py`; which of its faults pass, in `faults.py`.
"""

from __future__ import annotations

import redis


class CollectionError(ValueError):
    """A collection cannot do what it was asked for. The message says what to do instead."""


class UnknownCollection(CollectionError):
    """This Redis has no collection of that name."""


class CollectionGone(CollectionError):
    """A collection was dropped, or lost by Redis, while it was read."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.what = (
            f"collection {collection} was dropped, or lost by Redis, while it was read: "
            "what was read is not all"
        )
        super().__init__(f"{self.what}: see Collection({collection!r}).status()")


class ModelsDiffer(CollectionError):
    """Texts were enqueued for another model than the one of the collection's vectors."""

    def __init__(self, collection: str, model: str, asked: str) -> None:
        self.collection = collection
        self.what = f"collection {collection} has vectors of model {model}, not {asked}"
        super().__init__(
            f"{self.what}: name another collection, or delete this one with "
            f"Collection({collection!r}).drop()"
        )


class LayoutsDiffer(CollectionError):
    """Texts were enqueued for another layout than the one of the collection's vectors."""

    def __init__(self, collection: str, layout: str, asked: str) -> None:
        self.collection = collection
        self.what = f"collection {collection} stores vectors as {layout}, not as {asked}"
        super().__init__(
            f"{self.what}: leave dimensions and dtype out to keep that, make them smaller with "
            f"vec shrink {collection}, or name another collection"
        )


class LayoutChanged(CollectionError):
    """The layout of a collection changed while it was read, or shrunk by another call."""

    def __init__(self, collection: str, *, shrinking: bool = False) -> None:
        super().__init__(
            f"another vec shrink makes the vectors of collection {collection} smaller still: leave "
            "the rest to it"
            if shrinking
            else f"the layout of collection {collection} changed while it was read (vec shrink): "
            "read it again from the beginning"
        )


class ExportedByAnother(CollectionError):
    """Another export evicts from the same collection."""


class BacklogFull(Exception):
    """There was no room for texts within the `timeout` of their enqueue.

    `reason`: why, in a few words. Of a call with at most 100 texts, nothing was taken. A longer one
    may have added some; those are `unchanged` if all are enqueued again.
    """

    def __init__(self, collection: str, reason: str, timeout: float) -> None:
        self.collection = collection
        self.reason = reason
        super().__init__(
            f"collection {collection} took nothing more for {timeout:g} s, because {reason}: "
            "enqueue again later, or with a longer timeout"
        )


class RedisAway(redis.ConnectionError):
    """Redis did not answer in time, so texts were not enqueued, or it is not known.

    `taken`: False if none of them was taken; None if Redis may have taken all of them. In both
    cases enqueue them again: what was taken is `unchanged`, and costs nothing.
    """

    def __init__(self, collection: str, reason: str, taken: bool | None) -> None:
        self.collection = collection
        self.taken = taken
        what = "no text was taken" if taken is False else "the texts may have been taken"
        super().__init__(
            f"Redis does not answer ({reason}): {what}; enqueue them again, that costs nothing"
        )


class DimensionsDiffer(Exception):
    """The vectors of a batch are longer or shorter than the collection's. Nothing was stored."""
