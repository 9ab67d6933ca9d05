"""The values that pass between the rooms, and what each word means.

    text         what is to be embedded; known by its id
    job          one enqueue of a text
    collection   the texts of one corpus and their vectors, of one model
    backlog      the jobs that are still to be done: pending, or leased
    lease        a job in the hands of one slice of work
    slice        what one wake-up lets a worker thread do: claim, embed and commit, for some seconds
    dead letter  a text that could not be embedded, and why
    ledger       the counts of a collection: enqueued = embedded + evicted + dead + pending + leased
    life         a collection from its first add until it is dropped or lost
    throttle     what the fleet knows of an API's limits under one key

A vector stays the bytes it was stored as, little-endian, until a program asks for floats: an export
of millions touches each one once and never needs a Python float.
"""

from __future__ import annotations

import hashlib
import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .layout import PLAIN, SIZES, Layout, decode

# A corpus


class Job(NamedTuple):
    """One text to embed. `meta` is any JSON object to keep beside the vector."""

    id: str
    text: str
    meta: Mapping[str, object] | None = None


class Rejection(NamedTuple):
    """One line of a corpus that cannot become a job, and why. Nothing was paid for it."""

    line: int  # of the file, counted from 1, where it begins; a row of parquet, an item of .json
    id: str | None
    reason: str
    raw: str  # the line as read, cut to a sensible length
    file: str | None = None  # of a folder or a pattern


class Added(NamedTuple):
    """What the texts of an add were."""

    new: int
    unchanged: int
    duplicates: int  # in this run
    dead: int  # the same text is a dead letter, and stays one
    evicted: int = 0  # of the unchanged: their vectors are in files, and no longer in Redis
    replacing: int = 0  # of the new: their ids had other texts before the run


# Work


PRIORITIES = ("interactive", "normal", "bulk")
NORMAL = 2**52  # added to the scores of normal texts in `ahead`: see worker/store/priorities.lua


class Lease(NamedTuple):
    """A job in the hands of one slice of work."""

    entry: bytes  # of the stream `jobs`
    job: Job
    attempts: int  # how often it failed alone
    lost: int  # how often its owner died
    collection: str = ""
    score: bytes = b""  # in `ahead`, if it has overtaken others

    @property
    def urgent(self) -> bool:
        """Whether someone waits for it: it is interactive."""
        return bool(self.score) and float(self.score) < NORMAL


class Embedded(NamedTuple):
    """A lease that got its vector."""

    lease: Lease
    vector: bytes  # float32, little-endian
    cached: bool


class Refused(NamedTuple):
    """A lease whose text the API will never embed."""

    lease: Lease
    code: str
    reason: str


class Committed(NamedTuple):
    """What a commit did."""

    stored: int
    dead: int
    superseded: int  # a later job has the id
    fenced: int  # another finished them before


# What is stored


class Stored(NamedTuple):
    """A vector as the store, exports and searches pass it on. Programs get a `Record`."""

    id: str
    data: bytes  # in the layout of the collection, little-endian
    model: str
    cached: bool  # the API answered from its cache
    text: str | None = None
    meta: Mapping[str, object] | None = None
    number: int | None = None  # its position in the order in which vectors were stored
    digest: bytes | None = None  # of its text: see `text_digest`
    dtype: str = "float32"  # of the numbers in `data`

    @property
    def vector(self) -> list[float]:
        """The vector as Python floats."""
        floats = array("f", self.float32)
        if sys.byteorder == "big":
            floats.byteswap()
        return floats.tolist()

    @property
    def float32(self) -> bytes:
        """The vector as float32, little-endian; of int8, with length 1."""
        if self.dtype == "float32":
            return self.data
        return decode(self.data, self.dtype).astype("<f4").tobytes()

    @property
    def dimensions(self) -> int:
        """How many numbers the vector has."""
        return len(self.data) // SIZES[self.dtype]


class Record:
    """A stored vector, and what is known of it."""

    __slots__ = ("_stored", "_outdated")

    def __init__(self, stored: Stored, outdated: bool = False) -> None:
        self._stored = stored
        self._outdated = outdated

    @property
    def id(self) -> str:
        """The id of its text."""
        return self._stored.id

    @property
    def model(self) -> str:
        """The model that made it."""
        return self._stored.model

    @property
    def cached(self) -> bool:
        """Whether the API had it in its cache."""
        return self._stored.cached

    @property
    def text(self) -> str | None:
        """Its text; None where texts are not kept."""
        return self._stored.text

    @property
    def meta(self) -> Mapping[str, object] | None:
        """The JSON object that was enqueued with the text; None where there was none."""
        return self._stored.meta

    @property
    def outdated(self) -> bool:
        """Whether a later text of its id was waiting when `get` read it, so this is the vector of
        an earlier one. Iteration and search do not look, and say False.
        """
        return self._outdated

    @property
    def dimensions(self) -> int:
        """How many numbers the vector has."""
        return self._stored.dimensions

    @property
    def vector(self) -> list[float]:
        """The vector as Python floats."""
        return self._stored.vector

    def tobytes(self) -> bytes:
        """The vector as float32, little-endian, four bytes a number, whatever it is stored as."""
        return self._stored.float32

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._stored[:6] == other._stored[:6]

    def __hash__(self) -> int:
        return hash(self._stored[:2])

    def __repr__(self) -> str:
        first = ", ".join(f"{number:.4g}" for number in self.vector[:3])
        more = ", ..." if self.dimensions > 3 else ""
        return f"Record({self.id!r}, {self.dimensions} dimensions: [{first}{more}])"


