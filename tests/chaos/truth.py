"""What a collection must hold and what it does hold, found without the code that is tested.

The pieces of a text are made here once more, by the rule of `--long split`. Redis is read with
redis-py by its table of keys, and a folder of vectors as the documentation shows. A vector must be
the one that the tests' API gives for exactly that text.
"""

from __future__ import annotations

import hashlib
import json
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import redis
from faulty_api.vectors import Hashed

_TOLD = 10


class Piece(NamedTuple):
    """A text as it must be stored; with the place in its document, if it is a part of one."""

    text: str
    place: Mapping[str, object] | None = None


class Held(NamedTuple):
    """What Redis or a folder has of an id."""

    vector: bytes
    digest: bytes
    meta: object


def in_qdrant(points: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Held]]:
    """What the points of a Qdrant are of."""
    for point in points:
        payload = point["payload"]
        place = {name: payload[name] for name in ("parent", "start", "end") if name in payload}
        vector = array("f", point["vector"]).tobytes()
        yield payload["id"], Held(vector, bytes.fromhex(payload["digest"]), place or None)


Same = Callable[[bytes, bytes], bool]
equal: Same = operator.eq


def parallel(one: bytes, other: bytes) -> bool:
    """Whether two vectors have one direction, as far as float32 knows."""
    first, second = (numpy.frombuffer(data, "<f4").astype("<f8") for data in (one, other))
    lengths = numpy.linalg.norm(first) * numpy.linalg.norm(second)
    return bool(first @ second > (1 - 1e-6) * lengths)


class Rule:
    """How texts become pieces: `--long split --split-as KIND --chunk-size SIZE`."""

    def __init__(self, kind: str, size: int) -> None:
        import semantic_text_splitter

        self._splitter: (
            semantic_text_splitter.MarkdownSplitter | semantic_text_splitter.TextSplitter
        )
        if kind == "markdown":
            self._splitter = semantic_text_splitter.MarkdownSplitter(size)
        else:
            self._splitter = semantic_text_splitter.TextSplitter(size)
        self.words = ("--long", "split", "--split-as", kind, "--chunk-size", str(size))
        self._size = size

    def pieces(self, id: str, text: str) -> dict[str, Piece]:
        """The pieces of a text, by their ids. One that is short enough is not split."""
        if len(text) <= self._size:
            return {id: Piece(text)}
        found: dict[str, Piece] = {}
        covered = 0
        for begin, piece in self._split(text):
            end = begin + len(piece)
            if len(piece) > self._size or text[covered:begin].strip() or begin < covered:
                raise AssertionError(f"{id}: what the library splits is not as it says: {piece!r}")
            covered = end
            place = {"parent": id, "start": begin, "end": end}
            found[f"{id}#{len(found) + 1:04}"] = Piece(piece, place)
        return found

    def _split(self, text: str) -> Iterator[tuple[int, str]]:
        """Window by window: the next one begins with the last piece, whose end may be cut."""
        window = max(8 * self._size, 2_000)
        first = 0
        while first < len(text):
            pieces = self._splitter.chunk_indices(text[first : first + window])
            goes_on = first + window < len(text) and bool(pieces) and pieces[-1][0] > 0
            for at, piece in pieces[:-1] if goes_on else pieces:
                if piece.strip():
                    yield first + at, piece
            first += pieces[-1][0] if goes_on else window


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        yield from map(json.loads, file)


def normal(text: str) -> str:
    """The text as the API's cache knows it: it is paid for once."""
    return " ".join(text.split()).lower()


