"""How a claim is shared by the priorities, and what that comes to in a fleet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priorities_simulation import (
    BULK,
    INTERACTIVE,
    NORMAL,
    PRIORITIES,
    Arrivals,
    Fleet,
    policy_parts,
)

MINUTE = 60_000.0  # ms
parts = policy_parts()


@pytest.mark.parametrize(
    "waiting, expected",
    [
        ([0, 0, 500], [0, 0, 100]),
        ([3, 0, 500], [3, 0, 97]),
        ([3, 0, 20], [3, 0, 20]),
        ([500, 0, 0], [100, 0, 0]),
        ([500, 0, 500], [90, 0, 10]),
        ([500, 500, 500], [80, 10, 10]),
        ([50, 500, 500], [50, 40, 10]),
        ([0, 500, 500], [0, 90, 10]),
        ([500, 500, 4], [86, 10, 4]),
        ([500, 2, 500], [88, 2, 10]),
    ],
)
def test_the_first_priority_goes_first_and_the_others_keep_a_tenth(
    waiting: list[int], expected: list[int]
) -> None:
    assert parts(100, waiting, [0, 0, 0], 0) == expected


def test_what_waits_for_long_gets_more_and_never_half() -> None:
    got = [parts(100, [0, 500, 500], [0, 0, age * MINUTE], 0)[BULK] for age in range(30)]
    assert got == sorted(got)
    assert (got[0], got[5], got[10], got[29]) == (10, 17, 25, 25)


@given(
    st.integers(1, 100),
    st.lists(st.integers(0, 200), min_size=3, max_size=3),
    st.lists(st.floats(0, 1e8), min_size=3, max_size=3),
    st.integers(0, 10**6),
)
def test_a_claim_is_full_while_anything_waits(
    size: int, waiting: list[int], ages: list[float], turn: int
) -> None:
    got = parts(size, waiting, ages, turn)
    assert sum(got) == min(size, sum(waiting))
    assert all(0 <= part <= its for part, its in zip(got, waiting))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_of_claims_too_small_for_all_each_priority_gets_its_part_in_turn(size: int) -> None:
    turns = 1000
    sums = [0, 0, 0]
    for turn in range(turns):
        got = parts(size, [9, 9, 9], [0, 0, 0], turn)
        sums = [before + part for before, part in zip(sums, got)]
    shares = [each / (turns * size) for each in sums]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_a_person_before_a_long_backlog_waits_for_two_requests_at_most() -> None:
    fleet = Fleet({BULK: Arrivals(200_000), INTERACTIVE: Arrivals(0, 5)})
    fleet.go(40)
    waits = sorted(fleet.waits[INTERACTIVE])
    assert len(waits) > 150
    assert waits[-1] <= 2 * fleet.latency + 1e-9
    alone = Fleet({BULK: Arrivals(200_000)})
    alone.go(40)
    assert len(fleet.waits[BULK]) > 0.98 * len(alone.waits[BULK])


@pytest.mark.parametrize("batch", [100, 1])
def test_no_flood_starves_the_priorities_behind(batch: int) -> None:
    most = 8 * batch / 0.2  # texts a second of the whole fleet
    fleet = Fleet(
        {
            INTERACTIVE: Arrivals(0, 2 * most),
            NORMAL: Arrivals(0, most),
            BULK: Arrivals(int(40 * most)),
        },
        batch=batch,
    )
    fleet.go(10)
    interactive, normal, bulk = fleet.shares()
    assert interactive > normal > 0.08 and bulk > 0.08
    assert interactive > 0.7


@pytest.mark.parametrize("priority", PRIORITIES)
def test_a_priority_alone_is_done_in_its_order(priority: int) -> None:
    fleet = Fleet({priority: Arrivals(3000)})
    fleet.go(2)
    assert len(fleet.waits[priority]) == 3000
