"""Closed slices that could not give back what they held: the heartbeat does it, one try a beat."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis
from servers import wait_until

from worker.engine.heartbeat import Heartbeat
from worker.monitor.fleet import Work
from worker.settings import Settings

pytestmark = pytest.mark.heavy


class Standing:
    """A slice that Redis may refuse what it gives back."""

    unmoved_seconds = 0.0
    guests = 0
    in_hand: Sequence[str] = ()

    def __init__(self, consumer: str, tried: list[str]) -> None:
        self.consumer = consumer
        self.renewed = 0
        self.is_refused = True
        self._tried = tried

    def renew(self) -> Work:
        self.renewed += 1
        return Work("wiki", 100, False)

    def give_back(self) -> None:
        self._tried.append(self.consumer)
        if self.is_refused:
            raise redis.ResponseError("refused")


def test_of_slices_that_cannot_give_back_one_is_tried_in_each_beat(settings: Settings) -> None:
    heartbeat = Heartbeat(settings)
    tried: list[str] = []
    works = Standing("works", [])
    owing = [Standing(name, tried) for name in "abc"]
    heartbeat.process.open(works)
    for one in owing:
        heartbeat.process.open(one)
        with pytest.raises(redis.ResponseError):
            heartbeat.process.close(one)
    before = works.renewed
    heartbeat.start()
    try:
        wait_until(lambda: len(tried) > 6, 30, "four tries")
        assert tried[3:7] == ["a", "b", "c", "a"]
        assert works.renewed - before >= 4
        for one in owing:
            one.is_refused = False
        wait_until(lambda: not heartbeat.process.owed(), 30, "all have given back")
    finally:
        heartbeat.end()
