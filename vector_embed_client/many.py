"""Any number of texts through a client's batches: several under way at once, answers in order.

Reads the input only as far ahead as requests are under way, so that it may be endless. An error is
raised in its place, after all that came before it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from concurrent.futures import Future

from . import calls
from .base import shifted
from .errors import ValidationError, VectorEmbedError
from .packing import Packer
from .types import EmbedResponse


def in_order(
    texts: Iterable[str],
    packer: Packer,
    send: Callable[[list[str]], list[EmbedResponse]],
    max_in_flight: int,
) -> Iterator[EmbedResponse]:
    pending: deque[tuple[int, Future[list[EmbedResponse]]]] = deque()
    sent = 0
    refused: ValidationError | None = None
    for index, text in enumerate(texts):
        refused = calls.text_error(text, index)
        if refused:
            break
        for batch in packer.add(text):
            while len(pending) >= max_in_flight:
                yield from _first_of(pending)
            pending.append((sent, _start(send, batch)))
            sent += len(batch)
        while pending and pending[0][1].done():
            yield from _first_of(pending)
    while len(pending) >= max_in_flight:
        yield from _first_of(pending)
    if rest := packer.rest():
        pending.append((sent, _start(send, rest)))
    while pending:
        yield from _first_of(pending)
    if refused:
        raise refused


def _start(
    send: Callable[[list[str]], list[EmbedResponse]], batch: list[str]
) -> Future[list[EmbedResponse]]:
    """`send(batch)` in a thread that nobody waits for, should the caller stop in the middle."""
    future: Future[list[EmbedResponse]] = Future()

    def run() -> None:
        try:
            future.set_result(send(batch))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="vector-embed-client", daemon=True).start()
    return future


def _first_of(
    pending: deque[tuple[int, Future[list[EmbedResponse]]]],
) -> list[EmbedResponse]:
    offset, future = pending.popleft()
    error = future.exception()
    if isinstance(error, VectorEmbedError):
        raise shifted(error, offset)
    return future.result()


async def in_order_async(
    texts: Iterable[str] | AsyncIterable[str],
    packer: Packer,
    send: Callable[[list[str]], Coroutine[object, object, list[EmbedResponse]]],
    max_in_flight: int,
) -> AsyncGenerator[EmbedResponse, None]:
    pending: deque[tuple[int, asyncio.Task[list[EmbedResponse]]]] = deque()
    sent = index = 0
    refused: ValidationError | None = None
    try:
        async for text in _one_by_one(texts):
            refused = calls.text_error(text, index)
            index += 1
            if refused:
                break
            for batch in packer.add(text):
                while len(pending) >= max_in_flight:
                    for response in await _first_of_async(pending):
                        yield response
                pending.append((sent, asyncio.create_task(send(batch))))
                sent += len(batch)
            while pending and pending[0][1].done():
                for response in await _first_of_async(pending):
                    yield response
        while len(pending) >= max_in_flight:
            for response in await _first_of_async(pending):
                yield response
        if rest := packer.rest():
            pending.append((sent, asyncio.create_task(send(rest))))
        while pending:
            for response in await _first_of_async(pending):
                yield response
        if refused:
            raise refused
    finally:
        tasks = [task for _, task in pending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one_by_one(texts: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(texts, AsyncIterable):
        async for text in texts:
            yield text
    else:
        for text in texts:
            yield text


async def _first_of_async(
    pending: deque[tuple[int, asyncio.Task[list[EmbedResponse]]]],
) -> list[EmbedResponse]:
    offset, task = pending[0]
    await asyncio.wait([task])
    pending.popleft()
    error = task.exception()
    if isinstance(error, VectorEmbedError):
        raise shifted(error, offset)
    return task.result()
