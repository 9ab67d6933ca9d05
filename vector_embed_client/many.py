"""Any number of texts through the batches of a client: several under way at once, answers in order.

The input is read only as far ahead as requests are under way, so it may be endless. An error of a
request, a text or the input itself is raised in its place, after all answers before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Union

from . import calls, threads
from .calls import Packer
from .errors import VectorEmbedError
from .types import EmbedResponse

Answers = list[EmbedResponse]
Outcome = Union[Answers, BaseException]


class Input:
    """The texts read so far, as batches. `end` is what to raise once all of them are answered."""

    def __init__(self, packer: Packer) -> None:
        self.batches: deque[tuple[int, list[str]]] = deque()  # with the position of the first text
        self.is_over = False
        self.end: Exception | None = None
        self._packer = packer
        self._read = 0
        self._packed = 0

    def add(self, text: str) -> None:
        """Take in the next text. Raises ValidationError if it cannot be embedded."""
        calls.check_text(text, self._read)
        self._read += 1
        self._put(self._packer.add(text))

    def finish(self, end: Exception) -> None:
        """The input has ended, or `end` has ended it."""
        self.is_over = True
        if not isinstance(end, (StopIteration, StopAsyncIteration)):
            self.end = end
        self._put(self._packer.rest())

    @property
    def is_read(self) -> bool:
        """Whether all batches have been taken."""
        return self.is_over and not self.batches

    def _put(self, batches: Iterable[list[str]]) -> None:
        for texts in batches:
            self.batches.append((self._packed, texts))
            self._packed += len(texts)


def in_order(
    texts: Iterable[str], packer: Packer, send: Callable[[list[str]], Answers], max_in_flight: int
) -> Iterator[EmbedResponse]:
    """The answers to `texts`, in order. `send` answers one batch; up to `max_in_flight` at once."""
    source = iter(texts)
    found = Input(packer)
    pending: deque[tuple[int, Future[Outcome]]] = deque()
    while pending or not found.is_read:
        is_full = len(pending) == max_in_flight
        if pending and (is_full or pending[0][1].done() or found.is_read):
            offset, future = pending.popleft()
            yield from _answers(offset, future.result())
        elif found.batches:
            offset, batch = found.batches.popleft()
            pending.append((offset, _start(send, batch)))
        else:
            try:
                found.add(next(source))
            except Exception as error:
                found.finish(error)
    if found.end is not None:
        raise found.end


def _start(send: Callable[[list[str]], Answers], batch: list[str]) -> Future[Outcome]:
    """`send(batch)` in a thread. If the caller stops in the middle, no one waits for it."""
    future: Future[Outcome] = Future()

    def run() -> None:
        try:
            future.set_result(send(batch))
        except BaseException as error:
            future.set_result(error)

    threads.start(run)
    return future


def _answers(offset: int, outcome: Outcome) -> Answers:
    """The answers to a batch. An error is raised, its index counted over the whole input."""
    if isinstance(outcome, VectorEmbedError) and outcome.index is not None:
        *fields, index = outcome.args
        raise type(outcome)(*[*fields, index + offset])
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


class InOrder(AsyncIterator[EmbedResponse]):
    """`in_order` for asyncio. If it is dropped in the middle, it cancels its requests.

    It is not an async generator: after a `break`, the loop closes a generator in a separate task,
    which may come too late and then warns.
    """

    def __init__(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        packer: Packer,
        send: Callable[[list[str]], Coroutine[object, object, Answers]],
        max_in_flight: int,
    ) -> None:
        self._pending: deque[tuple[int, asyncio.Task[Outcome]]] = deque()
        self._ready: deque[EmbedResponse] = deque()
        self._input = Input(packer)
        self._send = send
        self._max_in_flight = max_in_flight
        self._is_running = False
        self._source = texts.__aiter__() if isinstance(texts, AsyncIterable) else iter(texts)

    async def __anext__(self) -> EmbedResponse:
        if self._is_running:
            raise RuntimeError("embed_many is already looking for its next answer")
        self._is_running = True
        try:
            while not self._ready:
                await self._advance()
            return self._ready.popleft()
        except BaseException:
            self._leave()
            raise
        finally:
            self._is_running = False

    async def aclose(self) -> None:
        """Cancel the requests under way and wait until they are gone."""
        await asyncio.gather(*self._leave(), return_exceptions=True)

    def __del__(self) -> None:
        for _, task in self._pending:  # the garbage collector may be in any thread
            with suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)

    def _leave(self) -> list[asyncio.Task[Outcome]]:
        """End the iteration: cancel the requests under way and return them."""
        tasks = [task for _, task in self._pending]
        for task in tasks:
            task.cancel()
        self._pending.clear()
        self._ready.clear()
        self._input.batches.clear()
        self._input.is_over, self._input.end = True, None
        return tasks

    async def _advance(self) -> None:
        """Do one thing: wait for the first request, send the next batch, or read the next text."""
        found, pending = self._input, self._pending
        is_full = len(pending) == self._max_in_flight
        if pending and (is_full or pending[0][1].done() or found.is_read):
            offset, first = pending[0]
            await asyncio.wait([first])
            pending.popleft()
            self._ready.extend(_answers(offset, first.result()))
        elif found.batches:
            offset, batch = found.batches.popleft()
            # A task of ours must not hold `self`, or it could never be freed.
            pending.append((offset, asyncio.create_task(_outcome(self._send(batch)))))
        elif found.is_over:
            raise StopAsyncIteration if found.end is None else found.end
        else:
            try:
                if isinstance(self._source, AsyncIterator):
                    found.add(await self._source.__anext__())
                else:
                    found.add(next(self._source))
            except Exception as error:
                found.finish(error)


async def _outcome(work: Coroutine[object, object, Answers]) -> Outcome:
    try:
        return await work
    except Exception as error:  # or asyncio would complain that no one retrieved it
        return error
