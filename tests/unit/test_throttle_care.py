"""What the throttle makes of an API that is slow, lies, or refuses all: simulated hours."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from simulation import START, Fleet, Server

HOUR, DAY = 3600.0, 86_400.0
Answer = tuple[float, "dict[str, Any]"]


def passes(texts: int, seconds: float = 0.5) -> Answer:
    """The answer of an API that is well, to texts that are new to it."""
    return seconds, {"outcome": "passed", "uncached": texts, "timeout_ms": 30_000}


def told(seconds: float, *, unavailable: bool = False) -> Answer:
    """A 429, or a 503, with Retry-After."""
    answer = {"outcome": "deferred", "asked": seconds * 1000}
    return 0.01, {**answer, "unavailable": 1} if unavailable else answer


def slow(each: float, first: float = 0.0, timeout: float = 30.0) -> Server:
    """A provider that takes so many seconds a text, and some for a request."""

    def answer(now: float, texts: int) -> Answer:
        took = first + each * texts
        if took > timeout:
            return timeout, {"outcome": "failed", "timeout": 1, "timeout_ms": timeout * 1000}
        return took, {"outcome": "passed", "uncached": texts, "timeout_ms": timeout * 1000}

    return answer


def until(seconds: float, before: Server, after: Server) -> Server:
    """One server, and another from so many seconds after the start on."""
    return lambda now, texts: (before if now - START < seconds else after)(now, texts)


def well(now: float, texts: int) -> Answer:
    return passes(texts)


def sent(fleet: Fleet, first: float, last: float) -> list[tuple[float, int, str]]:
    """The requests between two times."""
    return [request for request in fleet.run.requests if first <= request[0] < last]


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


@pytest.mark.parametrize("unavailable", [False, True], ids=["429", "503"])
@pytest.mark.parametrize("seconds", [30.0, HOUR])
def test_a_wait_of_up_to_a_day_is_obeyed(seconds: float, unavailable: bool) -> None:
    telling: Server = lambda now, texts: told(seconds, unavailable=unavailable)  # noqa: E731
    fleet = Fleet(server=until(60, well, until(61, telling, well)), threads=4)
    fleet.go(60 + seconds + 120)
    assert not sent(fleet, 61.5, 60 + seconds)
    assert sent(fleet, 60 + seconds, 60 + seconds + 10)


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


# The first request


@pytest.mark.parametrize("resumed", [False, True])
def test_the_first_request_is_one_text_alone(resumed: bool) -> None:
    fleet = Fleet(server=lambda now, texts: passes(texts, 2.0))
    if resumed:
        fleet.go(60)
        fleet.state["begun"] = fleet.state["probe"] = None
        fleet.state["resumed_at"] = int(fleet.now * 1000)
        fleet.go(3)  # what was under way is over
    begin = fleet.now - START
    before = len(fleet.run.requests)
    fleet.go(10)
    requests = fleet.run.requests[before:]
    if not resumed:
        (at, texts, _), second = requests[0], requests[1]
        assert at < begin + 1 and texts == 1
        assert second[0] > at + 1.4, "nothing else is under way before it is answered"
    assert max(texts for _, texts, _ in requests) == 100


def test_before_anything_passed_each_charged_failure_makes_the_next_wait_longer() -> None:
    failed = (0.05, {"outcome": "failed", "charged": 1})
    fleet = Fleet(server=lambda now, texts: failed, threads=4)
    fleet.go(3 * HOUR)
    assert {texts for _, texts, _ in fleet.run.requests} == {1}
    assert len(sent(fleet, 0, 60)) < 10
    assert len(sent(fleet, 0, HOUR)) < 60
    assert len(sent(fleet, 2 * HOUR, 3 * HOUR)) < 15


def test_a_refusal_of_its_text_does_not_open_a_throttle() -> None:
    refused = (0.05, {"outcome": "passed", "refused": 1, "uncached": 0})
    fleet = Fleet(server=until(10, lambda now, texts: refused, well))
    fleet.go(20)
    assert {texts for _, texts, _ in sent(fleet, 0, 10)} == {1}
    assert max(texts for _, texts, _ in sent(fleet, 10, 20)) == 100


# Batches that are answered in time


def charged(fleet: Fleet) -> tuple[int, int]:
    """Texts that passed, and that timed out."""
    kinds = ("passed", "failed")
    requests = fleet.run.requests
    passed, lost = (sum(texts for _, texts, came in requests if came == kind) for kind in kinds)
    return passed, lost


@pytest.mark.parametrize("each", [0.2, 0.35, 0.6, 2.0, 10.0])
def test_a_provider_that_is_slow_from_the_start_is_asked_for_what_it_does_in_time(
    each: float,
) -> None:
    fleet = Fleet(server=slow(each), threads=8)
    fleet.go(1200)
    passed, lost = charged(fleet)
    assert passed > 0.85 * 8 * 1200 / each
    assert lost < 0.02 * passed + 10 / each
    assert fleet.state["endpoint"]["ceiling"] is None


def test_a_server_whose_first_answer_alone_is_slow_gets_full_batches_at_once() -> None:
    fleet = Fleet(server=until(0.5, slow(0, 2.0), slow(0.001)))
    fleet.go(10)
    assert [texts for _, texts, _ in fleet.run.requests[:4]] == [1, 1, 100, 100]


def test_a_provider_that_grows_slow_is_asked_for_less_and_for_more_when_it_is_quick_again() -> None:
    fleet = Fleet(server=until(60, slow(0.01), until(1200, slow(0.65), slow(0.01))), threads=8)
    fleet.go(1200)
    lost = charged(fleet)[1]
    assert lost <= 8 * (100 + 50) + 5 * 50
    assert fleet.state["endpoint"]["ceiling"] is None
    steady = [texts for _, texts, _ in sent(fleet, 600, 1200)]
    assert 15 < sum(steady) / len(steady) < 45
    fleet.go(60)
    assert fleet.state["model"]["timely"] is None
    assert {texts for _, texts, _ in sent(fleet, 1240, 1260)} == {100}


def test_where_fewer_texts_are_no_quicker_batches_are_soon_full_again() -> None:
    hang: Server = lambda now, texts: (30.0, {"outcome": "failed", "timeout": 1})  # noqa: E731
    server = until(60, slow(0, 20), until(200, hang, slow(0, 20)))
    fleet = Fleet(server=server, threads=8)
    fleet.go(1200)
    assert {texts for _, texts, _ in sent(fleet, 1100, 1200)} == {100}


def test_timeouts_of_single_texts_lower_the_requests_in_flight() -> None:
    fleet = Fleet(server=until(5, well, slow(40)), threads=8)
    fleet.go(600)
    assert fleet.state["endpoint"]["ceiling"] == 1
    fleet.server = well
    fleet.go(120)
    assert fleet.state["endpoint"]["ceiling"] is None


# Connections that were used before


def test_the_first_failures_on_reused_connections_are_no_reason_to_slow_down() -> None:
    stale = (30.0, {"outcome": "failed", "timeout": 1, "reused": 1})
    fleet = Fleet(server=until(10, well, until(10.6, lambda now, texts: stale, well)))
    fleet.go(10.7)
    assert [came for _, _, came in sent(fleet, 10, 10.6)].count("failed") == 8
    fleet.go(30)
    assert fleet.state["endpoint"]["ceiling"] is None
    for name in ("timely", "failures", "stale_at"):
        assert fleet.state["model"][name] is None


def test_timeouts_on_reused_connections_that_go_on_are_the_apis() -> None:
    stale = (30.0, {"outcome": "failed", "timeout": 1, "reused": 1})
    fleet = Fleet(server=until(10, well, lambda now, texts: stale))
    fleet.go(75)
    assert fleet.state["model"]["failures"] >= 1
    assert fleet.state["model"]["timely"] is not None


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


def test_a_rate_that_is_raised_is_not_waited_for_at_the_old_pace() -> None:
    fleet = Fleet(server=well, per_second=1 / HOUR)
    fleet.go(10)
    fleet.per_second = 10.0
    before = len(fleet.run.requests)
    fleet.go(20)
    assert len(fleet.run.requests) - before > 100
