"""The client for asyncio: it sends and sleeps, and asks `calls` and `http` for the rest."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
)
from contextlib import suppress
from dataclasses import dataclass

import httpx

from . import calls, http
from .base import SEND_ERRORS, BaseClient, Exchange, count_in_flight, no_cookies
from .calls import Call, T
from .http import Answer, Fault, Schedule
from .many import InOrder
from .types import EmbeddingArray, EmbedResponse, HealthResponse, SearchResponse, StatsResponse


@dataclass
class _Pool:
    """The connections of one event loop, and the slots for requests in flight."""

    http_client: httpx.AsyncClient
    slots: asyncio.Semaphore
    closing: AsyncGenerator[None, None]
    in_flight: int = 0
    is_over: bool = False

    async def close_if_idle(self) -> None:
        """Close the connections, once, unless there is something in flight."""
        if not (self.in_flight or self.is_over):
            self.is_over = True
            await self.closing.aclose()


class AsyncClient(BaseClient):
    """A client of the API for asyncio. Several event loops may use one client.

        async with AsyncClient(api_key="vec_...") as client:
            print((await client.embed("hello world")).vector)

    Arguments, errors and limits are those of Client. `http_client` is an httpx.AsyncClient.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        model: str = http.DEFAULT_MODEL,
        timeout: float = 30.0,
        retries: int = 3,
        *,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(api_key, base_url, model, timeout, retries, http_client is None)
        self._given = http_client
        # Connections belong to the loop that opened them and to the process: a forked child may
        # continue in its parent's loop. It keeps the parent's connections and never closes them.
        self._pools: dict[tuple[int, asyncio.AbstractEventLoop], _Pool] = {}

    async def embed(
        self,
        text: str,
        *,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> EmbedResponse:
        """The vector of one text of 1 to 10,000 characters."""
        return await self._call(calls.embed(text, self._wanted(model)), timeout, retries, deadline)

    async def embed_batch(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> list[EmbedResponse]:
        """The vectors of 1 to 100 texts, in the same order: all of them, or an error."""
        call = calls.embed_batch(texts, self._wanted(model))
        return await self._call(call, timeout, retries, deadline)

    async def embed_batch_array(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
        dimensions: int | None = None,
        on_answer: Callable[[], object] | None = None,
    ) -> EmbeddingArray:
        """The vectors of 1 to 100 texts as float32 rows. For arguments, see Client.

        `on_answer` is an ordinary function, called in the event loop.
        """
        call = calls.embed_batch_array(texts, self._wanted(model), dimensions, on_answer)
        return await self._call(call, timeout, retries, deadline)

    def embed_many(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        model: str | None = None,
        max_in_flight: int = 4,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> AsyncIterator[EmbedResponse]:
        """The vectors of any number of texts, in the same order, as an async iterator.

        The input may be an async iterable, too. For batches, arguments and errors, see Client.
        """
        calls.check_iterable(texts, may_be_async=True)
        self._schedule(timeout, retries, deadline)
        wanted = self._wanted(model)

        async def send(batch: list[str]) -> list[EmbedResponse]:
            return await self._call(calls.embed_batch(batch, wanted), timeout, retries, deadline)

        return InOrder(texts, calls.Packer(wanted), send, count_in_flight(max_in_flight))

    async def search(
        self,
        text: str | None = None,
        *,
        vector: Iterable[float] | None = None,
        model: str | None = None,
        top_k: int = 10,
        min_score: float | None = None,
        include_text: bool = False,
        include_vectors: bool = False,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> SearchResponse:
        """The stored texts that are nearest to a text, or to a vector of length 1. See Client."""
        call = calls.search(
            text, vector, self._wanted(model), top_k, min_score, include_text, include_vectors
        )
        return await self._call(call, timeout, retries, deadline)

    async def stats(
        self,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> StatsResponse:
        """The cache hits and misses of the account, and how many texts are stored."""
        return await self._call(calls.stats(), timeout, retries, deadline)

    async def health(
        self,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> HealthResponse:
        """Whether the server is up, and its version. Sends no key."""
        return await self._call(calls.health(), timeout, retries, deadline)

    async def close(self) -> None:
        """Close the connections, except those of your own `http_client`. See Client.close."""
        self._is_closed = True
        process, here = os.getpid(), asyncio.get_running_loop()
        for owner in [owner for owner in list(self._pools) if owner[0] == process]:
            pool, loop = self._pools.pop(owner), owner[1]
            if loop is here:
                await pool.close_if_idle()
            else:
                _close_there(pool, loop)

    def _close_later(self) -> None:
        """Have each loop close its connections. For an owner that is garbage collected."""
        self._is_closed = True
        for owner in list(self._pools):
            pool = self._pools.pop(owner)
            if owner[0] == os.getpid():
                _close_there(pool, owner[1])

    aclose = close  # as httpx calls it, and contextlib.aclosing

    async def __aenter__(self) -> AsyncClient:
        self._check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _pool(self) -> _Pool:
        """The connections of this process and loop, opened at the first call."""
        self._check_open()
        process, loop = here = os.getpid(), asyncio.get_running_loop()
        pool = self._pools.get(here)
        if pool is not None:
            return pool
        for other in [other for other in list(self._pools) if other[1].is_closed()]:
            if other[0] == process:
                self._pools.pop(other, None)
        pool = self._pools[here] = self._open_pool()
        await pool.closing.__anext__()
        return pool

    async def _call(
        self, call: Call[T], timeout: float | None, retries: int | None, deadline: float | None
    ) -> T:
        """Send a call until there is a result, or raise the error of the last attempt."""
        schedule = self._schedule(timeout, retries, deadline)
        while True:
            outcome = await self._attempt(call, schedule)
            if not isinstance(outcome, Fault):
                return outcome
            await asyncio.sleep(self._delay(outcome, schedule))
            schedule.waited(time.monotonic())

    async def _attempt(self, call: Call[T], schedule: Schedule) -> T | Fault:
        """Send once, within the deadline."""
        pool = await self._pool()
        left = schedule.left(time.monotonic())
        pool.in_flight += 1
        try:
            answer = await _within(left, self._in_turn(pool, call, schedule.timeout))
        finally:
            pool.in_flight -= 1
            if self._is_closed:
                await pool.close_if_idle()
        return self._settle(call, answer)

    async def _in_turn(self, pool: _Pool, call: Call[T], seconds: float) -> Answer | Fault:
        """Wait for a request slot. The time limit of the exchange begins after that."""
        async with pool.slots:
            exchange = Exchange(seconds)
            try:
                return await _within(exchange, self._exchange(pool, call, exchange))
            except SEND_ERRORS as error:
                return self._transport_fault(call, error, exchange)

    async def _exchange(self, pool: _Pool, call: Call[T], exchange: Exchange) -> Answer | Fault:
        """Send once and read the answer, whole, or of an error as much as is looked at."""
        async with pool.http_client.stream(**self._request(call, exchange)) as response:
            limit = call.limit_of(response.status_code)
            pieces: list[bytes] = []
            size = 0
            if http.is_readable(response.headers):
                async for piece in response.aiter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if size > limit.size:
                        break
            return Answer(response.status_code, response.headers, b"".join(pieces))

    def _open_pool(self) -> _Pool:
        own = self._given
        if own is None:
            from .transport import AsyncTransport  # httpcore is slow to import

            assert self._route is not None
            transport = AsyncTransport(self._route)
            own = httpx.AsyncClient(transport=transport, cookies=no_cookies())
        itself: list[object] = []
        closing = _closing(own if self._given is None else None, itself)
        itself.append(closing)
        return _Pool(own, asyncio.Semaphore(http.MAX_IN_FLIGHT), closing)


async def _closing(
    http_client: httpx.AsyncClient | None, itself: list[object]
) -> AsyncGenerator[None, None]:
    """Closes the connections when it is closed itself.

    A loop that ends closes the async generators begun in it (asyncio.run does so). Only then can
    the connections of a client that was never closed still be closed: not once the loop is gone,
    and not while its last tasks are being cancelled. So this one holds `itself` and outlives its
    client.
    """
    process = os.getpid()
    try:
        yield
    finally:
        itself.clear()
        if http_client is not None and os.getpid() == process:
            await http_client.aclose()


def _close_there(pool: _Pool, loop: asyncio.AbstractEventLoop) -> None:
    """Have a pool closed by the loop that opened it, which runs in another thread or later."""
    with suppress(RuntimeError):  # that loop is closed, and has closed its pool itself
        loop.call_soon_threadsafe(lambda: loop.create_task(pool.close_if_idle()))


async def _within(
    seconds: float | None, work: Coroutine[object, object, Answer | Fault]
) -> Answer | Fault:
    """`work`, or a fault once `seconds` have passed, name look-up and headers included."""
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        reused = isinstance(seconds, Exchange) and seconds.reused
        return http.timeout_fault(seconds or 0.0, reused)
