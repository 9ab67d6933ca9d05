"""The sender: one request to the API, admitted by the throttle of a key and reported to it.

A 429 is not an answer about the texts: the sender sends again, with another key if that has room,
else after a wait. It keeps the batch during short waits. For a long wait, a halt of all keys or a
shutdown it gives up, and the batch is released.

From its first answer on a batch stays with one key. What an answer proves of a text it proves only
beside others of the same account and server: if one key refused everything, the texts that passed
with another would make it look like the fault of these.
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
from ..throttle import Halt, Throttle, Wait
from .admission import Admission, Admitted, Throttles
from .evidence import Experience
from .verdicts import AccountFault, TooMany, is_charged, is_too_large, is_transient

FULL = 100  # texts in a request
HOLD_SECONDS = 6.0  # the longest wait during which the sender keeps a batch


class Deferred(Exception):
    """Nothing can be sent for a longer time than the sender waits. No text is at fault."""


class Halted(Exception):
    """All keys are halted: the API would refuse every request, whatever its texts."""


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
def _freed(throttles: Sequence[str]) -> Freed:
    return Freed()


@cache
def _experience(throttles: Sequence[str], model: str) -> Experience:
    return Experience()


class Sender:
    """Sends texts of one model for one slice of work."""

    def __init__(
        self,
        throttles: Throttles,
        model: str,
        dimensions: int | None,
        stop: threading.Event,
        is_held: Callable[[], bool] = lambda: False,
        until: float = math.inf,
    ) -> None:
        names = tuple(one.name for one in throttles())
        self.model = model
        self._admission = Admission(throttles)
        self._has_choice = len(names) > 1
        self._freed = _freed(names)
        self.dimensions = dimensions  # of the collection; None while it has no vector
        self.experience = _experience(names, model)
        self._stop = stop
        self._is_held = is_held  # by hand
        self._until = until  # of time.monotonic(): it waits no longer
        self._admitted: Admitted | None = None
        self._last: Admitted | None = None
        self._bound: Throttle | None = None  # with whose key the batch stays
        self._told = False  # that key has passed or refused texts of the batch
        self.waiting = False  # for the throttle
        self.moved = time.monotonic()  # when a request last began or ended
        self.crowded = False  # it last had to wait for a free request slot

    @property
    def throttle(self) -> str | None:
        """The name of the throttle that last permitted a request."""
        return self._last and self._last.throttle.name

    def begin(self) -> None:
        """Begin a batch: its first request may go with any key."""
        self._bound, self._told = None, False

    def prepare(self, patience: float = HOLD_SECONDS) -> int:
        """Get a permit for one request; returns how many texts are worth claiming for it.

        Waits up to `patience` seconds. Raises Deferred or Halted.
        """
        permit = self._permitted(patience).permit
        # If the permit is for one text that goes first, the other texts likely follow at once.
        return FULL if permit.first else min(permit.most, FULL)

    def _permitted(self, patience: float) -> Admitted:
        if self._admitted is None:
            self._admitted = self._last = self._wait_for_permit(min(patience, HOLD_SECONDS))
        return self._admitted

    def cancel(self) -> None:
        """Give back a permit that was not used."""
        if self._admitted is not None:
            (throttle, permit), self._admitted = self._admitted, None
            throttle.unused(permit)

    def renew(self) -> None:
        """Keep the request slot of a request in flight. The heartbeat calls this."""
        admitted = self._admitted
        if admitted is not None:
            admitted.throttle.renew(admitted.permit)

    def halt(self, fault: AccountFault) -> None:
        """Halt the throttle for a fault of the account that the last answers showed."""
        if self._last is not None:
            throttle, permit = self._last
            throttle.halted(permit, str(fault), of_key=fault.of_key)

    def send(self, texts: Sequence[str]) -> EmbeddingArray:
        """The vectors of 1 to 100 texts.

        Raises TooMany, Deferred, Halted, and the client's errors about these texts or this moment.
        """
        while True:
            throttle, permit = admitted = self._permitted(HOLD_SECONDS)
            self.moved = time.monotonic()
            if len(texts) > permit.most:
                raise TooMany(permit.most)
            try:
                with statistics.request(throttle.name):
                    answer = client(throttle.settings, self.model).embed_batch_array(
                        texts,
                        dimensions=self.dimensions,
                        on_answer=partial(self._free_slot, admitted),
                    )
            except VectorEmbedError as error:
                self._admitted = None
                if self._is_wait(error):
                    self._report_wait(admitted, error, len(texts))
                    continue
                if error.status == 401:  # of the key, whatever the texts are
                    throttle.halted(permit, str(AccountFault(error)), of_key=True)
                    continue
                self._bound, self._told = throttle, self._told or not is_transient(error)
                self._report(admitted, error, len(texts))
                raise
            except BaseException:
                self.cancel()
                raise
            else:
                self._admitted, self._bound, self._told = None, throttle, True
                uncached = len(texts) - sum(answer.cached)
                throttle.passed(permit, len(texts), uncached)
                return answer

    def _is_wait(self, error: VectorEmbedError) -> bool:
        if isinstance(error, RateLimitError):
            return not is_too_large(error)
        return is_transient(error) and error.retry_after is not None

    def _report_wait(self, admitted: Admitted, error: VectorEmbedError, texts: int) -> None:
        wait = error.retry_after if error.wait is None else error.wait
        unavailable = not isinstance(error, RateLimitError)
        throttle, permit = admitted
        throttle.deferred(permit, wait, str(error), texts, unavailable=unavailable)

    def _report(self, admitted: Admitted, error: VectorEmbedError, texts: int) -> None:
        """Report a failure or a refusal that is no wait."""
        throttle, permit = admitted
        if not is_transient(error):
            throttle.refused(permit, texts)
            return
        throttle.failed(
            permit,
            self._reason(error, permit.failures),
            texts,
            charged=is_charged(error),
            timeout=error.code == "timeout",
            reused=getattr(error, "reused", False),
        )

    def _reason(self, error: VectorEmbedError, before: int) -> str:
        # This is all that the API says about a model that it does not know.
        if error.status == 500 and before >= 2 and not (self.dimensions or self.experience.passes):
            return f"{error}; every request fails so: is {self.model} the right model name?"
        return str(error)

    def _free_slot(self, admitted: Admitted) -> None:
        """Let another request go: the whole answer is here."""
        self.moved = time.monotonic()
        admitted.throttle.answered(admitted.permit)
        self._freed.add()

    def _wait_for_permit(self, patience: float) -> Admitted:
        """Ask the throttles until one permits a request. Raises Deferred or Halted."""
        end = min(time.monotonic() + patience, self._until)
        while True:
            freed = self._freed.count
            if self._is_held():
                raise Deferred("paused by hand")
            if self._stop.is_set():  # else SIGTERM would wait for one timeout after another
                raise Deferred("the worker ends")
            said = self._admission.ask(self._bound)
            self.waiting = isinstance(said, Wait)
            if isinstance(said, Admitted):
                return said
            if isinstance(said, Halt):
                if self._has_choice and self._bound is not None:  # the others were not asked
                    raise Deferred(said.reason)
                raise Halted(said.reason)
            if time.monotonic() + said.seconds > end or self._is_better_elsewhere(said):
                raise Deferred(said.reason)
            self.crowded = said.full
            if said.full:
                self._freed.wait(freed, said.seconds)
            else:
                self._stop.wait(said.seconds)

    def _is_better_elsewhere(self, said: Wait) -> bool:
        """Whether the batch had better go with another key: with its own, requests only failed."""
        in_pause = bool(said.reason) and not said.full
        return self._has_choice and self._bound is not None and not self._told and in_pause


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
