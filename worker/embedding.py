"""One batch: leases in, outcomes out. No Redis here.

`send` takes texts and gives their vectors; it waits for the throttle and raises for what concerns
the whole queue. What is left to decide is whose fault a failure is: the API's (raise: everything is
tried again later), the account's (raise: the queue halts), or one text's. A text is found guilty
only beside proof that the API is well: another text that passed.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Union

from vector_embed_client import (
    EmbeddingArray,
    NetworkError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)

from .batching import Slot, pack
from .collection import Embedded, Lease, Refused

Send = Callable[[Sequence[str]], EmbeddingArray]

MAX_ATTEMPTS = 5  # failures alone, each beside a text that passed, that make a dead letter
# Owners that died of a text: two beside whatever else their processes had in hand, one with nine
# other suspects at most, and five that had nothing but this text.
MAX_LOST = 8
BUDGET = 32  # requests that one claimed batch may cost; what stays untested is released
HARMLESS = "hello world"


class Unwell(Exception):
    """The API failed, and no text is to blame: try everything again later."""


class TooMany(Exception):
    """So many texts may not go in one request now: at most `most`."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


class AccountFault(Exception):
    """The API refuses a text that no API refuses: the account is at fault, not the texts."""


class FailedAlone(NamedTuple):
    """A lease whose text failed alone while others passed: an attempt to be counted."""

    lease: Lease


Outcome = Union[Embedded, Refused, FailedAlone]


def embed(leases: Sequence[Lease], model: str, send: Send) -> Iterator[list[Outcome]]:
    """The outcomes of `leases`, as they become known: each list is ready to be committed.

    Leases without an outcome at the end are untested: the budget of requests was used up. Raises
    Unwell, AccountFault, and whatever `send` raises that is not an answer about the texts.
    """
    deadly = [lease for lease in leases if lease.lost >= MAX_LOST]
    if deadly:
        yield [
            Refused(
                lease, "worker_lost", f"worker processes ended {lease.lost} times over this text"
            )
            for lease in deadly
        ]
        leases = [lease for lease in leases if lease.lost < MAX_LOST]
    trial = _Trial(send)
    for batch in pack(leases, model):
        yield from trial.embed(batch)


def is_transient(error: VectorEmbedError) -> bool:
    """Whether the same request may well pass a little later."""
    transient = isinstance(error, (ServerError, NetworkError))
    return transient or error.status == 408 or error.code == "bad_response"


class _Trial:
    """One claimed batch before the API: its budget, and what is proven so far."""

    def __init__(self, send: Send) -> None:
        self._send_texts = send
        self._budget = BUDGET
        self._account_is_well = False
        self._api_is_well = False  # something passed since the trial began

    def embed(self, batch: list[Slot]) -> Iterator[list[Outcome]]:
        if self._budget <= 0:
            return
        try:
            answer = self._send([slot.text for slot in batch])
        except TooMany as told:
            self._budget += 1  # nothing was sent
            yield from self.embed(batch[: told.most])
            yield from self.embed(batch[told.most :])
        except ValidationError as error:
            yield from self._refused(batch, error)
        except VectorEmbedError as error:
            if not is_transient(error):
                raise
            yield from self._failed(batch, error)
        else:
            self._api_is_well = self._account_is_well = True
            yield _embedded(batch, answer)

    def _refused(self, batch: list[Slot], error: ValidationError) -> Iterator[list[Outcome]]:
        if error.code in ("account", "missing_key"):
            raise AccountFault(str(error))
        named = error.index
        if named is not None and 0 <= named < len(batch):
            yield _refuse(batch[named], error)
            rest = batch[:named] + batch[named + 1 :]
            if rest:
                yield from self.embed(rest)
            return
        if error.status == 400:
            self._check_account(error)
        if len(batch) == 1:
            yield _refuse(batch[0], error)
        else:
            yield from self._halves(batch)

    def _check_account(self, error: ValidationError) -> None:
        if self._account_is_well:
            return
        try:
            self._send([HARMLESS])
        except ValidationError:
            raise AccountFault(str(error)) from None
        except VectorEmbedError as again:
            if is_transient(again):
                raise Unwell(str(again)) from None
            raise
        self._account_is_well = True

    def _failed(self, batch: list[Slot], error: VectorEmbedError) -> Iterator[list[Outcome]]:
        if len(batch) == 1:
            self._prove_well(error)
            yield _fail(batch[0], error)
            return
        if self._api_is_well:
            yield from self._halves(batch)
            return
        # A 500 charges its texts again: one text is enough to see whether the API is well. Which
        # one is left to chance, so that a text the API chokes on cannot stand in the way for ever.
        probe = random.choice(batch)
        rest = [slot for slot in batch if slot is not probe]
        try:
            answer = self._send([probe.text])
        except ValidationError as refusal:
            yield from self._refused([probe], refusal)
        except VectorEmbedError as again:
            if not is_transient(again):
                raise
            # Two texts in one batch may both be at fault.
            self._prove_well(again)
            yield _fail(probe, again)
        else:
            yield _embedded([probe], answer)
        self._api_is_well = True
        yield from self.embed(rest)

    def _prove_well(self, error: VectorEmbedError) -> None:
        # A text never seen before: a cached one is answered even where nothing can be computed.
        try:
            self._send([f"{HARMLESS} {uuid.uuid4().hex[:8]}"])
        except ValidationError as refusal:
            raise AccountFault(str(refusal)) from None
        except VectorEmbedError as again:
            if is_transient(again):
                raise Unwell(str(error)) from None
            raise

    def _halves(self, batch: list[Slot]) -> Iterator[list[Outcome]]:
        middle = len(batch) // 2
        yield from self.embed(batch[:middle])
        yield from self.embed(batch[middle:])

    def _send(self, texts: list[str]) -> EmbeddingArray:
        self._budget -= 1
        return self._send_texts(texts)


def _embedded(batch: Sequence[Slot], answer: EmbeddingArray) -> list[Outcome]:
    return [
        Embedded(lease, bytes(answer.row(index)), answer.cached[index])
        for index, slot in enumerate(batch)
        for lease in slot.leases
    ]


def _refuse(slot: Slot, error: VectorEmbedError) -> list[Outcome]:
    # The text's place in the request means nothing to those who read the reason.
    reason = re.sub(r"\btexts\[\d+\]", "the text", str(error))
    return [Refused(lease, error.code, reason) for lease in slot.leases]


def _fail(slot: Slot, error: VectorEmbedError) -> list[Outcome]:
    if max(lease.attempts for lease in slot.leases) + 1 >= MAX_ATTEMPTS:
        return _refuse(slot, error)
    return [FailedAlone(lease) for lease in slot.leases]
