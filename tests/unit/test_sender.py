"""How a sender waits until it may send."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from vector_embed_client import ServerError
from worker.engine.sender import Deferred, Freed, Sender
from worker.settings import Settings
from worker.throttle import Permit, Throttle, Wait

ANSWER = {"embeddings": [[1.0, 0.0]], "cached": [False], "model": "m", "dimensions": 2}


class Script(Throttle):
    """A throttle that answers by a script, without a Redis, and remembers what it was told."""

    def __init__(self, model: str = "m", *verdicts: Permit | Wait) -> None:
        super().__init__(Settings(api_key="vec_test", base_url="http://127.0.0.1:1"), model)
        self.verdicts = list(verdicts)
        self.told: list[str] = []

    def ask(self) -> Permit | Wait:
        return self.verdicts.pop(0)

    def answered(self, permit: Permit) -> None:
        self.told.append("answered")

    def unused(self, permit: Permit) -> None:
        self.told.append("unused")

    def passed(self, permit: Permit, texts: int = 100, uncached: int = 0) -> None:
        self.told.append(f"passed {texts}")

    def failed(self, permit: Permit, reason: str, texts: int = 100, **facts: object) -> None:
        self.told.append(reason)


PERMIT = Permit("p", 0, 0)


def sender_of(
    *throttles: Script, stop: threading.Event | None = None, dimensions: int | None = None
) -> Sender:
    """A sender with the keys of these throttles."""
    model = throttles[0].model
    return Sender(lambda: throttles, model, dimensions, stop or threading.Event())


def test_a_slot_that_was_freed_before_is_not_waited_for() -> None:
    freed = Freed()
    seen = freed.count
    freed.add()
    freed.wait(seen, 600)


def test_each_slot_that_is_freed_wakes_one_thread() -> None:
    freed = Freed()
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(freed.wait, freed.count, 600) for _ in range(3)]
        for _ in waiting:
            freed.add()
        for one in waiting:
            one.result(60)


def test_a_slot_that_no_one_frees_is_waited_for_no_longer_than_told() -> None:
    freed = Freed()
    freed.wait(freed.count, 0.001)


@pytest.mark.parametrize("verdict", [Wait(600, "turn"), Wait(600, "full", True), PERMIT])
def test_who_is_told_to_stop_neither_waits_nor_begins_another_request(
    verdict: Permit | Wait,
) -> None:
    stop = threading.Event()
    stop.set()
    sender = sender_of(Script("m", verdict), stop=stop)
    with pytest.raises(Deferred, match="the worker ends"):
        sender.prepare()


def test_a_sender_knows_whether_it_last_waited_for_a_slot() -> None:
    throttle = Script()
    sender = sender_of(throttle)
    assert not sender.crowded
    full, turn = Wait(0.001, "", True), Wait(0.001, "its turn")
    for waits, crowded in (([full], True), ([], True), ([turn], False), ([], False)):
        throttle.verdicts = [*waits, PERMIT]
        sender.prepare()
        assert sender.crowded is crowded
        sender.cancel()


def test_a_request_slot_is_free_once_the_answer_is_here_before_the_outcome_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed = httpx.Response(200, json=ANSWER)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda *_: passed)
    throttle = Script("m", PERMIT)
    sender_of(throttle).send(["text"])
    assert throttle.told == ["answered", "passed 1"]


def test_a_sender_has_moved_when_a_request_begins_and_when_its_answer_is_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = []

    def answer(*_: object) -> httpx.Response:
        moved.append(sender.moved)  # the request has begun
        return httpx.Response(200, json=ANSWER)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    sender = sender_of(Script("m", PERMIT))
    moved.append(sender.moved)
    sender.send(["text"])
    moved.append(sender.moved)
    assert moved == sorted(set(moved)) and len(moved) == 3


@pytest.mark.parametrize(
    ("model", "dimensions", "passed", "failures", "doubted"),
    [
        ("m1", None, False, 2, True),
        ("m2", None, False, 1, False),  # so few failures say nothing
        ("m3", 768, False, 2, False),  # the collection has vectors of it
        ("m4", None, True, 2, False),  # another collection's texts passed
    ],
)
def test_the_name_of_a_model_is_doubted_only_where_nothing_of_it_ever_passed(
    model: str,
    dimensions: int | None,
    passed: bool,
    failures: int,
    doubted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = httpx.Response(500, text="Internal Server Error")
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda *_: failed)
    throttle = Script(model, Permit("p", 0, failures))
    sender = sender_of(throttle, dimensions=dimensions)
    if passed:
        sender.experience.add(passed=True)
    with pytest.raises(ServerError):
        sender.send(["text"])
    assert ("right model name" in throttle.told[-1]) is doubted
