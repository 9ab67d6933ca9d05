"""The keys: every name that we use in Redis. No other module builds one.

`<prefix>` is VECTOR_EMBED_PREFIX (default: vec). Keys with the same {hash tag} are on the same node
of a Redis Cluster, so that one Lua step can change them together.

Keys of the whole fleet: `<prefix>:` and

    collections            set     the names of all collections
    busy                   set     `<collection> <epoch>` of each one with a backlog
    held                   hash    collection, or `*` for all -> why a person paused it
    workers                zset    <worker>/<slots> -> seconds when it was last seen
    worker:<worker>        string  JSON: what the worker says of itself; expires
    urgent                 zset    collection -> us when an interactive text was last enqueued in it
    pump                   string  the worker that sends wake-ups for all collections; expires
    throttles              hash    throttle -> JSON: its endpoint, and when it was last announced
    nothing                none    never exists; deleted to learn whether Redis can be written

Keys of a throttle: `<prefix>:throttle:` and

    {<endpoint>}                        hash  the endpoint, under all API keys
    {<endpoint>}:<fingerprint>          hash  the endpoint under one API key
    {<endpoint>}:<fingerprint>:<model>  hash  one model under that API key
    {<endpoint>}:flights                zset  permit -> ms when its sender counts as dead
    {<throttle>}:requests               hash  statistics: `outcome:<code>`, `within:<class>`, `us`

A throttle is named `<endpoint>-<fingerprint>`. The fields of its first three hashes are listed in
worker/throttle/state.lua.

Keys of a collection: `<prefix>:{<collection>}:` and

    info              hash    the fields below
    jobs              stream  <ms>-<seq>: id, text, [meta]. The backlog; its group `workers` has a
                              consumer for each slice, and one named `released`
    queued            hash    id -> 8 bytes of its text's digest .. seq of its latest job
    done              stream  <number>-0: id. The stored vectors in the order of their commits
    tombstones        stream  <number>-0: id. Deleted ids, until all folders have their tombstones
    doc:<id>          hash    vector (float32, float16, int8), hash, [text], [meta]: see commit.lua
    dead              hash    id -> 16 bytes of its text's digest .. JSON: the dead letter
    ahead             zset    <entry> of jobs that may overtake others -> its seq, of a normal one
                              2^52 + its seq. Only an index: others are in the stream's order
    attempts          hash    <entry> -> failures alone; `lost:<entry>` -> owners that died
    alive:<consumer>  string  the heartbeat of a slice; expires
    wakeups           zset    token -> ms when the wake-up was sent
    packed            stream  a copy of done inside idle.lua; never seen outside
    epoch             string  under which the collection is announced, see idle.lua; expires
    receipt:<run>     string  a producer's last chunk and the reply to it; expires
    bookmark          hash    how far a run is in its files, until it ends, see resume.lua
    index             vectorset  what `vec index --kind set` made. Without the kind, it is the name
                              of the query engine's index over doc:<id>, and no key
    exporter          string  the token of the export that evicts; expires
    evicted:<bucket>  hash    6 bytes of an id's digest -> 5 bytes of its text's digest, and `p` if
                              it was a piece of a document

Fields of info:

    model              of all vectors
    dimensions         of all vectors as the API answered, once there is one
    layout             `<dtype>` or `<dtype> <dimensions>` of all vectors as they are stored;
                       without it: float32, as the API answered
    born               a token of this life of the collection; a drop or a loss begins another
    seq                the highest number given to a job: see `queued`
    ms                 time of the latest entry of jobs
    bulk               the number of the last bulk job, until the workers have read up to it
    turns              claims while there was something in `ahead`: see priorities.lua
    enqueued           texts: the sum of the ledger
    unchanged          texts that were enqueued again, at no cost
    removed            ids that were ever deleted
    commits            vectors ever stored and tombstones, and so the number of the latest one
    cached             vectors ever stored that the API had in its cache
    evicted            vectors that were deleted because they are safe in files
    dead:<code>        texts that ever became dead letters, by error code
    wakeups            wake-ups ever sent, and so the token of the latest one
    buckets            number of evicted:<bucket> keys
    remembered         number of ids in them
    exported:<folder>  number up to which the folder with this token holds the vectors
    tombstones:<folder>  number up to which it holds the tombstones
    tombstones         tombstones that ever got a number
    trimmed            number up to which tombstones were too many, and are not here
    keep_text          1: texts are stored beside their vectors
    halted             JSON: throttle -> why its workers do not work on this collection
    index              the index: its kind, the number up to which vectors are in it (empty if it
                       follows them by itself), and the layout of these vectors
    sources            JSON list: the corpora that fed the collection, the latest one last
    throttle           name of its throttle, written by workers of an earlier version

Celery adds its queue of wake-ups, `<prefix>.wakeups`, and kombu's `_kombu.binding.*` to the broker.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import CollectionError

NAME = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")  # of a collection


class CommonKeys:
    """The keys that are of no single collection or throttle."""

    def __init__(self, prefix: str) -> None:
        self.collections = f"{prefix}:collections"
        self.busy = f"{prefix}:busy"
        self.held = f"{prefix}:held"
        self.workers = f"{prefix}:workers"
        self.urgent = f"{prefix}:urgent"
        self.pump = f"{prefix}:pump"
        self.throttles = f"{prefix}:throttles"
        self.nothing = f"{prefix}:nothing"
        self._worker = f"{prefix}:worker:"

    def worker(self, name: str) -> str:
        """What a worker says of itself."""
        return self._worker + name


class CollectionKeys:
    """The keys of one collection. A Lua step completes those that end in `_prefix`.

    Raises CollectionError for a name that is not 1 to 100 letters, digits, `.`, `_` or `-`.
    """

    def __init__(self, prefix: str, name: str) -> None:
        if not NAME.match(name):
            raise CollectionError(
                f"collection name {name[:120]!r} must be 1 to 100 letters, digits, '.', '_' or '-'"
            )
        self.prefix = prefix
        self.name = name
        start = f"{prefix}:{{{name}}}:"
        self.info = start + "info"
        self.jobs = start + "jobs"
        self.queued = start + "queued"
        self.done = start + "done"
        self.tombstones = start + "tombstones"
        self.dead = start + "dead"
        self.ahead = start + "ahead"
        self.attempts = start + "attempts"
        self.wakeups = start + "wakeups"
        self.packed = start + "packed"
        self.epoch = start + "epoch"
        self.bookmark = start + "bookmark"
        self.evicting = start + "exporter"
        self.index = start + "index"
        self.doc_prefix = start + "doc:"
        self.alive_prefix = start + "alive:"
        self.evicted_prefix = start + "evicted:"
        self._receipt = start + "receipt:"

    def doc(self, id: str) -> str:
        """The vector of an id."""
        return self.doc_prefix + id

    def alive(self, consumer: str) -> str:
        """The heartbeat of a slice."""
        return self.alive_prefix + consumer

    def receipt(self, run: str) -> str:
        """What a producer's run has added."""
        return self._receipt + run


class ThrottleKeys(NamedTuple):
    """The keys of a throttle, in the order in which its Lua steps take them."""

    key: str
    model: str
    endpoint: str
    flights: str


def throttle_keys(prefix: str, throttle: str, model: str = "") -> ThrottleKeys:
    """The keys of a throttle, for requests to `model`."""
    # In an earlier version a name had one part, and one hash for all.
    endpoint, _, fingerprint = throttle.partition("-")
    start = f"{prefix}:throttle:{{{endpoint}}}"
    key = f"{start}:{fingerprint}" if fingerprint else start
    return ThrottleKeys(key, f"{key}:{model}", start, f"{start}:flights")


def requests_key(prefix: str, throttle: str) -> str:
    """The statistics of the requests through a throttle."""
    return f"{prefix}:throttle:{{{throttle}}}:requests"
