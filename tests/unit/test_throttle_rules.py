"""The throttle's policy, one simulation for each rule: what is quick enough to run always.

The matrix of limits is `tests/integration/test_throttle_policy.py`, long times and servers that lie
are `test_throttle_care.py` beside it.
"""

from __future__ import annotations

import pytest
from faulty_api.limiter import Limiter
from simulation import START, Fleet, Server, Steps, passes, sent, slow, told, until, well

HOUR = 3600.0


def test_the_refusals_of_many_workers_at_once_are_one_reason_to_slow_down() -> None:
    fleet = Fleet(Limiter("bucket", 20, 1.0).refusal, threads=64, most=15, latency=0.3)
    passed = sum(counts[0] for counts in fleet.go(60).windows(10.0, 2, 6))
    assert passed >= 0.95 * 20 * 40


def test_a_limit_that_another_program_used_up_once_is_not_taken_for_ours() -> None:
    used_up = Steps(
        (0.0, Limiter("bucket", 40, 1.0)),
        (5.0, Limiter("aligned", 1, 60.0)),
        (65.0, Limiter("bucket", 40, 1.0)),
    )
    fleet = Fleet(used_up, retry_after="seconds")
    fleet.now += 60 - START % 60
    passed = sum(at >= 90 for at in fleet.go(120).passes)
    assert passed >= 0.9 * 40 * 30


def test_a_quota_that_does_not_say_so_is_used_to_its_last_text() -> None:
    fleet = Fleet(lambda now: None, quota=1234)
    run = fleet.go(900)
    assert fleet.charged == 1234
    assert sum(at > 600 for at in run.refusals) < 15


def test_a_retry_after_that_is_too_short_is_not_asked_again_and_again() -> None:
    fleet = Fleet(Limiter("aligned", 50, 5.0).refusal, retry_after="floored")
    windows = fleet.go(100).windows(5.0, 2, 20)
    assert sum(passed for passed, _ in windows) >= 0.97 * 50 * len(windows)
    assert sum(refused for _, refused in windows) <= 10 * len(windows)


def test_a_redis_with_a_clock_behind_ours_goes_on_where_the_other_was() -> None:
    fleet = Fleet(Limiter("bucket", 20, 1.0).refusal, retry_after="seconds")
    fleet.go(60)
    behind = 3600.0
    fleet.set_clock(-behind)
    fleet.limiter = Limiter("bucket", 20, 1.0).refusal
    before = len(fleet.run.passes)
    fleet.go(60)
    assert len(fleet.run.passes) - before >= 0.9 * 20 * 60


def test_what_the_learned_limit_delays_is_not_taken_from_a_configured_rate() -> None:
    fleet = Fleet(Limiter("sliding", 50, 5.0).refusal, per_second=11.0)
    windows = fleet.go(100).windows(5.0, 2, 20)
    assert sum(passed for passed, _ in windows) >= 0.97 * 50 * len(windows)


# Times told by the API


@pytest.mark.parametrize("unavailable", [False, True], ids=["429", "503"])
@pytest.mark.parametrize("seconds", [30.0, HOUR])
def test_a_wait_of_up_to_a_day_is_obeyed(seconds: float, unavailable: bool) -> None:
    telling: Server = lambda now, texts: told(seconds, unavailable=unavailable)  # noqa: E731
    fleet = Fleet(server=until(60, well, until(61, telling, well)), threads=4)
    fleet.go(60 + seconds + 120)
    assert not sent(fleet, 61.5, 60 + seconds)
    assert sent(fleet, 60 + seconds, 60 + seconds + 10)


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


@pytest.mark.parametrize(
    ("server", "second"),
    [(slow(0, 0.5), 29), (until(0.5, slow(0, 2.0), slow(0.001)), 7)],
    ids=["every request takes half a second", "it has just started"],
)
def test_a_slow_first_answer_makes_the_second_request_smaller_and_no_other(
    server: Server, second: int
) -> None:
    fleet = Fleet(server=server, threads=2)
    fleet.go(10)
    assert [texts for _, texts, _ in fleet.run.requests[:5]] == [1, second, second, 100, 100]


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


# Reused connections


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


def test_a_rate_that_is_raised_is_not_waited_for_at_the_old_pace() -> None:
    fleet = Fleet(server=well, per_second=1 / HOUR)
    fleet.go(10)
    fleet.per_second = 10.0
    before = len(fleet.run.requests)
    fleet.go(20)
    assert len(fleet.run.requests) - before > 100
