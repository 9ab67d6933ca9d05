"""The sender: one request to the API, admitted by the throttle and reported to it.

A 429 is not an answer about the texts: the sender waits and sends again. It keeps the batch during
short waits. For a long wait, a halt or a shutdown it gives up, and the batch is released.
"""

from __future__ import annotations

import math
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

from ..monitor.requests import statistics
from ..settings import Settings
from ..throttle import Halt, Permit, Throttle, Wait
from .evidence import Experience
from .verdicts import AccountFault, TooMany, is_charged, is_too_large, is_transient

FULL = 100  # texts in a request
HOLD_SECONDS = 6.0  # the longest wait during which the sender keeps a batch


class Deferred(Exception):
    """Nothing can be sent for a longer time than the sender waits. No text is at fault."""


class Halted(Exception):
    """The throttle is halted: the API would refuse every request, whatever its texts."""


class Freed:
    """Counts the request slots that this process has freed, for its threads that wait for one."""

    def __init__(self) -> None:
        self.count = 0
        self._more = threading.Condition()

    def add(self) -> None:
        with self._more:
            self.count += 1
            self._more.notify()

    def wait(self, count: int, seconds: float) -> None:
        """Wait until more than `count` were freed, for at most `seconds`."""
        with self._more:
            self._more.wait_for(lambda: self.count > count, seconds)


@cache
def _freed(throttle: str) -> Freed:
    return Freed()


@cache
def _experience(throttle: str, model: str) -> Experience:
    return Experience()


class Sender:
    """Sends texts of one model for one slice of work."""

    def __init__(
        self,
        throttle: Throttle,
        dimensions: int | None,
        stop: threading.Event,
        is_held: Callable[[], bool] = lambda: False,
        until: float = math.inf,
    ) -> None:
        self.throttle = throttle
        self.model = throttle.model
        self._freed = _freed(throttle.name)
        self.dimensions = dimensions  # of the collection; None while it has no vector
        self.experience = _experience(throttle.name, throttle.model)
        self._stop = stop
        self._is_held = is_held  # by hand
        self._until = until  # of time.monotonic(): it waits no longer
        self._permit: Permit | None = None
        self._last: Permit | None = None
        self.waiting = False  # for the throttle
        self.moved = time.monotonic()  # when a request last began or ended
        self.crowded = False  # it last had to wait for a free request slot

    def prepare(self, patience: float = HOLD_SECONDS) -> int:
        """Get a permit for one request; returns how many texts are worth claiming for it.

        Waits up to `patience` seconds. Raises Deferred or Halted.
        """
        permit = self._permitted(patience)
        # If the permit is for one text that goes first, the other texts likely follow at once.
        return FULL if permit.first else min(permit.most, FULL)

    def _permitted(self, patience: float) -> Permit:
        if self._permit is None:
            self._permit = self._last = self._wait_for_permit(min(patience, HOLD_SECONDS))
        return self._permit

    def cancel(self) -> None:
        """Give back a permit that was not used."""
        if self._permit is not None:
            permit, self._permit = self._permit, None
            self.throttle.unused(permit)

    def renew(self) -> None:
        """Keep the request slot of a request in flight. The heartbeat calls this."""
        permit = self._permit
        if permit is not None:
            self.throttle.renew(permit)

    def halt(self, fault: AccountFault) -> None:
        """Halt the throttle for a fault of the account that the last answers showed."""
        if self._last is not None:
            self.throttle.halted(self._last, str(fault), of_key=fault.of_key)

    def send(self, texts: Sequence[str]) -> EmbeddingArray:
        """The vectors of 1 to 100 texts.

        Raises TooMany, Deferred, Halted, and the client's errors about these texts or this moment.
        """
        while True:
            permit = self._permitted(HOLD_SECONDS)
            self.moved = time.monotonic()
            if len(texts) > permit.most:
                raise TooMany(permit.most)
            try:
                with statistics.request(self.throttle.name):
                    answer = client(self.throttle.settings, self.model).embed_batch_array(
                        texts,
                        dimensions=self.dimensions,
                        on_answer=partial(self._free_slot, permit),
                    )
            except VectorEmbedError as error:
                self._permit = None
                if self._is_wait(error):
                    self._report_wait(permit, error, len(texts))
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

    def _report_wait(self, permit: Permit, error: VectorEmbedError, texts: int) -> None:
        wait = error.retry_after if error.wait is None else error.wait
        unavailable = not isinstance(error, RateLimitError)
        self.throttle.deferred(permit, wait, str(error), texts, unavailable=unavailable)

    def _report(self, permit: Permit, error: VectorEmbedError, texts: int) -> None:
        """Report a failure that is no wait. Raises Halted if every other text would fail too."""
        if is_transient(error):
            self.throttle.failed(
                permit,
                self._reason(error, permit.failures),
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

    def _reason(self, error: VectorEmbedError, before: int) -> str:
        # This is all that the API says about a model that it does not know.
        if error.status == 500 and before >= 2 and not (self.dimensions or self.experience.passes):
            return f"{error}; every request fails so: is {self.model} the right model name?"
        return str(error)

    def _free_slot(self, permit: Permit) -> None:
        """Let another request go: the whole answer is here."""
        self.moved = time.monotonic()
        self.throttle.answered(permit)
        self._freed.add()

    def _wait_for_permit(self, patience: float) -> Permit:
        """Ask the throttle until it permits a request. Raises Deferred or Halted."""
        end = min(time.monotonic() + patience, self._until)
        while True:
            freed = self._freed.count
            if self._is_held():
                raise Deferred("paused by hand")
            if self._stop.is_set():  # else SIGTERM would wait for one timeout after another
                raise Deferred("the worker ends")
            said = self.throttle.ask()
            self.waiting = isinstance(said, Wait)
            if isinstance(said, Permit):
                return said
            if isinstance(said, Halt):
                raise Halted(said.reason)
            assert isinstance(said, Wait)
            if time.monotonic() + said.seconds > end:
                raise Deferred(said.reason)
            self.crowded = said.full
            if said.full:
                self._freed.wait(freed, said.seconds)
            else:
                self._stop.wait(said.seconds)


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
