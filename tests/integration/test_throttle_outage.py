"""How a fleet sends to an API that fails at random: simulated minutes of the throttle's policy."""

from __future__ import annotations

import random
from typing import Any

import pytest
from simulation import Fleet, Server


def failing(share: float, *, charged: bool, seed: int) -> Server:
    """An API that fails this share of all requests."""
    chance = random.Random(seed)

    def answer(now: float, texts: int) -> tuple[float, dict[str, Any]]:
        if chance.random() < share:
            return 0.02, {"outcome": "failed", **({"charged": 1} if charged else {})}
        return 0.1, {"outcome": "passed", "uncached": texts, "timeout_ms": 30_000}

    return answer


def texts(fleet: Fleet, came: str) -> int:
    """The texts of all requests that came to this."""
    return sum(count for _, count, outcome in fleet.run.requests if outcome == came)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_charged_failures_cost_a_part_of_what_passes_and_what_is_in_flight_at_first(
    share: float, seed: int
) -> None:
    fleet = Fleet(server=failing(share, charged=True, seed=seed), seed=seed)
    fleet.go(40)
    at_first, probes = 300 + 8 * 100, 10
    assert texts(fleet, "failed") <= 0.15 * texts(fleet, "passed") + at_first + probes


def test_one_charged_failure_in_ten_is_no_reason_to_stay_slow_after_bad_luck() -> None:
    fleet = Fleet(server=failing(0.1, charged=True, seed=1), seed=1)
    fleet.go(40)
    before = texts(fleet, "passed")
    fleet.go(40)
    assert texts(fleet, "passed") - before > 1000


def test_a_single_charged_failure_slows_nobody() -> None:
    chance = iter([1.0] * 50 + [0.0])
    answers = failing(0, charged=True, seed=0)

    def server(now: float, count: int) -> tuple[float, dict[str, Any]]:
        failed = next(chance, 1.0) == 0.0
        return (0.1, {"outcome": "failed", "charged": 1}) if failed else answers(now, count)

    fleet = Fleet(server=server)
    fleet.go(10)
    assert {count for _, count, _ in fleet.run.requests} == {1, 100}
    assert texts(fleet, "passed") > 0.95 * 10 * 8 * 100 / 0.11


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_failures_that_cost_nothing_leave_half_of_what_could_pass(share: float, seed: int) -> None:
    healthy = Fleet(server=failing(0, charged=False, seed=seed), seed=seed)
    fleet = Fleet(server=failing(share, charged=False, seed=seed), seed=seed)
    for one in (healthy, fleet):
        one.go(60)
    assert texts(fleet, "passed") >= 0.5 * (1 - share) * texts(healthy, "passed")
