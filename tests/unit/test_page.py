"""What the page says and draws: its pure parts, and the one snapshot for all."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis
from test_cli import status

from worker.cli.command import Target
from worker.monitor.fleet import Trouble, Worker
from worker.monitor.obstacle import Obstacle
from worker.monitor.overview import overview
from worker.monitor.page.bar import PARTS, WIDTH, bar, percent, shares
from worker.monitor.page.brief import Brief
from worker.monitor.page.history import DAY_SECONDS, MOST, STEP_SECONDS, History
from worker.monitor.page.plots import MOST_POINTS, plots, round_up
from worker.monitor.page.shared import Seen, Shared
from worker.monitor.page.snapshot import Snapshot
from worker.monitor.page.words import complaints, headline, trouble_of, types_of
from worker.store.server_memory import Memory
from worker.types import Status

command = Target(None, False).command


def snapshot(statuses: Iterable[Status] = (), **changes: object) -> Snapshot:
    seen = overview(statuses, 1000)
    made = Snapshot(0.0, 0.1, seen.sums, seen.first, {}, [], [], {}, Memory(0, 0))
    return replace(made, **changes)  # type: ignore[arg-type]  # the names are those above


def running(name: str = "wiki", left: int = 50, **changes: object) -> Status:
    values: dict[str, object] = {"enqueued": 100, "embedded": 100 - left, "pending": left}
    values |= {"state": "running", "rate": 10.0}
    return status(collection=name, **{**values, **changes})


# The bar


def test_the_parts_of_a_bar_add_up_and_each_that_is_not_empty_is_seen() -> None:
    numbers = random.Random(1)
    for _ in range(200):
        counts = [numbers.choice([0, 1, 3, 10**3, 10**9]) for _ in PARTS]
        one = status(**dict(zip(PARTS, counts)), enqueued=sum(counts))
        parts = bar(one)
        assert [part.number for part in parts] == counts
        assert sum(part.width for part in parts) == (WIDTH if sum(counts) else 0)
        assert all(bool(part.width) == bool(part.number) for part in parts)
        ends = [part.start + part.width for part in parts]
        assert [part.start for part in parts] == [0, *ends[:-1]]


def test_shares_are_in_proportion() -> None:
    assert shares([1, 1, 2], 100, 1) == [25, 25, 50]
    assert shares([0, 10**12, 1], 100, 5) == [0, 95, 5]
    assert shares([0, 0], 100, 5) == [0, 0]


@pytest.mark.parametrize(
    ("done", "whole", "said"),
    [
        (0, 0, "0 %"),
        (0, 5, "0 %"),
        (1, 10**6, "<1 %"),
        (999_999, 10**6, "99 %"),
        (10**6, 10**6, "100 %"),
    ],
)
def test_a_hundred_percent_is_said_of_all_alone_and_zero_of_none(
    done: int, whole: int, said: str
) -> None:
    assert percent(done, whole) == said


# The words


@pytest.mark.parametrize(
    ("statuses", "state", "said"),
    [
        ([], "empty", "Nothing here yet"),
        ([status(enqueued=5, embedded=5)], "idle", "All done"),
        (
            [status(enqueued=5, embedded=3, dead=2)],
            "idle",
            "Done, but for 2 texts that cannot be embedded",
        ),
        ([running()], "running", "Working: 10.0 texts/s, 5.0 s left"),
        (
            [running(), running("docs", 100)],
            "running",
            "Working: 20.0 texts/s, 7.5 s left",
        ),
        ([running(rate=0.0)], "running", "Working: the first texts are under way"),
        ([running(state="waiting")], "waiting", "No worker: 50 texts to do"),
        ([running(state="halted")], "halted", "Halted: 50 texts to do"),
        ([running(state="paused"), running("docs")], "paused", "Paused: wiki; 1 other running"),
        (
            [running("a", state="halted"), running("b", state="halted"), running("c")],
            "halted",
            "Halted: 2 collections; 1 other running",
        ),
    ],
)
def test_the_headline_says_what_is_so(statuses: list[Status], state: str, said: str) -> None:
    line = headline(snapshot(statuses), command)
    assert (line.state, line.title) == (state, said)


def test_a_file_is_named_so_that_it_is_no_option() -> None:
    lines = dict(types_of(running("-x", embedded=5), command))
    assert lines["Draw a map of the vectors"] == "vec map -o ./-x.html -- -x"
    assert lines["Write the vectors to a file"] == "vec export -o ./-x.npz -- -x"


def test_beside_what_is_wrong_is_the_command_to_type() -> None:
    halted = running(state="halted", reason="the key is refused")
    found = Obstacle("halted", "halted: the key is refused", "fix that, then vec resume")
    assert trouble_of(halted, found, command).commands == ["vec doctor", "vec resume wiki"]
    assert trouble_of(halted, None, command).note == "halted: the key is refused"
    held = running(state="paused", held=True)
    assert trouble_of(held, None, command).commands == ["vec resume wiki"]
    assert trouble_of(running(state="waiting"), None, command).commands == ["vec worker"]
    assert trouble_of(running(), None, command).note == ""
    dead = snapshot([status(enqueued=1, dead=1)])
    assert headline(dead, command).commands == ["vec dead wiki"]


def test_the_last_complaints_come_first_and_their_words_cannot_control_anything() -> None:
    fleet = [
        Worker(
            "host:1:a", 8, troubles=[Trouble(9.0, "wiki: old"), Trouble(1.0, "docs new\x1b[0m")]
        ),
        Worker("host:2:b", 8, troubles=[Trouble(5.0, "wiki \u202ehidden")]),
    ]
    assert [one.said for one in complaints(fleet)] == [
        "docs new\\x1b[0m",
        "wiki \\u202ehidden",
        "wiki: old",
    ]
    assert [one.worker for one in complaints(fleet, "wiki")] == ["host 2", "host 1"]


# The history and its plots


def filled(seconds: float, step: float) -> History:
    history = History()
    for number in range(int(seconds / step) + 1):
        at = number * step
        made = snapshot([running()], at=at, outcomes={"ok": number * 10, "timeout": number})
        history.add(made)
    return history


def test_the_history_is_bounded_and_keeps_the_latest() -> None:
    history = filled(2 * DAY_SECONDS, STEP_SECONDS * 0.7)
    kept = history.since(0)
    assert len(kept) <= MOST + 1
    assert kept[-1].at == pytest.approx(2 * DAY_SECONDS, abs=STEP_SECONDS)
    assert [one.at for one in kept] == sorted({one.at for one in kept})


def test_a_clock_that_is_set_back_leaves_no_line_that_runs_backwards() -> None:
    history = filled(600, 15)
    history.add(snapshot(at=100.0))
    times = [one.at for one in history.since(0)]
    assert times == sorted(times) and times[-1] == 100.0


def test_plots_show_the_rate_of_requests_by_outcome() -> None:
    history = filled(3600, 15)
    texts, requests, backlog = plots(history.since(0), 3600, 3600)
    assert [layer.latest for layer in texts.layers] == [10.0]
    assert {layer.name: layer.latest for layer in requests.layers} == pytest.approx(
        {"ok": 40.0, "rate_limited": 0.0, "refused_or_failed": 4.0}
    )
    assert requests.top == 50 and backlog.layers[0].latest == 50
    assert texts.layers[0].path.count("L") <= 2 * MOST_POINTS


def test_a_gap_in_the_history_is_a_gap_in_the_plot_and_a_counter_that_falls_is_no_request() -> None:
    history = History()
    for at, ok in ((0, 50), (15, 60), (300, 70), (315, 5)):
        history.add(snapshot(at=float(at), outcomes={"ok": ok}))
    texts, requests, _ = plots(history.since(0), 315, 600)
    assert texts.layers[0].path.count("M") == 2
    assert requests.layers[0].latest == 0


def test_plots_of_nothing_can_be_drawn() -> None:
    for plot in plots([], 0.0, 600):
        assert plot.top == 1 and not any(layer.path for layer in plot.layers)


def test_a_scale_ends_at_a_round_number() -> None:
    assert [round_up(n) for n in (0, 0.3, 1, 1.1, 5, 7, 99, 100, 101, 2001)] == [
        *(1, 1, 1, 2, 5, 10, 100, 100, 200, 5000)
    ]


# One snapshot for all


def test_a_hundred_who_look_at_once_are_one_reading() -> None:
    readings: list[None] = []

    def read() -> Snapshot:
        readings.append(None)
        return snapshot(at=float(len(readings)))

    shared = Shared(read, seconds=600.0)
    shared.start()
    with ThreadPoolExecutor(100) as browsers:
        seen = list(browsers.map(lambda _: shared.look(), range(500)))
    shared.stop()
    assert len(readings) == 1
    assert {one.snapshot.at for one in seen if one.snapshot} == {1.0}


def test_while_a_reading_takes_long_the_last_snapshot_is_shown_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.monitor.page.shared.FIRST_PATIENCE", 60.0)
    monkeypatch.setattr("worker.monitor.page.shared.PATIENCE", 0.01)
    ended = threading.Event()
    readings: list[None] = []

    def read() -> Snapshot:
        readings.append(None)
        ended.wait(60 if len(readings) > 1 else 0.2)
        return snapshot(at=float(len(readings)))

    shared = Shared(read, seconds=0.0)
    shared.start()
    assert shared.look().snapshot is not None  # the first one is waited for
    seen = shared.look().snapshot
    assert seen is not None and seen.at == 1.0 and not ended.is_set()
    ended.set()
    shared.stop()


def test_while_redis_is_away_the_last_snapshot_stays_with_the_reason_and_comes_back() -> None:
    away = threading.Event()

    def read() -> Snapshot:
        if away.is_set():
            raise redis.ConnectionError("no way there.")
        return snapshot(at=7.0)

    def until(fault: str | None) -> Seen:
        end = time.monotonic() + 20
        while (seen := shared.look()).fault != fault and time.monotonic() < end:
            time.sleep(0.01)
        return seen

    shared = Shared(read, seconds=0.05)
    shared.start()
    assert until(None).snapshot is not None
    away.set()
    seen = until("no way there")
    assert seen.fault == "no way there" and seen.since is not None
    assert seen.snapshot is not None and seen.snapshot.at == 7.0
    away.clear()
    assert until(None).fault is None
    shared.stop()


def test_a_bug_in_reading_ends_nothing() -> None:
    bugs = [ValueError("ours")]

    def read() -> Snapshot:
        if bugs:
            raise bugs.pop()
        return snapshot()

    shared = Shared(read, seconds=600.0)
    shared.start()
    first = shared.look()
    assert first.snapshot is None and "exporter's log" in (first.fault or "")
    end = time.monotonic() + 20
    while shared.look().snapshot is None and time.monotonic() < end:
        time.sleep(0.05)
    assert shared.look().fault is None
    shared.stop()


def test_what_was_read_is_remembered_briefly_and_only_some_of_it() -> None:
    brief: Brief[int] = Brief(600.0, most=3)
    read: list[None] = []

    def answer() -> int:
        read.append(None)
        return len(read)

    with ThreadPoolExecutor(20) as many:
        assert set(many.map(lambda _: brief.get("a", answer), range(100))) == {1}
    for key in "bcd":
        brief.get(key, answer)
    assert brief.get("a", answer) == 5  # three others came after it
    forgetful: Brief[int] = Brief(0.0)
    assert [forgetful.get("a", answer) for _ in range(2)] == [6, 7]
