"""Urgent collections: those in which interactive texts were enqueued just now.

A slice looks here when it may send a request, so that a text for which someone waits goes with it,
whatever collection it is of. This is a hint: the text is in its backlog, and if the hint is lost,
the text still goes before all others of its collection.
"""

from __future__ import annotations

from collections.abc import Mapping

from .connection import Argument, Redis, run
from .keys import CollectionKeys, CommonKeys

# Announced longer ago, a collection waits for something else: for a pause to end, or for a worker
# with another key.
URGENT_SECONDS = 60


def announce_urgent(client: Redis, keys: CollectionKeys) -> None:
    """Announce a collection, after an interactive text was enqueued in it."""
    run(client, "store/urgent", [CommonKeys(keys.prefix).urgent], [URGENT_SECONDS, keys.name])


def urgent_collections(client: Redis, prefix: str, over: Mapping[str, bytes]) -> dict[str, bytes]:
    """The names of the urgent collections, and when each was announced.

    `over`: those that have turned out to have nothing urgent are forgotten, unless they were
    announced again since.
    """
    args: list[Argument] = [URGENT_SECONDS, ""]
    for name, at in over.items():
        args += [name, at]
    flat = run(client, "store/urgent", [CommonKeys(prefix).urgent], args)
    return {name.decode(): at for name, at in zip(flat[::2], flat[1::2])}
