"""The throttle's policy, simulated: minutes of a fleet before servers that limit, in a moment."""

from __future__ import annotations

import pytest
from simulation import Fleet, Steps

from worker.local.limiter import Limiter


def share_and_refusals(
    kind: str, rate: int, per: float, form: str, window: float, seconds: float
) -> tuple[float, float]:
    """After two windows: what was got of what was allowed, and refusals by window."""
    fleet = Fleet(Limiter(kind, rate, per).refusal, retry_after=form, jitter=0.005)
    windows = fleet.go(seconds).windows(window, 2, int(seconds // window))
    got, refused = (sum(counts) for counts in zip(*windows))
    return got / (rate / per * window * len(windows)), refused / len(windows)


@pytest.mark.parametrize("form", ["none", "seconds", "fraction"])
def test_a_fixed_window_is_used_up_with_few_refusals(form: str) -> None:
    share, refused = share_and_refusals("aligned", 50, 5.0, form, 5.0, 100)
    assert share >= 0.97
    assert refused <= 2


def test_a_long_window_is_used_up_with_few_refusals() -> None:
    share, refused = share_and_refusals("aligned", 600, 60.0, "none", 60.0, 900)
    assert share >= 0.97
    assert refused <= 6


@pytest.mark.parametrize("form", ["none", "fraction"])
@pytest.mark.parametrize("rate", [20, 50])
def test_a_bucket_is_used_up_with_one_refusal_in_a_hundred(form: str, rate: int) -> None:
    share, refused = share_and_refusals("bucket", rate, 1.0, form, 10.0, 120)
    assert share >= 0.97
    assert refused <= 0.01 * rate * 10


def test_a_window_of_few_requests_is_not_wasted() -> None:
    share, refused = share_and_refusals("aligned", 3, 6.0, "fraction", 6.0, 180)
    assert share >= 0.9
    assert refused <= 2


@pytest.mark.parametrize(("before", "after"), [(50, 100), (100, 50)], ids=["doubled", "halved"])
def test_a_step_of_the_limit_is_followed_within_three_windows(before: int, after: int) -> None:
    steps = Steps(
        (0.0, Limiter("aligned", before, 5.0)),
        (50.0, Limiter("aligned", after, 5.0)),
    )
    windows = Fleet(steps).go(100).windows(5.0, 13, 20)
    assert sum(passed for passed, _ in windows) >= 0.97 * after * len(windows)


def test_the_refusals_of_many_workers_at_once_are_one_reason_to_slow_down() -> None:
    fleet = Fleet(Limiter("bucket", 20, 1.0).refusal, threads=64, most=15, latency=0.3)
    passed = sum(counts[0] for counts in fleet.go(60).windows(10.0, 2, 6))
    assert passed >= 0.95 * 20 * 40
