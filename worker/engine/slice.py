"""A slice of work: one thread's turn at one collection.

It claims a batch, fills it with texts of other collections if there is room, lets urgent ones join,
embeds it, commits it, and repeats this until the backlog is empty or its time is over. The next
wake-up may be for another collection. At the end it releases what it still holds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from vector_embed_client import EmbeddingArray

from ..logs import ONCE, logger
from ..monitor.fleet import Work
from ..store.backlog import BATCH_SIZE, Backlog, keep_all_alive, release_all
from ..store.connection import connect
from ..store.errors import DimensionsDiffer
from ..types import Info
from .admission import throttle_names, throttles_of
from .filling import Filling
from .joining import Joining, first_ones
from .portion import Portion, settle_all
from .process import Process
from .sender import HOLD_SECONDS, Deferred, Halted, Sender
from .verdicts import AccountFault, DimensionsChanged, Outcome, Unwell, bad_answer, embed


class Slice:
    """One slice of work on a backlog, in one process. `info`: of the collection, which has a model.

    `urgent`: someone waits for a text of it. Raises ValueError for an API key or address that the
    client refuses.
    """

    def __init__(
        self, process: Process, backlog: Backlog, info: Info, *, urgent: bool = False
    ) -> None:
        settings = process.settings
        assert info.model is not None
        self.consumer = process.new_consumer()
        self._process = process
        self._backlog = backlog
        self._own = Portion(process, backlog, info)
        self._others: tuple[Portion, ...] = ()  # of other collections, in the batch at hand
        self._urgent = urgent  # its next request
        self._throttles = partial(throttles_of, settings, info.model, but=info.halts)
        self._sender = Sender(
            lambda: self._throttles(urgent=self._urgent),
            info.model,
            info.dimensions,
            process.stopping,
            self._is_held,
        )
        client, own, consumer = connect(settings), self._own, self.consumer
        self._filling = Filling(process, client, own, consumer, partial(throttle_names, settings))
        self._joining = Joining(process, client, own, consumer, self._filling)
        self._done = self._done_of_others = 0  # texts with an outcome
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

    @property
    def guests(self) -> int:
        """How many texts of other collections it has in hand."""
        return sum(len(one.leases) for one in self._others)

    @property
    def in_hand(self) -> list[str]:
        """The collections of which it has texts in hand."""
        return [one.name for one in (self._own, *self._others) if one.leases]

    @property
    def elsewhere(self) -> str | None:
        """The urgent collection for which it ended, if there is one."""
        return self._joining.elsewhere

    def renew(self) -> Work:
        """Tell Redis that the slice is alive; returns what it does."""
        others = [one.backlog for one in self._others]
        try:
            fault, *_ = keep_all_alive([self._backlog, *others], self.consumer)
            if fault is not None:  # that of another one is its own node's
                raise fault
        finally:
            self._sender.renew()
        return Work(self._backlog.name, len(self._own.leases), self._sender.waiting)

    def give_back(self) -> None:
        """Release what it holds, and end its consumer."""
        self._sender.cancel()
        own = self._own
        try:
            self._backlog.release(self.consumer, own.failed, own.leases, end_slice=True)
        finally:  # on a cluster, others may be on another node
            self._release_others()

    def _is_held(self) -> bool:
        """Whether a collection of the batch at hand was paused by hand."""
        return any(self._process.is_held(one.name) for one in (self._own, *self._others))

    def _release_others(self) -> None:
        others = self._others
        failed, held = [one.failed for one in others], [one.leases for one in others]
        release_all([one.backlog for one in others], self.consumer, failed, held)
        self._others = ()

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
            # Without commands: it is shown by those that ask the same Redis by another URL.
            reason = (
                f"{change}: where that is right, drop the collection and enqueue again, or enqueue "
                "into another one"
            )
            self._backlog.halt(self._sender.throttle or "", reason)
            fitness.halted(f"{name}: {reason}")
        return "halted"

    def _work(self) -> None:
        """Claim, embed and commit batches until the slice is over."""
        claimed = 0
        while time.monotonic() < self._end and self._process.may_claim(self._backlog.name):
            # After a full batch there is likely another one. While request slots are short, it is
            # claimed before there is a slot for it. So is an urgent text, lest the slot that it
            # gets before others is for nothing, because the text has joined another batch.
            ahead = claimed == BATCH_SIZE and self._sender.crowded
            ahead = ahead or self._urgent
            with self._process.lock.shared():
                claimed = self._batch() if ahead else self._batch(self._slot())
            self._is_empty = bool(claimed) and not self._backlog.size()
            if self._is_empty:
                return
            # The quarantined come last, but get their turn: a backlog may never be empty.
            gives_way = self.elsewhere is not None
            if gives_way or not claimed or time.monotonic() >= self._end:
                claimed = self._quarantined()
            if gives_way or not claimed:
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
        """Claim a batch, embed it and commit it; returns how many texts of it are its own."""
        own, sender = self._own, self._sender
        own.hold(
            self._backlog.claim(
                self.consumer,
                most,
                quarantined=quarantined,
                take_over=self._process.judges,
                living=self._process.living(),
            )
        )
        claimed = len(own.leases)
        if claimed:
            # A text that may have killed its worker is kept away from those of others.
            if not quarantined and not any(lease.lost for lease in own.leases):
                self._fill(most - claimed)
                self._join()
            held = [lease for one in (own, *self._others) for lease in one.leases]
            leases = first_ones(held, BATCH_SIZE)
            for outcomes in embed(
                leases, sender.model, self._send, sender.experience, sender.dimensions
            ):
                self._commit(outcomes)
        self._done += own.tested
        self._done_of_others += sum(one.tested for one in self._others)
        self._urgent = False
        if own.tested < len(own.leases) or own.failed:
            self._backlog.release(self.consumer, own.failed, own.leases)
        self._release_others()
        own.hold([])
        sender.begin()  # the next one
        return claimed

    def _fill(self, room: int) -> None:
        """Claim texts of other collections for the room that is left in a batch."""
        if room <= 0:
            return
        # They are known before anything is claimed: if a reply is lost, they are released.
        known = self._sender.dimensions or self._sender.experience.dimensions
        self._others = tuple(self._filling.portions(room, known))
        self._filling.fill(self._others, room)

    def _join(self) -> None:
        """Get a request slot, and claim what is urgent just then."""
        own, sender = self._own, self._sender
        held = [lease for one in (own, *self._others) for lease in one.leases]
        self._urgent = any(lease.urgent for lease in held)
        sender.prepare()
        known = sender.dimensions or sender.experience.dimensions
        joining = self._joining.portions(self._others, known)
        self._others += tuple(one for one in joining if one not in (own, *self._others))
        self._joining.join(joining)

    def _send(self, texts: Sequence[str]) -> EmbeddingArray:
        """The vectors of 1 to 100 texts. Raises what `Sender.send` does."""
        answer, layout = self._sender.send(texts), self._own.info.layout
        if not (layout.is_plain or layout.can_keep(answer.to_numpy())):
            raise bad_answer("nothing is left of a vector that is cut to the collection's length")
        return answer

    def _commit(self, outcomes: Sequence[Outcome]) -> None:
        """Store the outcomes of some leases, each in its own collection."""
        by_name: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            by_name.setdefault(outcome.lease.collection, []).append(outcome)
        portions = (self._own, *self._others)
        settle_all(((one, by_name.get(one.name, [])) for one in portions), self._own)
        if self._own.dimensions:
            self._sender.dimensions = self._own.dimensions

    def _log(self, outcome: str) -> None:
        name = self._backlog.name
        seconds = round(time.monotonic() - self._began, 3)
        told = {"collection": name, "batch": self._done, "seconds": seconds, "outcome": outcome}
        others = self._done_of_others
        more = f", and {others} of other collections" if others else ""
        logger.info("%s: %s texts in %.1f s%s", name, self._done, seconds, more, extra=told)
