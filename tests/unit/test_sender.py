"""How a sender waits until it may send."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.sender import Deferred, Sender, _Freed
from worker.settings import Settings
from worker.throttle import Permit, Wait


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


@pytest.mark.parametrize("full", [True, False])
def test_who_is_told_to_stop_waits_no_longer(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    sender = Sender(Settings(api_key="vec_test"), "m", None, stop)
    verdicts = [Wait(0.01, "not now", full)]
    monkeypatch.setattr(sender.throttle, "ask", verdicts.pop)
    stop.set()
    with pytest.raises(Deferred, match="not now"):
        sender.prepare()


def test_a_sender_knows_whether_it_last_waited_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(Settings(api_key="vec_test"), "m", None, threading.Event())
    monkeypatch.setattr(sender.throttle, "unused", lambda permit: None)
    assert not sender.crowded
    full, turn = Wait(0.001, "", True), Wait(0.001, "its turn")
    for waits, crowded in (([full], True), ([], True), ([turn], False), ([], False)):
        verdicts = [Permit("p", 0, 0), *waits]
        monkeypatch.setattr(sender.throttle, "ask", verdicts.pop)
        sender.prepare()
        assert sender.crowded is crowded
        sender.cancel()
