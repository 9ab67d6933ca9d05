"""Whose fault is a failure? The API's, the account's or one text's; at what cost in requests."""

from __future__ import annotations

import copy
import functools
import random
import re
import struct
from collections.abc import Sequence
from typing import Union

import pytest
from trials import Api, Fault, ids, lease, leases, poisoned, run

from vector_embed_client import (
    AuthenticationError,
    EmbeddingArray,
    NetworkError,
    RateLimitError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)
from worker.engine.evidence import Experience
from worker.engine.verdicts import (
    BUDGET,
    MAX_LOST,
    AccountFault,
    FailedAlone,
    Outcome,
    TooMany,
    Unwell,
    embed,
    is_transient,
)
from worker.types import Embedded, Refused


def named_422(texts: Sequence[str]) -> ValidationError | None:
    bad = poisoned(texts)
    return ValidationError("too bad", "invalid", 422, index=bad[0]) if bad else None


def unnamed_400(texts: Sequence[str]) -> ValidationError | None:
    return ValidationError("bad request", "bad_request", 400) if poisoned(texts) else None


def own_500(texts: Sequence[str]) -> ServerError | None:
    return ServerError("Internal Server Error", "server_error", 500) if poisoned(texts) else None


def test_what_passes_from_the_cache_proves_nothing_of_the_api() -> None:
    # Given an API that takes only what it has computed before
    cache: set[str] = set()

    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        if not cached_only:
            cache.update(text for text in texts if not text.startswith("poison"))
            return unnamed_400(texts)
        return None if cache.issuperset(texts) else ValidationError("no", "bad_request", 400)

    cached_only = False
    run(leases(5, poison=[3]), Api(fault))  # harmless texts were sent
    assert len(cache) > 4
    cached_only = True
    # Then a refusal is the account's fault, although all that is known passes
    for _ in range(3):
        with pytest.raises(AccountFault):
            run(leases(6), Api(fault))


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
    ("fault", "most_extra_requests"), [(named_422, 22), (unnamed_400, 30), (own_500, 26)]
)
@pytest.mark.parametrize("where", [0, 37, 99])
def test_one_poison_text_costs_only_itself(
    fault: Fault, most_extra_requests: int, where: int
) -> None:
    api, experience = Api(fault), Experience()
    waiting = leases(100, poison=[where])
    embedded: set[str] = set()
    refused: set[str] = set()
    while waiting:
        outcomes = run(waiting, api, experience)
        embedded |= ids(outcomes, Embedded)
        refused |= ids(outcomes, Refused)
        waiting = [
            outcome.lease._replace(attempts=outcome.lease.attempts + outcome.times)
            for outcome in outcomes
            if isinstance(outcome, FailedAlone)
        ]
    assert refused == {f"id{where}"}
    assert embedded == {f"id{n}" for n in range(100)} - refused
    assert len(api.requests) - 1 <= most_extra_requests


@pytest.mark.parametrize(
    ("fault", "first", "most_extra_requests"),
    [(named_422, 20, 3), (unnamed_400, 20, 12), (own_500, 0, 26)],
)
@pytest.mark.parametrize("count", [1, 10, 50])
@pytest.mark.parametrize("seed", range(5))
def test_each_of_many_poison_texts_costs_a_few_requests_and_each_claim_a_budget_at_most(
    fault: Fault, first: int, most_extra_requests: int, count: int, seed: int
) -> None:
    bad = random.Random(seed).sample(range(100), count)
    api, experience = Api(fault), Experience()
    waiting = {one.job.id: one for one in leases(100, poison=bad)}
    refused: set[str] = set()
    while waiting:
        before = len(api.requests)
        for outcome in run(list(waiting.values()), api, experience):
            lease = waiting.pop(outcome.lease.job.id)
            if isinstance(outcome, FailedAlone):
                waiting[lease.job.id] = lease._replace(attempts=lease.attempts + outcome.times)
            elif isinstance(outcome, Refused):
                refused.add(lease.job.id)
        assert len(api.requests) - before <= BUDGET + 2  # the last text's proofs
    assert refused == {f"id{n}" for n in bad}
    assert len(api.requests) - 1 <= first + most_extra_requests * count


