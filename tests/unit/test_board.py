"""The screen of vec watch, at any size."""

from __future__ import annotations

import pytest
from test_cli import status
from test_pace import throttle

from worker.cli.board import View, board, cut, news
from worker.cli.command import Target
from worker.monitor.figures import cells
from worker.monitor.fleet import Trouble, Work, Worker

command = Target(None, False).command
WORKER = Worker(
    "vm:12:a",
    8,
    work=(Work("wiki", 100, False), Work("wiki", 0, True)),
    troubles=(Trouble(9.0, "wiki: text 文档-1 is dead: invalid_request\x1b[2J"),),
)
RUNNING = status(
    collection="wiki",
    state="running",
    enqueued=123_456_789,
    embedded=61_728_394,
    pending=61_728_295,
    leased=100,
    rate=1234.5,
    throttle=throttle(in_flight=3, quota_limit=900_000_000, quota_used=61_000_000),
)


def view(*statuses: object, fault: str | None = None) -> View:
    return View(statuses, [WORKER], 1_700_000_000.0, command, fault)  # type: ignore[arg-type]  # statuses


def texts(shown: View, width: int, height: int, *, unicode: bool = True) -> list[str]:
    return [line.text for line in board(shown, width, height, unicode=unicode)]


@pytest.mark.parametrize("width", [20, 38, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 60])
@pytest.mark.parametrize("collections", [0, 1, 3, 50])
def test_it_fits_into_every_terminal(width: int, height: int, collections: int) -> None:
    many = [
        status(
            collection=f"{number}-" + "a-long-name-" * 8,
            state=("running", "paused", "halted", "idle")[number % 4],
            reason="something 文档 went wrong. " * 20,
            enqueued=999_999_999,
            pending=0 if number % 4 == 3 else 999_999_998,
            throttle=throttle(quota_limit=50_000),
        )
        for number in range(collections)
    ]

    lines = texts(view(*many, fault="no answer " * 20), width, height)

    assert len(lines) <= height
    assert max(map(cells, lines)) <= width


def test_a_collection_at_work_has_its_bar_figures_throttle_and_quota() -> None:
    lines = texts(view(RUNNING), 80, 24)

    assert lines[0].startswith("wiki  running, 1,234 texts/s, 13 h 53 min left")
    assert lines[0].endswith(" 49 %")
    assert cells(lines[0]) == 80
    assert lines[1] == "━" * 39 + "─" * 41
    assert lines[2:5] == [
        "  61,728,394 of 123,456,789 done, 100 in hand",
        "  as fast as the API answers, 3 of 8 in flight",
        "  61,000,000 texts answered as new today, of at most 900,000,000",
    ]
    assert "1 worker alive, 8 threads, 2 at work, 1 of them waiting for the throttle" in lines
    assert r"9.0 s ago  wiki: text 文档-1 is dead: invalid_request\x1b[2J" in lines
    assert lines[-1].endswith("Ctrl-C leaves; the work continues")


def test_where_there_is_no_unicode_the_bar_is_ascii() -> None:
    assert texts(view(RUNNING), 80, 24, unicode=False)[1].strip("#-") == ""


def test_what_has_work_left_comes_first_and_what_does_not_fit_is_counted() -> None:
    idle = [status(collection=f"idle-{number}") for number in range(30)]

    lines = texts(view(*idle, RUNNING), 80, 24)

    assert lines[0].startswith("wiki")
    more = next(line for line in lines if line.startswith("... and "))
    shown = sum(line.startswith(("idle", "wiki")) for line in lines)
    assert more == f"... and {31 - shown} more"


def test_an_outage_is_told_on_the_screen_with_what_was_seen_last() -> None:
    lines = texts(view(RUNNING, fault="connection refused"), 80, 24)

    assert lines[-2] == "Redis does not answer: trying again (connection refused)"
    assert lines[0].startswith("wiki")


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"enqueued": 3, "embedded": 3}, "wiki: idle, 3 of 3 done"),
        (
            {"enqueued": 6, "pending": 3, "state": "running", "rate": 1.0},
            "wiki: running, 3 of 6 done, 1.0 texts/s, 3.0 s left",
        ),
        (
            {"enqueued": 6, "pending": 3, "dead": 1, "state": "halted", "reason": "no key"},
            "wiki: 3 of 6 done, 1 dead, halted: no key",
        ),
        (
            {"enqueued": 6, "pending": 3, "state": "paused", "reason": "by hand"},
            "wiki: 3 of 6 done, paused: by hand",
        ),
        (
            {"enqueued": 6, "pending": 3, "state": "waiting", "workers": 0},
            "wiki: waiting, 3 of 6 done, no worker is alive: start one with vec worker",
        ),
    ],
)
def test_where_there_is_no_screen_a_collection_is_one_line(
    now: dict[str, object], line: str
) -> None:
    assert news(status(**now), command) == line


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("hello", 5, "hello"), ("hello!", 5, "he..."), ("文档文档", 7, "文档..."), ("hello", 2, "..")],
)
def test_a_text_is_cut_to_columns(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
