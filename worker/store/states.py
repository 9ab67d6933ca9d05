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
from typing import NamedTuple

from ..types import State
from .connection import Redis, run
from .keys import CollectionKeys
from .reader import Reader

STATES = ("embedded", "evicted", "dead", "waiting", "superseded", "missing")
ASKED_AT_ONCE = 500  # ids in one step: some 2 ms in which Redis serves no one else


def state_of(state: State, evicted: bytes, digest: bytes | None) -> str:
    """The state of the text with this digest; without one, of the latest text of the id.

    `evicted`: what is remembered of the id's vector in files, as in `Known`.
    """
    latest = state.queued or state.stored or state.dead or evicted
    if not latest:
        return "missing"
    if digest is not None and not digest.startswith(latest):
        return "superseded"
    if state.queued:
        # Another text came between the two, and has left again.
        is_stored = state.stored is not None and state.stored.startswith(state.queued)
        return "embedded" if is_stored else "waiting"
    return "embedded" if state.stored else "dead" if state.dead else "evicted"


def read_states(
    reader: Reader, ids: Sequence[str], digests: Sequence[bytes] | None = None
) -> Iterator[str]:
    """The state of each text, of some hundreds at one moment. `digests`: as in `state_of`."""
    for first in range(0, len(ids), ASKED_AT_ONCE):
        some = ids[first : first + ASKED_AT_ONCE]
        known = reader.known(some)
        for n, (state, evicted) in enumerate(zip(known.states, known.evicted), first):
            yield state_of(state, evicted, None if digests is None else digests[n])


class Front(NamedTuple):
    """How far the work on a collection is. Jobs are numbered in the order in which they came."""

    born: bytes  # its life; empty if there is none
    seq: int  # the highest number given to a job
    oldest: int  # the lowest number of a job that is not done; 0 if all are
    backlog: int

    def left(self, seq: int) -> int:
        """At most so many jobs up to the one with this number are not done; 0 if all are."""
        return min(self.backlog, max(0, seq + 1 - self.oldest)) if self.oldest else 0


def read_front(client: Redis, keys: CollectionKeys) -> Front:
    """Read it in one step, without the texts."""
    return Front(*run(client, "store/front", [keys.jobs, keys.info], []))
