"""Holds: pauses by hand of one collection, or of all, until a person resumes.

A hold applies to every API key. A worker reads the holds once
a second. The name `*` stands for all collections, also later ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..logs import skip
from ..store.connection import Redis
from ..store.keys import CommonKeys

ALL = "*"


def read_holds(client: Redis, prefix: str) -> dict[str, str]:
    """Read the reasons of all holds, by collection or `*`."""
    holds: dict[str, str] = {}
    for name, reason in client.hgetall(CommonKeys(prefix).held).items():
        if name.isascii():
            holds[name.decode()] = reason.decode(errors="replace")
        else:
            skip("member of held", name)
    return holds


def holding(holds: Mapping[str, str], collection: str) -> str | None:
    """The reason why a collection is held; None if it is not."""
    return holds.get(ALL, holds.get(collection))


def hold(client: Redis, prefix: str, collection: str, reason: str) -> None:
    """Hold a collection, or `*`."""
    client.hset(CommonKeys(prefix).held, collection, reason)


def release(client: Redis, prefix: str, collection: str) -> list[str]:
    """End the hold of a collection, or every hold with `*`. Returns what was held."""
    held = [name for name in read_holds(client, prefix) if collection in (ALL, name)]
    if held:
        client.hdel(CommonKeys(prefix).held, *held)
    return held
