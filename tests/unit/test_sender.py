"""How a sender waits until it may send."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from vector_embed_client import ServerError
from worker.engine.sender import Deferred, Sender, _Freed
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
    settings = Settings(api_key="vec_test", base_url="http://127.0.0.1:1")
    sender = Sender(settings, model, dimensions, threading.Event())
    if passed:
        sender.experience.add(passed=True)
    told: list[str] = []
    monkeypatch.setattr(sender.throttle, "ask", lambda: Permit("p", 0, failures))
    monkeypatch.setattr(sender.throttle, "answered", lambda permit: None)
    monkeypatch.setattr(
        sender.throttle, "failed", lambda permit, reason, texts, **facts: told.append(reason)
    )
    with pytest.raises(ServerError):
        sender.send(["text"])
    assert ("right model name" in told[0]) is doubted
