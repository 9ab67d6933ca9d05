"""Which API key a request goes with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from worker.engine.admission import Admission, Admitted, earliest, order
from worker.settings import Settings
from worker.throttle import Halt, Permit, Throttle, Wait

PERMIT = Permit("p", 0, 0)
TURN, FULL = Wait(0.3, ""), Wait(0.01, "", True)
PAUSE, HALT = Wait(4.0, "429"), Halt("401")

ORDERS = {
    "nothing is known: as they stand": ("abc", {}, {}, "abc"),
    "the least recently used first": ("abc", {"a": 3.0, "b": 1.0, "c": 2.0}, {}, "bca"),
    "a new one before all": ("abc", {"a": 3.0, "b": 1.0}, {}, "cba"),
    "a paused one last": ("abc", {"b": 1.0}, {"a": 9.0}, "cba"),
    "of paused ones the earliest": ("abc", {"a": 1.0}, {"a": 7.0, "b": 9.0, "c": 8.0}, "acb"),
    "a halted one last of all": ("abc", {}, {"a": math.inf, "b": 9.0}, "cba"),
}


@pytest.mark.parametrize(("names", "used", "not_before", "expected"), ORDERS.values(), ids=ORDERS)
def test_keys_are_asked_in_the_order_in_which_they_may_let_a_request_go(
    names: str, used: dict[str, float], not_before: dict[str, float], expected: str
) -> None:
    assert order(list(names), used, not_before) == list(expected)


SUMS = {
    "one": ([TURN], TURN),
    "the earliest": ([PAUSE, TURN], TURN),
    "a halt counts for nothing beside a wait": ([HALT, PAUSE], PAUSE),
    "a slot may be free any moment": ([TURN._replace(seconds=0.001), FULL], Wait(0.001, "", True)),
    "all are halted": ([HALT, HALT], HALT),
    "for several reasons": ([HALT, Halt("403")], Halt("401; 403")),
    "there is none": ([], Wait(math.inf, "no API key may be used for it now")),
}


@pytest.mark.parametrize(("said", "expected"), SUMS.values(), ids=SUMS)
def test_what_the_answers_of_all_keys_amount_to(
    said: list[Wait | Halt], expected: Wait | Halt
) -> None:
    assert earliest(said) == expected


class Script(Throttle):
    """A throttle that says the same each time, and counts how often it is asked."""

    def __init__(self, key: str, says: Permit | Wait | Halt) -> None:
        super().__init__(Settings(api_key=key), "m")
        self.says = says
        self.asked = 0

    def ask(self) -> Permit | Wait | Halt:
        self.asked += 1
        return self.says


def scripts(test: str, *says: Permit | Wait | Halt) -> list[Script]:
    """Throttles that no other test has used."""
    return [Script(f"vec_{test}_{number}", one) for number, one in enumerate(says)]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def admission(throttles: Sequence[Script], clock: Clock | None = None) -> Admission:
    return Admission(lambda: throttles, clock or Clock())


def test_the_first_that_says_yes_is_taken_and_no_other_is_asked_for_a_permit() -> None:
    throttles = scripts("first", HALT, PAUSE, TURN, PERMIT, PERMIT)
    assert admission(throttles).ask() == Admitted(throttles[3], PERMIT)
    assert [one.asked for one in throttles] == [1, 1, 1, 1, 0]


def test_two_free_keys_take_turns() -> None:
    throttles = scripts("turns", PERMIT, PERMIT)
    asks = admission(throttles)
    for _ in range(10):
        asks.ask()
    assert [one.asked for one in throttles] == [5, 5]


def test_a_key_that_is_paused_or_halted_is_not_asked_each_time_and_one_that_is_not_is() -> None:
    throttles = scripts("paused", PAUSE, HALT, FULL, PERMIT)
    asks = admission(throttles)
    for _ in range(5):
        assert isinstance(asks.ask(), Admitted)
    assert [one.asked for one in throttles[2:]] == [5, 5]
    assert [one.asked for one in throttles[:2]] == [1, 1]


def test_a_key_that_waits_for_its_turn_is_asked_first_when_that_has_come_and_not_before() -> None:
    slow, free = throttles = scripts("slow", TURN, PERMIT)
    clock = Clock()
    some = [admission(throttles, clock) for _ in range(3)]  # the slices of a process
    for asks in some:
        assert asks.ask() == Admitted(free, PERMIT)
    assert slow.asked == 1
    clock.now += TURN.seconds
    slow.says = PERMIT
    assert some[1].ask() == Admitted(slow, PERMIT)
    assert free.asked == 3


def test_a_key_whose_turn_may_come_is_asked_where_no_other_lets_a_request_go() -> None:
    slow, full = throttles = scripts("tried", TURN, FULL)
    asks = admission(throttles)
    assert asks.ask() == FULL
    slow.says = PERMIT  # before the time that was told
    assert asks.ask() == Admitted(slow, PERMIT)
    assert (slow.asked, full.asked) == (2, 2)


def test_of_the_turns_that_are_told_the_earliest_counts() -> None:
    slow, free = throttles = scripts("earliest", TURN, FULL)
    clock = Clock()
    asks = admission(throttles, clock)
    asks.ask()
    slow.says = TURN._replace(seconds=9.0)  # behind the one who was told before
    asks.ask()
    clock.now += TURN.seconds
    free.says = slow.says = PERMIT
    assert asks.ask() == Admitted(slow, PERMIT)


def test_a_halted_key_is_asked_again_a_second_later() -> None:
    halted, full = throttles = scripts("halted", HALT, FULL)
    clock = Clock()
    asks = admission(throttles, clock)
    for seconds in (0.0, 0.3, 0.3, 0.6):
        clock.now += seconds
        assert asks.ask() == FULL
    assert (halted.asked, full.asked) == (2, 4)


def test_a_pause_is_told_with_the_time_that_is_left_of_it_and_asked_for_again_soon() -> None:
    (throttle,) = throttles = scripts("left", PAUSE)
    clock = Clock()
    asks = admission(throttles, clock)
    assert asks.ask() == PAUSE
    clock.now += 0.5
    second = asks.ask()
    assert isinstance(second, Wait) and second.reason == "429"
    assert second.seconds == pytest.approx(3.5, abs=0.1) and throttle.asked == 1
    # A person may resume it before it ends.
    clock.now += 0.6
    throttle.says = PERMIT
    assert asks.ask() == Admitted(throttle, PERMIT)


def test_a_batch_may_stay_with_one_key() -> None:
    free, paused = throttles = scripts("only", PERMIT, PAUSE)
    asks = admission(throttles)
    assert asks.ask(paused) == PAUSE
    assert asks.ask(free) == Admitted(free, PERMIT)
    assert free.asked == 1


def test_a_key_that_is_not_valid_any_more_is_asked_no_more() -> None:
    throttles = scripts("gone", PERMIT, PERMIT)
    asks = admission(throttles)
    gone = throttles.pop()
    assert asks.ask() == Admitted(throttles[0], PERMIT)
    assert isinstance(asks.ask(gone), Wait) and gone.asked == 0