class Hit(NamedTuple):
    """A stored vector that a search found, and the cosine of its angle to the query."""

    score: float
    record: Record

    @property
    def document(self) -> str:
        """The id of the document that the record is a piece of, or its own."""
        return parent_of(self.record.id, self.record.meta) or self.record.id


class Position(NamedTuple):
    """Which stored vector: its number in the order of commits, its id, its text's digest.

    Without a digest it is a tombstone: vectors of the id with lower numbers are deleted.
    """

    number: int
    id: str
    digest: bytes


class State(NamedTuple):
    """What is known of an id. The digests are those of `text_digest`."""

    stored: bytes | None  # of the text whose vector is stored
    queued: bytes | None  # of the latest text queued or leased, its first eight bytes
    dead: bytes | None  # of the text among the dead letters


class Known(NamedTuple):
    """What there is of some ids at one moment, and the collection at that moment."""

    born: bytes  # its life; empty if there is none
    seq: int  # the highest number given to a job
    commits: int  # the highest number given to a vector
    states: list[State]  # in the order of the ids, as the next
    evicted: list[bytes]  # five bytes of the digest of the text whose vector left; empty if none
    seqs: list[int]  # the number of the latest job that is queued or stored; 0 if none


class Dropped(NamedTuple):
    """What the drop of a collection deleted."""

    vectors: int = 0
    queued: int = 0
    dead: int = 0


class Shrunk(NamedTuple):
    """What a shrink did."""

    vectors: int = 0  # looked at
    shrunk: int = 0  # of these, made smaller


class Kept(NamedTuple):
    """What a layout keeps of what is near, and the memory that it takes."""

    dimensions: int
    dtype: str
    kept: float  # share of the exact ten nearest that are among the ten nearest
    bytes: float  # of Redis' memory, a vector with all that is kept beside it


class Comparison(NamedTuple):
    """Vectors compared in smaller layouts."""

    vectors: int  # in the collection
    compared: int  # of these
    queries: int  # of these, vectors whose nearest were looked for
    layouts: list[Kept]  # the first one is the collection's own


@dataclass(frozen=True)
class DeadLetter:
    """A text that could not be embedded, and why. `at` is Unix time in seconds."""

    id: str
    text: str
    meta: Mapping[str, object] | None
    code: str
    reason: str
    attempts: int
    at: float


# How it stands


class Indexed(NamedTuple):
    """The index that a collection has."""

    kind: str
    number: int | None  # of the last vector in a vector set; None: it follows by itself
    layout: str  # of the vectors in it

    @classmethod
    def read(cls, said: str) -> Indexed:
        """From the field `index` of info."""
        kind, number, layout = said.split(" ", 2)
        return cls(kind, int(number) if number else None, layout)

    def behind(self, commits: int) -> int:
        """How many of the `commits` it does not have yet."""
        return 0 if self.number is None else max(0, commits - self.number)

    def __str__(self) -> str:
        """As it is kept in the info of a collection."""
        return f"{self.kind} {'' if self.number is None else self.number} {self.layout}"


class Info(NamedTuple):
    """What a collection is, and what was set for it."""

    model: str | None  # None before the first add: there is no collection
    dimensions: int | None  # as the API answers; None before the first vector is stored
    keep_text: bool  # whether texts are stored beside their vectors
    halts: Mapping[str, str]  # by throttle: why its workers do not work on this collection
    throttle: str | None  # that workers of an earlier version have for it
    layout: Layout  # of the stored vectors

    @property
    def length(self) -> int | None:
        """How long stored vectors are; None before the first one."""
        return self.dimensions and self.layout.length(self.dimensions)


@dataclass(frozen=True)
class Ledger:
    """The counts of a collection at one moment, read in one step.

    The first six are the promise: enqueued = embedded + evicted + dead + pending + leased. The
    `ever` ones only grow.
    """

    enqueued: int
    embedded: int
    evicted: int
    dead: int
    pending: int
    leased: int
    unchanged: int
    embedded_ever: int  # also those that were replaced or evicted since
    cached_ever: int
    dead_ever: Mapping[str, int]  # by code
    removed_ever: int  # ids
    remembered: int  # evicted ids that Redis knows by their digests
    oldest_age: float  # seconds since the oldest text of the backlog was enqueued; 0 if none
    model: str | None
    dimensions: int | None
    throttle: str | None  # that workers of an earlier version have for it
    halts: Mapping[str, str] = field(default_factory=dict)  # by throttle, as in Info
    layout: Layout = PLAIN
    commits: int = 0  # the number of the latest one
    index: Indexed | None = None
    born: str = ""  # a token of its life, and when it began: `<seconds>.<microseconds>`, Unix time

    @property
    def backlog(self) -> int:
        """Texts still to be done: pending and leased."""
        return self.pending + self.leased


