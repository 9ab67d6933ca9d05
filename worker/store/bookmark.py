"""The bookmark: how far a run of `vec-enqueue` is in its files. Redis keeps it until the run ends.

After a kill, the same command skips files at the beginning that have not changed, if all their
lines are in Redis, and if reading them again would change nothing:

* Since the run's last chunk, nothing was added to the collection or deleted from it.
* If a text of the run took the place of another one of it, each file that it had begun to read is
  as it was. Otherwise the text that was replaced might be the one that counts.

It is one hash: a field for each chunk with which a file ended, and some others.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from ..types import Job, Rejection, document_of
from .connection import Redis, run
from .faults import outlast
from .keys import CollectionKeys


def _yes() -> bool:
    return True


class _Place(NamedTuple):
    """A place between two files."""

    files: int = 0  # before it
    digest: str = ""  # of them
    rejected: int = 0  # lines in them


class Bookmark:
    """How far one run is. `what`: how it reads files; the bookmark of another way is not used.

    `reads`: also a file that is skipped is read, to see its ids. `documents`: the jobs may be
    pieces. What is left of an earlier text is then deleted between a chunk and the next.
    """

    def __init__(
        self, client: Redis, keys: CollectionKeys, what: str, *, reads: bool, documents: bool
    ) -> None:
        self.skipped = 0  # files
        self._redis = client
        self._keys = keys
        self._what = sha256(what.encode()).hexdigest()[:32]
        self._reads = reads
        self._splits = documents
        self.token = uuid.uuid4().hex
        self._old: list[str] = []  # a digest for each file to be skipped
        self._rejecting: set[int] = set()  # those with rejections
        self._begun = 0  # files of which an earlier run may have added texts
        self._here = self._ended = self._added = _Place()
        self._documents: set[str] = set()  # in the last chunk
        self._rejected = 0
        self._adds = True  # the lines of this file
        self._whole = True  # all files were read to their ends
        self._is_whole: Callable[[], bool] = _yes

    def resume(self, files: Iterable[str]) -> tuple[bytes, int]:
        """Find out which of the run's files are to be skipped; each is a name and a version.

        Returns the life of the collection, and the highest number of a job.
        """
        born, seq, *parts = self._resume(anew="")
        said = {name.decode(): one.decode() for name, one in zip(parts[::2], parts[1::2])}
        places = sorted(_place(int(name), one) for name, one in said.items() if name.isdigit())
        digests = list(_digests(files)) if places else []

        def is_here(place: _Place) -> bool:
            return digests[place.files - 1 : place.files] == [place.digest]

        good = list(filter(is_here, places))
        if "mixed" in said:
            number, digest = said["begun"].split()
            self._begun = int(number)
            good = good if is_here(_Place(self._begun, digest)) else []
        if not good:
            if parts:
                born, seq = self._resume(anew="1")
            self._begun = 0
            return born, int(seq)
        if stale := [str(place.files) for place in places if place not in good]:
            outlast(lambda: self._redis.hdel(self._keys.bookmark, *stale))
        before = _Place()
        for place in good:
            if place.rejected > before.rejected:
                self._rejecting.update(range(before.files + 1, place.files + 1))
            before = place
        self._old = digests[: before.files]
        return born, int(seq)

    @property
    def files(self) -> int:
        """How many files are to be skipped."""
        return len(self._old)

    def begin(self, file: str) -> bool:
        """Begin the next file, a name and a version, before it is opened. Whether to read it."""
        self._end_file()
        at = self._here.files
        (digest,) = _digests([file], self._here.digest)
        self._here = _Place(at + 1, digest)
        if self._old[at : at + 1] != [digest]:
            self._old = []
        self._adds = not self._old
        self.skipped += not self._adds
        return self._adds or self._reads or at + 1 in self._rejecting

    def watch(
        self,
        lines: Iterable[Job | Rejection],
        is_whole: Callable[[], bool] = _yes,
        seen: Callable[[], object] = lambda: None,
    ) -> Iterator[Job | Rejection]:
        """The lines of the files of one corpus; of a skipped one the rejections alone.

        `is_whole`: whether all files were read to their ends so far. What follows one that was not
        is not skipped by the next run. `seen` is called now and then while lines are skipped.
        """
        self._is_whole = is_whole
        skipped = 0
        for line in lines:
            if isinstance(line, Rejection):
                self._rejected += 1
            elif not self._adds:
                skipped += 1
                if skipped % 1000 == 0:
                    seen()
                continue
            yield line
        self._end_file()
        self._adds, self._is_whole = True, _yes

    def mark(self, jobs: Sequence[Job]) -> str:
        """What the next chunk, of these jobs, writes into the bookmark: see add.lua.

        With no jobs: all lines that were read are added.
        """
        fields: list[str] = []
        if self._here.files >= self._begun:
            fields += ("begun", f"{self._here.files} {self._here.digest}")
        ended = self._added if jobs and self._splits else self._ended
        if ended.files:
            fields += (str(ended.files), f"{ended.digest} {ended.rejected}")
        self._added = self._ended
        return json.dumps([self.token, self._comes_again(jobs), fields])

    def _comes_again(self, jobs: Sequence[Job]) -> bool:
        """Whether an id comes twice in a chunk, or a document in two of them that are neighbours.

        A document whose pieces are cut by the end of a chunk comes once.
        """
        twice = len({job.id for job in jobs}) < len(jobs)
        if self._splits:
            places = [document_of(job.id) for job in jobs]
            first = [document for document, number in places if number < 2]
            twice |= len(set(first)) < len(first) or not self._documents.isdisjoint(first)
            self._documents = {document for document, _ in places}
        return twice

    def end(self) -> None:
        """Remove it: all files were read to their ends."""
        key = self._keys.bookmark
        if outlast(lambda: self._redis.hget(key, "token")) == self.token.encode():
            outlast(lambda: self._redis.delete(key))

    def _end_file(self) -> None:
        self._whole = self._whole and self._is_whole()
        if self._whole:
            self._ended = self._here._replace(rejected=self._rejected)

    def _resume(self, *, anew: str) -> list[bytes]:
        names = [self._keys.info, self._keys.bookmark]
        args = [self.token, self._what, anew]
        reply: list[bytes] = run(self._redis, "store/resume", names, args, resends=5)
        return reply


def _place(files: int, said: str) -> _Place:
    digest, rejected = said.split()
    return _Place(files, digest, int(rejected))


def _digests(files: Iterable[str], digest: str = "") -> Iterator[str]:
    """Of each file and all before it."""
    for file in files:
        digest = sha256(f"{digest} {file}".encode(errors="backslashreplace")).hexdigest()[:32]
        yield digest
