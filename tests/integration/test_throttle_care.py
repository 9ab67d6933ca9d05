"""What the throttle makes of an API that is slow, lies, or refuses all: simulated hours."""

from __future__ import annotations

import itertools

import pytest
from simulation import START, Answer, Fleet, Server, sent, slow, told, until, well

pytestmark = pytest.mark.heavy

HOUR, DAY = 3600.0, 86_400.0


# Times told by strangers


@pytest.mark.parametrize("unavailable", [False, True], ids=["429", "503"])
@pytest.mark.parametrize("seconds", [DAY + 1, 31_536_000.0, 999_999_999.0])
def test_a_wait_of_more_than_a_day_is_probed_with_one_text_at_growing_intervals(
    seconds: float, unavailable: bool
) -> None:
    healed = 2 * HOUR
    lying = until(60, well, lambda now, texts: told(seconds, unavailable=unavailable))
    fleet = Fleet(server=until(healed, lying, well), threads=4)
    fleet.go(healed + 930)
    probes = [(at, texts) for at, texts, _ in sent(fleet, 61, healed)]
    waits = [later - at for (at, _), (later, _) in zip(probes, probes[1:])]
    assert {texts for _, texts in probes} == {1}
    assert 10 < waits[0] < 40 and max(waits) < 910
    assert all(later > 0.9 * wait for wait, later in zip(waits, waits[1:]))
    assert len(sent(fleet, healed + 910, healed + 930)) > 100, "it is at work again"


NAUGHTY = [[0.0], [0.0, 999_999_999.0], [0.0, 0.001, 1.0], [999_999_999.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "unavailable", [[False], [True], [False, True]], ids=["429", "503", "both"]
)
@pytest.mark.parametrize("times", NAUGHTY, ids=str)
def test_whatever_it_tells_it_is_asked_seldom_and_found_again_within_a_quarter_of_an_hour(
    times: list[float], unavailable: list[bool]
) -> None:
    told_times, kinds = itertools.cycle(times), itertools.cycle(unavailable)
    healed = 2 * HOUR

    def naughty(now: float, texts: int) -> Answer:
        return told(next(told_times), unavailable=next(kinds))

    fleet = Fleet(server=until(60, well, until(healed, naughty, well)), threads=4)
    fleet.go(healed + 930)
    assert len(sent(fleet, 60, 120)) < 80
    assert len(sent(fleet, HOUR, healed)) < 400
    assert len(sent(fleet, healed + 910, healed + 930)) > 100, "it is at work again"


def test_before_anything_passed_each_charged_failure_makes_the_next_wait_longer() -> None:
    failed = (0.05, {"outcome": "failed", "charged": 1})
    fleet = Fleet(server=lambda now, texts: failed, threads=4)
    fleet.go(3 * HOUR)
    assert {texts for _, texts, _ in fleet.run.requests} == {1}
    assert len(sent(fleet, 0, 60)) < 10
    assert len(sent(fleet, 0, HOUR)) < 60
    assert len(sent(fleet, 2 * HOUR, 3 * HOUR)) < 15


# Clocks


TROUBLES: dict[str, Server] = {
    "none": well,
    "told": lambda now, texts: told(30),
    "told a year": lambda now, texts: told(31_536_000),
    "refused": lambda now, texts: (0.01, {"outcome": "deferred"}),
    "unavailable": lambda now, texts: told(0, unavailable=True),
    "failing": lambda now, texts: (0.01, {"outcome": "failed"}),
    "slow": slow(0.6),
    "hanging": lambda now, texts: (30.0, {"outcome": "failed", "timeout": 1}),
    "stale": lambda now, texts: (30.0, {"outcome": "failed", "timeout": 1, "reused": 1}),
    "over quota": lambda now, texts: (0.01, {"outcome": "deferred", "quota": 1}),
}


@pytest.mark.parametrize("step", [-DAY, -2.0, DAY])
@pytest.mark.parametrize(
    ("trouble", "rate"), [*((trouble, None) for trouble in TROUBLES), ("none", 100.0)]
)
def test_a_clock_that_is_set_stops_nobody(trouble: str, rate: float | None, step: float) -> None:
    fleet = Fleet(server=until(30, well, TROUBLES[trouble]), per_second=rate, threads=8)
    fleet.go(90)
    fleet.set_clock(step)
    fleet.server = well
    before = len(fleet.run.requests)
    fleet.go(150)  # a request may be under way for 30 s, and a probe come a minute later
    fleet.go(10)
    requests = fleet.run.requests[before:]
    lately = [texts for at, texts, _ in requests if at > fleet.now - START - 10]
    assert len(lately) > 50
    assert max(lately) == 100
