"""The waker ends the wait of kombu's event loop."""

from __future__ import annotations

import threading

from kombu.asynchronous import Hub

from worker.engine.waker import Waker


def test_it_ends_a_wait_that_only_a_timer_would_end() -> None:
    hub, waker = Hub(), Waker()
    waker.watch(hub)
    hub.timer.call_after(60, lambda: None)
    loop = hub.create_loop()
    for _ in range(2):  # it can be woken again
        turn = threading.Thread(target=next, args=(loop,), daemon=True)
        turn.start()
        turn.join(0.2)
        assert turn.is_alive(), "it waits"
        for _ in range(3):
            waker.wake()
        turn.join(10)
        assert not turn.is_alive()
    hub.close()


def test_waking_a_loop_that_does_not_look_is_no_error() -> None:
    waker = Waker()
    for _ in range(100_000):
        waker.wake()
