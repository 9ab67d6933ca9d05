"""A collection: the texts of one corpus, and their vectors.

This is what a program may ask of a collection. How it is stored is `worker.store`'s concern.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from .engine.query import ThrottledClient
from .layout import whole
from .monitor.service import read_status
from .settings import Settings, read_settings
from .store.backlog import Backlog
from .store.connection import Redis, connect, given
from .store.eviction import Eviction
from .store.keys import CollectionKeys
from .store.reader import Reader
from .store.removal import Removal
from .store.search import Search, as_vector
from .store.shrinking import Shrinking
from .store.states import read_states
from .store.waiter import await_until, in_thread, wait_until
from .types import Comparison, DeadLetter, Dropped, Hit, Record, Shrunk, Status

if TYPE_CHECKING:
    import numpy
    import redis
    from numpy.typing import NDArray


def _is_over(status: Status) -> bool:
    """Whether there is nothing more to wait for."""
    return not status.backlog or status.state == "halted"


class Collection:
    """One collection in one Redis. Cheap to make; nothing is sent until a method is called.

    `settings` name the Redis (default: the environment); a `connection` is used in their place.
    Raises CollectionError for a name that is not 1 to 100 letters, digits, `.`, `_` or `-`. Every
    method raises `redis.RedisError` where Redis does not answer.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: Settings | None = None,
        connection: redis.Redis | None = None,
    ) -> None:
        self.name = name
        self._given = None if connection is None else given(connection)
        self._settings = settings or read_settings(keys=False)
        self._keys = CollectionKeys(self._settings.prefix, name)

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    # Made at each call: a process that was forked needs connections of its own.

    @property
    def _redis(self) -> Redis:
        return self._given or connect(self._settings)

    @property
    def _reader(self) -> Reader:
        return Reader(self._redis, self._keys)

    # How it stands

    def exists(self) -> bool:
        """Whether anything was ever enqueued here."""
        return self.model() is not None

    def model(self) -> str | None:
        """The model of all vectors; None before the first enqueue."""
        return self._reader.info().model

    def dimensions(self) -> int | None:
        """The length of all stored vectors; None before the first one."""
        return self._reader.info().length

    def dtype(self) -> str:
        """What the numbers of the vectors are stored as: float32, float16 or int8."""
        return self._reader.info().layout.dtype

    def status(self) -> Status:
        """The ledger, and the state of the work."""
        return read_status(self._redis, self._keys, self._settings.queue)

    def wait(self, timeout: float | None = None) -> Status:
        """Wait until nothing is left to do, the work is halted, or `timeout` seconds are over.

        A Redis that goes away is waited for as long as there is time, without a timeout for a
        minute. Raises UnknownCollection, and `redis.RedisError`.
        """
        return wait_until(self._look, _is_over, timeout)

    def _look(self) -> Status:
        status = self.status()
        if status.model is None:
            raise self._reader.unknown()
        return status

    # Its vectors: each of these raises UnknownCollection

    def __len__(self) -> int:
        """How many vectors are stored, as Redis says now."""
        return self._reader.size()

    def __bool__(self) -> bool:
        """True, whatever is stored: `if collection` asks Redis nothing."""
        return True

    def ids(self) -> Iterator[str]:
        """The id of every stored vector, in the order in which they were stored."""
        return self._reader.ids()

    def get(self, id: str, *, outdated: bool = False) -> Record | None:
        """The vector of the latest text of an id, or None.

        It is None too while a later text of the id is waiting. `outdated`: then it is the vector of
        the earlier text, whose `Record.outdated` is True.
        """
        return self.get_many([id], outdated=outdated)[0]

    def get_many(self, ids: Sequence[str], *, outdated: bool = False) -> list[Record | None]:
        """The vectors of the latest texts of `ids`, in their order; None and `outdated` as in
        `get`.
        """
        found = self._reader.get_latest(ids)
        return [
            None if stored is None or is_old and not outdated else Record(stored, is_old)
            for stored, is_old in found
        ]

    def states(self, ids: Iterable[str]) -> dict[str, str]:
        """What became of the latest text of each id: a word, by id.

        embedded, evicted (its vector is in exported files), dead, waiting, or missing: there is
        nothing of the id. Of some hundreds it is read at one moment.
        """
        if isinstance(ids, str):
            raise TypeError("ids is one string: put it into a list")
        asked = list(dict.fromkeys(ids))
        if not self.exists():
            raise self._reader.unknown()
        return dict(zip(asked, read_states(self._redis, self._keys, asked)))

    def __iter__(self) -> Iterator[Record]:
        """Every stored vector, in the order in which they were stored; memory stays flat.

        A vector that is replaced meanwhile is read again in its new position. Raises
        CollectionGone if the collection is dropped, or Redis loses it, before all were read.
        """
        if not self.exists():
            raise self._reader.unknown()
        for page in self._reader.pages():
            yield from map(Record, page)

    def to_numpy(self) -> tuple[list[str], NDArray[numpy.float32]]:
        """All ids, and all vectors as one matrix with a row for each id, float32 for every dtype.

        A million vectors of 768 numbers take 3 GB, and twice that for a moment. Raises
        CollectionGone as iteration does.
        """
        try:
            import numpy
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_numpy needs numpy: pip install numpy", name="numpy"
            ) from None
        vectors = {record.id: record.tobytes() for record in self}
        # Of the vectors that were read: the collection may have been shrunk or dropped since.
        size = len(next(iter(vectors.values()), b"")) or 4 * (self.dimensions() or 0)
        matrix = numpy.frombuffer(bytearray().join(vectors.values()), dtype="<f4")
        return list(vectors), matrix.reshape(len(vectors), size // 4)

    def search(
        self,
        query: str | Sequence[float] | NDArray[numpy.floating],
        k: int = 10,
        *,
        filter: Mapping[str, object] | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The `k` stored texts nearest to `query`, a text or a vector; the nearest first.

        A score is the cosine. Of the pieces of a document, the nearest alone is found. `filter`:
        the value that a kept field has, or a list of the values that it may have, by its name.
        Vectors that were evicted are not searched. If there is an index (see `vec index`), it is
        asked, unless `exact`: then every vector is compared.

        A text is embedded with one request through the fleet's throttle, under the key of the
        settings. Raises NotSent if the throttle lets none through, the client's errors, ValueError
        for a query or a key that cannot be one, TypeError for what is no query, number or mapping,
        and CollectionGone as iteration does.
        """
        k = whole("k", k)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        search, info = Search(self._redis, self._keys, filter), self._reader.info()
        if info.model is None:
            raise self._reader.unknown()
        vector = (
            ThrottledClient(self._settings, model=info.model).embed(query).vector
            if isinstance(query, str)
            else as_vector(query)
        )
        if info.dimensions is None:
            return []
        if len(vector) not in (info.dimensions, info.length):
            raise ValueError(
                f"the query has {len(vector)} dimensions, {self.name} has {info.dimensions}"
            )
        return search.nearest(vector, k, exact=exact)

    # The same for asyncio: the loop is free while Redis works

    async def await_done(self, timeout: float | None = None) -> Status:
        """`wait` for asyncio."""
        return await await_until(self._look, _is_over, timeout)

    async def aget(self, id: str, *, outdated: bool = False) -> Record | None:
        """`get` for asyncio."""
        return await in_thread(partial(self.get, id, outdated=outdated))

    async def aget_many(self, ids: Sequence[str], *, outdated: bool = False) -> list[Record | None]:
        """`get_many` for asyncio."""
        return await in_thread(partial(self.get_many, ids, outdated=outdated))

    async def astates(self, ids: Iterable[str]) -> dict[str, str]:
        """`states` for asyncio."""
        return await in_thread(partial(self.states, ids))

    async def asearch(
        self,
        query: str | Sequence[float] | NDArray[numpy.floating],
        k: int = 10,
        *,
        filter: Mapping[str, object] | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """`search` for asyncio."""
        return await in_thread(partial(self.search, query, k, filter=filter, exact=exact))

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Iteration for asyncio."""
        if not await in_thread(self.exists):
            raise await in_thread(self._reader.unknown)
        pages = self._reader.pages()
        try:
            while page := await in_thread(partial(next, pages, None)):
                for stored in page:
                    yield Record(stored)
        finally:
            await in_thread(pages.close)

    # Its dead letters

    def dead(self, code: str | None = None) -> Iterator[DeadLetter]:
        """The dead letters (all, or those of `code`), in no particular order.

        Raises UnknownCollection.
        """
        if not self.exists():
            raise self._reader.unknown()
        return (letter for _, letter in self._reader.letters(code=code))

    def retry(self, ids: Iterable[str] | None = None, *, code: str | None = None) -> int:
        """Put dead letters (all, or those of `ids`, or of `code`) back into the backlog.

        Returns how many there were. If it is interrupted, the rest is still dead: retry again.
        Raises UnknownCollection.
        """
        if not self.exists():
            raise self._reader.unknown()
        return Backlog(self._redis, self._keys).retry(self._reader.letters(ids, code))

    # Smaller vectors

    def compare(
        self,
        dimensions: int | None = None,
        dtype: str | None = None,
        *,
        sample: int = 10_000,
        force: bool = False,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> Comparison:
        """What smaller vectors would keep of the ten nearest, and the memory that they would take.

        All lengths that the model was trained for, or `dimensions`, and all dtypes (float32,
        float16, int8), or `dtype`. `sample`: how many vectors are compared, evenly over the
        collection. `force`: also a length that the model was not trained for. `progress` hears how
        many were compared, and of how many. Memory stays flat. Raises UnknownCollection,
        CollectionError if there are too few, LayoutError for a layout that is larger, and
        CollectionGone as iteration does.
        """
        from .store.compare import compare

        return compare(
            self._redis, self._keys, dimensions, dtype, sample, force=force, progress=progress
        )

    def shrink(
        self,
        dimensions: int | None = None,
        dtype: str | None = None,
        *,
        force: bool = False,
        progress: Callable[[Shrunk], object] = lambda done: None,
    ) -> Shrunk:
        """Store all vectors, now and from now on, as fewer numbers, smaller ones, or both.

        What is cut away is gone: see `compare`. What is not said stays as it is. `force`: also a
        length that the model was not trained for. `progress` hears after each piece what is done.
        If it is interrupted, call it again. Raises UnknownCollection, LayoutError for a layout that
        is larger, CollectionGone if the collection is dropped meanwhile, and LayoutChanged if
        another shrink makes the vectors smaller still.
        """
        shrinking = Shrinking(self._redis, self._keys)
        return shrinking.shrink(shrinking.plan(dimensions, dtype, force=force), progress)

    # What leaves it

    def delete(self, ids: Iterable[str]) -> int:
        """Delete ids, with their vectors, queued texts and dead letters; a text in flight too.

        A document that was split is deleted with its pieces.
        Returns how many of them there were. If it is interrupted, delete them again. An id that is
        enqueued again later is new. Raises UnknownCollection.
        """
        if isinstance(ids, str):
            raise TypeError("ids is one string: put it into a list")
        if not self.exists():
            raise self._reader.unknown()
        return Removal(self._redis, self._keys).delete(ids)

    def drop(self, progress: Callable[[Dropped], object] = lambda gone: None) -> Dropped:
        """Delete the collection; returns what is gone. `progress` hears it after each piece.

        If it is interrupted, a smaller collection is left: drop it again. A collection that does
        not exist is nothing to delete, and no error.
        """
        return Eviction(self._redis, self._keys).drop(progress)
