"""The index: what Redis itself has to find the nearest vectors without a look at each.

    hnsw  an index of the query engine (FT): follows the vectors by itself; approximate
    flat  an index of the query engine: exact, compares all vectors inside Redis
    set   a vector set: a copy of the vectors, a byte a number; approximate

A vector set does not follow: it holds the vectors up to a number among the commits, and a search
scans those above it. An index only proposes ids, see `search`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import redis

from ..layout import decode
from ..types import Indexed, Info
from .codec import VECTOR_FIELDS, load_index
from .connection import CLAIM_MEMORY, Argument, Redis, node_of, run
from .errors import CollectionGone
from .keys import CollectionKeys
from .reader import IDS_SIZE, Reader
from .scan import scan
from .server_memory import memory_of

KINDS = ("hnsw", "flat", "set")
NAMES = {
    "hnsw": "an HNSW index of the query engine",
    "flat": "a FLAT index of the query engine",
    "set": "a vector set",
}
# Measured, bytes a vector beside its numbers. A vector set keeps a byte a number.
_BESIDE = {"hnsw": 1250, "flat": 850, "set": 720}
_REASONS = {
    "lost": "the index is not there any more, or not whole",
    "outdated": "the index is of vectors in another layout",
}
STALE = 0.25  # of a vector set may be of texts that are gone, before it is made anew
CANDIDATES = 200  # that an approximate index looks at; more: better and slower
ADD_SIZE = 50  # vectors sent to a vector set at once
POLL_SECONDS = 0.2


class IndexUnfit(ValueError):
    """This index cannot be made here, or now. The message says why, and what to do."""


class Found(NamedTuple):
    """What an index says to a query."""

    state: str  # none, lost, outdated, building or ready
    ids: list[str]
    after: int | None = None  # vectors with numbers above it are not in the index
    share: float = 1.0  # that is built

    @property
    def why(self) -> str:
        """Why it has no answer."""
        if self.state == "building":
            return f"the index is being built, {self.share:.0%} is done"
        return _REASONS[self.state]


class Index:
    """The index of one collection."""

    def __init__(self, client: Redis, keys: CollectionKeys) -> None:
        self._redis = client
        self._keys = keys

    def ids(
        self, query: bytes, forms: Sequence[tuple[str, bytes]], layout: str, count: int
    ) -> Found:
        """The `count` ids nearest to a query. `forms`: the query for each field of a doc."""
        args: list[Argument] = [layout, count, max(CANDIDATES, count), self._keys.doc_prefix, query]
        for form in forms:
            args += form
        state, *said = run(self._redis, "store/hits", [self._keys.index, self._keys.info], args)
        if state == b"building":
            return Found("building", [], share=float(said[0]))
        after = int(said[0]) if said and said[0] else None
        return Found(state.decode(), [id.decode() for id in said[1:]], after)

    def offered(self) -> list[str]:
        """The kinds that this server has."""
        kinds = ["hnsw", "flat"] if self._has("FT.INFO") else []
        return kinds + (["set"] if self._has("VCARD") else [])

    def choose(self, kind: str | None, now: Indexed | None) -> str:
        """The kind to make: the one that is asked for, or there `now`, or the first of the server.

        Raises IndexUnfit where the server does not have it.
        """
        offered = self.offered()
        if not offered:
            raise IndexUnfit(
                "this Redis has no vector index: it needs Redis 8, or Redis Stack with its search "
                "module; without an index, a search compares all vectors"
            )
        kind = kind or (offered[0] if now is None else now.kind)
        if kind not in offered:
            missing = "vector sets (Redis 8 has)" if kind == "set" else "query engine"
            raise IndexUnfit(f"this Redis has no {missing}: leave out --kind {kind}")
        return kind

    def indexed(self) -> Indexed | None:
        """The index that the collection has."""
        said = self._redis.hget(self._keys.info, "index")
        return load_index(self._keys.name, None if said is None else said.decode())

    def memory(self, kind: str, info: Info, vectors: int) -> int:
        """How many bytes an index takes, about. Raises IndexUnfit where Redis has too few."""
        length, now = info.dimensions, self.indexed()
        if length is None:
            raise IndexUnfit(f"{self._keys.name} holds no vector yet: their length is not known")
        held = 0
        is_its = now is not None and now.layout == str(info.layout)
        if is_its and (kind == "set" or self._look(info).state != "lost"):  # some of it is there
            held = min(vectors, self._held(kind))
        size = info.layout.length(length) if kind == "set" else info.layout.size(length)
        each = size + _BESIDE[kind]
        needed = (vectors - held) * each
        memory = memory_of(self._node.info("memory"))
        free = max(0, CLAIM_MEMORY * memory.limit - memory.used)
        if memory.limit and needed > free:
            others = "" if kind == "set" or "set" not in self.offered() else ", or use --kind set"
            raise IndexUnfit(
                f"{NAMES[kind]} takes about {needed / 1e6:,.0f} MB, and Redis has "
                f"{free / 1e6:,.0f} MB before workers wait for memory: raise its "
                f"maxmemory{others}"
            )
        return vectors * each

    def make(self, kind: str, info: Info, progress: Callable[[float], object]) -> None:
        """Make the index, or bring it up to date. `progress` hears the share that is done.

        Raises CollectionGone, and IndexUnfit if another command makes or drops it meanwhile.
        """
        born = self._redis.hget(self._keys.info, "born") or b""
        (self._fill if kind == "set" else self._create)(kind, info, born, progress)

    def drop(self) -> bool:
        """Drop the index; returns whether there was one."""
        there = self.indexed() is not None
        self._note(None, self._redis.hget(self._keys.info, "born") or b"")
        self._clear()
        return there

    def _create(
        self, kind: str, info: Info, born: bytes, progress: Callable[[float], object]
    ) -> None:
        """Let the query engine make an index, and wait until all vectors are in it."""
        its = Indexed(kind, None, str(info.layout))
        if self._look(info).state not in ("ready", "building"):
            self._check(info)
            self._clear()
            fields: list[Argument] = []
            for name, type, length in forms_of(info):
                sizes: list[Argument] = ["TYPE", type, "DIM", length, "DISTANCE_METRIC", "COSINE"]
                fields += [name, "VECTOR", kind.upper(), len(sizes), *sizes]
            self._note(its, born)  # first: then a drop of the collection drops the index too
            on = ["ON", "HASH", "PREFIX", 1, self._keys.doc_prefix, "SCHEMA", *fields]
            try:
                self._node.execute_command("FT.CREATE", self._keys.index, *on)
            except redis.ResponseError as error:
                self._note(None, born)
                if info.layout.dtype == "int8" and "argument" in str(error):
                    raise IndexUnfit("this query engine takes no int8: use --kind set") from None
                raise
        while (found := self._look(info)).state == "building":
            progress(found.share)
            time.sleep(POLL_SECONDS)
        self._note(its, born, its)

    def _fill(
        self, kind: str, info: Info, born: bytes, progress: Callable[[float], object]
    ) -> None:
        """Add to a vector set what it does not have yet; make it anew if much of it is gone."""
        keys, number = self._keys, 0
        size = self._redis.xlen(keys.done)
        held = self._held(kind)
        now = self.indexed()
        its = str(info.layout)
        if now is None or now.layout != its or not held or held > size * (1 + STALE):
            now = Indexed(kind, 0, its)
            self._note(now, born)  # first: what is not in the set is scanned
            self._clear()
            held = 0
        else:
            number = now.number or 0
        for page in scan(self._redis, keys, info.layout, number):
            rows = decode(b"".join(page.data), info.layout.dtype, len(page.ids))
            for first in range(0, len(page.ids), ADD_SIZE):
                pipeline = self._node.pipeline(transaction=False)
                some = slice(first, first + ADD_SIZE)
                for id, row in zip(page.ids[some], rows[some].astype("<f4")):
                    vector = row.tobytes()
                    pipeline.execute_command("VADD", keys.index, "FP32", vector, id, "CAS", "Q8")
                pipeline.execute()
                held += len(page.ids[some])
                progress(min(1.0, held / max(1, size)))
            # If another command has dropped the set meanwhile, it lacks what was added before.
            before, now = now, Indexed(kind, page.number, its)
            self._note(now, born, before)

    def _look(self, info: Info) -> Found:
        """What the index says, to learn its state alone."""
        return self.ids(b"", [], str(info.layout), 1)

    def _check(self, info: Info) -> None:
        """Raise IndexUnfit if a vector is in no field that an index would have."""
        if info.layout.is_plain:
            return
        sizes = {"vector": 4 * (info.dimensions or 0)}
        sizes[info.layout.dtype] = info.layout.size(info.dimensions or 0)
        ids = Reader(self._redis, self._keys).ids()
        while some := list(islice(ids, IDS_SIZE)):
            pipeline = self._node.pipeline(transaction=False)
            for id in some:
                for field in VECTOR_FIELDS:
                    pipeline.hstrlen(self._keys.doc(id), field)
            lengths = iter(pipeline.execute())
            for found in zip(*[lengths] * len(VECTOR_FIELDS)):
                if any(size and sizes.get(f) != size for f, size in zip(VECTOR_FIELDS, found)):
                    raise IndexUnfit(
                        f"{self._keys.name} has vectors in another layout: shrink it to the "
                        "end, then make the index"
                    )

    def _note(self, indexed: Indexed | None, born: bytes, before: Indexed | None = None) -> None:
        """Note the index in the collection, if `before` is noted there; None: whatever is."""
        # Sent once: a copy that arrives late would speak of a vector set that was made anew since.
        args: list[Argument] = [str(indexed or ""), born]
        if before is not None:
            args.append(str(before))
        noted = run(self._redis, "store/indexed", [self._keys.info], args)
        if noted == 0:
            raise CollectionGone(self._keys.name)
        if noted < 0:
            raise IndexUnfit(
                f"another command has made or dropped the index of {self._keys.name} meanwhile: "
                "make it again"
            )

    def _clear(self) -> None:
        """Delete whatever has the name of the index, also what an earlier version left there."""
        with suppress(redis.ResponseError):  # there is none, or no query engine
            self._node.execute_command("FT.DROPINDEX", self._keys.index)
        self._redis.delete(self._keys.index)

    def _held(self, kind: str) -> int:
        """How many vectors are in the index, as far as that is known."""
        if kind == "set":
            return int(self._node.execute_command("VCARD", self._keys.index))
        return int(self._redis.xlen(self._keys.done))

    def _has(self, command: str) -> bool:
        try:
            self._node.execute_command(command, self._keys.index)
        except redis.ResponseError as error:
            return "unknown command" not in str(error).lower()
        return True

    @property
    def _node(self) -> Any:  # redis-py's methods for these commands are untyped
        return node_of(self._redis, self._keys.info)


def forms_of(info: Info) -> list[tuple[str, str, int]]:
    """The fields of a doc that may hold its vector, their types and lengths."""
    answered = info.dimensions or 0
    forms = [("vector", "FLOAT32", answered)]  # a worker of an earlier version writes it
    if not info.layout.is_plain:
        dtype = info.layout.dtype
        forms.insert(0, (dtype, dtype.upper(), info.layout.length(answered)))
    return forms
