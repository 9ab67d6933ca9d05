"""What the store raises.

    ValueError
        CollectionError
            UnknownCollection
            ExportedByAnother
    Exception
        DimensionsDiffer

What Redis itself raises is a `redis.RedisError`; what makes a Redis unusable for us is `RedisUnfit`
in `connection.py`.
"""

from __future__ import annotations


class CollectionError(ValueError):
    """A collection cannot do what it was asked for. The message says what to do instead."""


class UnknownCollection(CollectionError):
    """This Redis has no collection of that name."""


class ExportedByAnother(CollectionError):
    """Another export evicts from the same collection."""


class DimensionsDiffer(Exception):
    """The vectors of a batch are longer or shorter than the collection's. Nothing was stored."""