class Rate(NamedTuple):
    """A number of requests, or of texts, a second."""

    per_second: float
    of: str  # requests or texts


@dataclass(frozen=True)
class ThrottleStatus:
    """What a throttle knows at one moment. Rates are in requests/s, times in Unix seconds.

    state: of the key; and where a model was named, of that model under it.
    in_flight: requests to the endpoint, under whatever key.

    rate: how fast the fleet sends now; None: as fast as the API answers.
    learned_limit: what the API was found to let through; None: nothing was found yet.
    configured: what `VECTOR_EMBED_RATE` of the worker that sent last allows at most.
    in_flight_ceiling: most requests at once; below the configured number after timeouts.
    quota_limit: texts a day, where the API named it. quota_used: texts answered as new today, as
    far as this fleet knows; what failed may be charged as well. quota_resets_at: when a quota that
    is used up is expected to return.
    """

    state: str  # running, paused or halted
    reason: str | None
    paused_until: float | None  # None also while paused by hand: until a person resumes
    rate: float | None
    learned_limit: float | None
    in_flight: int
    in_flight_ceiling: int | None  # None: no worker has asked yet
    quota_limit: int | None
    quota_used: int
    quota_resets_at: float | None
    configured: Rate | None = None
    name: str = ""
    pause_seconds: float | None = None  # until a pause ends

    @property
    def is_held(self) -> bool:
        """Whether a person paused it, as was done in an earlier version."""
        return self.state == "paused" and self.paused_until is None


STALL_SECONDS = 10.0  # without a finished text


@dataclass(frozen=True)
class Status:
    """A collection's ledger at one moment, and what the work on it is doing."""

    collection: str
    model: str | None
    dimensions: int | None  # of the stored vectors
    enqueued: int
    embedded: int
    evicted: int
    cached: int
    dead: int
    pending: int
    leased: int
    unchanged: int
    state: str  # idle, waiting (for a worker: none is alive), running, paused or halted
    reason: str | None
    paused_until: float | None  # Unix time in seconds
    workers: int  # worker processes alive in the fleet, and consuming our queue
    rate: float | None = None  # recent texts/s; None where no worker tells
    throttle: ThrottleStatus | None = None  # of the key that can serve it best
    held: bool = False  # paused by hand
    seconds_since_done: float | None = None  # of a text; None where no worker tells
    able: int | None = None  # workers that are neither halted nor unfit for this collection
    removed: int = 0  # ids that were ever deleted; they are no part of `enqueued`
    answered_dimensions: int | None = None  # of the vectors as the API answers
    dtype: str = "float32"  # of the stored vectors
    index: str | None = None  # the kind of the index: hnsw, flat or set
    index_behind: int = 0  # commits that a vector set does not have yet
    keys: Sequence[ThrottleStatus] = ()  # the throttles of all keys of these workers
    key_fault: str | None = None  # why one of them cannot read its key file: the former keys count

    @property
    def seconds_left(self) -> float | None:
        """How long the backlog takes at the recent rate; None where that is not known, and while
        the collection is not running.
        """
        return self.backlog / self.rate if self.rate and self.state == "running" else None

    @property
    def is_stalled(self) -> bool:
        """Whether there is a backlog and no text was done for STALL_SECONDS, as far as is known."""
        return self.backlog > 0 and (
            not self.rate or (self.seconds_since_done or 0) >= STALL_SECONDS
        )

    @property
    def backlog(self) -> int:
        """Texts still to be done: pending and leased."""
        return self.pending + self.leased


PIECE_FIELDS = ("parent", "start", "end")  # of the meta of a piece
_PIECE = re.compile(r"#((?!0000)[0-9]{4}|[1-9][0-9]{4,})\Z")  # what `piece_id` makes


def piece_id(document: str, number: int) -> str:
    """The id of a piece of a document; the first one has the number 1."""
    return f"{document}#{number:04}"


def document_of(id: str) -> tuple[str, int]:
    """The document's id and the piece's number; of an id that no piece can have, itself and 0."""
    found = _PIECE.search(id)
    return (id, 0) if found is None else (id[: found.start()], int(found[1]))


def parent_of(id: str, meta: Mapping[str, object] | None) -> str | None:
    """The document that a text is a piece of, which its meta says; None if it is no piece."""
    document, number = document_of(id)
    parent, start, end = map((meta or {}).get, PIECE_FIELDS)
    is_piece = number and parent == document and isinstance(start, int) and isinstance(end, int)
    return document if is_piece else None


def default_id(text: str) -> str:
    """The id of a text that came without one: the sha256 of its UTF-8 bytes, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def text_digest(text: str) -> bytes:
    """The first 16 bytes of the text's sha256: what is stored to say which text a vector is of."""
    return hashlib.sha256(text.encode()).digest()[:16]
