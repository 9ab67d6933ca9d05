"""The bookmark: how far a run of `vec-enqueue` is in its files. Redis keeps it until the run ends.

After a kill, the same command skips files at the beginning that have not changed, if all their
lines are in Redis, and if reading them again would change nothing:

* Since the run's last chunk, nothing was added to the collection or deleted from it.
* If a text of the run took the place of another one of it, each file that it had begun to read is
  as it was. Otherwise the text that was replaced might be the one that counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..types import Job, Rejection, document_of
from .connection import Redis
from .earlier import Earlier, Place, Shelf, digests
from .keys import CollectionKeys


def _yes() -> bool:
    return True


class Bookmark:
    """How far one run is. `what`: how it reads files; the bookmark of another way is not used.

    `reads`: also a file that is skipped is read, to see its ids. `documents`: the jobs may be
    pieces. What is left of an earlier text is then deleted between a chunk and the next.
    """

    def __init__(
        self, client: Redis, keys: CollectionKeys, what: str, *, reads: bool, documents: bool
    ) -> None:
        self.skipped = 0  # files
        self._shelf = Shelf(client, keys, what)
        self._earlier = Earlier()
        self._reads = reads
        self._repeats = _Repeats(documents)
        self._here = self._ended = self._added = Place()
        self._whole = True  # all files were read to their ends
        self._is_whole: Callable[[], bool] = _yes

    @property
    def token(self) -> str:
        """The name of this run."""
        return self._shelf.token

    @property
    def files(self) -> int:
        """How many files are to be skipped."""
        return len(self._earlier.done)

    def resume(self, files: Iterable[str]) -> tuple[bytes, int]:
        """Find out which of the run's files are to be skipped; each is a name and a version.

        Returns the life of the collection, and the highest number of a job.
        """
        self._earlier, born, seq = self._shelf.take(files)
        return born, seq

    def begin(self, file: str) -> bool:
        """Begin the next file, a name and a version, before it is opened. Whether to read it."""
        self._end_file()
        at = self._here.files
        (digest,) = digests([file], self._here.digest)
        self._here = self._here._replace(files=at + 1, digest=digest)
        if list(self._earlier.done[at : at + 1]) != [digest]:
            self._earlier = self._earlier._replace(done=())
        if not self._earlier.done:
            return True
        self.skipped += 1
        return self._reads or at + 1 in self._earlier.rejecting

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
                self._here = self._here._replace(rejected=self._here.rejected + 1)
            elif self._earlier.done:  # this file is skipped
                skipped += 1
                if skipped % 1000 == 0:
                    seen()
                continue
            yield line
        self._end_file()
        self._is_whole = _yes

    def mark(self, jobs: Sequence[Job]) -> str:
        """What the next chunk, of these jobs, writes into the bookmark: see add.lua.

        With no jobs: all lines that were read are added.
        """
        fields: list[str] = []
        if self._here.files >= self._earlier.begun:
            fields += ("begun", f"{self._here.files} {self._here.digest}")
        ended = self._added if jobs and self._repeats.documents else self._ended
        if ended.files:
            fields += (str(ended.files), f"{ended.digest} {ended.rejected}")
        self._added = self._ended
        return json.dumps([self.token, self._repeats.among(jobs), fields])

    def end(self) -> None:
        """Remove it: all files were read to their ends."""
        self._shelf.clear()

    def _end_file(self) -> None:
        self._whole = self._whole and self._is_whole()
        if self._whole:
            self._ended = self._here


class _Repeats:
    """Whether an id comes again among the jobs of a run, as far as neighbouring chunks tell.

    `documents`: the jobs may be pieces.
    """

    def __init__(self, documents: bool) -> None:
        self.documents = documents
        self._before: set[str] = set()  # documents of the last chunk

    def among(self, jobs: Sequence[Job]) -> bool:
        """Whether an id comes twice in a chunk, or a document in two of them that are neighbours.

        A document whose pieces are cut by the end of a chunk comes once.
        """
        twice = len({job.id for job in jobs}) < len(jobs)
        if self.documents:
            places = [document_of(job.id) for job in jobs]
            first = [document for document, number in places if number < 2]
            twice |= len(set(first)) < len(first) or not self._before.isdisjoint(first)
            self._before = {document for document, _ in places}
        return twice
