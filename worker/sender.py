"""The sender: one request to the API, admitted by the throttle and reported to it.

A 429 ends here, as a wait: it is no answer about the texts. Short waits are slept through with the
batch in hand; for long ones, a halt or a shutdown the sender gives up, and the batch goes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import cache, partial

from vector_embed_client import (
    AuthenticationError,
    Client,
    EmbeddingArray,
    RateLimitError,
    ValidationError,
    VectorEmbedError,
)

from .embedding import TooMany, is_transient
from .settings import Settings
from .tally import tally
from .throttle import Halt, Permit, Throttle, Wait

HOLD_SECONDS = 6.0  # the longest wait that is slept through with a batch in hand


class Deferred(Exception):
    """Nothing can be sent for longer than is worth waiting for here. Nobody is to blame."""


class Halted(Exception):
    """The queue is halted: every request would be refused, whatever its texts."""


class _Freed:
    """How many places of a throttle this process has freed, for its threads that wait for one."""

    def __init__(self) -> None:
        self.count = 0
        self._more = threading.Condition()

    def add(self) -> None:
        with self._more:
            self.count += 1
            self._more.notify()

    def wait(self, count: int, seconds: float) -> None:
        """Until there are more than `count`, for at most `seconds`."""
        with self._more:
            self._more.wait_for(lambda: self.count > count, seconds)


@cache
def _freed(throttle: str) -> _Freed:
    return _Freed()


class Sender:
    """Sends texts of one model for one slice of work."""

    def __init__(
        self, settings: Settings, model: str, dimensions: int | None, stop: threading.Event
    ) -> None:
        self.throttle = Throttle(settings, model)
        self._freed = _freed(self.throttle.name)
        self._settings = settings
        self.model = model
        self._dimensions = dimensions  # of the collection; None while it has no vector
        self._stop = stop
        self._permit: Permit | None = None
        self._last: Permit | None = None
        self.waiting = False  # for the throttle
        self.crowded = False  # what it last had to wait for was a free place

    def prepare(self, patience: float = HOLD_SECONDS) -> Permit:
        """Wait until one request may be sent, up to `patience` seconds, and keep the place for it.

        Raises Deferred or Halted.
        """
        if self._permit is None:
            self._permit = self._last = self._admit(min(patience, HOLD_SECONDS))
        return self._permit

    def cancel(self) -> None:
        """Give back a place that was prepared and not used."""
        if self._permit is not None:
            permit, self._permit = self._permit, None
            self.throttle.unused(permit)

    def renew(self) -> None:
        """Keep the place of a request that is under way; called from the heartbeat."""
        permit = self._permit
        if permit is not None:
            self.throttle.renew(permit)

    def halt(self, reason: str) -> None:
        """Halt the queue for what the last answers gave away about the account."""
        if self._last is not None:
            self.throttle.halted(self._last, reason)

    def send(self, texts: Sequence[str]) -> EmbeddingArray:
        """The vectors of 1 to 100 texts.

        Raises TooMany, Deferred, Halted, and the client's errors about these texts or this moment.
        """
        while True:
            permit = self.prepare()
            if len(texts) > permit.most:
                raise TooMany(permit.most)
            try:
                with tally.request(self.throttle.name):
                    answer = client(self._settings, self.model).embed_batch_array(
                        texts, on_answer=partial(self._answered, permit)
                    )
                    self._check(answer)
            except ValidationError:
                self._passed(permit, len(texts), 0)
                raise
            except VectorEmbedError as error:
                self._permit = None
                if isinstance(error, RateLimitError) or error.retry_after is not None:
                    wait = error.retry_after if error.wait is None else error.wait
                    self.throttle.deferred(
                        permit,
                        wait,
                        str(error),
                        len(texts),
                        unavailable=not isinstance(error, RateLimitError),
                    )
                    continue
                if is_transient(error):
                    reason = self._failure(error, permit.failures)
                    self.throttle.failed(permit, reason, timeout=error.code == "timeout")
                    raise
                # 401, 403, a redirect, a 404: every text would fare alike.
                of_key = isinstance(error, AuthenticationError)
                self.throttle.halted(permit, _halt_reason(error), of_key=of_key)
                raise Halted(_halt_reason(error)) from None
            except BaseException:
                self.cancel()
                raise
            else:
                self._passed(permit, len(texts), len(texts) - sum(answer.cached))
                return answer

    def _failure(self, error: VectorEmbedError, before: int) -> str:
        # To a model that it does not know the API says just this, for ever.
        if error.status == 500 and before >= 2:
            return f"{error}; every request fails so: is {self.model} the right model name?"
        return str(error)

    def _check(self, answer: EmbeddingArray) -> None:
        if self._dimensions not in (None, answer.dimensions):
            raise VectorEmbedError(
                f"the API answered with {answer.dimensions} dimensions, not the collection's "
                f"{self._dimensions}",
                "bad_response",
                200,
            )

    def _answered(self, permit: Permit) -> None:
        self.throttle.answered(permit)
        self._freed.add()

    def _passed(self, permit: Permit, texts: int, uncached: int) -> None:
        self._permit = None
        self.throttle.passed(permit, texts, uncached)

    def _admit(self, patience: float) -> Permit:
        end = time.monotonic() + patience
        while True:
            freed = self._freed.count
            verdict = self.throttle.ask()
            self.waiting = isinstance(verdict, Wait)
            if isinstance(verdict, Permit):
                return verdict
            if isinstance(verdict, Halt):
                raise Halted(verdict.reason)
            assert isinstance(verdict, Wait)
            if time.monotonic() + verdict.seconds > end:
                raise Deferred(verdict.reason)
            self.crowded = verdict.full
            if verdict.full:
                self._freed.wait(freed, verdict.seconds)
            else:
                self._stop.wait(verdict.seconds)
            if self._stop.is_set():
                raise Deferred(verdict.reason)


def _halt_reason(error: VectorEmbedError) -> str:
    if isinstance(error, AuthenticationError):
        return f"the API refuses the key: {error}"
    return f"the API refuses every request: {error}"


@cache
def client(settings: Settings, model: str) -> Client:
    """The client for `model`. Raises ValueError for a key or an address that cannot be."""
    # The throttle admits every send, so the client must not send again by itself.
    return Client(
        api_key=settings.api_key,
        base_url=settings.base_url,
        model=model,
        timeout=settings.timeout,
        retries=0,
    )
