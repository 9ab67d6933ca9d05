"""Some dead letters of a collection, a page at a time, however many there are.

A page is what one or a few HSCANs give: it costs the same with a hundred letters and with a
million. So pages have no numbers, only a way on; a letter that comes or goes meanwhile may be seen
twice or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...settings import Settings
from ...store.connection import connect
from ...store.keys import CollectionKeys
from ...store.reader import Reader
from ...types import DeadLetter

PAGE = 100  # letters that a page shows, about
READ = 5000  # letters that are looked at for one page of one code, about


class Letters(NamedTuple):
    """A page of dead letters, and where the next one begins: None if it was the last."""

    letters: Sequence[DeadLetter]
    next: int | None


def read_letters(settings: Settings, name: str, code: str | None, after: int) -> Letters:
    """The page that begins at `after`, 0 for the first. Raises `redis.RedisError`."""
    reader = Reader(connect(settings), CollectionKeys(settings.prefix, name))
    found: list[DeadLetter] = []
    looked = 0
    while True:
        after, some = reader.some_letters(after, PAGE)
        looked += PAGE
        found += [letter for letter in some if code is None or letter.code == code]
        if not after or len(found) >= PAGE or looked >= READ:
            return Letters(found, after or None)
