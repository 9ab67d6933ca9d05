"""Queries: texts that a person or a program waits for, embedded through the fleet's throttle.

They go before the bulk: see `urgent` in docs/throttle.md.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import redis

from vector_embed_client import Client, EmbeddingArray, EmbedResponse, VectorEmbedError
from vector_embed_client.calls import check_iterable, check_text
from vector_embed_client.calls import embed_batch as check_batch

from ..settings import Settings, read_settings
from ..settings.keyfile import count_endpoints, each_key
from ..store.faults import is_read_only
from ..store.waiter import Patience
from .admission import throttles_of
from .sender import FULL, Deferred, Halted, Sender
from .verdicts import TooMany, is_transient

T = TypeVar("T")

PATIENCE_SECONDS = 60.0  # while the throttle says: not now, or Redis does not answer
ATTEMPTS = 3
RENEW_SECONDS = 5.0


class NotSent(Exception):
    """The throttle does not let the query be sent now. The message says why."""


class ThrottledClient:
    """The API through the fleet's throttle, with the fleet's keys: for queries someone waits for.

    `settings`: default from the environment, as a worker has them. `patience`: seconds to wait
    while the throttle says: not now, or Redis does not answer. Cheap to make; any thread may call
    it, and it may be kept. A query keeps the fleet's limits and goes before the bulk that the
    workers send.

    Raises ValueError without a key; `embed`, for a key or an address that cannot be one.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        model: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._settings = settings or read_settings()
        if not all(one.api_key for one in each_key(self._settings)):
            raise ValueError("VECTOR_EMBED_API_KEY is not set: a query is embedded through the API")
        self._model = model or self._settings.model
        self._patience = patience

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self._model!r})"

    def embed(self, text: str) -> EmbedResponse:
        """The vector of a text. Raises as `embed_batch` does."""
        check_text(text)
        return self.embed_batch([text])[0]

    def embed_batch(self, texts: Iterable[str]) -> list[EmbedResponse]:
        """The vectors of 1 to 100 texts, in the same order: all of them, or an error.

        Where the throttle lets only a smaller request through, it is several. Of a read-only
        replica the throttle cannot be asked: the texts are sent without it. Raises NotSent if the
        throttle lets nothing through, the client's errors, and `redis.RedisError` if Redis answers
        no more.
        """
        check_iterable(texts)
        texts = list(texts)
        check_batch(texts, self._model)  # a request that was never sent says nothing of the API
        return self._embedded(texts, time.monotonic() + self._patience)

    def _embedded(self, texts: Sequence[str], end: float) -> list[EmbedResponse]:
        throttles = partial(throttles_of, self._settings, self._model, urgent=True)
        sender = Sender(throttles, self._model, None, threading.Event(), until=end)
        most, found = FULL, list[EmbedResponse]()
        try:
            with _renewed(sender):
                while rest := texts[len(found) :]:
                    try:
                        found += _responses(_sent(sender, rest[:most], end))
                        most = FULL
                    except TooMany as told:
                        most = told.most
        except redis.ResponseError as error:
            if not is_read_only(error):
                raise
            key = each_key(self._settings)[0]
            with Client(key.api_key, key.base_url, self._model, key.timeout) as api:
                return api.embed_batch(texts)
        finally:
            sender.cancel()
        return found


class ThrottledAsyncClient:
    """`ThrottledClient` for asyncio: the loop is free while others wait.

    The calls of one object share as many threads as the fleet may have requests in flight; further
    ones wait for these, and their patience begins then. A call that is cancelled may still be sent.
    Close it, or use it in `async with`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        model: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        settings = settings or read_settings()
        self._client = ThrottledClient(settings, model=model, patience=patience)
        self._most = settings.max_in_flight * count_endpoints(settings)
        self._pools: dict[int, ThreadPoolExecutor] = {}  # by process: a child has no threads of us

    def __repr__(self) -> str:
        return f"Async{self._client!r}"

    async def __aenter__(self) -> ThrottledAsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End its threads, after the requests that are on their way."""
        for pool in [self._pools.pop(pid) for pid in list(self._pools) if pid == os.getpid()]:
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)

    async def embed(self, text: str) -> EmbedResponse:
        """`ThrottledClient.embed` for asyncio."""
        return await self._in_thread(partial(self._client.embed, text))

    async def embed_batch(self, texts: Iterable[str]) -> list[EmbedResponse]:
        """`ThrottledClient.embed_batch` for asyncio."""
        return await self._in_thread(partial(self._client.embed_batch, texts))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        pool = self._pools.get(os.getpid())
        if pool is None:
            pool = ThreadPoolExecutor(self._most, thread_name_prefix="query")
            self._pools[os.getpid()] = pool
        return await asyncio.get_running_loop().run_in_executor(pool, call)


def _sent(sender: Sender, texts: Sequence[str], end: float) -> EmbeddingArray:
    """The vectors of some texts; what passes by itself is tried again until `end`."""
    failures, patience = 0, Patience(end - time.monotonic())
    while True:
        sender.begin()
        try:
            return sender.send(texts)
        except Deferred as error:
            left = end - time.monotonic()
            if left <= 0:
                why = str(error) or "others are before it"
                raise NotSent(f"nothing can be sent now: {why}") from None
            time.sleep(min(1.0, left))
        except Halted as error:
            raise NotSent(str(error)) from None
        except VectorEmbedError as error:
            failures += 1
            if not is_transient(error) or failures == ATTEMPTS:
                raise
        except redis.RedisError as error:
            if isinstance(error, redis.ResponseError) and is_read_only(error):
                raise
            time.sleep(patience.failed(error))


@contextmanager
def _renewed(sender: Sender) -> Iterator[None]:
    """Keep the request slot of a slow request, as a worker's heartbeat does."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            with suppress(redis.RedisError):
                sender.renew()

    threading.Thread(target=renew, name="renewal of a query", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _responses(answer: EmbeddingArray) -> list[EmbedResponse]:
    return [
        EmbedResponse(list(answer.row(place)), cached, answer.dimensions)
        for place, cached in enumerate(answer.cached)
    ]
