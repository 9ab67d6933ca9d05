"""Qdrant as a sink: each vector is a point of a collection there, and the watermark is kept beside.

Qdrant has no transactions. So a part is written by requests that may be repeated: first a note of
its last number, then the points, last the watermark. An export that is killed between any two of
them writes the part again. A point with a higher number than all that was noted stays, whatever
arrives late: the server compares in the request itself (from Qdrant 1.16 on; an earlier one ignores
the condition, and the order of the requests has to be enough).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from typing import Any
from urllib.parse import quote

from ...layout import PLAIN, Layout, decode
from ...logs import logger
from ...types import PIECE_FIELDS, Position, Stored, parent_of
from ..rows import ExportError
from ..sink import Part, Rotation, Watermarks
from .notes import Notes, has_id, point_id
from .server import PAGE, NotThere, Server, dumps, read_address

ROTATION = Rotation(10_000, 32 * 1024 * 1024, 1.0)
LEASE_SECONDS = 15.0
BATCH_POINTS = 256
BATCH_BYTES = 8 * 1024 * 1024  # the server's limit is 32 MB
_POSITION = ["number", "id", "digest"]
_INDEXES = {"parent": "keyword", "number": "integer"}
_THRESHOLD = 20_000  # the server's own indexing_threshold
_OTHER = "name another collection after the host, or delete that one"


class Qdrant:
    """The sink at `address` for our collection. Raises ExportError for an address that is wrong.

    `lease`: seconds after which another export may follow one that was killed.
    """

    size = 0  # a part is in memory until it is whole

    def __init__(
        self,
        address: str,
        collection: str,
        rotation: Rotation | None = None,
        *,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self.collection = collection
        self.rotation = rotation or ROTATION
        self._address = read_address(address, collection)
        self._server = Server(self._address)
        self._path = f"/collections/{quote(self._address.collection, safe='')}"
        self._notes = Notes(self._server, self._address.collection, collection, lease)
        self._locked = False
        self._layout = PLAIN
        self._length: int | None = None  # of the vectors, once the collection was looked at

    def __str__(self) -> str:
        return str(self._address)

    @contextmanager
    def locked(self) -> Iterator[str]:
        """Take the lease, and look at the collection if there is one. Yields the sink's token."""
        with self._notes.locked():
            self._locked = True
            try:
                self._look()
                yield self._notes.state.token
            finally:
                self._locked = False

    @property
    def life(self) -> bytes | None:
        """The life of the collection that it holds; None if none was noted."""
        state = self._notes.state if self._locked else self._notes.read()
        return None if state.life is None else bytes.fromhex(state.life)

    def accept(self, born: bytes, layout: Layout) -> None:
        """Raise ExportError if points of another life or layout are there."""
        state = self._notes.state
        if state.writing and self.life not in (None, born):
            raise ExportError(
                f"{self} holds an earlier life of {self.collection}, which was dropped or lost "
                f"since: {_OTHER}"
            )
        if state.writing and state.layout != str(layout):
            raise ExportError(
                f"{self} holds vectors of {self.collection} as {Layout.read('', state.layout).name}"
                f", and they are stored as {layout.name} now: {_OTHER}"
            )
        self._layout = layout

    def note_life(self, born: bytes) -> None:
        """Note the life that is written from now on, and the layout that was accepted."""
        if (self.life, self._notes.state.layout) != (born, str(self._layout)):
            self._notes.note(life=born.hex(), layout=str(self._layout))

    def watermarks(self) -> Watermarks:
        """How far it is. While it is locked, this renews the lease."""
        if self._locked:
            self._notes.note()
        else:
            self._notes.read()
        return Watermarks(self._notes.state.vectors, self._notes.state.tombstones)

    # The collection there

    def _info(self) -> Any:
        """What the server says of the collection; None if it is not there."""
        with suppress(NotThere):
            return self._server.ask("GET", self._path)
        return None

    def _look(self) -> None:
        """Check the collection, and begin again if it was deleted or emptied."""
        state, info = self._notes.state, self._info()
        if info is not None:
            self._check(info)
        if state.writing and not any(self._server.points(self._path, {"limit": 1})):
            if state.vectors:
                logger.warning(
                    "%s was deleted or emptied since the last export: it is filled again with what "
                    "Redis holds of %s",
                    self,
                    self.collection,
                )
            self._notes.begin_again(None if info is None else state.threshold)
        elif state.collection != self.collection:
            if state.writing:
                raise ExportError(f"{self} holds the collection {state.collection}: {_OTHER}")
            self._notes.note(collection=self.collection)

    def _check(self, info: Any, length: int | None = None) -> int:
        """The length of its vectors. Raises ExportError if ours cannot be put there."""
        vectors = info["config"]["params"]["vectors"]
        size = vectors.get("size")
        fault = ""
        if not isinstance(size, int) or vectors.get("multivector_config"):
            fault = "has not one vector without a name for each point"
        elif vectors["distance"] != "Cosine":
            fault = f"compares by {vectors['distance']}, not by Cosine"
        elif vectors.get("datatype") not in (None, "float32", "float16"):
            fault = f"keeps numbers as {vectors['datatype']}, not as float32 or float16"
        elif length not in (None, size):
            fault = f"takes vectors of {size} numbers, and {self.collection} has {length}"
        if fault:
            raise ExportError(f"{self} {fault}: {_OTHER}")
        return int(size)

    def _open(self, record: Stored) -> int:
        """Make the collection for vectors like this one, or check it; returns their length.

        At its first load it is not indexed before `finish`.
        """
        datatype = "float32" if record.dtype == "float32" else "float16"
        config = {"size": record.dimensions, "distance": "Cosine", "datatype": datatype}
        info = self._server.make(self._path, {"vectors": config})
        length = self._check(info, record.dimensions)
        for name, schema in _INDEXES.items():
            if name not in info["payload_schema"]:
                index = {"field_name": name, "field_schema": schema}
                self._server.ask("PUT", f"{self._path}/index?wait=true", index)
        threshold = _threshold(info)
        if threshold and not self._notes.state.vectors:
            self._notes.note(threshold=threshold)
            self._set_threshold(0)
        return length

    def _set_threshold(self, threshold: int) -> None:
        config = {"optimizers_config": {"indexing_threshold": threshold}}
        self._server.ask("PATCH", self._path, config)

    def finish(self) -> None:
        """Let it be indexed, as it was before the first load."""
        threshold = self._notes.state.threshold
        if threshold is None:
            return
        info = self._info()
        if info is not None and _threshold(info) == 0:
            self._set_threshold(threshold)
        self._notes.note(threshold=None)

    # Points

    def write(self, records: Iterable[Stored]) -> Part | None:
        """Write a part: the note, the points, the watermark."""
        part = list(records)
        if not part:
            return None
        if self._length is None:
            self._length = self._open(part[0])
        for record in part:
            if record.dimensions != self._length:
                raise ExportError(
                    f"id {record.id!r} has {record.dimensions} dimensions, and {self} takes "
                    f"{self._length}: {_OTHER}"
                )
        first, last = part[0].number or 0, part[-1].number or 0
        state = self._notes.state
        # What an interrupted part left may have higher numbers, if Redis lost its last moments.
        highest = max(last, state.writing if state.writing > state.vectors else 0)
        self._notes.note(writing=highest)
        later = {"key": "number", "range": {"gt": highest}}
        tail = b'],"update_filter":' + dumps({"must_not": [later]}) + b"}"
        for points in _batches({record.id: record for record in part}.values()):
            body = b'{"points":[' + b",".join(points) + tail
            self._server.ask("PUT", f"{self._path}/points?wait=true", body)
        self._notes.note(vectors=max(last, self._notes.state.vectors))
        return Part(str(self), first, last)

    def write_tombstones(self, tombstones: Iterable[Position]) -> Part | None:
        """Delete what they name; then note them, and how far it is."""
        first = last = buried = 0
        remaining = iter(tombstones)
        while some := list(islice(remaining, BATCH_POINTS)):
            if not first:
                self._notes.note()
                first, buried = some[0].number, self._notes.state.buried
            last = some[-1].number
            self._delete(some)
            self._notes.add_tombstones(some, buried)
            buried += len(some)
        if not first:
            return None
        highest = max(last, self._notes.state.tombstones)
        self._notes.note(tombstones=highest, buried=buried)
        return Part(str(self), first, last)

    def _delete(self, tombstones: Sequence[Position]) -> None:
        """Delete points that have lower numbers than their tombstones, in one request."""
        older = [
            {
                "must": [has_id([point_id(tombstone.id) for tombstone in some])],
                "must_not": [{"key": "number", "range": {"gte": number}}],
            }
            for number, some in groupby(tombstones, key=lambda tombstone: tombstone.number)
        ]
        with suppress(NotThere):
            path = f"{self._path}/points/delete?wait=true"
            self._server.ask("POST", path, {"filter": {"should": older}})

    def holds(self, positions: Sequence[Position]) -> list[bool]:
        """Which of these it holds, with the same number and digest."""
        ids = [point_id(position.id) for position in positions]
        body = {"ids": ids, "with_payload": _POSITION, "with_vector": False}
        held: set[Position | None] = set()
        with suppress(NotThere):
            held.update(map(_position, self._server.ask("POST", f"{self._path}/points", body)))
        return [position in held for position in positions]

    def positions(self, above: int = 0) -> Iterator[Position]:
        """What it holds with numbers above this one, in their order; memory stays flat."""
        path = f"{self._path}/points/scroll"
        last = [Position(above + 1, "", b"")]
        with suppress(NotThere):
            while True:
                later = {"key": "number", "range": {"gte": last[-1].number}}
                body = {"filter": {"must": [later]}, "order_by": "number", "limit": PAGE}
                body.update(with_payload=_POSITION, with_vector=False)
                found = map(_position, self._server.ask("POST", path, body)["points"])
                page = [one for one in found if one is not None and one not in last]
                if not page:
                    return
                yield from page
                last = page

    def tombstones(self, above: int) -> Iterator[Position]:
        """The last tombstones, as far as they have numbers above this one."""
        return iter(self._notes.tombstones(above))