def test_a_text_that_the_api_names_costs_one_request_once_its_kind_of_refusal_is_proven() -> None:
    experience = Experience()
    run(leases(100, poison=[3]), Api(named_422), experience)
    for where in (0, 37, 99):
        api = Api(named_422)
        assert ids(run(leases(100, poison=[where]), api, experience), Refused) == {f"id{where}"}
        assert [len(texts) for texts in api.requests] == [100, 99]


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
    assert {outcome.lease.job.id for outcome in outcomes} == {"id0", "id1"}
    assert ids(outcomes, Refused)


def test_a_text_over_which_worker_after_worker_died_is_dead_and_not_sent() -> None:
    api = Api()
    deadly = lease(0, "deadly")._replace(lost=MAX_LOST)
    (outcome,) = run([deadly], api)
    assert isinstance(outcome, Refused)
    assert outcome.code == "worker_lost"
    assert api.requests == []


def test_a_reason_does_not_name_a_place_in_a_request() -> None:
    error = ValidationError("texts[0] is too long", "invalid", 422, index=0)
    (outcome,) = run(leases(1, poison=[0]), Api(lambda texts: error if poisoned(texts) else None))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "the text is too long"


def test_a_lone_text_that_fails_is_not_blamed_while_the_api_is_down() -> None:
    api = Api(lambda texts: ServerError("down", "server_error", 503))
    with pytest.raises(Unwell):
        run(leases(1), api)


def test_a_lone_text_that_fails_while_others_pass_is_dead_after_a_few_requests() -> None:
    api = Api(own_500)
    (outcome,) = run(leases(1, poison=[0]), api)
    assert isinstance(outcome, Refused)
    assert len(api.requests) <= 24


def test_a_text_that_makes_requests_time_out_is_tried_once_a_claim() -> None:
    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        return NetworkError("timeout", "timeout") if poisoned(texts) else None

    waiting, claims = leases(1, poison=[0]), 0
    while isinstance(outcome := run(waiting, api := Api(fault))[0], FailedAlone):
        assert poisoned([texts[0] for texts in api.requests]) == [0]
        waiting = [outcome.lease._replace(attempts=outcome.lease.attempts + outcome.times)]
        claims += 1
    assert isinstance(outcome, Refused)
    assert claims == 4


def test_an_account_refused_while_a_bad_text_is_looked_for_is_the_accounts_fault() -> None:
    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        if poisoned(texts):
            return ServerError("Internal Server Error", "server_error", 500)
        return ValidationError("Free tier requires BYOK provider", "account", 400)

    with pytest.raises(AccountFault, match="BYOK"):
        run([lease(1, "poison")], Api(fault))


def test_a_text_that_failed_alone_often_enough_is_dead_with_its_reason() -> None:
    (outcome,) = run([lease(0, "poison", attempts=6)], Api(own_500))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.reason) == ("server_error", "Internal Server Error")


def test_a_400_for_every_text_is_the_accounts_fault() -> None:
    fault = ValidationError("Free tier requires BYOK provider", "bad_request", 400)
    with pytest.raises(AccountFault, match="BYOK"):
        run(leases(100), Api(lambda texts: fault))


