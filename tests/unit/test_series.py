"""Which collections have metrics of their own, and what the others come to."""

from __future__ import annotations

import random

import pytest

from worker.monitor.series import OTHERS, STATES, Measured, Series, choose
from worker.store.keys import NAME


def measured(number: int, born: str | None = None) -> Measured:
    return Measured(
        f"tenant-{number:05}",
        "m",
        f"{1_700_000_000 + number // 3}.{number}" if born is None else born,
        halted=number % 2,
        paused=number % 3 == 0,
        waiting=number % 5 == 0,
        enqueued=number,
        oldest_age=float(number % 7),
        embedded_ever=number,
        cached_ever=2 * number,
        removed_ever=3 * number,
        texts={state: place * number for place, state in enumerate(STATES)},
        dead_ever={f"code-{number % 2}": number},
    )


EVERY = [measured(number) for number in range(2500)]


def own(series: Series) -> list[int]:
    return [one.enqueued for one in series.own]


@pytest.mark.parametrize("most", [0, 1, 600, 2499, 2500, 9999])
def test_the_oldest_have_series_of_their_own_and_the_others_are_summed(most: int) -> None:
    series = choose(random.Random(most).sample(EVERY, len(EVERY)), most)

    rest = EVERY[most:]
    assert own(series) == list(range(min(most, 2500)))
    assert series.summed == len(rest)
    assert series.others.collection == OTHERS
    for name in ("halted", "paused", "waiting", "enqueued", "embedded_ever", "cached_ever"):
        assert getattr(series.others, name) == sum(getattr(one, name) for one in rest), name
    assert series.others.removed_ever == sum(one.removed_ever for one in rest)
    assert series.others.oldest_age == max((one.oldest_age for one in rest), default=0)
    assert series.others.texts == {state: sum(one.texts[state] for one in rest) for state in STATES}
    for code in series.others.dead_ever:
        wanted = sum(one.dead_ever.get(code, 0) for one in rest)
        assert series.others.dead_ever[code] == wanted


def test_a_new_collection_takes_no_series_from_another() -> None:
    before = choose(EVERY, 1000)

    after = choose([*EVERY, measured(9_999)], 1000)

    assert own(after) == own(before)
    assert after.summed == before.summed + 1
    assert after.others.embedded_ever == before.others.embedded_ever + 9_999


def test_if_one_is_dropped_the_oldest_of_the_others_gets_its_own() -> None:
    assert own(choose(EVERY[:5] + EVERY[6:], 10)) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("born", ["", "soon", "1700000000", "-1.5", "1.x"])
def test_what_says_no_time_of_birth_is_the_youngest(born: str) -> None:
    assert own(choose([measured(7, born), measured(9)], 1)) == [9]


def test_no_collection_can_have_the_name_of_the_others() -> None:
    assert not NAME.match(OTHERS)
