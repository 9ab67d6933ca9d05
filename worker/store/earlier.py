"""What an earlier run of the same files has left in its bookmark: which of them may be skipped.

It is one hash: a field for each chunk with which a file ended, and some others (see resume.lua).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from .connection import Redis, run
from .faults import outlast
from .keys import CollectionKeys


class Place(NamedTuple):
    """A place between two files of a run."""

    files: int = 0  # before it
    digest: str = ""  # of them
    rejected: int = 0  # lines in them


class Earlier(NamedTuple):
    """How far an earlier run came, in the files of this one."""

    done: Sequence[str] = ()  # a digest for each file to be skipped
    rejecting: frozenset[int] = frozenset()  # the numbers of those with rejections
    begun: int = 0  # files of which it may have added texts


class Shelf:
    """Where Redis keeps the bookmark of the run that began last. `what`: how it reads files."""

    def __init__(self, client: Redis, keys: CollectionKeys, what: str) -> None:
        self.token = uuid.uuid4().hex  # of this run
        self._redis = client
        self._keys = keys
        self._what = sha256(what.encode()).hexdigest()[:32]

    def take(self, files: Iterable[str]) -> tuple[Earlier, bytes, int]:
        """Begin a run of these files, each a name and a version; what an earlier one has left.

        Also the life of the collection, and the highest number of a job.
        """
        born, seq, *parts = self._resume(anew="")
        said = {name.decode(): one.decode() for name, one in zip(parts[::2], parts[1::2])}
        places = sorted(_place(int(name), one) for name, one in said.items() if name.isdigit())
        now = list(digests(files)) if places else []

        def is_here(place: Place) -> bool:
            return now[place.files - 1 : place.files] == [place.digest]

        begun, good = 0, list(filter(is_here, places))
        if "mixed" in said:
            number, digest = said["begun"].split()
            begun = int(number)
            good = good if is_here(Place(begun, digest)) else []
        if not good:
            if parts:
                born, seq = self._resume(anew="1")
            return Earlier(), born, int(seq)
        if stale := [str(place.files) for place in places if place not in good]:
            outlast(lambda: self._redis.hdel(self._keys.bookmark, *stale))
        rejecting: set[int] = set()
        for before, place in zip([Place(), *good], good):
            if place.rejected > before.rejected:
                rejecting.update(range(before.files + 1, place.files + 1))
        return Earlier(now[: good[-1].files], frozenset(rejecting), begun), born, int(seq)

    def clear(self) -> None:
        """Remove the bookmark, if it is this run's."""
        key = self._keys.bookmark
        if outlast(lambda: self._redis.hget(key, "token")) == self.token.encode():
            outlast(lambda: self._redis.delete(key))

    def _resume(self, *, anew: str) -> list[bytes]:
        names = [self._keys.info, self._keys.bookmark]
        args = [self.token, self._what, anew]
        reply: list[bytes] = run(self._redis, "store/resume", names, args, resends=5)
        return reply


def digests(files: Iterable[str], digest: str = "") -> Iterator[str]:
    """Of each file and all before it."""
    for file in files:
        digest = sha256(f"{digest} {file}".encode(errors="backslashreplace")).hexdigest()[:32]
        yield digest


def _place(files: int, said: str) -> Place:
    digest, rejected = said.split()
    return Place(files, digest, int(rejected))