REFUSALS = [
    ValidationError("Bad Request", "invalid_request", 400),
    ValidationError("Free tier requires BYOK provider", "account", 400),
    AuthenticationError("Forbidden", "forbidden", 403),
    VectorEmbedError("no such page", "http_error", 404),
    VectorEmbedError("Not Acceptable", "http_error", 406),
    VectorEmbedError("blocked", "http_error", 451),
    VectorEmbedError("the server redirects", "redirect", 302),
    ValidationError("Request body too large", "too_large", 413),
    ValidationError("header.authorization: Field required", "missing_key", 422),
    ValidationError("unprocessable", "invalid_request", 422),
    ValidationError("texts[0] is bad", "invalid_request", 422, index=0),
    RateLimitError("Request too large for nomic: Limit 30000, Requested 60000", "rate", 429),
]


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: f"{error.status}-{error.code}")
def test_what_refuses_all_texts_alike_halts_the_queue_and_no_text_is_dead(
    error: VectorEmbedError, count: int
) -> None:
    api = Api(lambda texts: error)
    outcomes: list[Outcome] = []
    with pytest.raises(AccountFault, match=re.escape(str(error))):
        for some in embed(leases(count), "m", api.send, dimensions=1):
            outcomes += some
    assert not outcomes
    assert len(api.requests) <= 9


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: f"{error.status}-{error.code}")
def test_that_an_api_which_refused_one_text_refuses_them_all_now_is_noticed(
    error: VectorEmbedError, count: int
) -> None:
    experience = Experience()
    for fault in (lambda texts: error if poisoned(texts) else None, lambda texts: error):
        outcomes: list[Outcome] = []
        api = Api(fault)
        try:
            given = leases(count, poison=[count - 1])
            for some in embed(given, "m", api.send, experience, 1):
                outcomes += some
        except AccountFault:
            assert not outcomes
            assert len(api.requests) <= 12
        else:
            assert ids(outcomes, Refused) <= {f"id{count - 1}"}
    assert not outcomes


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: f"{error.status}-{error.code}")
@pytest.mark.parametrize("where", [0, 37, 99])
def test_a_refusal_of_one_text_costs_that_text_alone(error: VectorEmbedError, where: int) -> None:
    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        bad = poisoned(texts)
        found = copy.copy(error)
        found.index = None if error.index is None else bad[0] if bad else None
        return found if bad else None

    api = Api(fault)
    outcomes = run(leases(100, poison=[where]), api)
    assert ids(outcomes, Refused) == {f"id{where}"}
    assert ids(outcomes, Embedded) == {f"id{n}" for n in range(100)} - {f"id{where}"}
    assert len(api.requests) <= 1 + 36


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: f"{error.status}-{error.code}")
def test_texts_that_an_api_refuses_by_their_length_alone_halt_the_queue(
    error: VectorEmbedError,
) -> None:
    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        lengths = list(map(len, texts))
        found = copy.copy(error)
        found.index = None if error.index is None else lengths.index(max(lengths))
        return found if max(lengths) > 1000 else None

    outcomes: list[Outcome] = []
    with pytest.raises(AccountFault, match=re.escape(str(error))):
        for some in embed([*leases(50), lease(50, "long " * 300)], "m", Api(fault).send, None, 1):
            outcomes += some
    assert all(isinstance(outcome, Embedded) for outcome in outcomes)


def test_an_api_that_names_the_first_text_whichever_is_at_fault_kills_no_other() -> None:
    def misnamed(texts: Sequence[str]) -> VectorEmbedError | None:
        error = ValidationError("texts[0] is bad", "invalid_request", 422, index=0)
        return error if poisoned(texts) else None

    for where in (0, 1, 37, 99):
        assert ids(run(leases(100, poison=[where]), Api(misnamed)), Refused) <= {f"id{where}"}


def test_a_limit_on_the_size_of_requests_is_learned_and_kept_to() -> None:
    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        too_large = sum(map(len, texts)) > 50_000
        return ValidationError("too large", "too_large", 413) if too_large else None

    experience = Experience()
    for refusals in (3, 0, 0):
        api = Api(fault)
        given = [lease(n, f"{n} " + "x" * 1990) for n in range(100)]
        outcomes = [one for some in embed(given, "m", api.send, experience, 1) for one in some]
        assert len(ids(outcomes, Embedded)) == 100
        assert sum(fault(texts) is not None for texts in api.requests) == refusals
        assert len(api.requests) <= 12


FAILURE = ServerError("failed", "server_error", 500)
UNNAMED, NAMED = (
    ValidationError("texts[0] is bad", "invalid_request", 422, index=index) for index in (None, 0)
)


