"""Follow and evict: finished vectors go to the files of a folder and, if asked, out of Redis.

So Redis holds only a part of a corpus. A file is on the disk under its final name before anything
of it is evicted, and exactly what is in it is evicted: a vector that was replaced meanwhile stays
and comes in a later file. An export that is killed between the two finds at its next start what is
both in a file and in Redis, and only evicts it. So it continues from the numbers in the names of
the files alone.

A Redis that lost its last moments, or everything, counts commits from there again. Vectors that it
then holds under numbers that a file gave to others get new numbers, and are exported too. Two notes
show it: Redis has the number up to which the folder holds its vectors, and the folder has the life
of the collection that it holds. A collection that was dropped or lost and begins again has another
life: the files hold nothing of it, whatever their numbers say.

Ids that were deleted get tombstones, in files of their own. Redis keeps a tombstone until every
folder that ever followed has it, but only so many. A folder that has missed some is compared with
the collection: what it holds and the collection does not know was deleted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import redis

from ..layout import PLAIN
from ..logs import logger
from ..monitor.service import read_status
from ..settings import Settings
from ..store.connection import Memory, Redis, connect, read_memory
from ..store.errors import CollectionGone, ExportedByAnother, LayoutChanged
from ..store.eviction import EVICT_SIZE, Eviction
from ..store.faults import insist
from ..store.keys import CollectionKeys
from ..store.reader import PAGE_SIZE, Reader
from ..store.removal import Removal
from ..types import Position, Stored
from .files import ExportError
from .folder import File, Folder, read_positions, read_tombstones

T = TypeVar("T")

_COMPARE = -1  # in place of a number of tombstones: the folder is being compared

POLL_SECONDS = 0.2
FILE_SECONDS = 60.0  # after its first vector, a file is published at the latest
RENEW_SECONDS = 3.0
# What a vector takes in Redis beside what is written of it. Measured: 4,026 bytes for 3,072
# and an id of 64.
OVERHEAD = 1000
# A file never holds more than this share of maxmemory, so that the room between the producer's
# mark and the claims' is enough for it; above the second, what is there is published at once.
FILE_MEMORY = 0.10
URGENT_MEMORY = 0.80


@dataclass(frozen=True)
class Rotation:
    """When a file is full: at whichever of the two comes first."""

    vectors: int = 100_000
    bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True)
class Options:
    """How a folder is filled. Without `follow`: with what was there at the beginning."""

    rotation: Rotation = Rotation()
    evict: bool = False  # what is safe in the folder
    follow: bool = False  # until the caller stops it
    until_done: bool = False  # and until nothing is queued any more


class Published(NamedTuple):
    """A complete file: the number of its vectors, and how many of them were evicted."""

    file: File
    vectors: int
    evicted: int


class FolderExport:
    """One export of the collection `name` into `folder`. Call `run()` once.

    `stop` says whether to end before the time. `tell` is called with the number of vectors read.
    """

    def __init__(
        self,
        name: str,
        folder: Folder,
        settings: Settings,
        options: Options,
        *,
        stop: Callable[[], bool] = lambda: False,
        tell: Callable[[int], object],
    ) -> None:
        self.halted = False  # it ended because the collection is halted
        self.recovered = 0  # vectors evicted of files that earlier runs published
        self.tombstones = 0  # written
        self._name = name
        self._folder = folder
        self._redis: Redis = connect(settings)
        keys = CollectionKeys(settings.prefix, name)
        self._reader = Reader(self._redis, keys)
        self._eviction = Eviction(self._redis, keys)
        self._removal = Removal(self._redis, keys)
        self._look = partial(read_status, self._redis, keys, settings.queue)
        self._options = options
        self._stop = stop
        self._tell = tell
        self._token = ""
        self._born = b""  # the life of the collection that is read; empty before its first
        self._layout = PLAIN  # of the collection
        self._after = 0  # the number of the last vector read
        self._last = 0  # and of the last that went into a file
        self._buried = 0  # and of the last tombstone that did
        self._looked = 0.0  # when tombstones were looked for
        self._page: Iterator[Stored] = iter(())
        self._until: int | None = None  # the last number to be read
        self._over = False
        self._doubtful = False  # Redis may have lost something
        self._renewed = 0.0
        self._read = 0

    def run(self) -> Iterator[Published]:
        """Publish file after file.

        Raises ExportError if one cannot be written, ExportedByAnother, and `redis.RedisError`; then
        everything stays in Redis. Without `follow`, raises CollectionGone at the end if the
        collection was dropped or lost meanwhile.
        """
        with self._folder.locked() as self._token:
            if self._options.evict:
                self._eviction.evict(self._token)
            try:
                self._recover()
                born = self._born
                if not self._options.follow:
                    self._until = self._reader.known([]).commits
                while not self._over:
                    written: list[Position] = []
                    file = self._folder.write(self._piece(written))
                    if file is not None:
                        self._insist(partial(self._note, file.last))
                        yield Published(file, len(written), self._evict_all(written))
                    self._bury()
                    if self._doubtful and not self._over:
                        self._insist(self._recover)
                        self._doubtful = False
                if not self._options.follow and born and self._reader.born() != born:
                    raise CollectionGone(self._name)
            finally:
                if self._options.evict:
                    self._let_go()

    # Reading

    def _piece(self, written: list[Position]) -> Iterator[Stored]:
        """The vectors of one file, noted in `written` as they come."""
        evict, rotation = self._options.evict, self._options.rotation
        room = FILE_MEMORY * self._memory().limit if evict else 0.0
        raw, began = 0, time.monotonic()
        while not self._doubtful:
            for record in self._page:
                position = _position(record)
                if self._until is not None and position.number > self._until:
                    self._over = True
                    return
                if not written:
                    began = time.monotonic()
                written.append(position)
                yield record
                self._last = position.number
                raw += len(record.data) + len(record.id) + len(record.text or "")
                full = len(written) >= rotation.vectors
                full |= max(raw, self._folder.size) >= rotation.bytes
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
            is_old = time.monotonic() - began >= FILE_SECONDS
            if written and (is_old or evict and self._memory().share >= URGENT_MEMORY):
                return
            if time.monotonic() - self._looked >= FILE_SECONDS:
                self._bury()
            time.sleep(POLL_SECONDS)

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
        if not self._options.until_done:
            return False
        status = self._insist(self._look)
        self.halted = status.state == "halted" and status.backlog > 0
        # What was committed after the last page and before this look is still to be read.
        return self.halted or not (status.backlog or self._next_page() or self._doubtful)

    def _memory(self) -> Memory:
        return self._insist(lambda: read_memory(self._redis))

    # Evicting

    def _evict_all(self, positions: Sequence[Position]) -> int:
        if not self._options.evict:
            return 0
        evicted = 0
        for start in range(0, len(positions), EVICT_SIZE):
            some = positions[start : start + EVICT_SIZE]
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
        """Write the tombstones that came since to a file."""
        self._looked = time.monotonic()
        _, trimmed = self._insist(lambda: self._eviction.followed(self._token))
        if trimmed > self._buried:  # some are not in Redis any more
            self._doubtful = True
            return
        file = self._insist(lambda: self._write_tombstones(self._reader.tombstones(self._buried)))
        if file is not None:
            self._insist(partial(self._note_buried, file.last))

    def _write_tombstones(self, tombstones: Iterator[Position]) -> File | None:
        def counted() -> Iterator[Position]:
            for position in tombstones:
                yield position
                self.tombstones += 1

        return self._folder.write_tombstones(counted())

    def _note_buried(self, number: int) -> None:
        """Tell Redis up to which number the folder holds the tombstones."""
        self._eviction.note_followed(self._token, number, self._born)
        self._buried = number

    def _follow_on(self, files: Sequence[File], held: int, is_same: bool, is_whole: bool) -> None:
        """Continue where the tombstones in the folder end.

        `held`: their highest number. `is_same`: the folder holds this life of the collection.
        `is_whole`: and Redis knows of all its vectors.
        """
        commits = self._reader.known([]).commits
        noted, trimmed = self._eviction.followed(self._token)
        if noted is not None and max(noted, held) >= trimmed and noted >= 0:
            self._buried = max(noted, held)
        elif not is_whole:
            self._note_buried(commits)
            if files and is_same:
                logger.warning(
                    "%s may hold vectors of ids that were deleted from %s: compare it with the "
                    "corpus by vec verify --export, or name a new folder",
                    self._folder,
                    self._name,
                )
        else:
            # From now on Redis keeps them; what was deleted before shows in what is not there.
            self._eviction.note_followed(self._token, _COMPARE, self._born)
            self._eviction.renumber([], commits + 1, born=self._born)
            self._write_tombstones(self._absent(files, commits + 1))
            self._note_buried(commits + 1)

    def _absent(self, files: Sequence[File], number: int) -> Iterator[Position]:
        """A tombstone with this number for what the files hold and the collection does not know."""
        for some in _chunks(chain.from_iterable(map(read_positions, files))):
            known = self._reader.known([position.id for position in some])
            for position, state, evicted in zip(some, known.states, known.evicted):
                if not (any(state) or evicted):
                    yield Position(number, position.id, b"")

    def _dig_out(self, noted: int, above: int, *, forget: bool) -> None:
        """Give new numbers to vectors that Redis has again, and the folder has a tombstone of.

        `forget`: Redis went back in time, behind their deletion, and what it remembers of evicted
        ones is no longer in the folder.
        """
        files = (file for file in self._folder.tombstones() if file.last > noted)
        for some in _chunks(chain.from_iterable(map(read_tombstones, files))):
            ids = [tombstone.id for tombstone in some]
            known = self._reader.known(ids)
            states = zip(ids, known.states, known.evicted)
            gone = [(id, digest) for id, state, digest in states if digest and not any(state)]
            if forget and gone:
                self._removal.remove(gone, self._born, known.seq)
            there = self._reader.get_many(ids)
            risen = [
                _position(stored)
                for stored, tombstone in zip(there, some)
                if stored is not None and (stored.number or 0) < tombstone.number
            ]
            self._eviction.renumber(risen, above, born=self._born)

    # Continuing after an interruption

    def _recover(self) -> None:
        """Continue where the files end: evict what they hold, and renumber what is in no file."""
        files = self._folder.files()
        highest = max([self._last, *(file.last for file in files)])
        held = max([0, *(file.last for file in self._folder.tombstones())])
        self._born = self._reader.born()
        self._layout = self._reader.info().layout
        if self._born:
            self._folder.note_layout(self._layout)
        is_same = self._born == self._folder.life
        is_whole = is_same and self._known(highest)
        went_back = self._reader.known([]).commits < held
        self._eviction.renumber([], max(highest, held), born=self._born)
        strangers = 0
        if self._born and self._folder.life not in (None, self._born):
            logger.warning(
                "%s holds an earlier life of %s, which was dropped or lost since: all that is "
                "stored now is written beside it; to have it alone, name a new folder",
                self._folder,
                self._name,
            )
            self._renumber(0, highest, highest)
        else:
            noted, _ = self._eviction.followed(self._token)
            if self._born and (noted or 0) < held:
                self._dig_out(noted or 0, max(highest, held), forget=went_back)
                self._renumber(highest, held, held)
            if self._options.evict:
                self._evict_again(files)
            strangers = self._renumber_strangers(files, highest)
        if strangers:
            logger.warning(
                "%d vectors of %s have numbers under which %s holds others, or none: Redis went "
                "back in time, or files are gone. They are written as well",
                strangers,
                self._name,
                self._folder,
            )
        if self._born:
            self._folder.note_life(self._born)
            self._follow_on(files, held, is_same, is_whole)
        self._note(highest)
        self._after = highest
        self._page = iter(())

    def _known(self, highest: int) -> bool:
        """Whether Redis has noted that the folder holds vectors up to this number."""
        return self._eviction.exported(self._token) >= highest

    def _note(self, highest: int) -> None:
        """Tell Redis up to which number the folder holds the vectors."""
        self._eviction.note_exported(self._token, highest, self._born)

    def _evict_again(self, files: Sequence[File]) -> None:
        for file in files:
            first = self._reader.finished(0, 1)
            if first and (first[0].number or 0) <= file.last:
                for some in _chunks(read_positions(file)):
                    self.recovered += self._eviction.evict(self._token, some, born=self._born)

    def _renumber_strangers(self, files: Sequence[File], highest: int) -> int:
        """Give new numbers to vectors that came after Redis went back. Returns how many they are.

        Vectors up to the number that Redis has noted are in the folder. Later ones are compared
        with the files.
        """
        if self._options.evict:  # what the files hold is gone from Redis
            return self._renumber(0, highest, highest)
        if self._folder.life is None and files:  # of an earlier version: its last file tells
            known = files[-1].first - 1
        else:
            known = self._eviction.exported(self._token)
        strangers = 0
        for file in files:
            if file.last > known:
                strangers += self._renumber(known, file.last, highest, read_positions(file))
                known = file.last
        return strangers + self._renumber(known, highest, highest)

    def _renumber(
        self, after: int, last: int, highest: int, exported: Iterable[Position] = ()
    ) -> int:
        """Give numbers above `highest` to the vectors numbered `after` + 1 to `last` that are not
        `exported`. Returns how many they are.
        """
        known: set[Position] | None = None  # a file is read only if it has to be
        count = 0
        while after < last and (page := self._reader.finished(after, PAGE_SIZE)):
            positions = [position for position in map(_position, page) if position.number <= last]
            if not positions:
                break
            known = set(exported) if known is None else known
            strangers = [position for position in positions if position not in known]
            self._eviction.renumber(strangers, highest, born=self._born)
            count += len(strangers)
            after = positions[-1].number
        return count

    def _insist(self, step: Callable[[], T]) -> T:
        """The result of an idempotent step. While it follows, it waits for a Redis that is away."""

        def pauses() -> Iterator[float]:
            while self._options.follow and not self._stop():
                yield 1.0

        def failed(error: redis.RedisError) -> None:
            self._doubtful = True
            logger.warning("Redis does not answer (%s): trying again", error)

        return insist(step, pauses(), failed)


def parse_rotation(said: Sequence[str]) -> Rotation:
    """Read a rotation: `50000`, `64MB`, or both. Raises ExportError."""
    vectors, size = Rotation.vectors, Rotation.bytes
    for word in said:
        match = re.fullmatch(r"([1-9]\d*)(KB|MB|GB)?", word, re.IGNORECASE)
        if not match:
            raise ExportError(
                f"--rotate {word}: say a number of vectors, such as 50000, or a size, such as 64MB"
            )
        number, unit = int(match[1]), match[2]
        if unit:
            size = number * 1024 ** (1 + "KMG".index(unit[0].upper()))
        else:
            vectors = number
    return Rotation(vectors, size)


def _position(record: Stored) -> Position:
    assert record.number is not None and record.digest is not None
    return Position(record.number, record.id, record.digest)


def _chunks(positions: Iterator[Position]) -> Iterator[list[Position]]:
    while some := list(islice(positions, EVICT_SIZE)):
        yield some
