"""Follow and evict: finished vectors go to a sink and, if asked, out of Redis.

So Redis holds only a part of a corpus. A part is durable in the sink before anything of it is
evicted, and exactly what is in it is evicted: a vector that was replaced meanwhile stays and comes
in a later part. An export that is killed between the two finds at its next start what is both in
the sink and in Redis, and only evicts it. So it continues from what the sink says alone.

A Redis that lost its last moments, or everything, counts commits from there again: see `recovery`.

Ids that were deleted get tombstones. Redis keeps a tombstone until every sink that ever followed
has it, but only so many. A sink that has missed some is compared with the collection: what it holds
and the collection does not know was deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import redis

from ..layout import PLAIN
from ..logs import logger
from ..monitor.service import read_status
from ..settings import Settings
from ..store.connection import Redis, connect
from ..store.errors import CollectionGone, ExportedByAnother, LayoutChanged
from ..store.eviction import Eviction
from ..store.faults import insist
from ..store.keys import CollectionKeys
from ..store.reader import PAGE_SIZE, Reader
from ..store.removal import Removal
from ..store.server_memory import Memory, read_memory
from ..types import Position, Stored
from .recovery import Recovery, chunks, position_of
from .sink import Part, Sink, SinkAway

T = TypeVar("T")

POLL_SECONDS = 0.2
TOMBSTONE_SECONDS = 60.0  # between two looks for tombstones while no vectors come
AWAY_SECONDS = 1.0  # between two tries, where Redis or the sink is away
RENEW_SECONDS = 3.0
# What a vector takes in Redis beside what is written of it. Measured: 4,026 bytes for 3,072
# and an id of 64.
OVERHEAD = 1000
# A part never holds more than this share of maxmemory, so that the room between the producer's
# mark and the claims' is enough for it; above the second, what is there is published at once.
PART_MEMORY = 0.10
URGENT_MEMORY = 0.80


@dataclass(frozen=True)
class Options:
    """How a sink is filled. Without `follow`: with what was there at the beginning."""

    evict: bool = False  # what is safe in the sink
    follow: bool = False  # until the caller stops it
    until_done: bool = False  # and until nothing is queued any more


class Published(NamedTuple):
    """A durable part: the number of its vectors, and how many of them were evicted."""

    part: Part
    vectors: int
    evicted: int


class SinkExport:
    """One export of a collection into `sink`. Call `run()` once.

    `stop` says whether to end before the time, and `more` whether texts may still be enqueued.
    `tell` is called with the number of vectors read.
    """

    def __init__(
        self,
        sink: Sink,
        settings: Settings,
        options: Options,
        *,
        stop: Callable[[], bool] = lambda: False,
        more: Callable[[], bool] = lambda: False,
        tell: Callable[[int], object],
    ) -> None:
        self.halted = False  # it ended because the collection is halted
        self.recovered = 0  # vectors evicted of parts that earlier runs published
        self.tombstones = 0  # written
        self._sink = sink
        self._name = sink.collection
        self._redis: Redis = connect(settings)
        keys = CollectionKeys(settings.prefix, self._name)
        self._reader = Reader(self._redis, keys)
        self._eviction = Eviction(self._redis, keys)
        self._removal = Removal(self._redis, keys)
        self._look = partial(read_status, self._redis, keys, settings.queue)
        self._options = options
        self._stop = stop
        self._more = more
        self._tell = tell
        self._token = ""
        self._born = b""  # the life of the collection that is read; empty before its first
        self._layout = PLAIN  # of the collection
        self._after = 0  # the number of the last vector read
        self._last = 0  # and of the last that the sink holds
        self._buried = 0  # and of the last tombstone that it heeds
        self._looked = 0.0  # when tombstones were looked for
        self._page: Iterator[Stored] = iter(())
        self._until: int | None = None  # the last number to be read
        self._over = False
        self._doubtful = False  # Redis or the sink may have lost something
        self._fresh = True  # something was written since all was there
        self._renewed = 0.0
        self._read = 0

    def run(self) -> Iterator[Published]:
        """Publish part after part.

        Raises ExportError if one cannot be written, ExportedByAnother, and `redis.RedisError`; then
        everything stays in Redis. Without `follow`, raises CollectionGone at the end if the
        collection was dropped or lost meanwhile.
        """
        with self._sink.locked() as self._token:
            if self._options.evict:
                self._eviction.evict(self._token)
            try:
                self._recover()
                born = self._born
                if not self._options.follow:
                    self._until = self._reader.known([]).commits
                while not self._over:
                    yield from self._next_part()
                if not self._options.follow and born and self._reader.born() != born:
                    raise CollectionGone(self._name)
            finally:
                if self._options.evict:
                    self._let_go()

    def _next_part(self) -> Iterator[Published]:
        """Write the next part, and what was deleted since; wait for a sink that is away."""
        written: list[Position] = []
        try:
            if self._doubtful:
                self._insist(self._recover)
            part = self._sink.write(self._piece(written))
            if part is not None:
                self._last = part.last
                self._insist(partial(self._note, part.last))
                yield Published(part, len(written), self._evict_all(written))
            self._bury()
            if self._doubtful and not self._stop():
                self._over = False
            elif self._is_whole(part):
                self._sink.finish()
        except SinkAway as error:
            if self._stop() or not self._options.follow:
                raise
            self._doubtful, self._over = True, False
            logger.warning("%s: trying again", error)
            time.sleep(AWAY_SECONDS)

    def _is_whole(self, part: Part | None) -> bool:
        """Whether the sink has all that there is: at the end, or when nothing is queued."""
        if self._over:
            return not self._stop()
        self._fresh = self._fresh or part is not None
        if part is not None or not self._fresh or self._more() or self._insist(self._look).backlog:
            return False
        self._fresh = False
        return True

    def _recover(self) -> None:
        """Continue where the sink ends."""
        parts = self._reader, self._eviction, self._removal
        recovery = Recovery(self._sink, self._token, *parts, evict=self._options.evict)
        place = recovery.run()
        self._born, self._layout = place.born, place.layout
        self._last = self._after = place.vectors
        self._buried = place.tombstones
        self.recovered += place.evicted
        self.tombstones += place.compared
        self._page = iter(())
        self._doubtful = False

    # Reading

    def _piece(self, written: list[Position]) -> Iterator[Stored]:
        """The vectors of one part, noted in `written` as they come."""
        evict, rotation = self._options.evict, self._sink.rotation
        room = PART_MEMORY * self._memory().limit if evict else 0.0
        raw, began = 0, time.monotonic()
        while not self._doubtful:
            for record in self._page:
                position = position_of(record)
                if self._until is not None and position.number > self._until:
                    self._over = True
                    return
                if not written:
                    began = time.monotonic()
                written.append(position)
                yield record
                raw += len(record.data) + len(record.id) + len(record.text or "")
                raw += len(str(record.meta)) if record.meta else 0
                full = len(written) >= rotation.vectors
                full |= max(raw, self._sink.size) >= rotation.bytes
                if full or room and raw + OVERHEAD * len(written) >= room:
                    return
            if self._stop():
                self._over = True
                return
            if self._next_page():
                continue
            if self._doubtful:
                return
            if self._is_over():
                self._over = True
                return
            is_old = time.monotonic() - began >= rotation.seconds
            if written and (is_old or evict and self._memory().share >= URGENT_MEMORY):
                return
            if not written and time.monotonic() - self._looked >= self._patience:
                return  # for tombstones
            time.sleep(POLL_SECONDS)

    @property
    def _patience(self) -> float:
        return min(TOMBSTONE_SECONDS, self._sink.rotation.seconds)

    def _next_page(self) -> bool:
        born, commits, layout, records = self._insist(
            lambda: self._reader.page(self._after, PAGE_SIZE)
        )
        if born != self._born or commits < self._after:
            # The collection began again, or counts the same commits again.
            self._doubtful = True
            return False
        if layout != self._layout:
            raise LayoutChanged(self._name)
        self._page = iter(records)
        if records:
            self._after = records[-1].number or self._after
            self._read += len(records)
        self._tell(self._read)
        if self._options.evict and time.monotonic() - self._renewed > RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._insist(lambda: self._eviction.evict(self._token))
        return bool(records)

    def _is_over(self) -> bool:
        """Whether no more vectors will come; asked when there is no next page."""
        if not self._options.follow:
            return True
        if not self._options.until_done or self._more():
            return False
        status = self._insist(self._look)
        self.halted = status.state == "halted" and status.backlog > 0
        # What was committed after the last page and before this look is still to be read.
        return self.halted or not (status.backlog or self._next_page() or self._doubtful)

    def _memory(self) -> Memory:
        return self._insist(lambda: read_memory(self._redis))

    # Evicting

    def _note(self, highest: int) -> None:
        """Tell Redis up to which number the sink holds the vectors."""
        self._eviction.note_exported(self._token, highest, self._born)

    def _evict_all(self, positions: Sequence[Position]) -> int:
        if not self._options.evict:
            return 0
        evicted = 0
        for some in chunks(positions):
            evict = partial(self._eviction.evict, self._token, some, born=self._born)
            evicted += self._insist(evict)
        return evicted

    def _let_go(self) -> None:
        try:
            self._eviction.evict(self._token, end=True)
        except (redis.RedisError, ExportedByAnother) as error:
            logger.debug("the lease of the export expires by itself: %s", error)

    # Tombstones

    def _bury(self) -> None:
        """Let the sink heed the tombstones that came since."""
        self._looked = time.monotonic()
        tombstones = self._insist(lambda: list(self._reader.tombstones(self._buried)))
        _, trimmed = self._insist(lambda: self._eviction.followed(self._token))
        if trimmed > self._buried:  # some are not in Redis any more, or went while they were read
            self._doubtful = True
            return
        part = self._sink.write_tombstones(tombstones)
        if part is not None:
            self.tombstones += len(tombstones)
            self._buried = part.last
            note = partial(self._eviction.note_followed, self._token, part.last, self._born)
            self._insist(note)
            # The vectors of these ids may be in the page that was read before they were deleted.
            self._page, self._after = iter(()), self._last

    def _insist(self, step: Callable[[], T]) -> T:
        """The result of an idempotent step. While it follows, it waits for a Redis that is away."""

        def pauses() -> Iterator[float]:
            while self._options.follow and not self._stop():
                yield AWAY_SECONDS

        def failed(error: redis.RedisError) -> None:
            self._doubtful = True
            logger.warning("Redis does not answer (%s): trying again", error)

        return insist(step, pauses(), failed)
