"""A collection's steps, one by one, on fakeredis and on a real redis-server: the ledger is exact
after each.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import pytest
import redis
from fakeredis import TcpFakeServer
from hypothesis import HealthCheck, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from worker.collection import (
    CHUNK_SIZE,
    LEASE_SECONDS,
    Added,
    Adder,
    Collection,
    CollectionError,
    Committed,
    DimensionsDiffer,
    Embedded,
    Lease,
    Refused,
    Status,
    announce_worker,
    collection_names,
    forget_worker,
    workers_alive,
)
from worker.connection import Redis, connect
from worker.job import Job, text_digest
from worker.local.redis_server import RedisServer
from worker.settings import Settings


@pytest.fixture(scope="session")
def running_fake() -> Iterator[str]:
    """The URL of fakeredis' server, the one that `--local` falls back to."""
    server = TcpFakeServer(("127.0.0.1", 0), server_version=(7, 0))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["fake", "real"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Settings for an empty Redis of either kind."""
    if request.param == "real":
        url = request.getfixturevalue("redis_server").url
    else:
        url = request.getfixturevalue("running_fake")
        with redis.Redis.from_url(url) as client:
            client.flushall()
    return Settings(redis_url=url, broker_url=url, model="m")


@pytest.fixture
def real_settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url, model="m")


def vector_of(text: str, dimensions: int = 2) -> bytes:
    """A vector that belongs to this text alone."""
    number = int.from_bytes(text_digest(text)[:2], "big")
    return struct.pack(f"<{dimensions}f", *[float(number + 1)] * dimensions)


def check_ledger(status: Status) -> Status:
    """The one equation that holds at every moment."""
    parts = status.embedded + status.evicted + status.dead + status.pending + status.leased
    assert status.enqueued == parts, status
    assert min(status.pending, status.leased, status.embedded, status.dead) >= 0, status
    return status


class Bench:
    """A collection whose ledger is checked after every step."""

    def __init__(self, settings: Settings, name: str = "wiki") -> None:
        self.settings = settings
        self.collection = Collection(name, settings=settings)
        self.redis = connect(settings)
        self._adders: dict[str, Adder] = {}

    @property
    def status(self) -> Status:
        return check_ledger(self.collection.status())

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Embedded, dead, pending and leased."""
        status = self.status
        return status.embedded, status.dead, status.pending, status.leased

    def add(self, *pairs: tuple[str, str], run: str = "", resend: bool = False) -> Added:
        """One chunk of (id, text); adds of the same `run` are one producer's."""
        adder = self._adders.setdefault(run, self.collection.adder()) if run else None
        jobs = [Job(id, text) for id, text in pairs]
        added = (adder or self.collection.adder()).add(jobs, resend=resend)
        check_ledger(self.collection.status())
        return added

    def claim(self, consumer: str = "c", count: int = 100, *, alive: bool = True) -> list[Lease]:
        if alive:
            self.collection.keep_alive(consumer)
        leases = self.collection.claim(consumer, count)
        check_ledger(self.collection.status())
        return leases

    def commit(
        self, embedded: Sequence[Lease], refused: Sequence[Lease] = (), *, keep_text: bool = False
    ) -> Committed:
        committed = self.collection.commit(
            [Embedded(lease, vector_of(lease.job.text), False) for lease in embedded],
            [Refused(lease, "poison", "the API refuses it") for lease in refused],
            keep_text=keep_text,
        )
        check_ledger(self.collection.status())
        return committed

    def release(
        self, consumer: str = "c", failed: Sequence[Lease] = (), *, end_slice: bool = False
    ) -> int:
        released = self.collection.release(consumer, failed, end_slice=end_slice)
        check_ledger(self.collection.status())
        return released

    def retry(self, ids: Optional[Sequence[str]] = None) -> int:
        put_back = self.collection.retry(ids)
        check_ledger(self.collection.status())
        return put_back

    def kill(self, consumer: str) -> None:
        """Its heartbeat has expired."""
        self.redis.delete(f"vec:{{{self.collection.name}}}:alive:{consumer}")

    def embed_all(self, *, refuse: Sequence[str] = ()) -> None:
        """Work until nothing is left; texts in `refuse` are refused."""
        while leases := self.claim("all"):
            bad = [lease for lease in leases if lease.job.text in refuse]
            self.commit([lease for lease in leases if lease not in bad], bad)
        self.release("all", end_slice=True)

    def stored(self) -> dict[str, bytes]:
        return {record.id: record.data for record in self.collection}


@pytest.fixture
def bench(settings: Settings) -> Bench:
    return Bench(settings)


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.job.id for lease in leases]


