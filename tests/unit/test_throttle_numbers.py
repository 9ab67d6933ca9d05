"""The numbers of the throttle's limit, each where it shows: half or twice of it fails here."""

from __future__ import annotations

from faulty_api.limiter import Limiter
from simulation import START, Answer, Fleet, Server, Steps, passes, until


def refused(now: float, texts: int) -> Answer:
    """A 429 that names no time."""
    return 0.005, {"outcome": "deferred"}


def limited(limiter: Limiter) -> Server:
    """A server with this limit."""
    return lambda now, texts: (
        passes(texts, 0.05) if limiter.refusal(now) is None else refused(now, texts)
    )


def waits(fleet: Fleet, since: float) -> list[float]:
    """The seconds from each refusal to the request after it."""
    run = fleet.run
    times = sorted((at, at in run.refusals) for at in {*run.passes, *run.refusals} if at > since)
    return [after - at for (at, no), (after, _) in zip(times, times[1:]) if no]


def between(fleet: Fleet, first: float, last: float) -> int:
    """The passes between two times."""
    return sum(first <= at < last for at in fleet.run.passes)


# A window


def test_the_second_period_is_sent_in_three_tenths_of_it() -> None:  # QUICK
    fleet = Fleet(Limiter("window", 50, 5.0).refusal, retry_after="seconds")
    fleet.go(12)
    begin = next(at for at in fleet.run.passes if at > 2)
    assert between(fleet, begin, begin + 1.0) < 50 == between(fleet, begin, begin + 2.0)


def test_a_last_request_is_sent_up_to_a_quarter_of_a_second_after_its_second() -> None:
    # LONGEST_GUARD: the answers take so unevenly long that it grows to that
    limiter = Limiter("aligned", 600, 60.0)
    fleet = Fleet(limiter.refusal, retry_after="seconds", latency=0.3, jitter=0.05, most=15)
    guards = []
    for _ in range(40):
        fleet.go(30)
        guards.append(fleet.state["guard"] or 0)
    assert 200 < max(guards) <= 250


def test_at_the_end_of_a_minute_it_looks_every_six_tenths_of_a_second() -> None:  # AT_END
    window = limited(Limiter("aligned", 60, 60.0))
    end = 60 - START % 60 + 300
    fleet = Fleet(server=until(end, window, until(end + 6, refused, window)))
    fleet.go(end + 10)
    asked = [at for at, _, came in fleet.run.requests if end <= at < end + 5]
    assert 7 <= len(asked) <= 10


def test_before_the_end_of_a_period_a_wait_is_a_third_of_the_silence() -> None:  # OFTEN
    window = limited(Limiter("aligned", 60, 60.0))
    fleet = Fleet(server=until(312, window, until(342, refused, window)))
    fleet.go(400)
    asked = [at for at, _, _ in fleet.run.requests if 312 <= at < 342]
    assert 11 <= len(asked) <= 17


# A bucket


def test_after_its_first_refusal_a_bucket_is_sent_one_request_in_thirteen_more() -> None:
    # SMALLEST: one in 1.3 * 10
    fleet = Fleet(Limiter("bucket", 20, 1.0).refusal, seed=1)
    while not fleet.state["base"]:
        fleet.go(0.05)
    fleet.go(0.2)
    assert 1.06 < fleet.state["rate"] / fleet.state["base"] < 1.1


def test_a_slow_bucket_that_rises_is_found_in_half_a_minute_and_one_that_stays_is_left_alone() -> (
    None
):  # SURE
    rising = Fleet(Steps((0.0, Limiter("bucket", 5, 1.0)), (300.0, Limiter("bucket", 20, 1.0))))
    rising.go(360)
    assert between(rising, 300, 360) > 700
    steady = Fleet(Limiter("bucket", 5, 1.0).refusal)
    steady.go(1200)
    assert sum(at > 300 for at in steady.run.refusals) < 70


def test_where_a_limit_is_gone_the_rate_grows_a_thousandfold_and_no_more() -> None:  # HIGHEST
    fleet = Fleet(
        Steps((0.0, Limiter("bucket", 6, 60.0, 1)), (200.0, Limiter("bucket", 10**6, 1.0)))
    )
    fleet.go(600)
    assert 900 < fleet.state["rate"] / fleet.state["base"] < 1200


def test_a_silence_of_four_requests_is_no_quota() -> None:  # AT_ONCE
    # Given one request in ten seconds, which was taken for one in twenty
    slow = limited(Limiter("bucket", 6, 60.0, 1))
    fleet = Fleet(server=until(300, slow, refused))
    fleet.go(600)
    smaller = next(at for at, texts, _ in fleet.run.requests if at > 300 and texts < 100)
    assert 380 < smaller < 440


def test_a_second_without_a_request_is_a_lack_of_demand_and_less_is_not() -> None:  # QUIET
    # Given a rush after a request now and then: what was before tells nothing of the limit
    rush = Fleet(Limiter("bucket", 20, 1.0).refusal)
    rush.trickle(30, 1.5)
    rush.go(20)
    assert between(rush, 32, 42) > 0.9 * 200
    # Given one thread that wants a little more than it may: that is demand
    thread = Fleet(Limiter("bucket", 1, 1.0, 1).refusal, threads=1, pause=0.7)
    thread.go(300)
    assert len(thread.run.refusals) < 300


def test_four_tenths_of_a_second_without_demand_are_made_up_for() -> None:  # LATE
    fleet = Fleet(Limiter("bucket", 20, 1.0).refusal)
    fleet.go(60)
    fleet.rest(0.9)
    before = len(fleet.run.passes)
    fleet.go(0.2)
    assert 10 <= len(fleet.run.passes) - before <= 15


# Looking whether it is open again


def test_where_nothing_is_known_it_looks_after_fifty_milliseconds() -> None:  # STARTING
    fleet = Fleet(Limiter("window", 50, 60.0).refusal)
    fleet.go(5)
    assert 0.04 < waits(fleet, 0)[0] < 0.08


def test_a_quick_bucket_is_looked_at_after_twenty_milliseconds() -> None:  # SOONEST
    quick = Limiter("bucket", 100, 1.0, 2)
    fleet = Fleet(quick.refusal, threads=1, latency=0.002, pause=0.001, jitter=0.0002)
    fleet.go(20)
    assert all(0.018 < wait < 0.035 for wait in waits(fleet, 5))


def test_a_slow_bucket_is_looked_at_after_a_second() -> None:  # LATEST
    fleet = Fleet(Limiter("bucket", 6, 60.0, 1).refusal)
    fleet.go(900)
    assert all(0.9 < wait < 1.2 for wait in waits(fleet, 450))
