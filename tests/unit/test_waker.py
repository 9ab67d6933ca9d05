"""The waker ends the wait of kombu's event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from worker.engine.waker import Waker


@pytest.fixture
def waker() -> Iterator[Waker]:
    waker = Waker()
    yield waker
    waker.close()


def test_it_ends_a_wait_that_only_a_timer_would_end(waker: Waker) -> None:
    make_timer: Any = Timer
    make_hub: Any = Hub
    hub = make_hub(make_timer(max_interval=60))
    waker.watch(hub)
    hub.timer.call_after(60, lambda: None)  # it looks again after ten seconds
    loop = hub.create_loop()
    for _ in range(2):  # it can be woken again
        turn = threading.Thread(target=next, args=(loop,), daemon=True)
        turn.start()
        turn.join(0.2)
        assert turn.is_alive(), "it waits"
        for _ in range(3):
            waker.wake()
        turn.join(6)
        assert not turn.is_alive()
    hub.close()


def test_waking_a_loop_that_does_not_look_is_no_error(waker: Waker) -> None:
    for _ in range(10_000):
        waker.wake()
