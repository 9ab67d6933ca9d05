"""Calls: the texts of several small enqueues, on their way into a backlog in one step.

A call has a few jobs. Calls of the same *kind* (collection, model, ...) become a *group*, which is
one chunk of a *run*, as those of an `Adder` are: Redis remembers the run's last chunk and its
reply, so a group that is sent again is counted once. The reply has a letter for each job; so each
call learns what became of its own jobs.

The run lives as long as the process. It is announced before its receipt is made, and never again
while the receipt is there: in any state of Redis that has the receipt, the announcement was made
before, and the epoch tells whether it still holds.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ..layout import Layout
from ..settings import Settings
from ..types import Added, Job, text_digest
from .adder import RECEIPT_SECONDS
from .backlog import BATCH_SIZE, LEASE_SECONDS, WAKEUP_EXPIRY
from .codec import dump_meta, id_digest
from .connection import (
    OVERTAKING_MEMORY,
    PRODUCER_MEMORY,
    Argument,
    Pipeline,
    Redis,
    RedisUnfit,
    evicts,
    is_cluster,
)
from .errors import LayoutsDiffer, ModelsDiffer
from .high_water import filled, priority_code, queued
from .keys import CollectionKeys, CommonKeys
from .registry import announce

_RECEIPT = 5  # its position among the keys of add.lua
_SHARES = f"{PRODUCER_MEMORY} {OVERTAKING_MEMORY}"
_NEVER = 2**53  # no job is numbered so: none came "in the same run"


@dataclass(frozen=True, eq=False)
class Kind:
    """What calls must have in common to go into Redis in one step. Two kinds are never equal."""

    settings: Settings
    collection: str
    model: str
    layout: Layout | None  # that a new collection gets; None: any will do
    keep_text: bool | None
    priority: str = "normal"


class Jobs:
    """The jobs of a call; of an id that comes twice, the last one."""

    __slots__ = ("by_id", "digests", "size", "replaced")

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.by_id = {job.id: job for job in jobs}
        self.replaced = len(jobs) - len(self.by_id)
        self.size = sum(len(job.text) for job in jobs)
        self.digests = b"".join(
            [text_digest(job.text) + id_digest(job.id) for job in self.by_id.values()]
        )


class Reply(NamedTuple):
    """What became of a group: a letter for each job, in their order."""

    letters: bytes
    begun: bool  # whether the collection began with it
    wakeups: list[str]  # tokens to send


class Full(NamedTuple):
    """Nothing was added: too much is queued, or Redis is too full."""

    reason: str


class Refused(NamedTuple):
    """Nothing was added, and never will be. `error` makes the error, anew for each call."""

    error: Callable[[], Exception]


class OutOfStep(NamedTuple):
    """Nothing was added: the run must begin again."""


class Run:
    """The chunks of one kind that one process adds, one after the other.

    `threads`: the most that are worth having; `lost`: seconds after which a worker is lost.
    """

    def __init__(self, kind: Kind, threads: int, lost: float) -> None:
        self.keys = CollectionKeys(kind.settings.prefix, kind.collection)
        self.begun = False
        self._kind = kind
        self._chunks = 0  # that Redis has counted
        self._epoch = ""
        self._names: list[str] = []
        self._numbers = (
            f"{lost} {threads} {BATCH_SIZE} {WAKEUP_EXPIRY * 1000:.0f} {LEASE_SECONDS * 1000}"
        )

    def begin(self, client: Redis) -> None:
        """Announce the collection, and make the receipt of what follows."""
        keys, before = self.keys, self._names[_RECEIPT : _RECEIPT + 1]
        receipt = keys.receipt(uuid.uuid4().hex[:12])  # a new key each time: see Adder

        def along(pipeline: Pipeline) -> None:
            if before:  # a copy of a group that was given up may arrive yet: it must find nothing
                pipeline.delete(*before)
            pipeline.set(receipt, "0", ex=RECEIPT_SECONDS, nx=True)

        announce(client, keys, self._epoch, along)
        self._names = [keys.jobs, keys.queued, keys.info, keys.dead, keys.done, receipt]
        self._names += [keys.epoch, keys.bookmark, keys.ahead, keys.wakeups]
        if not is_cluster(client):
            common = CommonKeys(keys.prefix)
            self._names += [common.workers, common.urgent]
        self._chunks = 0
        self.begun = True

    def void(self, client: Redis) -> None:
        """Let no copy of a group that is still on its way find the receipt."""
        client.delete(self._names[_RECEIPT])
        self.begun = False

    def announce(self, client: Redis) -> None:
        """Announce a collection that has begun once more.

        A drop of an earlier one of its name may have taken the announcement away meanwhile.
        """
        announce(client, self.keys, self._epoch)

    def step(
        self, calls: Sequence[Jobs], *, looks: bool, wakes: bool
    ) -> tuple[Sequence[str], Sequence[Argument]]:
        """The keys and arguments of `add.lua` for a group without an id that comes twice.

        `looks`: also at the memory of Redis. `wakes`: it gives the wake-ups that are worth sending.
        """
        kind, keys = self._kind, self.keys
        jobs = [job for call in calls for job in call.by_id.values()]
        digests = b"".join([call.digests for call in calls])
        layout = "" if kind.layout is None else str(kind.layout) or "float32"
        args: list[Argument] = [self._epoch, keys.doc_prefix, self._chunks + 1, _NEVER, kind.model]
        args += (keys.evicted_prefix, len(jobs), digests, "", layout)
        args += (kind.settings.high_water, _SHARES if looks else "")
        args += (self._numbers if wakes else "", keys.alive_prefix)
        args.append("" if kind.keep_text is None else str(int(kind.keep_text)))
        args.append(priority_code(kind.priority))
        args += [job.id for job in jobs]
        args += [job.text for job in jobs]
        if any(job.meta for job in jobs):
            args += [dump_meta(job.meta) for job in jobs]
        return self._names, args

    def read(self, reply: Sequence[Any]) -> Reply | Full | Refused | OutOfStep:
        """What a reply of `add.lua` says; Reply alone has added anything."""
        kind, what = self._kind, reply[0]
        if what == b"epoch" or what == b"receipt":
            self.begun = False
            self._epoch = reply[1].decode() if what == b"epoch" else self._epoch
            return OutOfStep()
        if what == b"model":
            return Refused(partial(ModelsDiffer, kind.collection, reply[1].decode(), kind.model))
        if what == b"layout":
            assert kind.layout is not None
            its = Layout.read(kind.model, reply[1].decode()).name
            return Refused(partial(LayoutsDiffer, kind.collection, its, kind.layout.name))
        if what == b"unfit":
            return Refused(partial(RedisUnfit, evicts(reply[1].decode())))
        if what == b"full":
            backlog, used, limit = map(int, reply[1:4])
            return Full(filled(used / limit) if used else queued(backlog))
        self._chunks += 1
        _, begun, *tokens = reply
        return Reply(what, bool(begun), [token.decode() for token in tokens])


def added(letters: bytes, replaced: int) -> Added:
    """What the jobs of a call were, from their letters; `replaced` had the id of a later one."""
    evicted = letters.count(b"E")
    unchanged = letters.count(b"U") + evicted
    return Added(letters.count(b"N"), unchanged, replaced, letters.count(b"D"), evicted)


def shared(letters: bytes, calls: Iterable[Jobs]) -> list[Added]:
    """What the jobs of each call of a group were."""
    outcomes, at = [], 0
    for call in calls:
        size = len(call.by_id)
        outcomes.append(added(letters[at : at + size], call.replaced))
        at += size
    return outcomes
