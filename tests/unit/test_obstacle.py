"""What keeps a backlog from moving: each cause, and the words for it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from worker.cli.command import Target
from worker.monitor.fleet import Trouble, Work, Worker
from worker.monitor.obstacle import Scene, obstacle
from worker.types import Status, ThrottleStatus

QUEUE = "vec.wakeups"
command = Target(None, False).command


def status(**changes: Any) -> Status:
    values: dict[str, Any] = {
        **dict.fromkeys(("model", "dimensions", "reason", "paused_until")),
        **dict.fromkeys(("enqueued", "embedded", "evicted", "cached", "dead", "unchanged"), 0),
        **{"collection": "wiki", "pending": 100, "leased": 0, "state": "running", "workers": 1},
        **changes,
    }
    return Status(**values)


def worker(name: str = "vm:7:a", **changes: Any) -> Worker:
    values = {"threads": 2, "work": (), "queue": QUEUE, "state": "working", **changes}
    return Worker(name, **values)


def throttle(**changes: Any) -> ThrottleStatus:
    values: dict[str, Any] = {
        **dict.fromkeys(("reason", "paused_until", "rate", "learned_limit")),
        **dict.fromkeys(("quota_limit", "quota_resets_at")),
        **{"state": "running", "in_flight": 0, "in_flight_ceiling": 8, "quota_used": 0},
        **changes,
    }
    return ThrottleStatus(**values)


def scene(*fleet: Worker, of: Status | None = None, **changes: Any) -> Scene:
    return Scene(
        **{"status": of or status(), "command": command, "fleet": fleet, "queue": QUEUE, **changes}
    )


LATER = time.time() + 600
DOWN = "503: Service Unavailable"

# cause: (what is seen, words that must be in the line)
CAUSES = {
    "no worker": (scene(of=status(workers=0)), ["no worker is alive: start one with"]),
    "a heartbeat that ended": (
        scene(worker(seen_seconds=40.0), of=status(workers=0)),
        ["no worker is alive (1 worker lost, last seen 40 s ago: see its log): start one"],
    ),
    "a worker on another queue": (
        scene(worker(queue="celery"), of=status(workers=0)),
        ["no worker takes wake-ups from the queue vec.wakeups", "on celery", "-Q vec.wakeups"],
    ),
    "every worker unfit": (
        scene(worker(state="unfit", reason="socksio is missing")),
        ["no worker alive can work: vm 7 is unfit: socksio is missing", "restart it"],
    ),
    "every key refused": (
        scene(worker(state="halted", reason="the API refuses the key: revoked")),
        ["vm 7 is halted: the API refuses the key: revoked", "vec resume"],
    ),
    "a halt": (
        scene(worker(), of=status(state="halted", reason="the API answers 3 dimensions, not 768.")),
        ["halted: the API answers 3 dimensions, not 768: fix that, then vec resume"],
    ),
    "a pause by hand": (
        scene(worker(), of=status(state="paused", reason="by hand: a rest")),
        ["paused: by hand: a rest"],
    ),
    "429": (
        scene(worker(), of=status(state="paused", reason="429: slow down", paused_until=LATER)),
        ["paused for ", ", until ", ": 429: slow down"],
    ),
    "the day's quota": (
        scene(
            worker(),
            of=status(
                state="paused",
                reason="quota",
                paused_until=LATER,
                throttle=throttle(quota_limit=10, quota_used=10),
            ),
        ),
        ["quota; about 11 days left at 10 texts a day"],
    ),
    "the API down": (
        scene(worker(), of=status(state="paused", reason=DOWN, paused_until=LATER)),
        [DOWN],
    ),
    "Redis full": (
        scene(worker(), of=status(state="paused", reason="Redis is 90% full: make room")),
        ["Redis is 90% full: make room"],
    ),
    "a read-only Redis": (
        scene(of=status(workers=0), refusal="You can't write against a read only replica"),
        ["Redis takes no changes (You can't write against a read only replica)", "its primary"],
    ),
    "the broker away": (
        scene(worker(), broker="Connection refused"),
        ["the broker does not answer (Connection refused), so no worker is woken: start it"],
    ),
    "the broker away for the workers alone": (
        scene(worker(troubles=[Trouble(3.0, "the broker does not answer (no route): waiting")])),
        ["no worker is woken"],
    ),
    "all threads at other collections": (
        scene(worker(work=[Work("news", 100, False), Work("docs", 100, True)])),
        ["2 threads of all workers work on other collections (docs, news): it has to wait"],
    ),
    "no place in flight": (
        scene(worker(work=[Work("wiki", 100, True)]), of=status(throttle=throttle(in_flight=8))),
        ["all 8 requests that may be in flight are under way"],
    ),
    "failures of all": (
        scene(
            worker(work=[Work("wiki", 100, True)], troubles=[Trouble(2.0, "the answer is odd")]),
            of=status(throttle=throttle(in_flight=1)),
        ),
        ["one request at a time shows whether the API works", "failure: the answer is odd"],
    ),
    "a slow rate": (
        scene(
            worker(work=[Work("wiki", 100, True)]),
            of=status(throttle=throttle(in_flight=1, rate=1 / 60)),
        ),
        ["waiting for the rate: 1.0 requests/min"],
    ),
    "a wrong answer each time": (
        scene(worker(troubles=[Trouble(4.0, "wiki will be tried again: 3 dimensions, not 768")])),
        ["4.0 s ago a worker said: wiki will be tried again: 3 dimensions, not 768: see its log"],
    ),
    "an API that does not answer": (
        scene(worker(work=[Work("wiki", 50 * n, waiting=n > 2) for n in (1, 2, 3)])),
        ["2 threads with 150 texts wait for an answer of the API"],
    ),
    "texts that may have killed a worker": (
        scene(worker(), quarantined=True),
        ["texts that may have killed their worker wait to be tried alone"],
    ),
    "leases of workers that are gone": (
        scene(worker(), of=status(pending=0, leased=300)),
        ["300 texts leased to workers that are gone: the others take over after 15 s"],
    ),
    "nothing that is known": (
        scene(worker(troubles=[Trouble(5.0, "an odd \x1b[2J thing")])),
        ["1 worker alive, and none works on it", r"an odd \x1b[2J thing", "see vec workers"],
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_named_with_what_to_do(cause: str) -> None:
    seen, words = CAUSES[cause]

    found = obstacle(seen)

    assert found is not None
    for some in words:
        assert some in found.line
    assert found.line.isprintable()


@pytest.mark.parametrize("threads_at_work", [1, 2])
def test_nothing_is_in_the_way_of_texts_in_requests_of_other_collections(
    threads_at_work: int,
) -> None:
    work = [Work("news", 100, False), Work("docs", 1, True)][:threads_at_work]
    assert obstacle(scene(worker(work=work), of=status(leased=9))) is not None
    assert obstacle(scene(worker(work=work, guests=99), of=status(leased=9))) is None
    assert obstacle(scene(worker(work=work, guests=99), of=status(leased=0))) is not None


def test_without_a_backlog_nothing_is_in_the_way() -> None:
    assert obstacle(scene(of=status(pending=0, workers=0))) is None


def test_a_status_alone_names_what_it_knows_and_blames_nobody_else() -> None:
    assert obstacle(Scene(status(), command)) is None
    paused = obstacle(Scene(status(state="paused", reason="a rest"), command))
    assert paused is not None and paused.line == "paused: a rest"


def test_an_older_worker_that_says_neither_queue_nor_state_is_taken_to_work() -> None:
    older = worker(queue=None, state=None, work=None)

    found = obstacle(scene(older))

    assert found is not None and found.kind == "idle"
