"""Verdicts: what becomes of each text of a claimed batch. No Redis here.

`send` takes texts and returns their vectors. It waits for the throttle, and raises what concerns
all texts. The verdict decides whose fault a failure is: the API's (everything is tried again
later), the account's (its throttle halts), or one text's. Only evidence condemns a text: it fails
or is refused several times while other texts pass.

A refusal may be random too. The first text that is refused with a new status and code is sent again
several times, in turns with harmless texts. If that proves that such a refusal is about the text,
one refusal is enough for the next text. If a harmless text is refused too, the account is at fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Union

from vector_embed_client import (
    AuthenticationError,
    EmbeddingArray,
    NetworkError,
    RateLimitError,
    ServerError,
    VectorEmbedError,
)

from ..types import Embedded, Lease, Refused
from .batching import Item, pack, parts, size_of
from .evidence import COUNTED, ENOUGH, Counts, Evidence, Experience, FirstAnswer
from .harmless import harmless

Send = Callable[[Sequence[str]], EmbeddingArray]

# Workers that died with a text: two with other texts in hand, one with at most nine other suspects,
# and five with this text alone.
MAX_LOST = 8
BUDGET = 40  # requests that one claimed batch may cost; texts that are still untested are released
RESERVED = 8  # of these, for the verdicts of suspects
MAX_DIMENSIONS = 16_384
UNLIKELY = 0.01  # chance of random failures below which a text of the batch may be at fault
# After this many failures in a row a trial is given up, if nothing passes in this process. UNWELL:
# each costs a charge or half a minute. UNWELL_FREE: it costs neither.
UNWELL, UNWELL_FREE = 3, 10


class Unwell(Exception):
    """The API failed, and no text is at fault: try everything again later."""


class TooMany(Exception):
    """The request has too many texts for now: at most `most` may be sent."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


class AccountFault(Exception):
    """The API refuses a harmless text: the account is at fault, not the texts.

    `of_key`: the API refuses the key, with any model.
    """

    def __init__(self, error: VectorEmbedError) -> None:
        self.of_key = isinstance(error, AuthenticationError) or error.code == "account"
        whom = "every request, also a harmless one"
        if isinstance(error, AuthenticationError):
            whom = "the key"
        elif error.code in ("account", "missing_key"):
            whom = "the account"
        super().__init__(f"the API refuses {whom}: {error}")


class DimensionsChanged(Exception):
    """The API's vectors have another length than before, in two answers."""


class FailedAlone(NamedTuple):
    """A lease whose text failed alone while others passed. `times`: attempts to count in Redis."""

    lease: Lease
    times: int = 1


Outcome = Union[Embedded, Refused, FailedAlone]


