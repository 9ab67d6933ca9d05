"""One batch: leases in, outcomes out. No Redis here.

`send` takes texts and gives their vectors; it waits for the throttle and raises for what concerns
the whole queue. What is left to decide is whose fault a failure is: the API's (raise: everything is
tried again later), the account's (raise: the queue halts), or one text's. A text is found guilty
only by evidence: it fails or is refused again and again, while others pass.

A refusal may be random too. The first text that is refused with a status and code is sent again and
again, in turns with harmless texts. Once that has proven that such a refusal is about the text, one
refusal condemns the next text. Where a harmless text is refused as well, the account is at fault.
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
from .batching import Slot, pack, parts, size_of
from .evidence import COUNTED, ENOUGH, Evidence, Experience, FirstAnswer, Tally
from .harmless import harmless

Send = Callable[[Sequence[str]], EmbeddingArray]

# Owners that died of a text: two beside whatever else their processes had in hand, one with nine
# other suspects at most, and five that had nothing but this text.
MAX_LOST = 8
BUDGET = 40  # requests that one claimed batch may cost; what stays untested is released
RESERVED = 8  # of these, to find out about suspects
MAX_DIMENSIONS = 16_384
UNLIKELY = 0.01  # that a batch fails so often by chance: then one of its texts may be at fault
# Failures in a row, while nothing passes in this process, after which a trial is given up: few
# where each costs a charge or half a minute.
UNWELL, UNWELL_FREE = 3, 10


class Unwell(Exception):
    """The API failed, and no text is to blame: try everything again later."""


class TooMany(Exception):
    """So many texts may not go in one request now: at most `most`."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


class AccountFault(Exception):
    """The API refuses a text that no API refuses: the account is at fault, not the texts.

    `of_key`: the key, with whatever model.
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
    """The API's vectors are of another length than before, also at a second look."""


