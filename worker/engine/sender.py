"""The sender: one request to the API, admitted by the throttle and reported to it.

A 429 ends here, as a wait: it is no answer about the texts. Short waits are slept through with the
batch in hand; for long ones, a halt or a shutdown the sender gives up, and the batch goes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial

from vector_embed_client import (
    Client,
    EmbeddingArray,
    RateLimitError,
    VectorEmbedError,
)

from ..monitor.requests import tally
from ..settings import Settings
from ..throttle import Halt, Permit, Throttle, Wait
from .evidence import Experience
from .verdicts import AccountFault, TooMany, is_charged, is_too_large, is_transient

FULL = 100  # texts in a request
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


@cache
def _experience(throttle: str, model: str) -> Experience:
    return Experience()


class Sender:
    """Sends texts of one model for one slice of work."""

    def __init__(
        self,
        settings: Settings,
        model: str,
        dimensions: int | None,
        stop: threading.Event,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self.throttle = Throttle(settings, model)
        self._freed = _freed(self.throttle.name)
        self._settings = settings
        self.model = model
        self.dimensions = dimensions  # of the collection; None while it has no vector
        self.experience = _experience(self.throttle.name, model)
        self._stop = stop
        self._is_held = is_held  # by hand
        self._permit: Permit | None = None
        self._last: Permit | None = None
        self.waiting = False  # for the throttle
        self.crowded = False  # what it last had to wait for was a free place

    def prepare(self, patience: float = HOLD_SECONDS) -> int:
        """Wait until one request may be sent, up to `patience` seconds, and keep the permit for it;
        how many texts are worth claiming for it.

        Raises Deferred or Halted.
        """
        permit = self._permitted(patience)
        # After the one text that goes first there is likely room for the others.
        return FULL if permit.first else min(permit.most, FULL)

    def _permitted(self, patience: float) -> Permit:
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

    def halt(self, fault: AccountFault) -> None:
        """Halt the queue for what the last answers gave away about the account."""
        if self._last is not None:
            self.throttle.halted(self._last, str(fault), of_key=fault.of_key)

    def send(self, texts: Sequence[str]) -> EmbeddingArray:
        """The vectors of 1 to 100 texts.

        Raises TooMany, Deferred, Halted, and the client's errors about these texts or this moment.
        """
        while True:
            permit = self._permitted(HOLD_SECONDS)
            if len(texts) > permit.most:
                raise TooMany(permit.most)
            try:
                with tally.request(self.throttle.name):
                    answer = client(self._settings, self.model).embed_batch_array(
                        texts,
                        dimensions=self.dimensions,
                        on_answer=partial(self._answered, permit),
                    )
            except VectorEmbedError as error:
                self._permit = None
                if self._is_wait(error):
                    self._defer(permit, error, len(texts))
                    continue
                self._report(permit, error, len(texts))
                raise
            except BaseException:
                self.cancel()
                raise
            else:
                self._permit = None
                uncached = len(texts) - sum(answer.cached)
                self.throttle.passed(permit, len(texts), uncached)
                return answer

    def _is_wait(self, error: VectorEmbedError) -> bool:
        if isinstance(error, RateLimitError):
            return not is_too_large(error)
        return is_transient(error) and error.retry_after is not None

    def _defer(self, permit: Permit, error: VectorEmbedError, texts: int) -> None:
        wait = error.retry_after if error.wait is None else error.wait
        unavailable = not isinstance(error, RateLimitError)
        self.throttle.deferred(permit, wait, str(error), texts, unavailable=unavailable)

    def _report(self, permit: Permit, error: VectorEmbedError, texts: int) -> None:
        """Report what is no vectors and no wait. Raises Halted where no text would fare better."""
        if is_transient(error):
            self.throttle.failed(
                permit,
                self._failure(error, permit.failures),
                texts,
                charged=is_charged(error),
                timeout=error.code == "timeout",
                reused=getattr(error, "reused", False),
            )
        elif error.status == 401:
            fault = AccountFault(error)
            self.throttle.halted(permit, str(fault), of_key=True)
            raise Halted(str(fault)) from None
        else:
            self.throttle.refused(permit, texts)

    def _failure(self, error: VectorEmbedError, before: int) -> str:
        # To a model that it does not know the API says just this, for ever.
        if error.status == 500 and before >= 2 and not (self.dimensions or self.experience.passes):
            return f"{error}; every request fails so: is {self.model} the right model name?"
        return str(error)

    def _answered(self, permit: Permit) -> None:
        self.throttle.answered(permit)
        self._freed.add()

    def _admit(self, patience: float) -> Permit:
        end = time.monotonic() + patience
        while True:
            freed = self._freed.count
            if self._is_held():
                raise Deferred("paused by hand")
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
