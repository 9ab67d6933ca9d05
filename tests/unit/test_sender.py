"""How threads of one process wait for each other's places."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from worker.sender import _Freed


def test_a_place_that_was_freed_before_is_not_waited_for() -> None:
    freed = _Freed()
    seen = freed.count
    freed.add()
    freed.wait(seen, 600)


def test_each_place_that_is_freed_wakes_one_thread() -> None:
    freed = _Freed()
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(freed.wait, freed.count, 600) for _ in range(3)]
        for _ in waiting:
            freed.add()
        for one in waiting:
            one.result(60)


def test_a_place_that_nobody_frees_is_waited_for_no_longer_than_told() -> None:
    freed = _Freed()
    freed.wait(freed.count, 0.001)
