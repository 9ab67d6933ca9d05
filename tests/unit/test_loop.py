"""A background thread of ours lasts as long as its process, or the process ends."""

from __future__ import annotations

import threading

import pytest
import redis
from servers import wait_until

from worker.engine.loop import Loop


@pytest.mark.parametrize(
    "error", [ValueError("odd"), OSError("disk"), RecursionError(), redis.ReadOnlyError("replica")]
)
def test_a_step_that_fails_is_said_once_and_the_next_one_is_taken(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) < 4:
            raise error

    loop = Loop("pump", step, 0.001, ended)
    loop.start()
    wait_until(lambda: len(steps) > 6, what="steps after the failures")
    ended.set()
    loop.join(5)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith(f"the pump failed ({type(error).__name__}: ")
    assert said[1] == "the pump works again"
    # What Redis refuses for a while is no bug
    assert bool(caplog.records[0].exc_info) is not isinstance(error, redis.RedisError)


def test_a_step_under_way_can_be_seen_to_take_long() -> None:
    ended, go_on = threading.Event(), threading.Event()
    loop = Loop("pump", go_on.wait, 0.001, ended)
    assert loop.busy_seconds == 0.0
    loop.start()
    wait_until(lambda: loop.busy_seconds > 0.05, what="a long step")
    ended.set()
    go_on.set()
    loop.join(5)
    assert loop.busy_seconds == 0.0