def _batches(records: Iterable[Stored]) -> Iterator[list[bytes]]:
    """Points as JSON, as many as one request may have."""
    batch: list[bytes] = []
    size = 0
    for record in records:
        point = dumps(_point(record))
        if batch and (len(batch) >= BATCH_POINTS or size + len(point) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += len(point)
    if batch:
        yield batch


def _point(record: Stored) -> dict[str, object]:
    """A point. A piece has its document's id and its offsets beside its other kept fields."""
    assert record.digest is not None
    payload: dict[str, object] = {
        "id": record.id,
        "number": record.number,
        "digest": record.digest.hex(),
        "model": record.model,
    }
    meta = dict(record.meta or {})
    if parent_of(record.id, meta) is not None:
        payload.update({name: meta.pop(name) for name in PIECE_FIELDS})
    if record.text is not None:
        payload["text"] = record.text
    if meta:
        payload["meta"] = meta
    vector = decode(record.data, record.dtype)[0]
    return {"id": point_id(record.id), "vector": vector, "payload": payload}


def _position(point: Any) -> Position | None:
    """What a point is of; None for one that is not ours."""
    number, id, digest = map((point.get("payload") or {}).get, _POSITION)
    if not (isinstance(number, int) and isinstance(id, str) and isinstance(digest, str)):
        return None
    return Position(number, id, bytes.fromhex(digest))


def _threshold(info: Any) -> int:
    threshold = info["config"]["optimizer_config"].get("indexing_threshold")
    return _THRESHOLD if threshold is None else int(threshold)
