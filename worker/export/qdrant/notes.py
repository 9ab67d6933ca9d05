"""What a sink in Qdrant notes beside its points: how far it is, its lease, its last tombstones.

The notes of all sinks of a server are points of one small collection, `vector_embed_sinks`. Nothing
of them shows up in a search.

The lease says which export writes. It is taken by a conditional update and renewed every few
seconds. Qdrant has no fencing: an export that was frozen for longer than its lease may still have
one request on its way.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import NamedTuple

from ...types import Position
from ..rows import ExportError
from .server import NotThere, Server

COMPANION = "vector_embed_sinks"
TOMBSTONES = 10_000  # of one sink that are remembered
# uuid5(NAMESPACE_URL, "vector-embed-cache"). With it, an id of ours always makes the same UUID.
NAMESPACE = uuid.UUID("4e587e94-8a68-50d0-b4d3-5f4615cefb8b")

_PATH = f"/collections/{COMPANION}"
# Not every server takes points without a vector. It is small: the indexes that a server may demand
# by its strict mode are not needed.
_CONFIG = {
    "vectors": {"size": 1, "distance": "Dot"},
    "shard_number": 1,
    "strict_mode_config": {"enabled": False},
}


def point_id(id: str) -> str:
    """The id of the point for an id of ours: Qdrant takes numbers and UUIDs alone."""
    return str(uuid.uuid5(NAMESPACE, id))


class State(NamedTuple):
    """What is noted of one sink."""

    token: str
    collection: str  # of ours
    owner: str = ""  # of the lease
    expires: float = 0.0
    life: str | None = None  # in hex digits
    layout: str = ""
    writing: int = 0  # the last number of the part that was begun last
    vectors: int = 0
    tombstones: int = 0
    buried: int = 0  # how many tombstones there ever were
    threshold: int | None = None  # the indexing_threshold to give back; None: it is as it was


class Notes:
    """The notes of the sink `name`, a collection of Qdrant, for our `collection`.

    `lease`: seconds after which another export may follow one that was killed.
    """

    def __init__(self, server: Server, name: str, collection: str, lease: float) -> None:
        self.state = State("", collection)  # as it was read last
        self._server = server
        self._name = name
        self._collection = collection
        self._lease = lease
        self._me = secrets.token_hex(8)
        self._point = self._id("state")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the notes if they are not there, and keep the lease."""
        self._find()
        self._take_lease()
        ended = Event()
        renewing = Thread(target=self._keep_lease, args=(ended,), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            with suppress(ExportError):
                self._set({"owner": "", "expires": 0.0}, [is_value("owner", self._me)])

    def _find(self) -> None:
        self._server.make(_PATH, _CONFIG)
        if self._read() is None:
            new = State(secrets.token_hex(8), self._collection)._asdict()
            self._put([(self._point, new)], {"must_not": [has_id([self._point])]})

    def _take_lease(self) -> None:
        """Wait for a lease that no one renews. Raises ExportError for one that is renewed."""
        expires = None
        while True:
            self.state = self._renew({}, take=True)
            if self.state.owner == self._me:
                return
            if expires not in (None, self.state.expires):
                raise self._taken()
            expires = self.state.expires
            time.sleep(min(0.5, self._lease / 4))

    def _keep_lease(self, ended: Event) -> None:
        while not ended.wait(self._lease / 3):
            with suppress(ExportError):  # each note looks at it
                self._renew({})

    def note(self, **fields: object) -> None:
        """Note these. Raises ExportError, and notes nothing, if another has the lease."""
        self.state = self._renew(fields)
        if self.state.owner != self._me:
            raise self._taken()

    def _taken(self) -> ExportError:
        return ExportError(f"another vec export writes {self._collection} to {self._server}")

    def _renew(self, fields: Mapping[str, object], *, take: bool = False) -> State:
        """The notes, after an attempt to note these with a renewed lease.

        `take`: also one that no one has. Else another may have had it, and ended, meanwhile.
        """
        now = time.time()
        lease = {"owner": self._me, "expires": now + self._lease}
        free = {"key": "expires", "range": {"lt": now}}
        self._set({**fields, **lease}, [is_value("owner", self._me), *([free] if take else [])])
        state = self._read()
        if state is None:
            raise ExportError(
                f"{self._server}: its notes in the collection {COMPANION} are gone: start again"
            )
        return state

    def _set(self, fields: Mapping[str, object], if_any: Sequence[object]) -> None:
        only = {"must": [has_id([self._point])], "should": if_any}
        path = f"{_PATH}/points/payload?wait=true&ordering=strong"
        self._server.ask("POST", path, {"payload": fields, "filter": only})

    def read(self) -> State:
        """What is noted, without a lease; nothing, if there are no notes."""
        with suppress(NotThere):
            self.state = self._read() or State("", self._collection)
        return self.state

    def _read(self) -> State | None:
        ids = {"ids": [self._point], "with_payload": True, "with_vector": False}
        for point in self._server.ask("POST", f"{_PATH}/points", ids):
            noted = point["payload"]
            return State(**{name: noted[name] for name in State._fields if name in noted})
        return None

    def _put(self, points: Iterable[tuple[str, object]], only: object = None) -> None:
        bodies = [{"id": id, "vector": [1.0], "payload": payload} for id, payload in points]
        path = f"{_PATH}/points?wait=true&ordering=strong"
        self._server.ask("PUT", path, {"points": bodies, "update_filter": only})

    def begin_again(self, threshold: int | None) -> None:
        """Forget all but the lease; the sink gets another token."""
        ours = {"filter": {"must": [is_value("tombstone_of", self._name)]}}
        self._server.ask("POST", f"{_PATH}/points/delete?wait=true", ours)
        new = State(secrets.token_hex(8), self._collection, threshold=threshold)._asdict()
        del new["owner"], new["expires"]
        self.note(**new)

    # Tombstones

    def add_tombstones(self, tombstones: Sequence[Position], buried: int) -> None:
        """Note tombstones in place of the oldest ones; `buried` were noted before."""
        self._put(
            (
                self._id("tombstone", str((buried + place) % TOMBSTONES)),
                {"tombstone_of": self._name, "number": tombstone.number, "id": tombstone.id},
            )
            for place, tombstone in enumerate(tombstones)
        )

    def tombstones(self, above: int) -> list[Position]:
        """The last ones, as far as they have numbers above this one, in the order of these."""
        ours = is_value("tombstone_of", self._name)
        later = {"key": "number", "range": {"gt": above}}
        points = self._server.points(_PATH, {"filter": {"must": [ours, later]}})
        noted = [point["payload"] for point in points]
        return sorted(Position(one["number"], one["id"], b"") for one in noted)

    def _id(self, *names: str) -> str:
        return point_id("\0".join((self._name, *names)))


def has_id(ids: Sequence[str]) -> dict[str, object]:
    """The condition that a point has one of these ids."""
    return {"has_id": ids}


def is_value(key: str, value: str) -> dict[str, object]:
    """The condition that a field has this value."""
    return {"key": key, "match": {"value": value}}
