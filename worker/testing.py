"""For tests of programs that enqueue: no Redis, no workers, no API.

from worker.testing import in_memory

def test_an_article_is_enqueued_when_it_is_saved():
    with in_memory() as memory:
        save_article(7, "Berlin")  # calls worker.enqueue(...)
    assert memory.jobs("articles") == [Job("7", "Berlin")]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from . import producer
from .layout import Layout
from .producer import KEPT_REJECTIONS, Receipt
from .producer.known import ReceiptStatus, counted
from .producer.receipt import Watch
from .store.errors import LayoutsDiffer, ModelsDiffer
from .store.keys import CollectionKeys
from .types import Job, Rejection, document_of, parent_of


class Memory:
    """What was enqueued, by collection. Receipts and errors are those that Redis would lead to.

    A receipt that is asked says that its texts are embedded, as if the workers took no time.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, Job]] = {}
        self._models: dict[str, str] = {}
        self._layouts: dict[str, Layout] = {}

    def jobs(self, collection: str) -> list[Job]:
        """The latest job of each id, in the order in which the ids came first."""
        return list(self._jobs.get(collection, {}).values())

    def add(
        self,
        records: Iterable[Job | Rejection],
        collection: str,
        model: str,
        layout: Layout | None = None,
        documents: bool = False,
    ) -> Receipt:
        """Do as `enqueue` does, without Redis. `documents`: the jobs may be pieces."""
        CollectionKeys("", collection)  # raises CollectionError for what is no name
        known = self._models.get(collection, model)
        if known != model:
            raise ModelsDiffer(collection, known, model)
        plain = Layout(model)
        its = self._layouts.get(collection, plain if collection in self._models else layout)
        if layout is not None and layout != its:
            raise LayoutsDiffer(collection, (its or plain).name, layout.name)
        run: dict[str, Job] = {}
        rejections: list[Rejection] = []
        duplicates = 0
        for record in records:
            if isinstance(record, Job):
                duplicates += record.id in run
                run[record.id] = record
            else:
                rejections.append(record)
        if run:
            self._models[collection] = model
            self._layouts[collection] = its or plain
        before = self._jobs.setdefault(collection, {})
        unchanged = sum(id in before and before[id].text == job.text for id, job in run.items())
        before.update(run)
        if documents:
            pieces = dict(map(document_of, run))
            for id in [id for id in before if _is_outgrown(before[id], pieces)]:
                del before[id]
        return Receipt(
            collection,
            new=len(run) - unchanged,
            unchanged=unchanged,
            duplicates=duplicates,
            dead=0,
            rejected=len(rejections),
            rejections=tuple(rejections[:KEPT_REJECTIONS]),
            enquiry=_Enquiry(
                collection, {id: job.text for id, job in run.items()}, before, duplicates
            ),
        )


@dataclass(frozen=True)
class _Enquiry:
    """What has become of the texts of a receipt, by their ids. `jobs`: all of the collection."""

    collection: str
    texts: Mapping[str, str]
    jobs: Mapping[str, Job]
    replaced: int

    def status(self) -> ReceiptStatus:
        return counted(self.collection, {id: self._state(id) for id in self.texts}, self.replaced)

    def watch(self) -> Watch:
        return self

    def look(self) -> ReceiptStatus:
        return self.status()

    def last(self) -> ReceiptStatus:
        return self.status()

    def _state(self, id: str) -> str:
        job = self.jobs.get(id)
        if job is None:
            return "missing"
        return "embedded" if job.text == self.texts[id] else "superseded"


def _is_outgrown(job: Job, pieces: Mapping[str, int]) -> bool:
    """Whether a document, of which there are this many pieces now, had this one before."""
    document, number = document_of(job.id)
    if number == 0:
        return pieces.get(document, 0) > 0
    return number > pieces.get(document, number) and parent_of(job.id, job.meta) is not None


@contextmanager
def in_memory() -> Iterator[Memory]:
    """In this block, `enqueue` and `aenqueue` of the whole process put texts into a Memory."""
    memory, before = Memory(), producer.stand_in
    producer.stand_in = memory.add
    try:
        yield memory
    finally:
        producer.stand_in = before
