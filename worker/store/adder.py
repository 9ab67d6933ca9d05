"""The adder: a producer's jobs on their way into the backlog, in chunks that are counted once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..layout import Layout
from ..logs import logger
from ..types import Added, Job, text_digest
from .bookmark import Bookmark
from .codec import dump_meta, id_digest
from .connection import Argument, Redis, Step, load, node_of
from .errors import LayoutsDiffer, ModelsDiffer
from .high_water import Load, priority_code
from .keys import CollectionKeys
from .registry import announce
from .server_memory import memory_of
from .urgent import announce_urgent

RECEIPT_SECONDS = 3600  # a run that adds nothing for so long needs a new receipt
_RECEIPT = 5  # its position among the keys of add.lua


class Adder:
    """One producer's run of adds into a collection: chunk after chunk, each counted once.

    `lost`: Redis has lost what the run added: it went back in time, or the collection was dropped.
    `noted` hears the ids of each chunk, and the digests of their texts.
    """

    def __init__(
        self,
        client: Redis,
        keys: CollectionKeys,
        model: str,
        bookmark: Bookmark | None = None,
        layout: Layout | None = None,
        priority: str = "normal",
    ) -> None:
        self.client = client
        self.keys = keys
        self.bookmark = bookmark
        self.priority = priority
        self.lost = False
        self.chunks = 0
        self.noted: Callable[[Iterable[str], Sequence[bytes]], object] | None = None
        self.receipt = ""  # its key; empty before the first chunk
        self.epoch = ""  # under which the collection is announced: see idle.lua
        self._model = model
        self.layout = layout  # that a new collection gets; None: any will do
        self._since = b"0"
        self.seq = 0  # the highest number of a job that was seen
        self.born = b""  # the life of the collection; empty before its first
        self._any_evicted = False

    def resume(self, files: Iterable[str]) -> None:
        """Begin with the bookmark, where an earlier run of these files ended."""
        assert self.bookmark is not None
        born, seq = self.bookmark.resume(files)
        if self.bookmark.files:  # what is skipped must not get lost either
            self.born, self.seq = born, seq

    def chunk(self, jobs: Sequence[Job]) -> Chunk:
        """A chunk of at most CHUNK_SIZE jobs, of which the last of an id wins.

        It may be sent once the chunk before has its reply.
        """
        keys = self.keys
        if not self.receipt:
            # A server that does not know the script would say so only when the reply is read, which
            # is after the next chunk has been read; and a corpus may come slowly.
            load(node_of(self.client, keys.jobs), "store/add")
            announce(self.client, keys, self.epoch)
            seq, buckets, born = self._begin(0)
            self._note(min(int(seq), self.seq), born)
            self._since, self._any_evicted = seq, buckets is not None
        self.chunks += 1
        latest = {job.id: job for job in jobs}
        kept = latest.values()
        digests = [text_digest(job.text) for job in kept]
        if self.noted is not None:
            self.noted(latest, digests)
        if self._any_evicted:
            digests = [digest + id_digest(id) for digest, id in zip(digests, latest)]
        args: list[Argument] = [self.epoch, keys.doc_prefix, self.chunks, self._since]
        mark = "" if self.bookmark is None else self.bookmark.mark(jobs)
        layout = "" if self.layout is None else str(self.layout) or "float32"
        args += (self._model, keys.evicted_prefix, len(latest), b"".join(digests), mark, layout)
        args += ("", "", "", "", "")  # it is not of calls: see calls.py
        args.append(priority_code(self.priority))
        args += (*latest, *[job.text for job in kept])
        if any(job.meta for job in kept):
            args += [dump_meta(job.meta) for job in kept]
        return Chunk(self, self.client, args, len(latest), len(jobs) - len(latest))

    def add(self, jobs: Sequence[Job]) -> Added:
        """Add one chunk; returns what its jobs were."""
        chunk = self.chunk(jobs)
        chunk.send()
        return chunk.reply()[0]

    def announce(self, epoch: str) -> None:
        """Announce the collection again, under another epoch."""
        announce(self.client, self.keys, epoch)
        self.epoch = epoch

    def read(self, reply: Sequence[Any]) -> Added:
        """What the jobs of a chunk were, from the reply to it."""
        if reply[0] == b"model":
            raise ModelsDiffer(self.keys.name, reply[1].decode(), self._model)
        if reply[0] == b"layout":
            assert self.layout is not None
            its = Layout.read(self._model, reply[1].decode())
            raise LayoutsDiffer(self.keys.name, its.name, self.layout.name)
        new, unchanged, duplicates, dead, evicted, buckets, replacing, seq, born = reply
        self._any_evicted = buckets > 0
        self._note(seq, born)
        return Added(new, unchanged, duplicates, dead, evicted, replacing)

    def begin_again(self, chunk: int) -> None:
        """Continue after `chunk`, whose receipt is not in Redis: it expired, or was lost."""
        seq, _, born = self._begin(chunk)
        if chunk:
            self._note(int(seq), born)

    def intact(self) -> bool:
        """Look whether Redis still has all that was added, as far as can be told."""
        if self.chunks or self.born:
            seq, born = self.client.hmget(self.keys.info, ["seq", "born"])
            self._note(int(seq or 0), born or b"")
        return not self.lost

    def _begin(self, chunk: int) -> tuple[bytes, bytes | None, bytes]:
        """Write a receipt for all up to `chunk`; returns seq, buckets and life of the collection.

        Its key is new each time: a chunk that was sent under an older one and arrives late finds no
        receipt to continue from.
        """
        keys = self.keys
        receipt = keys.receipt(uuid.uuid4().hex[:12])
        pipeline = self.client.pipeline(transaction=False)
        pipeline.set(receipt, str(chunk), ex=RECEIPT_SECONDS, nx=True)
        pipeline.hmget(keys.info, ["seq", "buckets", "born"])
        _, (seq, buckets, born) = pipeline.execute()
        self.receipt = receipt
        return seq or b"0", buckets, born or b""

    def _note(self, seq: int, born: bytes) -> None:
        """Note how far the collection is, and whether Redis has lost what the run added."""
        if not self.lost and (seq < self.seq or self.born not in (b"", born)):
            self.lost = True
            logger.warning(
                "%s was dropped, or Redis went back in time: it has lost texts of this run: "
                "enqueue them again",
                self.keys.name,
            )
        self.seq, self.born = max(seq, self.seq), self.born or born


class Chunk(Step):
    """At most CHUNK_SIZE jobs on their way into the backlog.

    If it is sent again, its jobs are counted once: Redis remembers the number of the last chunk.
    """

    def __init__(
        self, adder: Adder, client: Redis, args: Sequence[Argument], jobs: int, replaced: int
    ) -> None:
        key = adder.keys
        self._keys = [key.jobs, key.queued, key.info, key.dead, key.done, adder.receipt, key.epoch]
        self._keys += [key.bookmark, key.ahead]
        along = (("XLEN", key.jobs), ("INFO", "memory"))
        super().__init__(client, "store/add", self._keys, args, along)
        self._number = adder.chunks
        self._adder = adder
        self._jobs = jobs
        self._replaced = replaced  # jobs left out, because a later one has their id

    def reply(self) -> tuple[Added, Load]:
        """What the jobs were, and the load with them for what overtakes nothing.

        Raises ModelsDiffer when the collection's vectors are of another model.
        """
        adder = self._adder
        reply, backlog, info = self.replies()
        while reply[0] in (b"epoch", b"receipt"):
            if reply[0] == b"epoch":
                adder.announce(reply[1].decode())
                self.args = [adder.epoch, *self.args[1:]]
            else:
                if self._keys[_RECEIPT] == adder.receipt:
                    adder.begin_again(self._number - 1)
                self._keys[_RECEIPT] = adder.receipt
            reply, backlog, info = self.replies()
        added = adder.read(reply)
        if adder.priority == "interactive":
            announce_urgent(adder.client, adder.keys)
        if backlog <= self._jobs:  # a Redis emptied meanwhile may have lost the announcement
            adder.announce(adder.epoch)
        added = added._replace(duplicates=added.duplicates + self._replaced)
        return added, Load(backlog, memory_of(info).share)
