"""Thousands of collections on one screen: their sums, and which of them are shown."""

from __future__ import annotations

import json
import random

import pytest
from test_cli import status

from worker.cli.board import View, board
from worker.cli.command import Target
from worker.cli.pattern import is_pattern
from worker.cli.summary import news_of_all, status_array, status_summary, sums_lines
from worker.monitor.overview import is_active, overview
from worker.types import Status

IN_ORDER = [
    status(collection="halted", state="halted", enqueued=1, pending=1),
    status(collection="no-worker", state="waiting", enqueued=9, pending=9),
    status(collection="paused", state="paused", enqueued=5, pending=5),
    status(
        collection="busy", state="running", enqueued=12, pending=2, leased=6, embedded=4, rate=2
    ),
    status(collection="less-busy", state="running", enqueued=3, leased=3, rate=1.5),
    status(collection="idle-and-halted", state="halted", enqueued=2, embedded=2),
    status(collection="just-done", enqueued=4, embedded=4, rate=0.5),
    status(collection="with-dead", enqueued=3, embedded=1, dead=2),
    status(collection="a", enqueued=7, evicted=7),
    status(collection="b"),
]


def idle(number: int) -> Status:
    return status(collection=f"tenant-{number:05}", enqueued=2, embedded=2)


def test_what_stands_still_is_shown_before_what_moves_and_that_before_what_is_done() -> None:
    mixed = random.Random(1).sample(IN_ORDER, len(IN_ORDER))

    assert list(overview(mixed, 100).first) == IN_ORDER
    assert list(overview(mixed, 3).first) == IN_ORDER[:3]
    assert [one.collection for one in IN_ORDER if not is_active(one)] == [
        "idle-and-halted",
        "with-dead",
        "a",
        "b",
    ]


@pytest.mark.parametrize("most", [0, 3, 100])
def test_the_sums_are_of_all_whatever_is_shown(most: int) -> None:
    sums = overview(iter(IN_ORDER), most).sums

    assert sums.collections == 10 and sums.backlog == 26 and sums.rate == 4.0
    assert list(sums.states.items()) == [
        ("halted", 2),
        ("waiting", 1),
        ("paused", 1),
        ("running", 2),
        ("idle", 4),
    ]
    parts = sums.embedded + sums.evicted + sums.dead + sums.pending + sums.leased
    assert sums.enqueued == parts == 46
    assert list(sums_lines(sums)) == [
        "10 collections: 2 halted, 1 waiting, 1 paused, 2 running, 4 idle",
        "46 texts: 11 embedded, 7 evicted, 2 dead, 17 pending, 9 leased; 4.0 texts/s",
    ]
    assert news_of_all(sums) == (
        "10 collections: 2 halted, 1 waiting, 1 paused, 2 running, 4 idle; "
        "20 of 46 done, 2 dead, 4.0 texts/s"
    )


@pytest.mark.parametrize("lines", [1, 10, 24, 60])
def test_a_summary_fits_on_the_screen(lines: int) -> None:
    many = [*IN_ORDER, *map(idle, range(10_000))]
    reason = "the API refuses the key. " * 8
    many += [status(collection=f"h-{n}", state="halted", reason=reason) for n in range(30)]

    command = Target(None, False).command
    shown = list(status_summary(overview(many, lines), command, {}, lines, "vec status --all"))

    rows = [line for line in shown if line.partition(" ")[0] in {one.collection for one in many}]
    assert len(shown) <= max(lines - 2, 7)  # the prompt, and how many workers are alive
    assert shown[0].startswith("10,040 collections: 32 halted, 1 waiting, 1 paused, 2 running, ")
    assert rows and rows[0].startswith("halted ")
    assert shown[-1] == f"and {10_040 - len(rows):,} more: vec status --all"


def test_an_array_of_statuses_is_one_json_value_an_object_a_line() -> None:
    lines = list(status_array((one, "it waits" if one.pending else None) for one in IN_ORDER))

    shown = json.loads("\n".join(lines))
    assert len(lines) == len(IN_ORDER) + 1
    assert [one["collection"] for one in shown] == [one.collection for one in IN_ORDER]
    assert [bool(one["reason"]) for one in shown] == [one.pending > 0 for one in IN_ORDER]
    assert json.loads("\n".join(status_array([]))) == []


@pytest.mark.parametrize("height", [4, 10, 24, 60])
def test_the_screen_has_the_sums_of_many_and_counts_what_is_not_there(height: int) -> None:
    seen = overview([*IN_ORDER, *map(idle, range(990))], 100)
    view = View(seen.first, [], 1_700_000_000.0, Target(None, False).command, sums=seen.sums)

    shown = [line.text for line in board(view, 80, height)]

    assert len(shown) <= height
    assert shown[0] == "1,000 collections: 2 halted, 1 waiting, 1 paused, 2 running, 994 idle"
    if height < 10:
        return
    assert shown[-1].endswith("Ctrl-C leaves; the work continues")
    assert shown[3].startswith("halted  halted")
    [more] = [number for number, line in enumerate(shown) if line.startswith("... and ")]
    assert shown[more] == f"... and {1000 - (more - 3):,} more"


@pytest.mark.parametrize(
    ("word", "several"),
    [("tenant-*", True), ("t?", True), ("[ab]", True), ("tenant-1", False), ("-._", False)],
)
def test_a_pattern_is_known_by_what_no_name_has(word: str, several: bool) -> None:
    assert is_pattern(word) is several
