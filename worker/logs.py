"""Logs: each record is one line, whatever its ids, names and reasons contain.

A line break in an id would forge a line of the log, and an escape sequence would control the
terminal that shows it. Two hooks escape them: a filter on our own logger, for every handler of
every program that uses this package; and a formatter around the worker's, for what Celery and
others log there.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, NamedTuple

# With `extra=ONCE`, a record that repeats one of the last few seconds is left out: of eight threads
# that meet a halt, one logs it.
ONCE = {"once": True}
ONCE_SECONDS = 10.0
SELDOM_SECONDS = 600.0  # between two records of what lasts, at most
_FIELDS = ("collection", "batch", "seconds", "outcome")
_TALKATIVE = ("httpx", "httpcore", "celery.app.trace", "celery.worker.strategy")

MOST_SKIPPED = 100  # names of things that are not ours, each logged once


def plain(text: str) -> str:
    """`text` on one line; characters that cannot be printed are escaped."""
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


class AsJSON(logging.Formatter):
    """Formats a record as one JSON object: time, level, message, and what is told of a slice."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of JSON."""
        said: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "message": plain(record.getMessage().rstrip()),
        }
        said.update((name, getattr(record, name)) for name in _FIELDS if hasattr(record, name))
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


class Once(logging.Filter):
    """Leaves out a record that says the same as one of the last `seconds`.

    `marked`: only of those logged with `extra=ONCE`.
    """

    def __init__(self, seconds: float = ONCE_SECONDS, *, marked: bool = False) -> None:
        super().__init__()
        self._seconds = seconds
        self._marked = marked
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is new."""
        if self._marked and not getattr(record, "once", False):
            return True
        text = record.getMessage()
        now = time.monotonic()
        with self._lock:
            self._said = {one: at for one, at in self._said.items() if now - at < self._seconds}
            return self._said.setdefault(text, now) == now


class Seldom(logging.Filter):
    """Leaves out most records of a kind, whatever numbers are in them, while it lasts.

    The first one is written, then one after 10 s, 20 s and so on, up to ten minutes. A kind of
    which nothing was said for 10 s begins anew.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lasting: dict[str, _Lasting] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is due."""
        kind = getattr(record, "seldom", None)
        if kind is None:
            return True
        now = self._clock()
        with self._lock:
            before = self._lasting.get(kind)
            if before is None or now - before.last >= ONCE_SECONDS:
                every = self._lasting.items()
                self._lasting = {one: it for one, it in every if now - it.last < ONCE_SECONDS}
                self._lasting[kind] = _Lasting(now, ONCE_SECONDS, now)
            elif now - before.said >= before.pause:
                pause = min(SELDOM_SECONDS, 2 * before.pause)
                self._lasting[kind] = _Lasting(now, pause, now)
            else:
                self._lasting[kind] = before._replace(last=now)
                return False
            return True


class _Lasting(NamedTuple):
    """When a record of a kind was written, how long none is after it, and when one was tried."""

    said: float
    pause: float
    last: float


def seldom(kind: str) -> dict[str, str]:
    """The `extra` of a record that `Seldom` looks at."""
    return {"seldom": kind}


def escape(logger: logging.Logger, style: str = "text") -> None:
    """Let all handlers of `logger` write one line for a record, `text` or `json`."""
    for handler in logger.handlers:
        if style == "json":
            handler.setFormatter(AsJSON())
        elif not isinstance(handler.formatter, Plain):
            handler.setFormatter(Plain(handler.formatter or logging.Formatter()))


def quieten() -> None:
    """Leave out what no person reads at INFO: a line for each request and each slice."""
    if logging.getLogger().getEffectiveLevel() < logging.INFO:
        return
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # While Redis refuses, each attempt would log it.
    for name in ("celery.worker.consumer.consumer", "celery.worker.consumer.connection"):
        logging.getLogger(name).addFilter(Once(60.0))


def _escape_args(record: logging.LogRecord) -> bool:
    # The arguments alone: the message is ours, and some handlers tell messages apart by it.
    if isinstance(record.args, tuple):
        record.args = tuple(
            arg if isinstance(arg, (int, float)) else plain(str(arg)) for arg in record.args
        )
    return True


@contextmanager
def listening(hear: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    """Give this package's warnings to `hear`, and to no other handler above, in the block."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            hear(record)

    listener, before = Listener(logging.WARNING), logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = before


def skip(what: str, said: object) -> None:
    """Say once that something in Redis is not ours, and is skipped."""
    told = f"{what} {said!r}"[:200]
    if told not in _skipped and len(_skipped) < MOST_SKIPPED:
        _skipped.add(told)
        logger.warning("%s is not ours: skipped", told)


_skipped: set[str] = set()
logger = logging.getLogger("worker")
logger.addFilter(_escape_args)
logger.addFilter(Once(marked=True))
logger.addFilter(Seldom())