def pairs(count: int, text: str = "text") -> list[tuple[str, str]]:
    return [(f"id{number}", f"{text} {number}") for number in range(count)]


# Whatever happens in whatever order


IDS = st.sampled_from("abcd")
TEXTS = st.sampled_from(["red", "green", "blue"])
CONSUMERS = st.sampled_from(["c0", "c1", "c2"])
PRODUCERS = st.sampled_from(["p0", "p1"])


class Entry:
    """One job in the model's stream."""

    def __init__(self, id: str, text: str) -> None:
        self.id = id
        self.text = text
        self.owner: Optional[str] = None
        self.attempts = 0
        self.lost = 0


class Fleet(RuleBasedStateMachine):
    """Producers and consumers that freeze, die, answer late and twice, beside a model of it all."""

    serial = 0
    settings_in_use: Settings

    def __init__(self) -> None:
        super().__init__()
        Fleet.serial += 1
        self.bench = Bench(self.settings_in_use, f"fleet{Fleet.serial}")
        self.collection = self.bench.collection
        self.adders = {name: self.collection.adder() for name in ("p0", "p1")}
        self.since: dict[str, int] = {}
        self.answers: dict[str, tuple[list[Job], Added]] = {}
        # The model
        self.last_text: dict[str, str] = {}  # what the last enqueue of each id said
        self.seq = 0
        self.entries: dict[int, Entry] = {}
        self.latest: dict[str, int] = {}  # id -> seq, while queued
        self.vectors: dict[str, tuple[str, int]] = {}  # id -> text, seq
        self.letters: dict[str, str] = {}
        self.members: set[str] = set()  # of the consumer group
        self.alive: set[str] = set()
        # What the consumers think
        self.hands: dict[str, list[Lease]] = {}
        self.commits: list[tuple[list[Embedded], list[Refused]]] = []

    # The producers

    @rule(producer=PRODUCERS, chunk=st.lists(st.tuples(IDS, TEXTS), min_size=1, max_size=6))
    def add(self, producer: str, chunk: list[tuple[str, str]]) -> None:
        jobs = [Job(id, text) for id, text in chunk]
        since = self.since.setdefault(producer, self.seq)
        counts = dict(new=0, unchanged=0, duplicates=len(jobs) - len(dict(chunk)), dead=0)
        for id, text in dict(chunk).items():
            self.last_text[id] = text
            counts[self._enqueue(id, text, since)] += 1
        added = self.adders[producer].add(jobs)
        assert added == Added(**counts)
        self.answers[producer] = (jobs, added)

    def _enqueue(self, id: str, text: str, since: int) -> str:
        known: Optional[str] = None
        ours = False
        if id in self.latest:
            known, ours = self.entries[self.latest[id]].text, self.latest[id] > since
        elif id in self.letters:
            if self.letters[id] == text:
                return "dead"
            del self.letters[id]
        elif id in self.vectors:
            known, ours = self.vectors[id][0], self.vectors[id][1] > since
        if known != text:
            self._push(id, text)
        return "duplicates" if ours else "unchanged" if known == text else "new"

    def _push(self, id: str, text: str) -> None:
        self.seq += 1
        self.entries[self.seq] = Entry(id, text)
        self.latest[id] = self.seq

    @rule(producer=PRODUCERS)
    def send_the_last_chunk_again(self, producer: str) -> None:
        if producer in self.answers:
            jobs, added = self.answers[producer]
            assert self.adders[producer].add(jobs, resend=True) == added

    @rule(letters=st.none() | st.lists(IDS, max_size=3))
    def retry(self, letters: Optional[list[str]]) -> None:
        asked = list(self.letters) if letters is None else list(dict.fromkeys(letters))
        # The order among them is Redis'; only that they are the latest of their ids matters.
        found = [id for id in asked if id in self.letters]
        if letters is None and len(found) > 1:
            found = [letter.id for letter in self.collection.dead()]
        assert self.collection.retry(letters) == len(found)
        for id in found:
            self._push(id, self.letters.pop(id))

    # The consumers

    @rule(consumer=CONSUMERS, count=st.integers(1, 4), lost=st.booleans())
    def claim(self, consumer: str, count: int, lost: bool) -> None:
        leases = self.collection.claim(consumer, count)
        expected = self._claim(consumer, count)
        assert [int(lease.entry.partition(b"-")[2]) for lease in leases] == expected
        for lease, seq in zip(leases, expected):
            entry = self.entries[seq]
            told = (lease.job.id, lease.job.text, lease.attempts, lease.lost)
            assert told == (entry.id, entry.text, entry.attempts, entry.lost)
        if not lost:
            self.hands.setdefault(consumer, []).extend(leases)

    def _claim(self, consumer: str, count: int) -> list[int]:
        leases: list[int] = []
        if not self.seq:
            return leases

        def take(seq: int) -> None:
            entry = self.entries[seq]
            entry.owner = consumer
            self.members.add(consumer)
            live = self.latest.get(entry.id) == seq
            stored = self.vectors.get(entry.id, ("", 0))[0] == entry.text
            if live and not stored:
                leases.append(seq)
                return
            if live:
                del self.latest[entry.id]
            del self.entries[seq]

        def held_by(owner: Optional[str]) -> list[int]:
            return [seq for seq, entry in self.entries.items() if entry.owner == owner]

        for seq in held_by(consumer)[:count]:
            take(seq)
        for seq in held_by("released"):
            if len(leases) < count:
                take(seq)
        for other in sorted(self.members - {consumer, "released"}):
            if other in self.alive or len(leases) >= count:
                continue
            for seq in held_by(other):
                if len(leases) < count:
                    self.entries[seq].lost += 1
                    take(seq)
            if not held_by(other):
                self.members.discard(other)
        if len(leases) < count:
            self.members.add(consumer)
        for _ in range(10):  # pages
            for seq in held_by(None)[: count - len(leases)]:
                take(seq)
        return leases

    @rule(consumer=CONSUMERS, verdicts=st.lists(st.booleans(), min_size=1, max_size=4))
    def commit(self, consumer: str, verdicts: list[bool]) -> None:
        hand = self.hands.get(consumer, [])
        finished, self.hands[consumer] = hand[: len(verdicts)], hand[len(verdicts) :]
        embedded: list[Embedded] = []
        refused: list[Refused] = []
        for lease, good in zip(finished, verdicts):
            if good:
                embedded.append(Embedded(lease, vector_of(lease.job.text), False))
            else:
                refused.append(Refused(lease, "poison", "no"))
        self._commit(embedded, refused)
        self.commits.append((embedded, refused))

    @rule(index=st.integers(0, 50))
    def commit_again(self, index: int) -> None:
        if self.commits:
            self._commit(*self.commits[index % len(self.commits)])

    def _commit(self, embedded: list[Embedded], refused: list[Refused]) -> None:
        counts = dict(stored=0, dead=0, superseded=0, fenced=0)
        leases = [(one.lease, True) for one in embedded] + [(one.lease, False) for one in refused]
        for lease, good in leases:
            seq = int(lease.entry.partition(b"-")[2])
            entry = self.entries.pop(seq, None)
            if entry is None:
                counts["fenced"] += 1
            elif self.latest.get(entry.id) != seq:
                counts["superseded"] += 1
            else:
                del self.latest[entry.id]
                self.vectors.pop(entry.id, None)
                if good:
                    self.vectors[entry.id] = (entry.text, seq)
                else:
                    self.letters[entry.id] = entry.text
                counts["stored" if good else "dead"] += 1
        assert self.collection.commit(embedded, refused) == Committed(**counts)

    @rule(consumer=CONSUMERS, failures=st.integers(0, 2), end=st.booleans())
    def release(self, consumer: str, failures: int, end: bool) -> None:
        failed = self.hands.pop(consumer, [])[:failures]
        expected = [entry for entry in self.entries.values() if entry.owner == consumer]
        counted: set[int] = set()
        for lease in failed:
            seq = int(lease.entry.partition(b"-")[2])
            if seq in self.entries and self.entries[seq].owner == consumer and seq not in counted:
                self.entries[seq].attempts += 1
                counted.add(seq)
        failed = [lease for number, lease in enumerate(failed) if lease not in failed[:number]]
        assert self.collection.release(consumer, failed, end_slice=end) == len(expected)
        for entry in expected:
            entry.owner = "released"
        if end and self.seq:
            self.members.discard(consumer)
            self.alive.discard(consumer)

    @rule(consumer=CONSUMERS)
    def beat(self, consumer: str) -> None:
        self.collection.keep_alive(consumer)
        self.alive.add(consumer)

    @rule(consumer=CONSUMERS)
    def die(self, consumer: str) -> None:
        self.bench.kill(consumer)
        self.alive.discard(consumer)

    @rule(slots=st.integers(0, 3))
    def wake(self, slots: int) -> None:
        assert len(self.collection.wake(slots)) <= slots

    # What always holds

    @invariant()
    def the_ledger_is_exact(self) -> None:
        status = check_ledger(self.collection.status())
        owned = sum(entry.owner not in (None, "released") for entry in self.entries.values())
        seen = (status.embedded, status.dead, status.leased, status.backlog)
        assert seen == (len(self.vectors), len(self.letters), owned, len(self.entries))

    @invariant()
    def every_id_is_in_one_place_with_its_last_text(self) -> None:
        for id, text in self.last_text.items():
            if id in self.latest:
                assert self.entries[self.latest[id]].text == text
            else:
                assert (self.letters.get(id) or self.vectors[id][0]) == text
        states = dict(zip("abcd", self.collection.states(list("abcd"))))
        for id, state in states.items():
            stored = self.vectors.get(id)
            assert state.stored == (text_digest(stored[0]) if stored else None)
            letter = self.letters.get(id)
            assert state.dead == (text_digest(letter) if letter else None)
            queued = self.latest.get(id)
            text = self.entries[queued].text if queued is not None else None
            assert state.queued == (text_digest(text)[:8] if text else None)

    def teardown(self) -> None:
        """Drained, each id has the vector of its last text or is dead with it; nothing else is."""
        for consumer in ("c0", "c1", "c2"):
            self.bench.kill(consumer)
        while leases := self.bench.claim("last"):
            self.bench.commit(leases)
        note(f"last texts: {self.last_text}")
        dead = {letter.id: letter.text for letter in self.collection.dead()}
        stored = self.bench.stored()
        assert not self.collection.backlog()
        assert dead.keys() | stored.keys() == self.last_text.keys()
        assert not dead.keys() & stored.keys()
        for id, text in self.last_text.items():
            if id in dead:
                assert dead[id] == text
            else:
                assert stored[id] == vector_of(text)
        if self.seq:
            keys = {key.rpartition(b":")[2] for key in self._keys() if b":doc:" not in key}
            assert not keys & {b"attempts", b"queued"}, keys
        docs = [key for key in self._keys() if b":doc:" in key]
        assert len(docs) == len(stored)

    def _keys(self) -> list[bytes]:
        with redis.Redis.from_url(self.bench.settings.redis_url) as client:
            return list(client.scan_iter(f"vec:{{{self.collection.name}}}:*", count=1000))


def test_the_ledger_and_the_last_texts_survive_any_order_of_events(
    real_settings: Settings,
) -> None:
    Fleet.settings_in_use = real_settings
    run_state_machine_as_test(
        Fleet,
        settings=hypothesis_settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