def test_a_text_that_is_called_too_large_for_its_own_sake_makes_no_later_request_smaller() -> None:
    def fault(texts: Sequence[str]) -> VectorEmbedError | None:
        bad = poisoned(texts)
        return ValidationError("too large", "too_large", 413) if bad else None

    experience = Experience()
    assert ids(run(leases(100, poison=[37]), Api(fault), experience), Refused) == {"id37"}
    api = Api(fault)
    run(leases(100), api, experience)
    assert [len(texts) for texts in api.requests] == [100]


Ending = tuple[int, int, Union[Outcome, Exception, None]]  # requests that passed, failed; what came


@functools.cache
def endings(attempts: int, error: VectorEmbedError) -> list[Ending]:
    """All ways in which the trial of a lone innocent text can end."""

    def trial(script: Sequence[bool]) -> Outcome | Exception | None:
        """The outcome where requests pass as in `script`; IndexError where it needs more."""
        left = list(script)

        def fault(texts: Sequence[str]) -> VectorEmbedError | None:
            return None if left.pop(0) else error

        try:
            outcomes = run([lease(0, "innocent", attempts)], Api(fault))
        except (Unwell, AccountFault) as nobodys:
            return nobodys
        return outcomes[0] if outcomes else None

    found: list[Ending] = []
    scripts: list[tuple[bool, ...]] = [()]
    while scripts:
        script = scripts.pop()
        try:
            found.append((sum(script), len(script) - sum(script), trial(script)))
        except IndexError:
            scripts += [(*script, True), (*script, False)]
    return found


def deaths(failing: float, error: VectorEmbedError) -> float:
    """The exact probability that a lone innocent text dies, where requests fail at random."""
    # The first trial that has an outcome decides: done, dead or a higher count.
    dead_after: dict[int, float] = {}
    for attempts in reversed(range(8 if is_transient(error) else 1)):
        done = dead = 0.0
        for passes, failures, outcome in endings(attempts, error):
            weight = (1 - failing) ** passes * failing**failures
            if isinstance(outcome, Refused):
                dead += weight
            elif isinstance(outcome, FailedAlone):
                later = dead_after.get(min(7, attempts + outcome.times), 1.0)
                dead += weight * later
                done += weight * (1 - later)
            elif isinstance(outcome, Embedded):
                done += weight
        dead_after[attempts] = dead / (dead + done)
    return dead_after[0]


@pytest.mark.parametrize("percent", range(1, 100))
def test_fewer_than_one_innocent_text_in_a_million_dies_at_any_rate_of_failures(
    percent: int,
) -> None:
    assert deaths(percent / 100, FAILURE) < 1e-6


@pytest.mark.parametrize("error", [UNNAMED, NAMED], ids=["unnamed", "named"])
def test_fewer_than_one_innocent_text_in_a_million_dies_at_any_rate_of_refusals(
    error: VectorEmbedError,
) -> None:
    assert max(deaths(percent / 100, error) for percent in range(1, 100)) < 1e-6


def test_a_bad_answer_is_no_reason_to_condemn_before_others_pass() -> None:
    given = leases(100)
    api = Api(lambda texts: VectorEmbedError("NaN", "bad_response", 200))
    with pytest.raises(Unwell):
        run(given, api)


def test_a_bad_answer_is_tried_again_and_then_isolated() -> None:
    def garbled(texts: Sequence[str]) -> VectorEmbedError | None:
        return VectorEmbedError("NaN", "bad_response", 200) if poisoned(texts) else None

    outcomes = run(leases(10, poison=[3]), Api(garbled))
    assert ids(outcomes, Embedded) == {f"id{n}" for n in range(10)} - {"id3"}
    assert ids(outcomes, Refused) == {"id3"}


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

    outcomes = list(embed(leases(100), "m", send, dimensions=1))
    assert [len(part) for part in api.requests] == [40, 60]
    assert [len(part) for part in outcomes] == [40, 60]
