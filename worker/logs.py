"""Logs: a record is one line, whatever its ids, names and reasons hold.

A line break in an id would forge a line of the log, and an escape sequence would steer the terminal
that shows it. Two hooks escape them: a filter on our own logger, for every handler of every program
that uses this package, and a formatter around the worker's, for what Celery and others log there.
"""

from __future__ import annotations

import copy
import logging

MOST_SKIPPED = 100  # things that are named, of those that are not ours


def plain(text: str) -> str:
    """`text` on one line, whatever does not print as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class Plain(logging.Formatter):
    """Formats records as `inner` does, with their messages and tracebacks escaped.

    The lines of a traceback are indented: none of them can look like the first line of a record.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        shown = copy.copy(record)  # other handlers get the record as it is
        shown.msg, shown.args = plain(record.getMessage().rstrip()), None
        if record.exc_info:
            lines = self._inner.formatException(record.exc_info).splitlines()
            shown.exc_text = "\n".join("  " + plain(line) for line in lines)
        return self._inner.format(shown)


def escape(logger: logging.Logger) -> None:
    """Let all handlers of `logger` write one line for a record."""
    for handler in logger.handlers:
        if not isinstance(handler.formatter, Plain):
            handler.setFormatter(Plain(handler.formatter or logging.Formatter()))


def _escape_args(record: logging.LogRecord) -> bool:
    # The arguments alone: the message is ours, and some handlers tell messages apart by it.
    if isinstance(record.args, tuple):
        record.args = tuple(
            arg if isinstance(arg, (int, float)) else plain(str(arg)) for arg in record.args
        )
    return True


def skip(what: str, said: object) -> None:
    """Say once that something in Redis is not ours, and is skipped."""
    told = f"{what} {said!r}"[:200]
    if told not in _skipped and len(_skipped) < MOST_SKIPPED:
        _skipped.add(told)
        logger.warning("%s is not ours: skipped", told)


_skipped: set[str] = set()
logger = logging.getLogger("worker")
logger.addFilter(_escape_args)
