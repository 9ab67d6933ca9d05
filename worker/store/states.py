"""The states of texts: what became of each one, by its id and the digest of its text.

Nothing is written down for this, so nothing can drift, and nothing has to expire: what there is of
an id now says which text of it is the latest, and what became of that one.

    embedded    its vector is stored
    evicted     its vector was stored, and is in exported files
    dead        it is a dead letter
    waiting     it is queued, or in the hands of a worker
    superseded  another text of its id has taken its place
    missing     there is nothing of its id: it was deleted, its collection was dropped, or Redis has
                lost it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import add
from typing import NamedTuple

from .codec import id_digest
from .connection import Argument, Redis, run
from .keys import CollectionKeys

STATES = ("embedded", "evicted", "dead", "waiting", "superseded", "missing")
ASKED_AT_ONCE = 500  # ids in one step: a millisecond in which Redis serves no one else
_WORDS = dict(zip(b"EVDWSM", STATES))


def read_states(
    client: Redis, keys: CollectionKeys, ids: Sequence[str], digests: Sequence[bytes] | None = None
) -> Iterator[str]:
    """The state of each text, of some hundreds at one moment.

    `digests`: of the texts, 16 bytes each; without them, the latest text of each id is meant.
    """
    names = [keys.queued, keys.info, keys.dead]
    for first in range(0, len(ids), ASKED_AT_ONCE):
        some = ids[first : first + ASKED_AT_ONCE]
        parts = list(map(id_digest, some))
        if digests is not None:
            parts = list(map(add, digests[first : first + ASKED_AT_ONCE], parts))
        args: list[Argument] = [keys.doc_prefix, keys.evicted_prefix, b"".join(parts), *some]
        yield from map(_WORDS.__getitem__, run(client, "store/states", names, args))


class Front(NamedTuple):
    """How far the work on a collection is. Jobs are numbered in the order in which they came."""

    born: bytes  # its life; empty if there is none
    seq: int  # the highest number given to a job
    oldest: int  # the lowest number of a job that is not done; 0 if all are
    backlog: int

    def left(self, seq: int) -> int:
        """At most so many jobs up to the one with this number are not done; 0 if all are."""
        return min(self.backlog, max(0, seq + 1 - self.oldest))


def read_front(client: Redis, keys: CollectionKeys) -> Front:
    """Read it in one step, without the texts."""
    return Front(*run(client, "store/front", [keys.jobs, keys.info], []))
