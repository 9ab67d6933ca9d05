"""How a sender waits until it may send."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Union

import httpx
import pytest

from vector_embed_client import ServerError, ValidationError
from worker.engine.sender import Deferred, Freed, Halted, Sender
from worker.settings import Settings
from worker.throttle import Halt, Permit, Throttle, Wait

ANSWER = {"embeddings": [[1.0, 0.0]], "cached": [False], "model": "m", "dimensions": 2}


class Script(Throttle):
    """A throttle that answers by a script, without a Redis, and remembers what it was told."""

    def __init__(
        self, model: str = "m", *verdicts: Permit | Wait | Halt, key: str = "vec_test"
    ) -> None:
        super().__init__(Settings(api_key=key, base_url="http://127.0.0.1:1"), model)
        self.verdicts = list(verdicts)
        self.told: list[str] = []

    def ask(self) -> Permit | Wait | Halt:
        return self.verdicts.pop(0)

    def answered(self, permit: Permit) -> None:
        self.told.append("answered")

    def unused(self, permit: Permit) -> None:
        self.told.append("unused")

    def passed(self, permit: Permit, texts: int = 100, uncached: int = 0) -> None:
        self.told.append(f"passed {texts}")

    def failed(self, permit: Permit, reason: str, texts: int = 100, **facts: object) -> None:
        self.told.append(reason)

    def refused(self, permit: Permit, texts: int) -> None:
        self.told.append("refused")

    def deferred(self, permit: Permit, *_: object, **__: object) -> None:
        self.told.append("deferred")

    def halted(self, permit: Permit, reason: str, *, of_key: bool = False) -> None:
        self.told.append("halted")


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


# With several keys


class Answers:
    """What the API answers to each key, one request after another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **by_key: Sequence[int]) -> None:
        self.asked: list[str] = []
        left = {key: list(statuses) for key, statuses in by_key.items()}

        def answer(_: object, request: httpx.Request) -> httpx.Response:
            key = request.headers["authorization"].rpartition("_")[2]
            self.asked.append(key)
            status = left[key].pop(0)
            return httpx.Response(status, json=ANSWER if status == 200 else {"detail": "no"})

        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)


Verdicts = Sequence[Union[Permit, Wait, Halt]]


def two(test: str, a: Verdicts, b: Verdicts) -> list[Script]:
    """The throttles of two keys, a and b, that no other test has used."""
    slug = test.replace(" ", "-")
    return [Script(test, *a, key=f"vec_{slug}_a"), Script(test, *b, key=f"vec_{slug}_b")]


PAUSE = Wait(0.001, "the API failed")


def test_what_one_key_is_refused_for_now_goes_with_another_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = Answers(monkeypatch, a=[429], b=[200])
    a, b = two("429", [PERMIT, Wait(600, "429")], [PERMIT])
    sender_of(a, b).send(["text"])
    assert answers.asked == ["a", "b"]
    assert (a.told, b.told) == (["deferred"], ["answered", "passed 1"])


def test_a_key_that_is_wrong_halts_and_the_text_goes_with_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = Answers(monkeypatch, a=[401], b=[200])
    a, b = two("401", [PERMIT, Halt("401")], [PERMIT])
    sender_of(a, b).send(["text"])
    assert answers.asked == ["a", "b"] and a.told == ["halted"]


def test_a_batch_whose_key_is_revoked_under_way_is_given_back_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Answers(monkeypatch, a=[200, 401], b=[200])
    sender = sender_of(*two("revoked under way", [PERMIT, PERMIT, Halt("401")], [PERMIT]))
    sender.send(["text"])
    with pytest.raises(Deferred, match="401"):
        sender.send(["text"])
    sender.begin()
    sender.send(["text"])


def test_where_all_keys_are_wrong_nothing_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    Answers(monkeypatch, a=[401], b=[401])
    a, b = two("all 401", [PERMIT, Halt("401")], [PERMIT, Halt("401")])
    with pytest.raises(Halted, match="401"):
        sender_of(a, b).send(["text"])


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_batch_stays_with_the_key_that_first_answered_it_and_the_next_one_does_not(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(monkeypatch, a=[status, 200], b=[200])
    sender = sender_of(*two(f"stays {status}", [PERMIT] * 2, [PERMIT]))
    with suppress(ServerError, ValidationError):
        sender.send(["text"])
    sender.send(["text"])
    assert answers.asked == ["a", "a"] and sender.throttle is not None
    sender.begin()
    sender.send(["text"])
    assert answers.asked == ["a", "a", "b"]


@pytest.mark.parametrize("status", [200, 400])
def test_a_batch_waits_for_its_key_if_that_has_told_something_about_its_texts(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(monkeypatch, a=[status, 200], b=[])
    sender = sender_of(*two(f"waits {status}", [PERMIT, PAUSE, PERMIT], []))
    with suppress(ValidationError):
        sender.send(["text"])
    sender.send(["text"])
    assert answers.asked == ["a", "a"]


@pytest.mark.parametrize("keys", [1, 2])
def test_a_batch_that_only_failed_does_not_wait_for_its_key_where_there_is_another(
    keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Answers(monkeypatch, a=[500, 200], b=[200])
    sender = sender_of(*two(f"leaves {keys}", [PERMIT, PAUSE, PERMIT], [PERMIT])[:keys])
    with pytest.raises(ServerError):
        sender.send(["text"])
    if keys == 1:
        sender.send(["text"])
    else:
        with pytest.raises(Deferred, match="the API failed"):
            sender.send(["text"])


def test_a_key_that_was_taken_out_is_not_used_for_the_rest_of_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = Answers(monkeypatch, a=[200], b=[200])
    throttles = two("taken out", [PERMIT, PERMIT], [PERMIT])
    sender = Sender(lambda: throttles, "taken out", None, threading.Event())
    sender.send(["text"])
    del throttles[0]
    with pytest.raises(Deferred, match="no API key may be used"):
        sender.send(["text"])
    sender.begin()
    sender.send(["text"])
    assert answers.asked == ["a", "b"]
