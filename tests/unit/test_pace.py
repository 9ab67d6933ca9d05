"""How fast work goes, and how long it takes, in words."""

from __future__ import annotations

import pytest
from test_cli import status

from worker.cli import report
from worker.cli.command import Target
from worker.monitor import pace
from worker.monitor.fleet import Done, Recent, Worker
from worker.types import Rate, ThrottleStatus


def throttle(**changes: object) -> ThrottleStatus:
    values: dict[str, object] = {
        "state": "running",
        "reason": None,
        "paused_until": None,
        "rate": None,
        "learned_limit": None,
        "in_flight": 0,
        "in_flight_ceiling": 8,
        "quota_limit": None,
        "quota_used": 0,
        "quota_resets_at": None,
        **changes,
    }
    return ThrottleStatus(**values)  # type: ignore[arg-type]  # the names are those above


def test_the_rate_is_that_of_the_last_minute_or_since_work_began() -> None:
    done = Done()
    done.add("wiki", 1000, now=5.0)  # a minute ago and more
    for second in range(100, 120):
        done.add("wiki", 50, now=float(second))
    done.add("news", 10, now=119.0)

    assert done.rates(now=120.0) == {"wiki": 50.0, "news": 1.0}
    assert done.since_done(now=130.0) == {"wiki": 11.0, "news": 11.0}
    assert done.rates(now=200.0) == done.since_done(now=200.0) == {}


def test_the_fleets_rate_is_the_sum_over_those_alive_that_say_one() -> None:
    one = Worker("h:1:a", 8, rates={"wiki": 10.0, "docs": 1.0}, since_done={"wiki": 3.0})
    two = Worker("h:2:b", 8, rates={"wiki": 2.5}, since_done={"wiki": 2.0, "docs": 9.0})
    lost = Worker("h:3:c", 8, rates={"wiki": 99.0}, since_done={"wiki": 0.0}, seen_seconds=60)
    recent = Recent([one, two, lost])

    assert [recent.rate(name) for name in ("wiki", "docs", "news")] == [12.5, 1.0, 0.0]
    assert [recent.seconds_since_done(name) for name in ("wiki", "docs")] == [2.0, 9.0]
    assert recent.seconds_since_done("news") is None
    assert Recent([Worker("h:4:d", 8), lost]).rate("wiki") is None


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"pending": 6000, "rate": 100.0}, "100 texts/s, 1 min 0 s left"),
        ({"pending": 6000, "rate": 0.5}, "30.0 texts/min, 3 h 20 min left"),
        ({"pending": 6000, "rate": None}, ""),
        ({"pending": 6000, "rate": 0.0}, ""),
        ({"pending": 0, "rate": 12.34}, "12.3 texts/s"),
        (
            {"pending": 1_000_000, "rate": 99.9, "throttle": throttle(quota_limit=50_000)},
            "100 texts/s, about 20 days left at 50,000 texts a day",
        ),
        (
            {"pending": 40_000, "rate": 100.0, "throttle": throttle(quota_limit=50_000)},
            "100 texts/s, 6 min 40 s left",
        ),
    ],
)
def test_speed_and_time_left(now: dict[str, object], said: str) -> None:
    assert pace.speed(status(**{"state": "running", **now})) == said


def test_in_a_pause_nothing_is_said_of_a_rate() -> None:
    paused = status(state="paused", pending=6000, rate=100.0, throttle=throttle())

    assert pace.speed(paused) == ""
    assert paused.seconds_left is None


@pytest.mark.parametrize(
    ("limit", "used", "backlog", "days"),
    [
        (None, 10, 1000, 0),
        (100, 0, 100, 1),
        (100, 1, 100, 2),
        (100, 250, 100, 2),
        (100, 50, 251, 4),
    ],
)
def test_a_quota_is_counted_in_days_of_which_today_is_one(
    limit: int | None, used: int, backlog: int, days: int
) -> None:
    now = status(pending=backlog, throttle=throttle(quota_limit=limit, quota_used=used))

    assert pace.quota_days(now) == days


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "as fast as the API answers, 0 of 8 in flight"),
        (
            {"rate": 4.75, "learned_limit": 5.0, "in_flight": 3},
            "4.8 requests/s, limit learned 5.0 requests/s, 3 of 8 in flight",
        ),
        ({"rate": 0.05, "in_flight_ceiling": None}, "3.0 requests/min, 0 in flight"),
        (
            {"configured": Rate(0.5, "requests")},
            "set to at most 30.0 requests/min, 0 of 8 in flight",
        ),
        (
            {"rate": 2.0, "configured": Rate(500.0, "texts")},
            "2.0 requests/s, set to at most 500 texts/s, 0 of 8 in flight",
        ),
    ],
)
def test_the_throttle_is_told_in_one_line(known: dict[str, object], said: str) -> None:
    assert pace.sending(throttle(**known)) == said


def test_a_status_page_tells_rate_throttle_and_quota() -> None:
    now = status(
        state="running",
        pending=6000,
        rate=100.0,
        throttle=throttle(quota_limit=50_000, quota_used=12_345),
    )

    *_, rate, sending, quota = report.status_page(now, "vec dead wiki", "vec resume wiki")

    assert rate == "  progress   100 texts/s, 1 min 0 s left"
    assert sending == "  throttle   as fast as the API answers, 0 of 8 in flight"
    assert quota == "  quota      12,345 texts answered as new today, of at most 50,000"


def test_a_pause_for_the_quota_is_noted_with_the_days_that_it_takes() -> None:
    parked = status(
        state="paused",
        reason="Limit: 50000/day",
        paused_until=2e9,
        pending=200_000,
        throttle=throttle(quota_limit=50_000, quota_used=50_000),
    )

    _, note = report.note(parked, Target(None, False).command)

    assert note.endswith(": Limit: 50000/day; about 5 days left at 50,000 texts a day")


def test_several_keys_are_shown_together_and_each_by_its_name() -> None:
    slow = throttle(name="e1-a", rate=6.0, in_flight=3)
    quick = throttle(name="e1-b", rate=10.0, in_flight=3)
    elsewhere = throttle(name="e2-c", rate=0.5, in_flight=2)
    halted = throttle(name="e2-d", state="halted", reason="the API refuses the key.", in_flight=2)
    held = throttle(name="e2-e", state="paused", reason="by hand")
    waits = throttle(name="e2-f", state="paused", reason="429", paused_until=0.0)

    assert pace.together([slow, quick, elsewhere, halted]) == (
        "4 API keys: 3 running, 1 halted, 16.5 requests/s, 5 in flight"
    )
    assert pace.together([slow, throttle(name="e1-g")]).startswith("2 API keys: 2 running, ")
    assert "requests/s" not in pace.together([slow, throttle(name="e1-g")])
    assert pace.of_key(slow) == "e1-a: running, 6.0 requests/s, 3 of 8 in flight"
    assert pace.of_key(halted) == "e2-d: halted: the API refuses the key"
    assert pace.of_key(held) == "e2-e: paused: by hand"
    assert pace.of_key(waits).startswith("e2-f: paused until ")


def test_quotas_of_several_keys_add_up_if_all_of_them_are_known() -> None:
    small, large = throttle(quota_limit=10_000), throttle(quota_limit=30_000, quota_used=30_000)
    halted, unknown = throttle(state="halted"), throttle()
    for keys, days in (
        ([small, large], 4),  # 10,000 today, and 40,000 on each of three days
        ([small, large, halted], 4),
        ([small, large, unknown], 0),
    ):
        assert pace.quota_days(status(pending=130_000, throttle=small, keys=keys)) == days
