"""The throttle's policy, simulated: minutes of a fleet before servers that limit, in a moment.

Of each kind of limit several fleets, which begin at other moments: what is asked is the median.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

import pytest
from faulty_api.limiter import Limiter
from simulation import START, Fleet, Steps

pytestmark = pytest.mark.heavy

FORMS = ("none", "seconds", "fraction")
BEGINNINGS = 5


class Outcome(NamedTuple):
    """What was got of what is allowed, and the refusals in a window."""

    share: float
    refused: float


def outcome(
    kind: str, rate: int, per: float, form: str, window: float, seconds: float, seed: int
) -> Outcome:
    """After two windows."""
    fleet = Fleet(Limiter(kind, rate, per).refusal, retry_after=form, jitter=0.005, seed=seed)
    fleet.go(0.37 * seed * per % per)
    windows = fleet.go(seconds).windows(window, 2, int(seconds // window))
    got, refused = (sum(counts) for counts in zip(*windows))
    return Outcome(got / (rate / per * window * len(windows)), refused / len(windows))


def typical(kind: str, rate: int, per: float, form: str, window: float, seconds: float) -> Outcome:
    """The median of each, over several beginnings."""
    all_of = [outcome(kind, rate, per, form, window, seconds, seed) for seed in range(BEGINNINGS)]
    return Outcome(median(one.share for one in all_of), median(one.refused for one in all_of))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["aligned", "window", "sliding"])
def test_a_window_is_used_up_with_few_refusals(kind: str, form: str) -> None:
    share, refused = typical(kind, 50, 5.0, form, 5.0, 100)
    assert share >= 0.97
    assert refused <= 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["aligned", "window", "sliding"])
def test_a_long_window_is_used_up_with_few_refusals(kind: str, form: str) -> None:
    share, refused = typical(kind, 600, 60.0, form, 60.0, 600)
    assert share >= 0.97
    assert refused <= 6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rate", [20, 50])
def test_a_bucket_is_used_up_with_one_refusal_in_a_hundred(form: str, rate: int) -> None:
    share, refused = typical("bucket", rate, 1.0, form, 10.0, 120)
    assert share >= 0.97
    assert refused <= 0.01 * rate * 10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rate", "per"), [(3, 6.0), (3, 60.0)])
def test_a_window_of_few_requests_is_not_wasted(rate: int, per: float, form: str) -> None:
    share, refused = typical("aligned", rate, per, form, per, 20 * per)
    assert share >= 0.94
    assert refused <= 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["aligned", "window", "sliding", "bucket"])
@pytest.mark.parametrize(("before", "after"), [(50, 100), (50, 25)], ids=["doubled", "halved"])
def test_a_step_of_the_limit_is_followed_within_three_windows(
    kind: str, form: str, before: int, after: int
) -> None:
    shares = []
    for seed in range(BEGINNINGS):
        begin = 50.0 + 0.9 * seed
        steps = Steps((0.0, Limiter(kind, before, 5.0)), (begin, Limiter(kind, after, 5.0)))
        run = Fleet(steps, retry_after=form, jitter=0.005, seed=seed).go(begin + 60)
        first, last = begin + 20, begin + 55  # seven whole windows, wherever they begin
        shares.append(sum(first <= at < last for at in run.passes) / (7 * after))
    assert median(shares) >= 0.95


def test_a_long_silence_is_not_taken_for_a_quota() -> None:
    for seed in range(BEGINNINGS):
        fleet = Fleet(Limiter("aligned", 30, 120.0).refusal, seed=seed)
        fleet.go(600)
        assert not fleet.state["certain"]


@pytest.mark.parametrize("form", ["none", "seconds"])
@pytest.mark.parametrize(
    "limit", [("bucket", 20, 1.0), ("aligned", 50, 5.0), ("window", 600, 60.0)]
)
def test_a_job_after_hours_of_light_use_finds_the_limit_as_at_a_start(
    limit: tuple[str, int, float], form: str
) -> None:
    kind, rate, per = limit
    fleet = Fleet(Limiter(kind, rate, per).refusal, retry_after=form)
    fleet.trickle(3 * 3600, every=120)
    before = len(fleet.run.passes)
    fleet.go(360)
    assert len(fleet.run.passes) - before >= 0.9 * 360 * rate / per


@pytest.mark.parametrize("limit", [None, ("bucket", 20, 1.0), ("aligned", 50, 5.0)])
@pytest.mark.parametrize("quota", [500, 1234, 20_000])
def test_a_quota_that_does_not_say_so_teaches_no_rate(
    quota: int, limit: tuple[str, int, float] | None
) -> None:
    kind, rate, per = limit or ("bucket", 100_000, 1.0)
    fleet = Fleet(Limiter(kind, rate, per).refusal, quota=quota)
    fleet.go(3600)
    assert fleet.charged == quota
    fleet.charged, fleet.quota = 0, 20_000
    fleet.go(1800)  # it looks every fifteen minutes
    assert fleet.charged == 20_000


def test_a_retry_after_of_hours_teaches_no_rate() -> None:
    end = 7200 - START % 7200
    limits = Steps((0.0, Limiter("aligned", 500, 7200.0)), (end, Limiter("bucket", 20, 1.0)))
    fleet = Fleet(limits, retry_after="seconds")
    fleet.go(end)
    before = len(fleet.run.passes)
    fleet.go(120)
    assert len(fleet.run.passes) - before >= 0.9 * 20 * 110


def test_a_window_is_found_again_after_a_pause_in_demand() -> None:
    for seed in range(12):
        fleet = Fleet(Limiter("aligned", 50, 5.0).refusal, seed=seed)
        fleet.go(60)
        fleet.rest(300)
        fleet.go(60)
        begin = fleet.now
        windows = fleet.go(60).windows(
            5.0, int((begin - START) // 5) + 1, int((begin - START) // 5) + 11
        )
        assert sum(passed for passed, _ in windows) >= 0.97 * 50 * len(windows), seed
        assert sum(refused for _, refused in windows) <= 3 * len(windows), seed
