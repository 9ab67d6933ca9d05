"""No text is condemned where requests fail at random: simulations of many trials."""

from __future__ import annotations

import random

import pytest
from trials import Api, ids, leases

from vector_embed_client import NetworkError, ServerError, ValidationError, VectorEmbedError
from worker.engine.evidence import Experience
from worker.engine.verdicts import AccountFault, FailedAlone, Unwell, embed
from worker.types import Refused

pytestmark = pytest.mark.heavy

UNNAMED, NAMED = (
    ValidationError("texts[0] is bad", "invalid_request", 422, index=index) for index in (None, 0)
)


@pytest.mark.parametrize("error", [UNNAMED, NAMED], ids=["unnamed", "named"])
@pytest.mark.parametrize("refusing", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_refusals_at_random_kill_no_text(refusing: float, error: VectorEmbedError) -> None:
    chance, experience = random.Random(1), Experience()
    api = Api(lambda texts: error if chance.random() < refusing else None)
    for count in [100, 2, 1] * 40:
        try:
            for some in embed(leases(count), "m", api.send, experience, 1):
                assert not ids(some, Refused)
        except AccountFault:
            continue


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ServerError("Internal Server Error", "server_error", 500), 0.0),
        (ServerError("Service Unavailable", "server_error", 503), 0.0),
        (NetworkError("connection refused", "connection_error"), 0.0),
        (NetworkError("timeout", "timeout"), 0.0),
        *(
            (ServerError("failed", "server_error", status), passing)
            for status in (500, 503)
            for passing in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)
        ),
    ],
)
def test_failures_at_random_kill_no_text(error: VectorEmbedError, passing: float) -> None:
    chance, experience = random.Random(2), Experience()
    api = Api(lambda texts: error if chance.random() >= passing else None)
    waiting = {one.job.id: one for one in leases(100)}
    for _ in range(300):
        waiting = waiting or {one.job.id: one for one in leases(100)}
        try:
            for some in embed(list(waiting.values()), "m", api.send, experience, 1):
                for outcome in some:
                    lease = waiting.pop(outcome.lease.job.id)
                    assert not isinstance(outcome, Refused)
                    if isinstance(outcome, FailedAlone):
                        counted = lease.attempts + outcome.times
                        waiting[lease.job.id] = lease._replace(attempts=counted)
        except Unwell:
            continue
