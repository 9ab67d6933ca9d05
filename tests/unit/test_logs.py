"""One record of a log is one line that prints, whatever a corpus or a server had in it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from worker.logs import Seldom, escape, logger, seldom

NASTY = [
    "two\nlines",
    "a\r[2026-01-01 00:00:00,000: ERROR/MainProcess] forged",
    "\x1b]0;title\x07\x1b[2J",
    "\u2028line separator",
    "\u202eright to left",
    "\x85next line",
    "lone \ud800 surrogate",
    "tab\tand nul\x00",
]


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger as Celery or another sets one up, made safe by us, and what it wrote."""
    written = io.StringIO()
    other = logging.getLogger("tests.logs")
    other.propagate = False
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    other.addHandler(handler)
    escape(other)
    yield other, written
    other.removeHandler(handler)


@pytest.mark.parametrize("nasty", NASTY)
def test_a_message_of_anybodys_is_one_line_that_prints(
    log: tuple[logging.Logger, io.StringIO], nasty: str
) -> None:
    other, written = log
    other.warning("text %s is dead", nasty)
    other.warning(f"text {nasty} is dead")
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() and line.startswith("WARNING text ") for line in lines)
    assert lines[0] == lines[1]


@pytest.mark.parametrize("nasty", NASTY)
def test_no_line_of_a_traceback_looks_like_a_record(
    log: tuple[logging.Logger, io.StringIO], nasty: str
) -> None:
    other, written = log
    try:
        raise ValueError(f"{nasty}\nERROR forged")
    except ValueError:
        other.exception("failed")
    first, *rest = written.getvalue().split("\n")[:-1]
    assert first == "ERROR failed"
    assert rest and all(line.isprintable() and line.startswith("  ") for line in rest)


@pytest.mark.parametrize("nasty", NASTY)
def test_our_own_logger_escapes_for_every_handler_there_is(
    caplog: pytest.LogCaptureFixture, nasty: str
) -> None:
    logger.warning("%s: %d texts", nasty, 3)
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert record.getMessage().endswith(": 3 texts")
    assert record.msg == "%s: %d texts"  # by which screens tell messages apart


def test_what_prints_is_left_as_it_is(log: tuple[logging.Logger, io.StringIO]) -> None:
    other, written = log
    other.warning("%s", "Ünïcødé 漢字 50 % \\n")
    assert written.getvalue() == "WARNING Ünïcødé 漢字 50 % \\n\n"


def test_a_logger_may_be_made_safe_again(log: tuple[logging.Logger, io.StringIO]) -> None:
    other, written = log
    escape(other)
    other.warning("once")
    assert written.getvalue() == "WARNING once\n"


def record(kind: str | None) -> logging.LogRecord:
    extra = {} if kind is None else seldom(kind)
    return logger.makeRecord("worker", logging.WARNING, "", 0, "said", (), None, extra=extra)


def test_what_lasts_is_said_at_once_and_then_ever_more_seldom() -> None:
    now = 0.0
    lasting = Seldom(lambda: now)
    said = []
    for step in range(2 * 4000):  # of half a second
        now = step / 2
        if lasting.filter(record("no room")):
            said.append(now)

    assert said == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030, 3630]


def test_what_ended_begins_anew_and_kinds_do_not_hide_each_other() -> None:
    now = 0.0
    lasting = Seldom(lambda: now)
    assert lasting.filter(record("no room in wiki"))
    assert lasting.filter(record("no room in news"))
    now = 9.0
    assert not lasting.filter(record("no room in wiki"))
    now = 19.1  # nothing was said for more than ten seconds
    assert lasting.filter(record("no room in wiki"))
    assert lasting.filter(record(None)) and lasting.filter(record(None))


class Kind(str):
    """Counts how often any of them was looked up."""

    looks = 0

    def __hash__(self) -> int:
        Kind.looks += 1
        return super().__hash__()


def test_a_thousand_waits_at_once_do_not_each_look_at_all_others() -> None:
    lasting = Seldom(lambda: 0.0)
    records = [record(Kind(f"no room in tenant-{number}")) for number in range(1000)]
    assert all(map(lasting.filter, records))
    Kind.looks = 0

    assert not any(map(lasting.filter, records))
    assert Kind.looks <= 3 * len(records)
