"""A small backlog is given a moment to grow; time is passed in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worker.engine.linger import linger

QUIET = 0.02


class Backlog:
    """A backlog that follows `size` of the time, which passes only when it is waited for."""

    def __init__(self, size: Callable[[float], int], stops_at: float = float("inf")) -> None:
        self.now = 0.0
        self.looks = 0
        self._size = size
        self._stops_at = stops_at

    def pending(self) -> int:
        self.looks += 1
        return self._size(self.now)

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.now >= self._stops_at

    def waited(self, quiet: float = QUIET) -> float:
        linger(self.pending, 100, quiet, self.wait, lambda: self.now)
        return self.now


@pytest.mark.parametrize(
    ("size", "waited"),
    [
        pytest.param(lambda now: 1, QUIET, id="a lone text waits for as long as is asked"),
        pytest.param(lambda now: 0, 0.0, id="nothing to do is not waited for"),
        pytest.param(lambda now: 100, 0.0, id="a full batch does not wait"),
        pytest.param(lambda now: 99_999, 0.0, id="nor does a large backlog"),
        pytest.param(
            lambda now: 1 + int(now / 0.001), 0.1, id="what grows is waited for until it is a batch"
        ),
        pytest.param(
            lambda now: 1 + min(30, int(now / 0.001)),
            0.03 + QUIET,
            id="and when it grows no more, as long again",
        ),
        pytest.param(
            lambda now: 1 + int(now / 0.01), 20 * QUIET, id="a trickle is waited for twenty times"
        ),
        pytest.param(
            lambda now: 1 if now < 0.01 else 0, 0.01, id="what another took is not waited for"
        ),
    ],
)
def test_a_backlog_is_waited_for_while_it_grows(
    size: Callable[[float], int], waited: float
) -> None:
    assert Backlog(size).waited() == pytest.approx(waited, abs=QUIET / 5 + 1e-9)


def test_the_end_of_the_worker_ends_it() -> None:
    assert Backlog(lambda now: 1, stops_at=0.0).waited() == pytest.approx(QUIET / 3)


def test_without_a_linger_one_look_tells_whether_someone_waits() -> None:
    backlog = Backlog(lambda now: 1)
    assert backlog.waited(quiet=0.0) == 0.0
    assert backlog.looks == 1
