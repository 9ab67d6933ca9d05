"""The client for threads: it sends and sleeps, and asks `calls` and `http` for the rest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import NamedTuple

import httpx

from . import calls, http, threads
from .base import SEND_ERRORS, BaseClient, Exchange, count_in_flight, no_cookies
from .calls import Call, T
from .http import Answer, Fault, Schedule
from .types import EmbeddingArray, EmbedResponse, HealthResponse, SearchResponse, StatsResponse


class _Pool(NamedTuple):
    """The connections of one process, and the slots for requests in flight."""

    http_client: httpx.Client
    slots: SimpleQueue[threads.Slot]


class Client(BaseClient):
    """A client of the API for programs with threads.

        with Client(api_key="vec_...") as client:
            print(client.embed("hello world").vector)

    Make one client and keep it. Several threads may use it, and it still works after a fork. At
    most 15 requests are in flight at once; further calls wait for their turn.

    Every call takes `timeout`, `retries` and `deadline`. `deadline` limits the whole call in
    seconds: all attempts and the waits between them. Every call raises VectorEmbedError or one of
    its five subclasses. What the API would refuse anyway is a ValidationError without a status,
    and nothing is sent.

    Args:
        api_key: The key. Default: VECTOR_EMBED_API_KEY.
        base_url: The address of the API. Default: VECTOR_EMBED_BASE_URL, else the public API.
        model: The model of every call that names no other.
        timeout: Seconds for each attempt.
        retries: How often a failed request is sent again, if it may pass.
        http_client: Your own httpx.Client, for proxies, certificates or transports. You close it.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        model: str = http.DEFAULT_MODEL,
        timeout: float = 30.0,
        retries: int = 3,
        *,
        http_client: httpx.Client | None = None,
    ) -> None:
        super().__init__(api_key, base_url, model, timeout, retries, http_client is None)
        # By process: a forked child that wrote into its parent's connections would read its
        # parent's answers. It keeps the parent's pool and never closes it.
        self._pools = {os.getpid(): self._open_pool(http_client)}

    def embed(
        self,
        text: str,
        *,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> EmbedResponse:
        """The vector of one text of 1 to 10,000 characters."""
        return self._call(calls.embed(text, self._wanted(model)), timeout, retries, deadline)

    def embed_batch(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> list[EmbedResponse]:
        """The vectors of 1 to 100 texts, in the same order: all of them, or an error."""
        return self._call(calls.embed_batch(texts, self._wanted(model)), timeout, retries, deadline)

    def embed_batch_array(
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
        """The vectors of 1 to 100 texts as float32 rows, checked so that they can be stored.

        Args:
            dimensions: The length that the vectors must have, if you know it. A longer answer is
                refused before it is read to its end.
            on_answer: Called when the whole answer to an attempt has arrived and before it is
                decoded: the server has finished its work. Not called for a refusal.
        """
        call = calls.embed_batch_array(texts, self._wanted(model), dimensions, on_answer)
        return self._call(call, timeout, retries, deadline)

    def embed_many(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        max_in_flight: int = 4,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> Iterator[EmbedResponse]:
        """The vectors of any number of texts, in the same order, as an iterator.

        Texts are packed into batches as full as the API accepts. Up to `max_in_flight` requests
        are under way at once. The input is read only a little ahead, so it may be endless.
        `timeout`, `retries` and `deadline` apply to each request. An error is raised in its place,
        after all answers before it; its `index` counts over the whole input.
        """
        calls.check_iterable(texts)
        self._schedule(timeout, retries, deadline)
        wanted = self._wanted(model)

        def send(batch: list[str]) -> list[EmbedResponse]:
            return self._call(calls.embed_batch(batch, wanted), timeout, retries, deadline)

        from .many import in_order  # brings concurrent.futures, which few programs need

        return in_order(texts, calls.Packer(wanted), send, count_in_flight(max_in_flight))

    def search(
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
        """The stored texts that are nearest to a text, or to a vector of length 1.

        Args:
            top_k: How many, from 1 to 100.
            min_score: Leave out results with a lower score, from 0 to 1. A score is
                (cosine + 1) / 2.
        """
        call = calls.search(
            text, vector, self._wanted(model), top_k, min_score, include_text, include_vectors
        )
        return self._call(call, timeout, retries, deadline)

    def stats(
        self,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> StatsResponse:
        """The cache hits and misses of the account, and how many texts are stored."""
        return self._call(calls.stats(), timeout, retries, deadline)

    def health(
        self,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> HealthResponse:
        """Whether the server is up, and its version. Sends no key."""
        return self._call(calls.health(), timeout, retries, deadline)

    def close(self) -> None:
        """Close the connections, except those of your own `http_client`.

        It does not wait for requests of other threads: each connection closes when its request has
        ended. Every later call raises RuntimeError. Closing again does nothing.
        """
        self._is_closed = True
        pool = self._pools.get(os.getpid())
        if pool is not None:
            self._close_if_over(pool)

    def __enter__(self) -> Client:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _http_client(self) -> httpx.Client:
        # Not used here: programs and tests written for the API's first client look at it, also once
        # it is closed.
        pool = self._pools.get(os.getpid())
        return pool.http_client if pool is not None else self._pool().http_client

    def _pool(self) -> _Pool:
        """The connections of this process, opened at the first call after a fork."""
        self._check_open()
        pool = self._pools.get(os.getpid())
        if pool is not None:
            return pool
        # Of two threads that get here, setdefault lets one win; the other's pool was never used.
        return self._pools.setdefault(os.getpid(), self._open_pool(None))

    def _call(
        self, call: Call[T], timeout: float | None, retries: int | None, deadline: float | None
    ) -> T:
        """Send a call until there is a result, or raise the error of the last attempt."""
        schedule = self._schedule(timeout, retries, deadline)
        while True:
            outcome = self._attempt(call, schedule)
            if not isinstance(outcome, Fault):
                return outcome
            time.sleep(self._delay(outcome, schedule))
            schedule.waited(time.monotonic())

    def _attempt(self, call: Call[T], schedule: Schedule) -> T | Fault:
        """Wait for a request slot and send once, both within the deadline."""
        pool = self._pool()
        left = schedule.left(time.monotonic())
        try:
            slot = pool.slots.get(timeout=left)
        except Empty:
            return http.timeout_fault(left or 0.0)
        seconds = schedule.seconds(time.monotonic())
        if seconds <= 0:
            pool.slots.put(slot)
            return http.timeout_fault(left or 0.0)

        exchange = Exchange(seconds)

        def work() -> Answer | Fault:
            try:
                return self._exchange(pool, call, exchange)
            finally:
                pool.slots.put(slot)
                self._close_if_over(pool)

        try:
            # Our own connections keep the time limit. A given client may not, if a name server is
            # silent or a header drips: its thread is left behind, and gives its slot back itself.
            by_thread = left is not None and not self._is_own
            answer = threads.within(seconds, work, lambda _: None) if by_thread else work()
        except threads.Overdue:
            return http.timeout_fault(seconds)
        except SEND_ERRORS as error:
            return self._transport_fault(call, error, exchange)
        return self._settle(call, answer)

    def _exchange(self, pool: _Pool, call: Call[T], exchange: Exchange) -> Answer | Fault:
        """Send once and read the answer, whole, or of an error as much as is looked at."""
        with pool.http_client.stream(**self._request(call, exchange)) as response:
            limit = call.limit_of(response.status_code)
            pieces: list[bytes] = []
            size = 0
            if http.is_readable(response.headers):
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if exchange.left() < 0:
                        return http.timeout_fault(exchange, exchange.reused)
                    if size > limit.size:
                        break
            return Answer(response.status_code, response.headers, b"".join(pieces))

    def _open_pool(self, http_client: httpx.Client | None) -> _Pool:
        if http_client is None:
            from .transport import Transport  # httpcore is slow to import

            assert self._route is not None
            transport = Transport(self._route)
            http_client = httpx.Client(transport=transport, cookies=no_cookies())
        return _Pool(http_client, threads.open_slots(http.MAX_IN_FLIGHT))

    def _close_if_over(self, pool: _Pool) -> None:
        """Close a pool of ours whose client is closed, once nothing of it is in flight."""
        is_idle = pool.slots.qsize() == http.MAX_IN_FLIGHT
        if self._is_closed and self._is_own and is_idle:
            pool.http_client.close()
