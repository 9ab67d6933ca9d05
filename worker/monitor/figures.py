"""Figures: numbers, times and names as a person reads them.

Control characters in what comes from a corpus or the API are escaped: a text must not control a
terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime, timezone

from ..logs import plain as plain

SHOWN_NAMES = 3  # of many that fare alike


def cells(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def source(path: str) -> str:
    """The name of a corpus."""
    return "standard input" if path == "-" else plain(path)


def count(number: int, noun: str) -> str:
    """`1 text`, `2 texts`, `1,000 texts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def names(some: Sequence[str]) -> str:
    """`wiki`, `docs, news, wiki`, `docs, news, wiki and 43 more`."""
    more = len(some) - SHOWN_NAMES
    return ", ".join(some[:SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def size(number: float) -> str:
    """Bytes as `831 B`, `1.2 GB`."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        del units[0]
    digits = 0 if units[0] == "B" or number >= 99.5 else 1
    return f"{number:,.{digits}f} {units[0]}"


def duration(seconds: float) -> str:
    """`2.1 s`, `45 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"


def clock(at: float) -> str:
    """The local time of day, with the date if it is another day."""
    moment = datetime.fromtimestamp(at)
    today = moment.date() == datetime.now().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def local_time(at: float) -> str:
    """Local date and time."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def timestamp(at: float) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
