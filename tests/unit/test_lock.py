"""The shared/exclusive lock: who may be inside together, and who goes first."""

from __future__ import annotations

import threading
from collections.abc import Callable

from worker.engine.lock import SharedLock


def start(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


class Visit:
    """A thread that holds the lock from `inside` until `leave`."""

    def __init__(self, lock: SharedLock, *, exclusive: bool = False) -> None:
        self.inside = threading.Event()
        self.leave = threading.Event()
        self._enter = lock.exclusive if exclusive else lock.shared
        self.thread = start(self._run)

    def _run(self) -> None:
        with self._enter():
            self.inside.set()
            self.leave.wait(10)

    def end(self) -> None:
        self.leave.set()
        self.thread.join(10)


def is_left_outside(visit: Visit) -> bool:
    return not visit.inside.wait(0.05)


def test_many_hold_it_in_shared_mode() -> None:
    lock = SharedLock()
    visits = [Visit(lock) for _ in range(3)]
    assert all(visit.inside.wait(5) for visit in visits)
    for visit in visits:
        visit.end()


def test_one_that_holds_it_in_exclusive_mode_is_alone() -> None:
    lock = SharedLock()
    alone = Visit(lock, exclusive=True)
    assert alone.inside.wait(5)
    others = [Visit(lock), Visit(lock, exclusive=True)]
    assert all(map(is_left_outside, others))
    alone.end()
    for other in others:
        other.leave.set()
    for other in others:
        other.end()
        assert other.inside.is_set()


def test_exclusive_mode_waits_for_those_inside_and_goes_before_those_that_come_later() -> None:
    lock = SharedLock()
    first = Visit(lock)
    assert first.inside.wait(5)
    alone = Visit(lock, exclusive=True)
    assert is_left_outside(alone)
    later = Visit(lock)
    assert is_left_outside(later)
    first.end()
    assert alone.inside.wait(5)
    assert is_left_outside(later)
    alone.end()
    assert later.inside.wait(5)
    later.end()
