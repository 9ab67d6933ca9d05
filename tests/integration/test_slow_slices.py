"""A slice in which nothing moves is named in the log; one that is only slow is not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from servers import wait_until

from worker.engine.heartbeat import Heartbeat
from worker.monitor.fleet import Work
from worker.settings import Settings


@dataclass
class Standing:
    """A slice whose last request began or ended that long ago."""

    consumer: str
    unmoved_seconds: float
    renewed: int = field(default=0)
    guests: int = 0
    in_hand: Sequence[str] = ()

    def renew(self) -> Work:
        self.renewed += 1
        return Work("wiki", 100, False)

    def give_back(self) -> None: ...


def test_a_slice_in_which_nothing_moves_is_logged_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    heartbeat = Heartbeat(settings)
    longest = settings.slice_seconds + settings.timeout + 6
    stuck, slow = Standing("stuck", longest + 1), Standing("slow", longest - 1)
    with caplog.at_level(logging.ERROR, "worker"):
        for one in (stuck, slow):
            heartbeat.process.open(one)
        heartbeat.start()
        wait_until(lambda: stuck.renewed > 3, 20, "three beats")
        heartbeat.end()
    (said,) = caplog.messages
    assert said.startswith("slice stuck has not moved for")