class FailedAlone(NamedTuple):
    """A lease whose text failed alone while others passed: `times` attempts to be counted."""

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
    """The outcomes of `leases`, as they become known: each list is ready to be committed.

    `experience`: of all trials with this API and model. `dimensions`: of the collection's vectors;
    None while it has none. Leases without an outcome at the end are untested: the budget of
    requests was used up, or requests fail at random. Raises Unwell, AccountFault,
    DimensionsChanged, and whatever `send` raises that is not an answer about the texts.
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
    """Whether the same request may well pass a little later."""
    transient = isinstance(error, (ServerError, NetworkError))
    return transient or error.status == 408 or error.code == "bad_response"


def is_charged(error: VectorEmbedError) -> bool:
    """Whether the texts of a failed request were charged, and will be again."""
    return error.status == 500


def is_dear(error: VectorEmbedError) -> bool:
    """Whether it costs charges, or half a minute, to have the same failure again."""
    return is_charged(error) or error.code == "timeout"


def is_too_large(error: VectorEmbedError) -> bool:
    """Whether a smaller request may pass: no waiting makes this one pass."""
    if isinstance(error, RateLimitError):
        return bool(re.search(r"\b(request|input|payload) (is )?too large\b", str(error), re.I))
    return error.status == 413


class _Suspect(NamedTuple):
    """A text that failed or was refused alone, or that a refusal named."""

    slot: Slot
    error: VectorEmbedError


class _Trial:
    """One claimed batch before the API: its budget, and what is proven so far."""

    def __init__(self, send: Send, experience: Experience, dimensions: int | None) -> None:
        self._send_texts = send
        self._budget = BUDGET
        self._experience = experience
        self._passes_before = experience.passes
        self._evidence = Evidence()
        self._suspects: dict[str, _Suspect] = {}
        self._judged: set[str] = set()  # suspects whose verdict was given before the others'
        self._passes = self._failures = 0
        self._failures_in_a_row = self._refusals_in_a_row = 0  # since something passed
        self._named: list[Slot] = []  # by refusals, since texts passed or were sent alone
        self._patience = 3  # refusals in a row until a harmless text is sent
        self._dimensions = dimensions
        self._unconfirmed: list[Outcome] = []
        self.broken_off: list[Outcome] = []  # evidence of a verdict that a wait broke off

    def embed(self, batch: list[Slot]) -> Iterator[list[Outcome]]:
        """What becomes of the texts of one request, but for suspects."""
        room = self._experience.room
        if room is not None and size_of(batch) > room:
            for part in parts(batch, room):
                yield from self._embed(part)
        elif self._is_first_answer():
            # One text first: two answers show their dimensions, and no text is charged for it.
            yield from self._embed(batch[:1])
            yield from self._embed(batch[1:])
        else:
            yield from self._embed(batch)

    def verdicts(self) -> Iterator[list[Outcome]]:
        """What becomes of the suspects, and of what is still unconfirmed."""
        for suspect in list(self._suspects.values()):
            if suspect.slot.text in self._suspects.keys() - self._judged:
                yield self._verdict(suspect)
        if self._unconfirmed and self._budget > 0:
            self._request([harmless()])
            yield self._confirmed()

    def _is_first_answer(self) -> bool:
        return not (self._dimensions or self._experience.first or self._experience.dimensions)

    def _embed(self, batch: list[Slot]) -> Iterator[list[Outcome]]:
        """Send it until it passes, is refused, or fails so often that it can hardly be chance."""
        failures = 0
        while batch and self._budget > (RESERVED if self._suspects.keys() - self._judged else 0):
            try:
                answer = self._request([slot.text for slot in batch])
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
            if is_dear(answer) or chance is None or chance < UNLIKELY:
                yield from self._isolate(batch, answer)
                return

    def _isolate(self, batch: list[Slot], error: VectorEmbedError) -> Iterator[list[Outcome]]:
        """Find the text of `batch` that may be at fault."""
        if len(batch) == 1:
            yield from self._suspect(batch[0], error)
            return
        chance = self._experience.chance_of(1, self._failures)
        if error.code != "timeout" and (chance is None or chance > UNLIKELY):
            # Does anything pass? One text is enough to see it, and costs one charge.
            passes = self._passes
            yield from self._embed(batch[:1])
            if self._passes == passes and not self._harmless_passes(error):
                self._give_up(error)
                return
            batch = batch[1:]
        yield from self._halves(batch)

    def _halves(self, batch: list[Slot]) -> Iterator[list[Outcome]]:
        middle = len(batch) // 2
        yield from self._embed(batch[:middle])
        yield from self._embed(batch[middle:])

    def _refused(self, batch: list[Slot], error: VectorEmbedError) -> Iterator[list[Outcome]]:
        if is_too_large(error) and len(batch) > 1:
            self._experience.room = size_of(batch) // 2
            yield from self._halves(batch)
            return
        named = error.index
        if named is not None and 0 <= named < len(batch) > 1:
            slot, rest = batch[named], batch[:named] + batch[named + 1 :]
            self._check_that_some_pass(error, slot.text)
            if self._is_known(error):
                self._named.append(slot)
            yield from self._suspect(slot, error)
            if len(self._named) > 1:
                # Without the text that was named before it is refused too: are the names right?
                named_so_far, self._named = self._named, []
                for one in named_so_far:
                    yield from self._embed([one])
            yield from self._embed(rest)
            return
        self._check_that_some_pass(error, max((slot.text for slot in batch), key=len))
        if len(batch) > 1:
            yield from self._halves(batch)
            return
        yield from self._suspect(batch[0], error)

    def _check_that_some_pass(self, error: VectorEmbedError, like: str) -> None:
        """Send a harmless text where all texts may be refused alike. Raises AccountFault if so."""
        is_new = not self._passes and not self._is_known(error)
        if self._refusals_in_a_row >= self._patience:
            self._patience *= 2
        elif not is_new or self._refusals_in_a_row > 1:
            return
        if self._budget > 0:
            self._harmless_passes(error, like)

    def _harmless_passes(self, error: VectorEmbedError, like: str = "") -> bool:
        """Whether a harmless text passes. Raises AccountFault where it is refused."""
        text = harmless(like)
        answer = self._request([text])
        if isinstance(answer, EmbeddingArray):
            return True
        if is_transient(answer):
            self._evidence.clear(text)
            return False
        self._experience.forget_refusals()
        raise AccountFault(answer)

    def _suspect(self, slot: Slot, error: VectorEmbedError) -> Iterator[list[Outcome]]:
        """The text may be at fault. The verdict comes last, unless it is to be had only now."""
        suspect = self._suspects[slot.text] = _Suspect(slot, error)
        if _attempts(suspect) if is_transient(error) else not self._is_known(error):
            # It was tried before, or proves its kind: the verdicts of the others are cheap then.
            self._judged.add(slot.text)
            yield self._verdict(suspect)

    def _verdict(self, suspect: _Suspect) -> list[Outcome]:
        """What becomes of a suspect. Its evidence is kept where a wait breaks off."""
        try:
            return self._judge(suspect)
        except (Unwell, AccountFault, DimensionsChanged):
            raise
        except Exception:
            self.broken_off = self._counted(suspect, self._tally(suspect))
            raise

    def _tally(self, suspect: _Suspect) -> Tally:
        refused = not is_transient(suspect.error)
        return self._evidence.against(suspect.slot.text, self._suspects.keys(), refused=refused)

    def _judge(self, suspect: _Suspect) -> list[Outcome]:
        """Send the text and a harmless one in turns, until it passes or the evidence is enough."""
        slot, error = suspect
        is_slow = error.code == "timeout"  # the text again would take as long
        while True:
            tally = self._tally(suspect)
            if self._is_guilty(suspect, tally):
                self._experience.condemned(tally.failed, _kind(error))
                if is_too_large(error):
                    self._experience.room = None  # the text was at fault, not the size
                return _refuse(slot, error)
            if self._budget <= 0 or is_slow and tally.bits >= COUNTED:
                return self._counted(suspect, tally)
            if is_slow or not self._evidence.last_passed:
                if not self._harmless_passes(error, slot.text) and is_transient(error):
                    self._give_up(error)
                    return []  # requests fail at random
                continue
            answer = self._request([slot.text])
            if isinstance(answer, EmbeddingArray):
                return self._passed([slot], answer)

    def _is_guilty(self, suspect: _Suspect, tally: Tally) -> bool:
        if not tally.failed:
            return False
        if is_transient(suspect.error):
            return COUNTED * max(0, _attempts(suspect) - 1) + tally.bits >= ENOUGH
        if not self._is_known(suspect.error) or self._evidence.is_contradictory:
            return tally.bits >= ENOUGH
        # Where what was left was refused too, or not sent, the name alone proves little.
        return tally.passed > 0 and tally.failed > (suspect.slot in self._named)

    def _is_known(self, error: VectorEmbedError) -> bool:
        return _kind(error) in self._experience.known

    def _counted(self, suspect: _Suspect, tally: Tally) -> list[Outcome]:
        """The evidence of this trial, for the next one. The first attempt only makes a suspect."""
        if not is_transient(suspect.error) or not self._passes:
            return []
        times = int(tally.bits // COUNTED) + (not _attempts(suspect))
        return [FailedAlone(lease, times) for lease in suspect.slot.leases] if times else []

    def _passed(self, batch: list[Slot], answer: EmbeddingArray) -> list[Outcome]:
        self._named.clear()
        for slot in batch:
            suspect = self._suspects.pop(slot.text, None)
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
        """Whether also a harmless text fails after failures in a row."""
        if self._failures_in_a_row < (UNWELL if is_dear(error) else UNWELL_FREE):
            return False
        if self._budget > 0:
            if self._harmless_passes(error):
                return False
            self._give_up(error)
        return True

    def _give_up(self, error: VectorEmbedError) -> None:
        """Raise Unwell, unless something has passed in this process since the trial began."""
        if self._experience.passes == self._passes_before:
            raise Unwell(str(error)) from None

    def _check_dimensions(self, said: int, texts: list[str]) -> None:
        """Raises DimensionsChanged, or the client's error where it may be for once."""
        if self._dimensions is None:
            if said > MAX_DIMENSIONS:
                raise _bad_answer(f"the API answered with {said:,} dimensions")
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
            raise _bad_answer(told)


def _bad_answer(told: str) -> VectorEmbedError:
    return VectorEmbedError(told, "bad_response", 200)


def _kind(error: VectorEmbedError) -> tuple[int | None, str]:
    return error.status, error.code


def _attempts(suspect: _Suspect) -> int:
    return max(lease.attempts for lease in suspect.slot.leases)


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
