"""Whose fault is a failure? The API's, the account's or one text's; at what cost in requests."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Optional

import pytest

from vector_embed_client import (
    EmbeddingArray,
    NetworkError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)
from worker.collection import Embedded, Lease, Refused
from worker.embedding import (
    BUDGET,
    MAX_ATTEMPTS,
    MAX_LOST,
    AccountFault,
    FailedAlone,
    Outcome,
    TooMany,
    Unwell,
    embed,
)
from worker.job import Job

Fault = Callable[[Sequence[str]], Optional[VectorEmbedError]]


class Api:
    """Answers each text with its length as a vector of one, unless `fault` finds one."""

    def __init__(self, fault: Fault = lambda texts: None) -> None:
        self.requests: list[list[str]] = []
        self._fault = fault

    def send(self, texts: Sequence[str]) -> EmbeddingArray:
        self.requests.append(list(texts))
        error = self._fault(texts)
        if error is not None:
            raise error
        data = struct.pack(f"<{len(texts)}f", *map(len, texts))
        return EmbeddingArray(data, 1, [False] * len(texts))


def lease(number: int, text: str, attempts: int = 0) -> Lease:
    return Lease(f"1-{number}".encode(), Job(f"id{number}", text), attempts, 0)


def leases(count: int, *, poison: Sequence[int] = ()) -> list[Lease]:
    return [
        lease(number, ("poison " if number in poison else "text ") + str(number))
        for number in range(count)
    ]


def run(given: Sequence[Lease], api: Api) -> list[Outcome]:
    return [outcome for outcomes in embed(given, "nomic-v1.5", api.send) for outcome in outcomes]


def ids(outcomes: Sequence[Outcome], kind: type) -> set[str]:
    return {
        outcome.lease.job.id
        for outcome in outcomes
        if isinstance(outcome, kind) and isinstance(outcome, (Embedded, Refused))
    }


def poisoned(texts: Sequence[str]) -> list[int]:
    return [index for index, text in enumerate(texts) if text.startswith("poison")]


def named_422(texts: Sequence[str]) -> ValidationError | None:
    bad = poisoned(texts)
    return ValidationError("too bad", "invalid", 422, index=bad[0]) if bad else None


def unnamed_400(texts: Sequence[str]) -> ValidationError | None:
    return ValidationError("bad request", "bad_request", 400) if poisoned(texts) else None


def own_500(texts: Sequence[str]) -> ServerError | None:
    return ServerError("Internal Server Error", "server_error", 500) if poisoned(texts) else None


def test_a_good_batch_costs_one_request() -> None:
    api = Api()
    outcomes = run(leases(100), api)
    assert ids(outcomes, Embedded) == {f"id{n}" for n in range(100)}
    assert len(api.requests) == 1


def test_each_lease_gets_the_vector_of_its_own_text() -> None:
    given = [lease(n, "x" * (n % 7 + 1)) for n in range(50)]
    for outcome in run(given, Api()):
        assert isinstance(outcome, Embedded)
        assert struct.unpack("<f", outcome.vector) == (len(outcome.lease.job.text),)


def test_a_text_shared_by_many_jobs_is_sent_once() -> None:
    api = Api()
    outcomes = run([lease(n, "same") for n in range(30)], api)
    assert api.requests == [["same"]]
    assert len(ids(outcomes, Embedded)) == 30


@pytest.mark.parametrize(
    ("fault", "most_extra_requests"), [(named_422, 2), (unnamed_400, 16), (own_500, 26)]
)
@pytest.mark.parametrize("where", [0, 37, 99])
def test_one_poison_text_costs_only_itself(
    fault: Fault, most_extra_requests: int, where: int
) -> None:
    api = Api(fault)
    waiting = leases(100, poison=[where])
    embedded: set[str] = set()
    refused: set[str] = set()
    for _ in range(MAX_ATTEMPTS):
        outcomes = run(waiting, api)
        embedded |= ids(outcomes, Embedded)
        refused |= ids(outcomes, Refused)
        waiting = [
            outcome.lease._replace(attempts=outcome.lease.attempts + 1)
            for outcome in outcomes
            if isinstance(outcome, FailedAlone)
        ]
    assert refused == {f"id{where}"}
    assert embedded == {f"id{n}" for n in range(100)} - refused
    assert len(api.requests) - 1 <= most_extra_requests


@pytest.mark.parametrize(
    ("fault", "most_extra_requests"), [(named_422, 2), (unnamed_400, 16), (own_500, 26)]
)
@pytest.mark.parametrize("count", [1, 10, 50])
@pytest.mark.parametrize("seed", range(5))
def test_each_of_many_poison_texts_costs_a_few_requests_and_each_claim_a_budget_at_most(
    fault: Fault, most_extra_requests: int, count: int, seed: int
) -> None:
    bad = random.Random(seed).sample(range(100), count)
    api = Api(fault)
    waiting = {one.job.id: one for one in leases(100, poison=bad)}
    refused: set[str] = set()
    while waiting:
        before = len(api.requests)
        for outcome in run(list(waiting.values()), api):
            lease = waiting.pop(outcome.lease.job.id)
            if isinstance(outcome, FailedAlone):
                waiting[lease.job.id] = lease._replace(attempts=lease.attempts + 1)
            elif isinstance(outcome, Refused):
                refused.add(lease.job.id)
        assert len(api.requests) - before <= BUDGET + 2  # the last text's proofs
    assert refused == {f"id{n}" for n in bad}
    assert len(api.requests) - 1 <= most_extra_requests * count


def test_what_the_budget_leaves_untested_has_no_outcome() -> None:
    poison = range(0, 100, 2)
    api = Api(unnamed_400)
    outcomes = run(leases(100, poison=list(poison)), api)
    assert len(api.requests) <= BUDGET
    assert ids(outcomes, Refused) < {f"id{n}" for n in poison}
    assert ids(outcomes, Embedded) < {f"id{n}" for n in range(1, 100, 2)}


def test_when_every_text_fails_nobody_is_to_blame() -> None:
    api = Api(lambda texts: NetworkError("connection refused", "connect"))
    with pytest.raises(Unwell, match="connection refused"):
        run(leases(100), api)
    assert [len(request) for request in api.requests] == [100, 1, 1], "probes are of one text"


def test_a_batch_of_nothing_but_poison_is_resolved_too() -> None:
    outcomes = run(leases(2, poison=[0, 1]), Api(own_500))
    failed = [outcome.lease for outcome in outcomes if isinstance(outcome, FailedAlone)]
    assert {one.job.id for one in failed} == {"id0", "id1"}


def test_a_text_over_which_worker_after_worker_died_is_dead_and_not_sent() -> None:
    api = Api()
    deadly = lease(0, "deadly")._replace(lost=MAX_LOST)
    (outcome,) = run([deadly], api)
    assert isinstance(outcome, Refused)
    assert outcome.code == "worker_lost"
    assert api.requests == []


def test_a_reason_does_not_name_a_place_in_a_request() -> None:
    error = ValidationError("texts[0] is too long", "invalid", 422, index=0)
    (outcome,) = run(leases(1), Api(lambda texts: error))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "the text is too long"


def test_a_lone_text_that_fails_is_not_blamed_while_the_api_is_down() -> None:
    api = Api(lambda texts: ServerError("down", "server_error", 503))
    with pytest.raises(Unwell):
        run(leases(1), api)


def test_a_lone_text_that_fails_beside_a_text_that_passes_has_an_attempt_counted() -> None:
    (outcome,) = run(leases(1, poison=[0]), Api(own_500))
    assert isinstance(outcome, FailedAlone)


def test_an_account_refused_while_a_bad_text_is_looked_for_is_the_accounts_fault() -> None:
    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        if poisoned(texts):
            return ServerError("Internal Server Error", "server_error", 500)
        return ValidationError("Free tier requires BYOK provider", "account", 400)

    with pytest.raises(AccountFault, match="BYOK"):
        run([lease(1, "poison")], Api(fault))


def test_a_text_that_failed_alone_often_enough_is_dead_with_its_reason() -> None:
    (outcome,) = run([lease(0, "poison", attempts=MAX_ATTEMPTS - 1)], Api(own_500))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.reason) == ("server_error", "Internal Server Error")


def test_a_400_for_every_text_is_the_accounts_fault() -> None:
    fault = ValidationError("Free tier requires BYOK provider", "bad_request", 400)
    with pytest.raises(AccountFault, match="BYOK"):
        run(leases(100), Api(lambda texts: fault))


@pytest.mark.parametrize("count", [1, 2, 100])
def test_errors_about_the_whole_queue_pass_through(count: int) -> None:
    with pytest.raises(VectorEmbedError, match="no such page"):
        run(leases(count), Api(lambda texts: VectorEmbedError("no such page", "not_found", 404)))


def test_a_bad_answer_is_tried_again_and_then_isolated() -> None:
    def garbled(texts: Sequence[str]) -> VectorEmbedError | None:
        return VectorEmbedError("NaN", "bad_response", 200) if poisoned(texts) else None

    outcomes = run(leases(10, poison=[3]), Api(garbled))
    assert ids(outcomes, Embedded) == {f"id{n}" for n in range(10)} - {"id3"}
    assert [outcome for outcome in outcomes if isinstance(outcome, FailedAlone)]


def test_a_name_that_points_outside_the_batch_is_not_believed() -> None:
    def misnamed(texts: Sequence[str]) -> ValidationError | None:
        return ValidationError("?", "invalid", 422, index=1000) if poisoned(texts) else None

    outcomes = run(leases(10, poison=[3]), Api(misnamed))
    assert ids(outcomes, Refused) == {"id3"}


def test_what_may_not_go_at_once_goes_in_parts_and_each_is_known_before_the_next() -> None:
    api = Api()
    bounds = [40, 40, 100, 100]

    def send(texts: Sequence[str]) -> EmbeddingArray:
        most = bounds.pop(0)
        if len(texts) > most:
            raise TooMany(most)
        return api.send(texts)

    outcomes = list(embed(leases(100), "m", send))
    assert [len(part) for part in api.requests] == [40, 60]
    assert [len(part) for part in outcomes] == [40, 60]
