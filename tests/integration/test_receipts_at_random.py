"""Receipts of two producers, asked after anything: enqueues, deletions, commits, evictions,
retries, drops. A plain model says what has become of each text.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from stored import Bench, positions

from worker import Receipt, Settings, enqueue
from worker.producer.known import Filed
from worker.store.states import STATES
from worker.types import Lease

pytestmark = pytest.mark.heavy
KEPT = 6  # receipts that are asked
IDENTS = ["a", "b", "c"]
IDS = st.sampled_from(IDENTS)
TEXTS = st.lists(st.tuples(IDS, st.sampled_from("xyz")), min_size=1, max_size=4)


class Queued(NamedTuple):
    """A job: its text and its number."""

    text: str
    number: int


class Model:
    """What is known of each id, as the ledger has it."""

    def __init__(self) -> None:
        self.number = 0
        self.queued: dict[str, Queued] = {}
        self.stored: dict[str, str] = {}
        self.dead: dict[str, str] = {}
        self.evicted: dict[str, str] = {}
        self.jobs: set[int] = set()  # not done, superseded ones too

    def latest(self, id: str) -> str | None:
        """The latest text of an id, as far as it is there."""
        if id in self.queued:
            return self.queued[id].text
        return self.stored.get(id) or self.dead.get(id) or self.evicted.get(id)

    def put(self, id: str, text: str) -> None:
        if self.latest(id) != text:
            self.dead.pop(id, None)
            self.queue(id, text)

    def queue(self, id: str, text: str) -> None:
        self.number += 1
        self.jobs.add(self.number)
        self.queued[id] = Queued(text, self.number)

    def claim(self) -> set[int]:
        """Superseded jobs leave, and those whose texts are stored."""
        for id, job in list(self.queued.items()):
            if self.stored.get(id) == job.text:
                del self.queued[id]
        self.jobs = {job.number for job in self.queued.values()}
        return self.jobs

    def finish(self, id: str, text: str, number: int, good: bool) -> None:
        if number not in self.jobs:
            return
        self.jobs.discard(number)
        job = self.queued.get(id)
        if job is None or job.number != number and not (good and job.text == text):
            return
        self.jobs.discard(job.number)
        del self.queued[id]
        self.stored.pop(id, None)
        (self.stored if good else self.dead)[id] = text

    def delete(self, id: str) -> None:
        if id in self.queued:
            self.jobs.discard(self.queued.pop(id).number)
        for texts in (self.stored, self.dead, self.evicted):
            texts.pop(id, None)

    def state(self, id: str, text: str) -> str:
        latest = self.latest(id)
        if latest is None:
            return "missing"
        if latest != text:
            return "superseded"
        if self.stored.get(id) == text:
            return "embedded"
        if id in self.queued:
            return "waiting"
        return "dead" if id in self.dead else "evicted"


class Receipts(RuleBasedStateMachine):
    """One collection, and the receipts of what was put into it."""

    settings_in_use: Settings

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(self.settings_in_use)
        self.collection = self.bench.collection
        self.collection.drop()
        self.alone = redis.Redis.from_url(
            self.settings_in_use.redis_url, single_connection_client=True
        )
        self.model = Model()
        self.leases: list[Lease] = []
        self.claimed = self.model  # the life of the collection that they are of
        self.receipts: list[tuple[Receipt, list[tuple[str, str]]]] = []

    def teardown(self) -> None:
        self.alone.close()

    @rule(texts=TEXTS, way=st.sampled_from(["call", "chunks", "file"]))
    def put(self, texts: list[tuple[str, str]], way: str) -> None:
        """Producers of small calls and of chunks; of some, the texts are in a file."""
        connection = None if way == "call" else self.alone
        settings = self.settings_in_use
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("worker.producer.known.MOST_TEXTS", 0 if way == "file" else 1000)
            receipt = enqueue(texts, "wiki", settings=settings, connection=connection)
        for id, text in dict(texts).items():
            self.model.put(id, text)
        self.receipts = [*self.receipts, (receipt, texts)][-KEPT:]

    @rule()
    def claim(self) -> None:
        self.leases, self.claimed = self.bench.claim(count=1000), self.model
        assert {number_of(one) for one in self.leases} == self.model.claim()

    @rule(good=st.sets(IDS), bad=st.sets(IDS))
    def commit(self, good: set[str], bad: set[str]) -> None:
        embedded = [one for one in self.leases if one.job.id in good]
        refused = [one for one in self.leases if one.job.id in bad - good]
        if embedded or refused:
            self.bench.commit(embedded, refused)
        for one in (*embedded, *refused):
            self.claimed.finish(one.job.id, one.job.text, number_of(one), one.job.id in good)

    @rule()
    def release(self) -> None:
        self.bench.release()

    @rule(count=st.integers(1, 3))
    def evict(self, count: int) -> None:
        if self.collection.exists():
            gone = positions(self.bench)[:count]
            self.collection.eviction.evict("us", gone)
            for one in gone:
                self.model.evicted[one.id] = self.model.stored.pop(one.id)

    @rule(id=IDS)
    def retry(self, id: str) -> None:
        if id in self.model.dead:
            self.bench.retry([id])
            self.model.queue(id, self.model.dead.pop(id))

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        if self.collection.exists():
            self.collection.delete([id])
            self.model.delete(id)

    @rule()
    def drop(self) -> None:
        self.collection.drop()
        self.model = Model()

    @invariant()
    def each_receipt_says_what_the_model_says(self) -> None:
        for receipt, texts in self.receipts:
            states = {id: self.model.state(id, text) for id, text in dict(texts).items()}
            status, its = receipt.status(), vars(receipt)["enquiry"]
            in_file = isinstance(its._known, Filed)
            told = {"dead", "superseded", "missing"} if in_file else set(STATES)
            assert status.states == {id: one for id, one in states.items() if one in told}
            left = its._known.watch(its.place)()
            assert (left > 0) == ("waiting" in states.values())
            assert left >= status.waiting
            counts = Counter(states.values())
            counts["superseded"] += len(texts) - len(states)
            assert {name: getattr(status, name) for name in STATES} == {
                name: counts[name] for name in STATES
            }
            total = receipt.new + receipt.unchanged + receipt.duplicates + receipt.dead
            assert sum(counts.values()) == total == len(texts)

    @invariant()
    def get_gives_the_vector_of_the_latest_text(self) -> None:
        if not self.collection.exists():
            return
        latest = self.collection.get_many(IDENTS)
        for id, one, any_one in zip(
            IDENTS, latest, self.collection.get_many(IDENTS, outdated=True)
        ):
            stored = self.model.stored.get(id)
            is_latest = stored is not None and self.model.latest(id) == stored
            assert (one is not None) == is_latest
            assert (any_one is not None) == (stored is not None)
            assert any_one is None or any_one.outdated != is_latest


def number_of(lease: Lease) -> int:
    return int(lease.entry.split(b"-")[1])


def test_receipts_are_right_in_any_order_of_events(settings: Settings) -> None:
    Receipts.settings_in_use = settings
    run_state_machine_as_test(
        Receipts,
        settings=hypothesis_settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