class Truth:
    """Compares one collection, and maybe a folder of its vectors, with what they must hold."""

    def __init__(self, redis_url: str, collection: str, dimensions: int) -> None:
        self._redis = redis.Redis.from_url(redis_url)
        self._keys = f"vec:{{{collection}}}:"
        self._collection = collection
        self._engine = Hashed(dimensions)
        self._known: dict[str, tuple[str, bytes, bytes]] = {}  # by id: text, digest, vector

    def in_redis(self) -> Iterator[tuple[str, Held]]:
        """What Redis holds, key by key."""
        prefix = f"{self._keys}doc:".encode()
        keys = self._redis.scan_iter(prefix.replace(b"[", b"\\[") + b"*", count=1000)
        while some := list(dict.fromkeys(islice(keys, 1000))):
            pipeline = self._redis.pipeline(transaction=False)
            for key in some:
                pipeline.hgetall(key)
            for key, row in zip(some, pipeline.execute()):
                meta = json.loads(row[b"meta"]) if row.get(b"meta") else None
                held = Held(row[b"vector"], row[b"hash"][:16], meta)
                yield key[len(prefix) :].decode(), held

    def in_folder(self, folder: Path) -> Iterator[tuple[str, Held]]:
        """What a folder of JSON lines holds, as docs/how-to/follow-and-evict.md reads it."""
        deleted: dict[str, int] = {}
        latest: dict[str, Held] = {}
        for file in sorted(folder.glob(f"{self._collection}-*.tombstones")):
            for row in _rows(file):
                deleted[row["id"]] = row["number"]
        for file in sorted(folder.glob(f"{self._collection}-*.jsonl")):
            for row in _rows(file):
                if row["number"] > deleted.get(row["id"], 0):
                    vector = array("f", row["vector"]).tobytes()
                    meta = row.get("meta") or None
                    latest[row["id"]] = Held(vector, bytes.fromhex(row["digest"]), meta)
        yield from latest.items()

    def faults(self, expected: Mapping[str, Piece], *, evicted: Path | None) -> Iterator[str]:
        """What is wrong of a collection whose work is done; `evicted`: all of it is there."""
        held = self.in_redis() if evicted is None else self.in_folder(evicted)
        if evicted is not None:  # a text that was evicted keeps the place that it had then
            expected = {id: Piece(piece.text) for id, piece in expected.items()}
            held = ((id, one._replace(meta=None)) for id, one in held)
        yield from self.compared(expected, held, "Redis" if evicted is None else "the folder")
        if evicted is not None and (left := next(self.in_redis(), None)):
            yield f"{left[0]} is in Redis still"
        for name, size in (("queued", self._redis.hlen), ("dead", self._redis.hlen)):
            if number := size(self._keys + name):
                yield f"{number} {name}"
        if number := self._redis.xlen(self._keys + "jobs"):
            yield f"{number} jobs in the stream"

    def compared(
        self,
        expected: Mapping[str, Piece],
        held: Iterable[tuple[str, Held]],
        where: str,
        same: Same = equal,
    ) -> Iterator[str]:
        """What is wrong of what is held somewhere: each id once, with its own text's vector."""
        seen: set[str] = set()
        wrong: dict[str, list[str]] = {}
        for id, found in held:
            if id in seen:
                continue  # SCAN may show a key twice
            seen.add(id)
            piece = expected.get(id)
            if piece is None:
                wrong.setdefault("not in the corpus", []).append(id)
                continue
            _, digest, vector = self._must_be(id, piece.text)
            if found.digest != digest:
                wrong.setdefault("of another text", []).append(id)
            elif not same(found.vector, vector):
                wrong.setdefault("with the vector of another text", []).append(id)
            elif found.meta != piece.place:
                wrong.setdefault("with another place in its document", []).append(id)
        wrong["missing"] = sorted(expected.keys() - seen)
        for what, ids in wrong.items():
            if ids:
                yield f"{where}: {len(ids):,} {what}, such as {', '.join(ids[:_TOLD])}"

    def _must_be(self, id: str, text: str) -> tuple[str, bytes, bytes]:
        """The text, its digest and its vector; most are those of the pass before."""
        known = self._known.get(id)
        if known is None or known[0] != text:
            (packed,) = self._engine.pack([text])
            vector = array("f", self._engine.numbers(packed)).tobytes()
            known = text, hashlib.sha256(text.encode()).digest()[:16], vector
            self._known[id] = known
        return known
