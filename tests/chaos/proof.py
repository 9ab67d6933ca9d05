"""The proof: the ledger at every reading, and in the end every vector beside its text."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Iterator

import redis
from faulty_api.vectors import Hashed

from worker import Collection, Status, UnknownCollection

from .editions import Editions

_ENGINE = Hashed()
_KEPT = 20


def vector_of(text: str) -> bytes:
    """The vector of a text as it should be stored."""
    return array("f", _ENGINE.numbers(_ENGINE.pack([text])[0])).tobytes()


def balances(status: Status) -> bool:
    """Whether the ledger adds up, with nothing below zero."""
    parts = (status.embedded, status.evicted, status.dead, status.pending, status.leased)
    return status.enqueued == sum(parts) and min(parts) >= 0


class Auditor:
    """Reads the ledger and a few vectors all the time, from aside."""

    def __init__(self, collection: Collection, editions: Editions, chance: random.Random) -> None:
        self.readings = 0
        self.vectors = 0
        self.faults: list[str] = []
        self._collection = collection
        self._editions = editions
        self._chance = chance
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop reading."""
        self._ended.set()
        self._thread.join(60)

    def _run(self) -> None:
        ids = list(self._editions.texts)
        while not self._ended.wait(0.1):
            try:
                status = self._collection.status()
                some = self._chance.sample(ids, min(10, len(ids)))
                records = self._collection.get_many(some, outdated=True)
            except redis.RedisError:
                continue  # it is being restarted
            except UnknownCollection:
                continue  # no producer has begun it
            self.readings += 1
            if not balances(status):
                self._complain(f"the ledger does not balance: {status}")
            for record in records:
                if record is None or record.text is None:  # texts are kept, but for a FLUSHALL
                    continue
                self.vectors += 1
                if record.text not in self._editions.ever[record.id]:
                    self._complain(f"{record.id} has a text that it never had: {record.text!r}")
                elif record.tobytes() != vector_of(record.text):
                    self._complain(f"{record.id} has the vector of another text")

    def _complain(self, fault: str) -> None:
        if len(self.faults) < _KEPT:
            self.faults.append(fault)


def final_faults(collection: Collection, editions: Editions) -> Iterator[str]:
    """What is wrong when all is done."""
    texts, poison = editions.texts, editions.poison
    status = collection.status()
    if not balances(status) or status.backlog:
        yield f"the ledger at the end: {status}"
    if status.enqueued != len(texts):
        yield f"{status.enqueued} enqueued, not {len(texts)}"
    letters = {letter.id: letter for letter in collection.dead()}
    for id in sorted(letters.keys() - poison)[:_KEPT]:
        yield f"innocent and dead: {letters[id]}"
    for id in sorted(poison - letters.keys())[:_KEPT]:
        yield f"poison and not dead: {id} {texts[id][:80]!r}"
    for letter in letters.values():
        if letter.text != texts[letter.id] or not letter.code or not letter.reason:
            yield f"a dead letter that says something else: {letter}"
    stored = 0
    seen = set()
    for record in collection:
        stored += 1
        seen.add(record.id)
        if record.id not in texts or record.tobytes() != vector_of(texts[record.id]):
            yield f"{record.id} has not the vector of its text"
    if stored != len(seen) or stored != status.embedded:
        yield f"{stored} vectors of {len(seen)} ids, and the ledger says {status.embedded}"
    missing = texts.keys() - seen - letters.keys()
    if missing:
        yield f"{len(missing)} neither stored nor dead, such as {sorted(missing)[:5]}"
    if seen & letters.keys():
        yield f"both stored and dead: {sorted(seen & letters.keys())[:5]}"
