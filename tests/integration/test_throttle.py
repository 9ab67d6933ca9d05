"""May I send now? The fleet's one answer, on a real redis-server and on its clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import cast

import pytest
import redis
from servers import wait_until

from worker.local.redis_server import RedisServer
from worker.settings import Settings, parse_rate
from worker.store.connection import Redis
from worker.throttle import (
    FLIGHT_SECONDS,
    Halt,
    Permit,
    Quota,
    Throttle,
    Wait,
    pause,
    read_quota,
    read_throttle,
    resume,
    throttle_name,
)

LONG = 60.0
TIMES = ["paused_until", "paused_at", "since", "from", "episode", "lo", "next", "hint", "failing"]
TIMES += ["cut_at", "set_next", "closed", "told", "last", "clock", "resumed_at"]
TIMES += ["stale_at", "lowered_at", "trial_at"]


class Bench:
    """A throttle of two request slots, and time that passes when told to."""

    def __init__(self, url: str, client: redis.Redis, model: str = "m") -> None:
        settings = Settings(redis_url=url, api_key="vec_test", max_in_flight=2)
        self.throttle = Throttle(settings, model)
        self.url = url
        self.client = cast(Redis, client)
        self._direct = client
        endpoint, _, key = self.throttle.name.partition("-")
        self._endpoint = f"vec:throttle:{{{endpoint}}}"
        self._hashes = [f"{self._endpoint}:{key}", f"{self._endpoint}:{key}:m", self._endpoint]

    def go(self) -> Permit:
        """The permit that is given at once."""
        verdict = self.throttle.ask()
        assert isinstance(verdict, Permit), verdict
        return verdict

    def wait(self) -> Wait:
        """The wait that is told."""
        verdict = self.throttle.ask()
        assert isinstance(verdict, Wait), verdict
        return verdict

    @property
    def state(self) -> str:
        return read_throttle(self.client, "vec", self.throttle.name, "m").state

    def pass_time(self, seconds: float) -> None:
        """Move all that is remembered so far into the past."""
        for hash, field in product(self._hashes, TIMES):
            moment = self._direct.hget(hash, field)
            if moment is not None:
                self._direct.hset(hash, field, str(int(float(moment) - seconds * 1000)))
        flights = f"{self._endpoint}:flights"
        for permit in cast("list[bytes]", self._direct.zrange(flights, 0, -1)):
            self._direct.zincrby(flights, -seconds * 1000, permit)

    def paused_at(self) -> int:
        """When the pause was told, in ms."""
        moments = [self._direct.hget(hash, "paused_at") for hash in self._hashes]
        return max(int(moment) for moment in moments if moment is not None)

    def aged(self, permit: Permit, seconds: float = 1.0) -> Permit:
        """The permit, as if it had been given so much earlier."""
        return permit._replace(admitted_at=permit.admitted_at - int(seconds * 1000))


@pytest.fixture
def bench(redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Bench]:
    """One whose first request has passed."""
    bench = Bench(redis_server.url, redis_client)
    opened(bench.throttle)
    yield bench


def opened(throttle: Throttle) -> Throttle:
    """A throttle through which one text has passed."""
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.passed(permit, 1)
    return throttle


def test_a_new_throttle_lets_send(bench: Bench) -> None:
    assert bench.state == "running"
    assert bench.go().failures == 0


def test_no_more_requests_are_in_flight_than_there_are_places(bench: Bench) -> None:
    first, second = bench.go(), bench.go()
    assert 0 < bench.wait().seconds < 1
    bench.throttle.passed(first)
    bench.go()
    bench.wait()
    bench.throttle.failed(second, "no answer")
    bench.go()
    bench.wait()


def test_an_answer_frees_the_place_before_it_is_reported_on(bench: Bench) -> None:
    first, _ = bench.go(), bench.go()
    assert bench.wait().full
    bench.throttle.answered(first)
    assert read_throttle(bench.client, "vec", bench.throttle.name).in_flight == 1
    bench.go()
    bench.wait()
    bench.throttle.renew(first)
    assert read_throttle(bench.client, "vec", bench.throttle.name).in_flight == 2
    bench.throttle.passed(first, uncached=7)
    assert bench.wait().full, "it had no slot any more"
    assert read_throttle(bench.client, "vec", bench.throttle.name).quota_used == 7


def test_an_answer_that_is_never_reported_on_is_forgotten(bench: Bench) -> None:
    permit = bench.go()
    bench.throttle.answered(permit)
    bench.pass_time(FLIGHT_SECONDS + 1)
    bench.go()
    bench.throttle.passed(permit, uncached=7)
    assert read_throttle(bench.client, "vec", bench.throttle.name).quota_used == 0


def test_others_wait_for_the_canary_until_its_answer_is_reported_on(bench: Bench) -> None:
    bench.throttle.deferred(bench.go(), LONG, "slow down")
    bench.pass_time(LONG + 1)
    canary = bench.go()
    bench.throttle.answered(canary)
    assert not bench.wait().full
    bench.throttle.passed(canary)
    bench.go()


def test_a_place_kept_for_nothing_is_given_back(bench: Bench) -> None:
    bench.go()
    permit = bench.go()
    bench.throttle.unused(permit)
    bench.go()


def test_the_place_of_a_dead_sender_returns_and_of_a_living_one_stays(bench: Bench) -> None:
    bench.go()  # it dies
    living = bench.go()
    bench.pass_time(FLIGHT_SECONDS - 1)
    bench.wait()
    bench.throttle.renew(living)
    bench.pass_time(2)
    bench.go()
    bench.wait()


def test_a_place_that_was_given_back_cannot_be_renewed(bench: Bench) -> None:
    permit = bench.go()
    bench.throttle.passed(permit)
    bench.throttle.renew(permit)
    bench.go()
    bench.go()


# Pauses


def test_a_429_pauses_the_fleet_for_as_long_as_the_server_says(bench: Bench) -> None:
    bench.throttle.deferred(bench.go(), LONG, "slow down")
    wait = bench.wait()
    assert LONG - 5 < wait.seconds <= LONG
    assert wait.reason == "slow down"
    status = read_throttle(bench.client, "vec", bench.throttle.name)
    assert (status.state, status.reason) == ("paused", "slow down")
    assert status.paused_until is not None


def test_a_pause_is_never_shortened_by_a_later_earlier_one(bench: Bench) -> None:
    first, second = bench.go(), bench.go()
    bench.throttle.deferred(first, LONG, "long")
    bench.throttle.deferred(second, 1.0, "short")
    assert bench.wait().seconds > LONG - 5


def test_a_pause_is_prolonged_by_a_later_longer_one(bench: Bench) -> None:
    first, second = bench.go(), bench.go()
    bench.throttle.deferred(first, 1.0, "short")
    bench.throttle.deferred(second, LONG, "long")
    assert bench.wait().seconds > LONG - 5


@pytest.mark.parametrize("earlier", [1.0, 0.0], ids=["before", "in the very millisecond"])
@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_request_admitted_before_the_pause_tells_nothing_about_it(
    bench: Bench, outcome: str, earlier: float
) -> None:
    stale, refused = bench.go(), bench.go()
    bench.throttle.deferred(refused, LONG, "slow down")
    paused_at = bench.paused_at()
    stale = stale._replace(admitted_at=paused_at - int(earlier * 1000))
    if outcome == "passed":
        bench.throttle.passed(stale)
    else:
        bench.throttle.failed(stale, "no answer")
    assert bench.wait().seconds > LONG - 5


def test_a_pause_ends_for_the_workers_when_it_ends_for_the_requests(bench: Bench) -> None:
    bench.throttle.deferred(bench.go(), LONG, "slow down")
    bench.pass_time(LONG + 0.002)
    assert bench.state == "running"
    bench.go()


def test_after_a_pause_one_request_goes_first(bench: Bench) -> None:
    bench.throttle.deferred(bench.go(), LONG, "slow down")
    bench.pass_time(LONG + 1)
    canary = bench.go()
    bench.wait()
    bench.throttle.passed(canary)
    bench.go()
    bench.go()


@pytest.mark.parametrize("end", ["unused", "died", "failed"])
def test_another_canary_goes_when_the_first_one_told_nothing(bench: Bench, end: str) -> None:
    bench.throttle.deferred(bench.go(), LONG, "slow down")
    bench.pass_time(LONG + 1)
    canary = bench.go()
    if end == "unused":
        bench.throttle.unused(canary)
    elif end == "failed":
        bench.throttle.failed(canary, "no answer")
    else:
        bench.pass_time(FLIGHT_SECONDS + 1)
    bench.go()
    bench.wait()


def test_without_a_time_named_waits_grow_from_pause_to_pause(bench: Bench) -> None:
    waits = []
    for _ in range(14):
        bench.throttle.deferred(bench.go(), None, "slow down")
        waits.append(bench.wait().seconds)
        bench.pass_time(waits[-1] + LONG)
    assert waits[0] <= 0.1
    assert sorted(waits) == waits
    assert 20 < waits[-1] <= 900


def test_the_429s_of_one_moment_are_one_reason_to_wait_not_many(bench: Bench) -> None:
    first, second = bench.go(), bench.go()
    bench.throttle.deferred(bench.aged(first), None, "slow down")
    bench.throttle.deferred(bench.aged(second), None, "slow down")
    assert bench.wait().seconds <= 1


def test_a_request_that_passes_makes_waits_short_again(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    bench = Bench(redis_server.url, redis_client)
    for _ in range(3):
        bench.throttle.deferred(bench.go(), None, "slow down")
        bench.pass_time(LONG)
    bench.throttle.passed(bench.go())
    bench.pass_time(LONG)
    bench.throttle.passed(bench.go())  # all the texts that one may send: it is no quota
    bench.pass_time(LONG)
    bench.throttle.deferred(bench.go(), None, "slow down")
    assert bench.wait().seconds <= 1.1


# Rates and requests in flight


@pytest.mark.parametrize("said", ["2/min", "200 texts/min"])
def test_a_configured_rate_is_kept_by_the_fleet(bench: Bench, said: str) -> None:
    settings = Settings(redis_url=bench.url, api_key="vec_test", rate=parse_rate(said))
    throttle = Throttle(settings, "m")
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.passed(permit, 100)
    wait = throttle.ask()
    assert isinstance(wait, Wait)
    assert wait.seconds <= 30
    configured = read_throttle(bench.client, "vec", throttle.name).configured
    assert configured is not None and settings.rate is not None
    assert configured.of == settings.rate.of
    assert configured.per_second == pytest.approx(
        settings.rate.per_second, abs=1e-6
    )  # six decimals kept
    bench.pass_time(30)
    assert isinstance(throttle.ask(), Permit)


def test_texts_that_were_not_sent_do_not_count_for_the_rate(bench: Bench) -> None:
    rate = parse_rate("200 texts/min")
    throttle = Throttle(Settings(redis_url=bench.url, api_key="vec_test", rate=rate), "m")
    for texts in (2, 0):
        permit = throttle.ask()
        assert isinstance(permit, Permit)
        if texts:
            throttle.passed(permit, texts)
        else:
            throttle.unused(permit)
        bench.pass_time(1)


def test_timeouts_lower_the_requests_in_flight_and_passes_raise_them_again(bench: Bench) -> None:
    first, second = bench.go(), bench.go()
    bench.throttle.failed(first, "no whole answer", 1, timeout=True)
    bench.throttle.failed(second, "no whole answer", 1, timeout=True)
    assert read_throttle(bench.client, "vec", bench.throttle.name).in_flight_ceiling == 1
    for _ in range(5):
        permit = bench.go()
        bench.wait()
        bench.throttle.passed(permit)
    bench.go()
    bench.go()


def test_a_503_that_names_a_time_is_waited_for_and_teaches_no_rate(bench: Bench) -> None:
    for _ in range(10):
        bench.throttle.passed(bench.go())
    bench.throttle.deferred(bench.go(), LONG, "maintenance", unavailable=True)
    assert bench.wait().seconds > LONG - 5
    bench.pass_time(LONG + 1)
    bench.throttle.passed(bench.go())
    assert read_throttle(bench.client, "vec", bench.throttle.name).learned_limit is None
    bench.go()


# Quota


def test_what_is_left_of_a_quota_is_found_by_halves_and_then_one_text_is_tried(
    bench: Bench,
) -> None:
    left = 34
    said = "Rate limit exceeded. Limit: 50000/day. Resets at: 2026-11-23 00:00 UTC"
    requests, refusals = 0, 0
    while True:
        permit = bench.go()
        size = permit.most
        if size <= left:
            left -= size
            bench.throttle.passed(permit, size, size)
        else:
            refusals += 1
            bench.throttle.deferred(permit, None, said, size)
            if size == 1:
                break
            bench.pass_time(1)
        requests += 1
    assert left == 0
    assert requests <= 16
    status = read_throttle(bench.client, "vec", bench.throttle.name)
    assert (status.state, status.reason) == ("paused", said)
    assert (status.quota_limit, status.quota_used) == (50_000, 34)
    assert status.quota_resets_at is not None
    assert status.quota_resets_at % 86_400 == 0
    assert 5 < bench.wait().seconds <= 15
    # It returns: one text first, then all that fit.
    bench.pass_time(LONG)
    permit = bench.go()
    assert permit.most == 1
    bench.throttle.passed(permit, 1, 1)
    permit = bench.go()
    assert permit.most == 100
    bench.throttle.passed(permit, 100, 100)
    bench.go()
    bench.go()


def test_probes_of_an_empty_quota_come_seldom_and_at_its_reset(bench: Bench) -> None:
    waits = []
    for _ in range(18):
        permit = bench.go()
        bench.throttle.deferred(permit, None, "daily quota exceeded", permit.most)
        waits.append(bench.wait().seconds)
        bench.pass_time(1000)
    assert max(waits) <= 900
    assert max(waits) > 400 or min(waits[7:]) >= 1  # unless midnight is near


@pytest.mark.parametrize(
    ("said", "quota"),
    [
        (
            "Rate limit exceeded. Limit: 50000/day. Resets at: 2026-11-23 00:00 UTC",
            Quota(50_000, 1_795_392_000.0),
        ),
        ("Daily quota exceeded", Quota(None, None)),
        ("1,000 texts per day", Quota(1_000, None)),
        ("Too Many Requests", None),
        ("Limit: 600/min", None),
    ],
)
def test_a_429_that_speaks_of_a_quota_is_known(said: str, quota: Quota | None) -> None:
    assert read_quota(said) == quota


# Failures


def test_three_failures_in_a_row_pause_the_fleet_and_waits_grow(bench: Bench) -> None:
    for _ in range(2):
        bench.throttle.failed(bench.go(), "no answer")
    assert bench.state == "running"
    waits = []
    for _ in range(8):
        bench.throttle.failed(bench.go(), "no answer")
        waits.append(bench.wait().seconds)
        bench.pass_time(LONG)
    assert 0 < waits[0] <= 0.5
    assert 0.5 < waits[1] <= 1 < waits[2] <= 2
    assert 4 < waits[-1] <= 15


def test_failures_between_passes_pause_nobody(bench: Bench) -> None:
    for _ in range(10):
        for _ in range(2):
            bench.throttle.failed(bench.go(), "no answer")
        permit = bench.go()
        assert permit.failures == 2
        bench.throttle.passed(permit)
    assert bench.state == "running"


def test_a_report_sent_twice_counts_once(bench: Bench) -> None:
    for _ in range(2):
        permit = bench.go()
        for _ in range(5):
            bench.throttle.failed(permit, "no answer")
    assert bench.state == "running"
    refused = bench.go()
    for _ in range(5):
        bench.throttle.deferred(refused, None, "slow down")
    assert bench.wait().seconds <= 1


# Halts


def test_nobody_sends_after_a_halt_until_somebody_resumes(bench: Bench) -> None:
    bench.throttle.halted(bench.go(), "the API refuses the key", of_key=True)
    assert bench.throttle.ask() == Halt("the API refuses the key")
    assert bench.state == "halted"
    assert resume(bench.client, "vec", bench.throttle.name)
    assert bench.state == "running"
    canary = bench.go()
    bench.wait()
    bench.throttle.passed(canary)
    bench.go()


@pytest.mark.parametrize("of_key", [True, False])
def test_a_request_that_passes_does_not_end_a_halt(bench: Bench, of_key: bool) -> None:
    permit = bench.go()
    bench.throttle.halted(bench.go(), "the API refuses the key", of_key=of_key)
    bench.throttle.passed(permit)
    assert isinstance(bench.throttle.ask(), Halt)


def test_a_refusal_from_before_the_resume_does_not_halt_again(bench: Bench) -> None:
    first, second = bench.go(), bench.go()
    bench.throttle.halted(first, "the API refuses the key", of_key=True)
    resume(bench.client, "vec", bench.throttle.name)
    bench.throttle.halted(bench.aged(second), "the API refuses the key", of_key=True)
    assert bench.state == "running"
    bench.pass_time(0.01)
    bench.throttle.halted(bench.go(), "the API refuses the new key", of_key=True)
    assert bench.state == "halted"


def test_a_pause_can_be_ended_by_hand(bench: Bench) -> None:
    bench.throttle.deferred(bench.go(), LONG, "slow down")
    assert resume(bench.client, "vec", bench.throttle.name)
    bench.go()
    bench.wait()


def test_a_pause_by_hand_lasts_until_somebody_resumes(bench: Bench) -> None:
    permit = bench.go()
    pause(bench.client, "vec", bench.throttle.name, "the invoice is open")
    assert bench.wait().reason == "the invoice is open"
    bench.throttle.passed(permit)
    status = read_throttle(bench.client, "vec", bench.throttle.name)
    assert (status.state, status.reason) == ("paused", "the invoice is open")
    assert status.paused_until is None
    assert resume(bench.client, "vec", bench.throttle.name)
    bench.go()


def test_there_is_nothing_to_resume_where_work_goes_on(bench: Bench) -> None:
    assert not resume(bench.client, "vec", bench.throttle.name)


# Names


def test_endpoint_and_key_have_a_throttle_of_their_own() -> None:
    names = {
        throttle_name(url, key) for url in ("http://a", "http://b") for key in ("vec_a", "vec_b")
    }
    assert len(names) == 4
    assert len({name.partition("-")[0] for name in names}) == 2  # the endpoint's part
    assert all(re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", name) for name in names)


# What is shared: by the whole fleet, by all models under a key, by all keys of an endpoint


@pytest.fixture
def another_model(bench: Bench) -> Throttle:
    return opened(Throttle(Settings(redis_url=bench.url, api_key="vec_test", max_in_flight=2), "n"))


@pytest.fixture
def another_key(bench: Bench) -> Throttle:
    settings = Settings(redis_url=bench.url, api_key="vec_other", max_in_flight=2)
    return opened(Throttle(settings, "m"))


@pytest.fixture
def another_worker(bench: Bench) -> Throttle:
    return Throttle(Settings(redis_url=bench.url, api_key="vec_test", max_in_flight=2), "m")


def lets_send(throttle: Throttle) -> bool:
    verdict = throttle.ask()
    if isinstance(verdict, Permit):
        throttle.unused(verdict)
    return isinstance(verdict, Permit)


def told_429(throttle: Throttle, permit: Permit) -> None:
    throttle.deferred(permit, LONG, "slow down")


def told_401(throttle: Throttle, permit: Permit) -> None:
    throttle.halted(permit, "the API refuses the key", of_key=True)


def told_404(throttle: Throttle, permit: Permit) -> None:
    throttle.halted(permit, "no such model")


def told_500s(throttle: Throttle, permit: Permit) -> None:
    for _ in range(3):
        throttle.failed(permit, "Internal Server Error")
        again = throttle.ask()
        if isinstance(again, Permit):
            permit = again


@pytest.mark.parametrize(
    ("told", "of_key"), [(told_429, True), (told_401, True), (told_404, False), (told_500s, False)]
)
def test_what_an_answer_says_is_of_the_key_or_of_the_model_under_it_and_of_no_other_key(
    bench: Bench,
    another_model: Throttle,
    another_key: Throttle,
    another_worker: Throttle,
    told: Callable[[Throttle, Permit], None],
    of_key: bool,
) -> None:
    told(bench.throttle, bench.go())
    state = bench.state
    assert state != "running"
    assert not lets_send(another_worker)
    assert lets_send(another_model) is not of_key
    assert lets_send(another_key)
    names = bench.throttle.name, another_key.name
    assert [read_throttle(bench.client, "vec", name, "m").state for name in names] == [
        state,
        "running",
    ]
    assert read_throttle(bench.client, "vec", names[0], "n").state == (
        state if of_key else "running"
    )

    assert resume(bench.client, "vec", bench.throttle.name, ["m"])

    assert bench.state == "running"
    assert lets_send(bench.throttle)


def test_requests_in_flight_are_counted_over_all_keys_and_models_of_an_endpoint(
    bench: Bench, another_model: Throttle, another_key: Throttle
) -> None:
    first = another_model.ask()
    assert isinstance(first, Permit)
    second = another_key.ask()
    assert isinstance(second, Permit)
    assert bench.wait().full
    assert read_throttle(bench.client, "vec", bench.throttle.name).in_flight == 2
    another_key.passed(second)
    bench.go()


def test_a_timeout_lowers_the_requests_in_flight_of_all_keys_of_an_endpoint(
    bench: Bench, another_key: Throttle
) -> None:
    bench.throttle.failed(bench.go(), "no whole answer", 1, timeout=True)
    assert isinstance(another_key.ask(), Permit)
    verdict = another_key.ask()
    assert isinstance(verdict, Wait)
    assert verdict.full
    elsewhere = Settings(redis_url=bench.url, base_url="http://b", max_in_flight=2)
    other_endpoint = opened(Throttle(elsewhere, "m"))
    assert isinstance(other_endpoint.ask(), Permit)
    assert isinstance(other_endpoint.ask(), Permit)


def test_a_pause_after_failures_ends_when_the_clock_of_redis_is_set_back(bench: Bench) -> None:
    told_500s(bench.throttle, bench.go())
    bench.pass_time(-3600)
    assert bench.wait().seconds < 1


@pytest.mark.parametrize("answered", [False, True])
def test_a_place_that_another_clock_gave_away_for_long_is_free_in_time(
    bench: Bench, redis_client: redis.Redis, answered: bool
) -> None:
    permit = bench.go()
    bench.go()
    if answered:
        bench.throttle.answered(permit)
    flights = next(key for key in redis_client.keys("*:flights"))
    redis_client.zincrby(flights, 86_400_000, permit.id)
    bench.throttle.ask()
    if answered:
        bench.pass_time(FLIGHT_SECONDS + 1)
        bench.throttle.ask()
        assert redis_client.zscore(flights, permit.id) is None
    else:
        bench.pass_time(FLIGHT_SECONDS + 1)
        bench.go()


def test_a_pause_told_by_a_clock_that_was_set_back_keeps_nobody_from_asking(bench: Bench) -> None:
    bench.throttle.deferred(bench.go(), LONG, "slow down")
    bench.pass_time(-86_400)
    assert bench.state == "running", "nobody would be woken to ask"
    assert LONG - 5 < bench.wait().seconds <= LONG
    assert bench.state == "paused"


def test_a_503_that_names_no_time_to_wait_is_not_believed_for_long(bench: Bench) -> None:
    for _ in range(8):
        bench.throttle.deferred(bench.go(), 0, "maintenance", unavailable=True)
        verdict = bench.throttle.ask()
        if isinstance(verdict, Permit):
            bench.throttle.unused(verdict)
        # What is admitted in the millisecond of a refusal counts as sent before it.
        bench.pass_time(0.01 if isinstance(verdict, Permit) else LONG)
    bench.throttle.deferred(bench.go(), 0, "maintenance", unavailable=True)
    assert bench.wait().seconds > 4


@pytest.mark.parametrize("seconds", [999_999_999.0, 1e300, float("inf")])
def test_a_wait_of_years_is_probed_within_minutes(bench: Bench, seconds: float) -> None:
    bench.throttle.deferred(bench.go(), seconds, "go away")
    assert bench.wait().seconds <= 15
    bench.pass_time(16)
    assert bench.go().most == 1
    bench.wait()


@pytest.mark.parametrize("seconds", [-5.0, 0.0, float("nan")])
def test_a_wait_that_is_none_is_none(bench: Bench, seconds: float) -> None:
    bench.throttle.deferred(bench.go(), seconds, "now")
    bench.go()


# The first request


@pytest.mark.parametrize("again", ["first", "resumed"])
def test_the_first_request_is_one_text_alone(
    redis_server: RedisServer, redis_client: redis.Redis, again: str
) -> None:
    bench = Bench(redis_server.url, redis_client)
    if again == "resumed":
        opened(bench.throttle)
        bench.throttle.halted(bench.go(), "the API refuses the key", of_key=True)
        bench.pass_time(1)
        resume(bench.client, "vec", bench.throttle.name)
        bench.pass_time(1)
    first = bench.go()
    assert first.most == 1
    assert not bench.wait().full
    bench.throttle.refused(first, 1)
    first = bench.go()
    assert first.most == 1
    bench.throttle.passed(first, 1, 1)
    assert [bench.go().most, bench.go().most] == [100, 100]


def test_a_model_through_which_nothing_passed_begins_with_one_text(bench: Bench) -> None:
    new = Throttle(Settings(redis_url=bench.url, api_key="vec_test", max_in_flight=2), "new")
    permit = new.ask()
    assert isinstance(permit, Permit) and permit.most == 1
    assert isinstance(new.ask(), Wait)
    assert bench.go().most == 100
    new.failed(permit, "Internal Server Error", 1, charged=True)
    assert isinstance(new.ask(), Wait)


# Timeouts


def test_a_timeout_of_many_texts_makes_the_next_requests_smaller_and_not_fewer(
    bench: Bench,
) -> None:
    first, second = bench.go(), bench.go()
    bench.throttle.failed(first, "no whole answer", 100, timeout=True)
    bench.throttle.failed(second, "no whole answer", 100, timeout=True)
    assert [bench.go().most, bench.go().most] == [50, 50]


def test_a_timeout_on_a_reused_connection_is_no_reason_to_slow_down_yet(bench: Bench) -> None:
    first, second = bench.go(), bench.go()
    for permit in (first, second):
        bench.throttle.failed(permit, "no whole answer", 100, timeout=True, reused=True)
    bench.pass_time(0.01)
    permits = [bench.go(), bench.go()]
    assert [(permit.most, permit.failures) for permit in permits] == [(100, 0), (100, 0)]
    bench.throttle.failed(permits[0], "no whole answer", 100, timeout=True, reused=True)
    assert bench.go().most == 50


def test_a_short_pause_ends_by_itself(bench: Bench) -> None:
    bench.throttle.deferred(bench.go(), 0.05, "slow down")
    wait_until(lambda: isinstance(bench.throttle.ask(), Permit), what="a permit")
