"""The fitness of a worker: what its slices and its key's throttle say, as a table of moments."""

from __future__ import annotations

import logging

import pytest

from worker.engine.fitness import FORGET_SECONDS, LONG_SECONDS, REST_SECONDS, Fitness
from worker.types import ThrottleStatus


def throttle(
    state: str = "running", reason: str | None = None, seconds: float | None = None, name: str = ""
) -> ThrottleStatus:
    return ThrottleStatus(
        state, reason, None, None, None, 0, None, None, 0, None, None, name, seconds
    )


def fail(fitness: Fitness, *moments: float, name: str = "wiki") -> None:
    for now in moments:
        fitness.failed(name, ValueError("no such\nfile"), now)


def test_a_worker_that_nothing_is_known_of_works() -> None:
    condition = Fitness().look([throttle()], 0.0)
    assert (condition.state, condition.reason, condition.takes) == ("working", None, True)


def test_a_worker_is_halted_for_as_long_as_its_key_is_and_takes_no_wakeups() -> None:
    fitness = Fitness()
    halted = fitness.look([throttle("halted", "the API refuses the key")], 0.0)
    assert (halted.state, halted.reason, halted.takes) == (
        "halted",
        "the API refuses the key",
        False,
    )
    assert fitness.look([throttle()], 1.0).state == "working"


@pytest.mark.parametrize(
    ("seconds", "takes"), [(0.5, True), (LONG_SECONDS - 1, True), (LONG_SECONDS + 1, False)]
)
def test_only_a_long_pause_is_no_time_to_take_wakeups(seconds: float, takes: bool) -> None:
    condition = Fitness().look([throttle("paused", "429", seconds)], 0.0)
    assert (condition.state, condition.takes) == ("working", takes)


def test_one_failure_is_an_accident_and_many_at_one_moment_too() -> None:
    fitness = Fitness()
    fail(fitness, 0.0, 0.01, 0.02)
    assert fitness.look([throttle()], 1.0).state == "working"


def test_a_worker_whose_slices_go_on_raising_is_unfit_and_tries_again_after_a_rest() -> None:
    fitness = Fitness()
    fail(fitness, 0.0, 4.0)
    unfit = fitness.look([throttle()], 4.5)
    assert (unfit.state, unfit.reason, unfit.takes) == ("unfit", "ValueError: no such file", False)
    assert unfit.faults == {"wiki": "ValueError: no such file"}
    trying = fitness.look([throttle()], 4.0 + REST_SECONDS)
    assert (trying.state, trying.takes) == ("unfit", True)


def test_an_unfit_worker_works_when_a_slice_does() -> None:
    fitness = Fitness()
    fail(fitness, 0.0, 4.0)
    fitness.worked("wiki", 5.0)
    condition = fitness.look([throttle()], 5.5)
    assert (condition.state, condition.takes, condition.faults) == ("working", True, {})


def test_a_fault_of_one_collection_leaves_the_worker_fit_for_others() -> None:
    fitness = Fitness()
    fail(fitness, 0.0, 4.0, name="broken")
    fitness.worked("wiki", 4.5)
    condition = fitness.look([throttle()], 5.0)
    assert (condition.state, condition.takes) == ("working", True)
    assert list(condition.faults) == ["broken"]


def test_what_is_not_seen_again_is_forgotten() -> None:
    fitness = Fitness()
    fail(fitness, 0.0, 4.0)
    assert fitness.look([throttle()], 4.0 + FORGET_SECONDS).state == "working"


def test_a_halt_and_a_fault_are_logged_once_each_until_they_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fitness = Fitness()

    def said() -> list[str]:
        lines = [record.getMessage().split(":")[0] for record in caplog.records]
        caplog.clear()
        return lines

    with caplog.at_level(logging.WARNING, "worker"):
        for _ in range(8):
            fitness.halted("the key is refused")
            fitness.look([throttle("halted", "the key is refused")], 0.0)
        assert said() == ["halted"]
        fitness.look([throttle()], 1.0)
        assert said() == ["resumed"]
        fitness.halted("the key is refused")
        assert said() == ["halted"]
        fail(fitness, 2.0, 2.1, 6.0)
        [record] = caplog.records
        assert record.exc_info
        assert said() == ["wiki cannot be worked on here"]
        fitness.worked("wiki", 7.0)
        fail(fitness, 8.0)
        assert said() == ["wiki is worked on again", "wiki cannot be worked on here"]


RUNS = throttle(name="runs")
HALTED, OTHER = throttle("halted", "401", name="halted"), throttle("halted", "403", name="other")
SHORT = throttle("paused", "429", LONG_SECONDS - 1, "short")
LONG = throttle("paused", "quota", LONG_SECONDS + 1, "long")


@pytest.mark.parametrize(
    ("keys", "state", "reason", "takes"),
    [
        ([RUNS, HALTED], "working", None, True),
        ([RUNS, LONG], "working", None, True),
        ([HALTED, SHORT], "working", None, True),
        ([HALTED, LONG], "working", None, False),
        ([HALTED, OTHER], "halted", "401; 403", False),
    ],
)
def test_a_worker_with_several_keys_works_while_one_of_them_does(
    keys: list[ThrottleStatus], state: str, reason: str | None, takes: bool
) -> None:
    assert Fitness().look(keys, 0.0) == (state, reason, takes, {})


def test_a_key_of_several_that_is_halted_is_logged_once_with_what_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fitness = Fitness()
    with caplog.at_level(logging.WARNING, "worker"):
        for now in range(3):
            fitness.look([RUNS, HALTED, SHORT], float(now))
        for now in range(3, 6):
            fitness.look([RUNS, throttle(name="halted"), SHORT], float(now))
        fitness.look([RUNS, HALTED], 6.0)
        fitness.look([RUNS], 7.0)  # it was taken out of the file: that is no end of its halt
        fitness.look([RUNS, SHORT], 8.0)
    halt = "key halted is halted, {} are not: 401. When that is fixed: vec resume"
    assert caplog.messages == [
        halt.format("2 of 3"),
        "key halted is resumed",
        halt.format("1 of 2"),
    ]
