"""A slice of work: one thread's turn at one collection.

It claims a batch, embeds it, commits it, and repeats this until the backlog is empty or its time is
over. The next wake-up may be for another collection. At the end it releases what it still holds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from vector_embed_client import EmbeddingArray

from ..logs import ONCE, logger
from ..monitor.fleet import Work
from ..settings.keyfile import current
from ..store.backlog import BATCH_SIZE, Backlog
from ..store.errors import DimensionsDiffer
from ..throttle import Throttle
from ..types import Embedded, Info, Lease, Refused
from .process import Process
from .sender import HOLD_SECONDS, Deferred, Halted, Sender
from .verdicts import AccountFault, DimensionsChanged, Outcome, Unwell, bad_answer, embed


class Slice:
    """One slice of work on a backlog, in one process. `info`: of the collection, which has a model.

    Raises ValueError for an API key or address that the client refuses.
    """

    def __init__(self, process: Process, backlog: Backlog, info: Info) -> None:
        settings = process.settings
        assert info.model is not None
        self.consumer = process.new_consumer()
        self._process = process
        self._backlog = backlog
        self._keep_text = info.keep_text
        self._layout = info.layout
        self._sender = Sender(
            Throttle(current(settings), info.model),
            info.dimensions,
            process.stopping,
            partial(process.is_held, backlog.name),
        )
        self._leases: list[Lease] = []
        self._failed: list[Lease] = []  # alone, and not yet counted in Redis
        self._done = 0  # texts with an outcome
        self._is_empty = False  # the backlog, when it was last looked at
        self._began = time.monotonic()
        self._end = self._began + settings.slice_seconds

    def run(self) -> bool:
        """Work until the end of the slice; returns whether the backlog was empty then."""
        self._process.open(self)
        try:
            outcome = self._outcome()
        finally:
            self._process.close(self)
        if self._done:
            self._log(outcome)
        return self._is_empty

    @property
    def unmoved_seconds(self) -> float:
        """How long nothing has moved: no request began or ended."""
        return time.monotonic() - self._sender.moved

    def renew(self) -> Work:
        """Tell Redis that the slice is alive; returns what it does."""
        self._backlog.keep_alive(self.consumer)
        self._sender.renew()
        return Work(self._backlog.name, len(self._leases), self._sender.waiting)

    def give_back(self) -> None:
        """Release what it holds, and end its consumer."""
        self._sender.cancel()
        self._backlog.release(self.consumer, self._failed, end_slice=True)

    def _outcome(self) -> str:
        """Work, and name what ended it."""
        name, fitness = self._backlog.name, self._process.fitness
        try:
            self._work()
            return "done"
        except Deferred as wait:
            logger.info("%s waits: %s", name, wait, extra=ONCE)
            return "waits"
        except (Unwell, DimensionsDiffer) as trouble:
            logger.warning("%s will be tried again: %s", name, trouble, extra=ONCE)
            return "failed"
        except Halted as halt:
            fitness.halted(str(halt))
        except AccountFault as fault:
            self._sender.halt(fault)
            fitness.halted(str(fault))
        except DimensionsChanged as change:
            reason = (
                f"{change}: where that is right, `vec drop {name}` and enqueue again, or "
                f"enqueue into another collection; when it is fixed, `vec resume {name}`"
            )
            self._backlog.halt(self._sender.throttle.name, reason)
            fitness.halted(f"{name}: {reason}")
        return "halted"

    def _work(self) -> None:
        """Claim, embed and commit batches until the slice is over."""
        claimed = 0
        while time.monotonic() < self._end and self._process.may_claim(self._backlog.name):
            # After a full batch there is likely another one. While request slots are short, it is
            # claimed before there is a slot for it.
            ahead = claimed == BATCH_SIZE and self._sender.crowded
            with self._process.lock.shared():
                claimed = self._batch() if ahead else self._batch(self._slot())
            self._is_empty = bool(claimed) and not self._backlog.size()
            if self._is_empty:
                return
            # The quarantined come last, but get their turn: a backlog may never be empty.
            if not claimed or time.monotonic() >= self._end:
                claimed = self._quarantined()
            if not claimed:
                return

    def _slot(self) -> int:
        """Wait for a request slot; returns how many texts to claim for it."""
        # Without a batch a slice does not wait beyond its end: another collection may be next.
        return self._sender.prepare(self._end - time.monotonic())

    def _quarantined(self) -> int:
        """Work on texts that may have killed their worker; returns how many there were."""
        if not self._backlog.has_quarantined():
            return 0
        self._sender.cancel()  # no request slot is held while it waits for the lock
        with self._process.lock.exclusive():
            return self._batch(self._sender.prepare(HOLD_SECONDS), quarantined=True)

    def _batch(self, most: int = BATCH_SIZE, *, quarantined: bool = False) -> int:
        """Claim a batch, embed it and commit it; returns how many texts it had."""
        self._leases = self._backlog.claim(
            self.consumer,
            most,
            quarantined=quarantined,
            take_over=self._process.judges,
            living=self._process.living(),
        )
        claimed = untested = len(self._leases)
        if claimed:
            sender = self._sender
            for outcomes in embed(
                self._leases, sender.model, self._send, sender.experience, sender.dimensions
            ):
                self._commit(outcomes)
                untested -= len(outcomes)
        self._done += claimed - untested
        if untested or self._failed:
            self._backlog.release(self.consumer, self._failed)
            self._failed = []
        self._leases = []
        return claimed

    def _send(self, texts: Sequence[str]) -> EmbeddingArray:
        """The vectors of 1 to 100 texts. Raises what `Sender.send` does."""
        answer = self._sender.send(texts)
        if not (self._layout.is_plain or self._layout.can_keep(answer.to_numpy())):
            raise bad_answer("nothing is left of a vector that is cut to the collection's length")
        return answer

    def _commit(self, outcomes: Sequence[Outcome]) -> None:
        """Store the outcomes of some leases."""
        embedded = [one for one in outcomes if isinstance(one, Embedded)]
        refused = [one for one in outcomes if isinstance(one, Refused)]
        for outcome in outcomes:
            if not isinstance(outcome, (Embedded, Refused)):
                lease = outcome.lease
                counts = range(lease.attempts, lease.attempts + outcome.times)
                self._failed += [lease._replace(attempts=before) for before in counts]
        if not embedded and not refused:
            return
        name = self._backlog.name
        committed = self._backlog.commit(
            embedded, refused, keep_text=self._keep_text, layout=self._layout
        )
        if embedded:
            self._sender.dimensions = len(embedded[0].vector) // 4
        self._process.count(name, committed.stored + committed.dead)
        if committed.fenced and self._backlog.is_gone():
            logger.error(
                "%s is gone from Redis, with all that was queued and stored: enqueue it again", name
            )
        for refusal in refused:
            logger.warning("%s: text %s is dead: %s", name, refusal.lease.job.id, refusal.code)

    def _log(self, outcome: str) -> None:
        name = self._backlog.name
        seconds = round(time.monotonic() - self._began, 3)
        told = {"collection": name, "batch": self._done, "seconds": seconds, "outcome": outcome}
        logger.info("%s: %s texts in %.1f s", name, self._done, seconds, extra=told)