def embed(
    leases: Sequence[Lease],
    model: str,
    send: Send,
    experience: Experience | None = None,
    dimensions: int | None = None,
) -> Iterator[list[Outcome]]:
    """Send `leases` and yield their outcomes as they become known, in lists ready to commit.

    `experience`: from all trials with this API and model. `dimensions`: of the collection's
    vectors; None while it has none. Leases without an outcome at the end are untested: the budget
    of requests is used up, or requests fail at random. Raises Unwell, AccountFault,
    DimensionsChanged, and what `send` raises that is no answer about the texts.
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
    trial = _Trial(send, experience or Experience(), dimensions)
    try:
        for batch in pack(leases, model):
            yield from trial.embed(batch)
        yield from trial.verdicts()
    except Exception:
        yield trial.broken_off
        raise


def is_transient(error: VectorEmbedError) -> bool:
    """Whether the same request may pass a little later."""
    transient = isinstance(error, (ServerError, NetworkError))
    return transient or error.status == 408 or error.code == "bad_response"


def is_charged(error: VectorEmbedError) -> bool:
    """Whether the texts of a failed request were charged, and will be charged again."""
    return error.status == 500


def is_costly(error: VectorEmbedError) -> bool:
    """Whether the same failure again would cost charges, or half a minute."""
    return is_charged(error) or error.code == "timeout"


def is_too_large(error: VectorEmbedError) -> bool:
    """Whether only a smaller request may pass, however long we wait."""
    if isinstance(error, RateLimitError):
        return bool(re.search(r"\b(request|input|payload) (is )?too large\b", str(error), re.I))
    return error.status == 413


class _Suspect(NamedTuple):
    """A text that failed alone, was refused alone, or was named by a refusal."""

    item: Item
    error: VectorEmbedError


class _Trial:
    """The requests for one claimed batch: their budget, and what they have proven so far."""

    def __init__(self, send: Send, experience: Experience, dimensions: int | None) -> None:
        self._send_texts = send
        self._budget = BUDGET
        self._experience = experience
        self._passes_before = experience.passes
        self._evidence = Evidence()
        self._suspects: dict[str, _Suspect] = {}
        self._judged: set[str] = set()  # suspects that already have their verdict
        self._passes = self._failures = 0
        self._failures_in_a_row = self._refusals_in_a_row = 0  # since something passed
        self._named: list[Item] = []  # by refusals, since texts last passed or were sent alone
        self._patience = 3  # refusals in a row until a harmless text is sent
        self._dimensions = dimensions
        self._unconfirmed: list[Outcome] = []
        self.broken_off: list[Outcome] = []  # evidence from a verdict that a wait interrupted

    def embed(self, batch: list[Item]) -> Iterator[list[Outcome]]:
        """Yield the outcomes of the texts of one request, except those of suspects."""
        room = self._experience.room
        if room is not None and size_of(batch) > room:
            for part in parts(batch, room):
                yield from self._embed(part)
        elif self._is_first_answer():
            # One text first: two answers must agree on the dimensions. This costs no extra charge.
            yield from self._embed(batch[:1])
            yield from self._embed(batch[1:])
        else:
            yield from self._embed(batch)

    def verdicts(self) -> Iterator[list[Outcome]]:
        """Yield the outcomes of the suspects, and of what is still unconfirmed."""
        for suspect in list(self._suspects.values()):
            if suspect.item.text in self._suspects.keys() - self._judged:
                yield self._verdict(suspect)
        if self._unconfirmed and self._budget > 0:
            self._request([harmless()])
            yield self._confirmed()

    def _is_first_answer(self) -> bool:
        return not (self._dimensions or self._experience.first or self._experience.dimensions)

    def _embed(self, batch: list[Item]) -> Iterator[list[Outcome]]:
        """Send `batch` until it passes, is refused, or fails too often for chance."""
        failures = 0
        while batch and self._budget > (RESERVED if self._suspects.keys() - self._judged else 0):
            try:
                answer = self._request([item.text for item in batch])
            except TooMany as told:
                yield from self._embed(batch[: told.most])
                yield from self._embed(batch[told.most :])
                return
            if isinstance(answer, EmbeddingArray):
                yield self._passed(batch, answer)
                return
            if not is_transient(answer):
                yield from self._refused(batch, answer)
                return
            failures += 1
            if self._nothing_passes(answer):
                return
            chance = self._experience.chance_of(failures, self._failures)
            if is_costly(answer) or chance is None or chance < UNLIKELY:
                yield from self._isolate(batch, answer)
                return

    def _isolate(self, batch: list[Item], error: VectorEmbedError) -> Iterator[list[Outcome]]:
        """Find the text of `batch` that may be at fault, by halves."""
        if len(batch) == 1:
            yield from self._suspect(batch[0], error)
            return
        chance = self._experience.chance_of(1, self._failures)
        if error.code != "timeout" and (chance is None or chance > UNLIKELY):
            # Does anything pass? One text shows it, for one charge.
            passes = self._passes
            yield from self._embed(batch[:1])
            if self._passes == passes and not self._harmless_passes(error):
                self._give_up(error)
                return
            batch = batch[1:]
        yield from self._halves(batch)

    def _halves(self, batch: list[Item]) -> Iterator[list[Outcome]]:
        middle = _middle(batch)
        yield from self._embed(batch[:middle])
        yield from self._embed(batch[middle:])

    def _refused(self, batch: list[Item], error: VectorEmbedError) -> Iterator[list[Outcome]]:
        if is_too_large(error) and len(batch) > 1:
            self._experience.room = size_of(batch) // 2
            yield from self._halves(batch)
            return
        named = error.index
        if named is not None and 0 <= named < len(batch) > 1:
            item, rest = batch[named], batch[:named] + batch[named + 1 :]
            self._check_that_some_pass(error, item.text)
            if self._is_known(error):
                self._named.append(item)
            yield from self._suspect(item, error)
            if len(self._named) > 1:
                # The batch without the text named before is refused too: are the names right?
                named_so_far, self._named = self._named, []
                for one in named_so_far:
                    yield from self._embed([one])
            yield from self._embed(rest)
            return
        self._check_that_some_pass(error, max((item.text for item in batch), key=len))
        if len(batch) > 1:
            yield from self._halves(batch)
            return
        yield from self._suspect(batch[0], error)

    def _check_that_some_pass(self, error: VectorEmbedError, like: str) -> None:
        """Send a harmless text if all texts may be refused. Raises AccountFault if they are."""
        is_new = not self._passes and not self._is_known(error)
        if self._refusals_in_a_row >= self._patience:
            self._patience *= 2
        elif not is_new or self._refusals_in_a_row > 1:
            return
        if self._budget > 0:
            self._harmless_passes(error, like)

    def _harmless_passes(self, error: VectorEmbedError, like: str = "") -> bool:
        """Whether a harmless text passes. Raises AccountFault if it is refused."""
        text = harmless(like)
        answer = self._request([text])
        if isinstance(answer, EmbeddingArray):
            return True
        if is_transient(answer):
            self._evidence.clear(text)
            return False
        self._experience.forget_refusals()
        raise AccountFault(answer)

    def _suspect(self, item: Item, error: VectorEmbedError) -> Iterator[list[Outcome]]:
        """Note that a text may be at fault. Its verdict comes last, unless others depend on it."""
        suspect = self._suspects[item.text] = _Suspect(item, error)
        if _attempts(suspect) if is_transient(error) else not self._is_known(error):
            # It has failed before, or shows what this kind of refusal means for the others.
            self._judged.add(item.text)
            yield self._verdict(suspect)

    def _verdict(self, suspect: _Suspect) -> list[Outcome]:
        """The outcomes of a suspect. If a wait interrupts, its evidence is kept."""
        try:
            return self._judge(suspect)
        except (Unwell, AccountFault, DimensionsChanged):
            raise
        except Exception:
            self.broken_off = self._counted(suspect, self._counts(suspect))
            raise

    def _counts(self, suspect: _Suspect) -> Counts:
        refused = not is_transient(suspect.error)
        return self._evidence.against(suspect.item.text, self._suspects.keys(), refused=refused)

    def _judge(self, suspect: _Suspect) -> list[Outcome]:
        """Send the text and a harmless one in turns until it passes or the evidence is enough."""
        item, error = suspect
        is_slow = error.code == "timeout"  # to send the text again would take as long
        while True:
            counts = self._counts(suspect)
            if self._is_guilty(suspect, counts):
                self._experience.condemned(counts.failed, _kind(error))
                if is_too_large(error):
                    self._experience.room = None  # the text was at fault, not the size
                return _refuse(item, error)
            if self._budget <= 0 or is_slow and counts.bits >= COUNTED:
                return self._counted(suspect, counts)
            if is_slow or not self._evidence.last_passed:
                if not self._harmless_passes(error, item.text) and is_transient(error):
                    self._give_up(error)
                    return []  # requests fail at random
                continue
            answer = self._request([item.text])
            if isinstance(answer, EmbeddingArray):
                return self._passed([item], answer)

    def _is_guilty(self, suspect: _Suspect, counts: Counts) -> bool:
        if not counts.failed:
            return False
        if is_transient(suspect.error):
            return COUNTED * max(0, _attempts(suspect) - 1) + counts.bits >= ENOUGH
        if not self._is_known(suspect.error) or self._evidence.is_contradictory:
            return counts.bits >= ENOUGH
        # If the rest was refused too, or was not sent, the name alone proves little.
        return counts.passed > 0 and counts.failed > (suspect.item in self._named)

    def _is_known(self, error: VectorEmbedError) -> bool:
        return _kind(error) in self._experience.known

    def _counted(self, suspect: _Suspect, counts: Counts) -> list[Outcome]:
        """Attempts to count in Redis for the next trial. The first one only makes a suspect."""
        if not is_transient(suspect.error) or not self._passes:
            return []
        times = int(counts.bits // COUNTED) + (not _attempts(suspect))
        return [FailedAlone(lease, times) for lease in suspect.item.leases] if times else []

    def _passed(self, batch: list[Item], answer: EmbeddingArray) -> list[Outcome]:
        self._named.clear()
        for item in batch:
            suspect = self._suspects.pop(item.text, None)
            if suspect and not is_transient(suspect.error):
                self._experience.forget_refusals()
        self._unconfirmed += _embedded(batch, answer)
        return self._confirmed()

    def _confirmed(self) -> list[Outcome]:
        if self._dimensions is None:
            return []
        outcomes, self._unconfirmed = self._unconfirmed, []
        return outcomes

    def _request(self, texts: list[str]) -> EmbeddingArray | VectorEmbedError:
        """The vectors of `texts`, or why there are none."""
        try:
            answer = self._send_texts(texts)
            self._check_dimensions(answer.dimensions, texts)
        except VectorEmbedError as error:
            self._budget -= 1
            if is_transient(error):
                self._evidence.add(texts, passed=False)
                self._experience.add(passed=False)
                self._failures += 1
                self._failures_in_a_row += 1
            elif len(texts) == 1 or not is_too_large(error):
                named = error.index is not None and 0 <= error.index < len(texts)
                blamed = [texts[error.index or 0]] if named else texts
                self._evidence.add(blamed, passed=False, refused=True)
                self._refusals_in_a_row += 1
            return error
        self._budget -= 1
        self._evidence.add(texts, passed=True)
        self._experience.add(passed=True)
        self._passes += 1
        self._failures_in_a_row = self._refusals_in_a_row = 0
        return answer

    def _nothing_passes(self, error: VectorEmbedError) -> bool:
        """Whether a harmless text fails too, after several failures in a row."""
        if self._failures_in_a_row < (UNWELL if is_costly(error) else UNWELL_FREE):
            return False
        if self._budget > 0:
            if self._harmless_passes(error):
                return False
            self._give_up(error)
        return True

    def _give_up(self, error: VectorEmbedError) -> None:
        """Raise Unwell, unless a request has passed in this process since the trial began."""
        if self._experience.passes == self._passes_before:
            raise Unwell(str(error)) from None

    def _check_dimensions(self, said: int, texts: list[str]) -> None:
        """Raises DimensionsChanged, or the client's error if only one answer differs."""
        if self._dimensions is None:
            if said > MAX_DIMENSIONS:
                raise bad_answer(f"the API answered with {said:,} dimensions")
            first, known = self._experience.first, self._experience.dimensions
            if said == known or first and said == first.dimensions and texts != first.texts:
                self._dimensions = self._experience.dimensions = said
                self._experience.first = None
            elif first is None:
                self._experience.first = FirstAnswer(said, texts)
            elif said != first.dimensions:
                self._experience.first = None
                raise DimensionsChanged(
                    f"the API answered with {first.dimensions:,} dimensions, and then with {said:,}"
                )
        elif said != self._dimensions:
            told = f"the API answers with {said:,} dimensions, not with {self._dimensions:,}"
            if self._send_texts([harmless()]).dimensions == said:
                raise DimensionsChanged(told)
            raise bad_answer(told)


def _middle(batch: Sequence[Item]) -> int:
    """Where to split a batch: between two collections if there are several, near the middle."""
    names = [item.leases[0].collection for item in batch]
    ends = [at for at in range(1, len(names)) if names[at] != names[at - 1]]
    return min(ends, key=lambda at: abs(at - len(batch) // 2), default=len(batch) // 2)


def bad_answer(told: str) -> VectorEmbedError:
    """The error for an answer with vectors that must not be stored."""
    return VectorEmbedError(told, "bad_response", 200)


def _kind(error: VectorEmbedError) -> tuple[int | None, str]:
    return error.status, error.code


def _attempts(suspect: _Suspect) -> int:
    return max(lease.attempts for lease in suspect.item.leases)


def _embedded(batch: Sequence[Item], answer: EmbeddingArray) -> list[Outcome]:
    return [
        Embedded(lease, bytes(answer.row(index)), answer.cached[index])
        for index, item in enumerate(batch)
        for lease in item.leases
    ]


def _refuse(item: Item, error: VectorEmbedError) -> list[Outcome]:
    # The position in the request means nothing to the reader of the reason.
    reason = re.sub(r"\btexts\[\d+\]", "the text", str(error))
    return [Refused(lease, error.code, reason) for lease in item.leases]
