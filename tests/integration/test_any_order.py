"""A collection under producers and workers that freeze, die, answer late and twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar, cast

import redis
from hypothesis import HealthCheck, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from stored import Bench, check_ledger, claim_quarantined, vector_of

from worker.settings import Settings
from worker.store.adder import Chunk
from worker.types import (
    Added,
    Committed,
    Embedded,
    Job,
    Known,
    Lease,
    Position,
    Refused,
    text_digest,
)

T = TypeVar("T")


DEADLY = 2  # owners that died of a job before it is leased to those alone who ask for such


IDS = st.sampled_from("abc")


TEXTS = st.sampled_from(["red", "green"])


PAGES = st.sampled_from([None, None, 1, 2])  # what is kept beside a text


CONSUMERS = st.sampled_from(["c0", "c1"])


PRODUCERS = st.sampled_from(["p0", "p1"])


class Draw(Protocol):
    def __call__(self, strategy: st.SearchStrategy[T]) -> T: ...


def seq_of(lease: Lease) -> int:
    return number_of(lease.entry)


def number_of(entry: bytes) -> int:
    return int(entry.partition(b"-")[2])


class Entry:
    """One job in the model's stream."""

    def __init__(self, id: str, text: str, page: int | None) -> None:
        self.id = id
        self.text = text
        self.page = page
        self.owner: str | None = None
        self.attempts = 0
        self.lost = 0


class Vector(NamedTuple):
    """A vector in the model: of this text, which was enqueued last with this number."""

    text: str
    seq: int
    page: int | None


class Fleet(RuleBasedStateMachine):
    """Producers and consumers that freeze, die, answer late and twice, beside a model of it all."""

    serial = 0
    vector = staticmethod(vector_of)  # that the API has for a text
    settings_in_use: Settings
    direct: redis.Redis  # to look at what the steps left behind

    def __init__(self) -> None:
        super().__init__()
        Fleet.serial += 1
        self.bench = Bench(self.settings_in_use, f"fleet{Fleet.serial}")
        self.collection = self.bench.collection
        self.adders = {name: self.collection.adder() for name in ("p0", "p1")}
        self.since: dict[str, int] = {}
        self.answers: dict[str, tuple[Chunk, Added]] = {}
        # The model
        self.last_text: dict[str, str] = {}  # what the last enqueue of each id said
        self.seq = 0
        self.entries: dict[int, Entry] = {}
        self.latest: dict[str, int] = {}  # id -> seq, while queued
        self.vectors: dict[str, Vector] = {}
        self.letters: dict[str, str] = {}
        self.letter_pages: dict[str, int | None] = {}
        self.evicted: dict[str, str] = {}  # id -> text of its last vector that left
        self.evictions = 0
        self.any_evicted = False
        self.removed = 0
        self.looks: list[tuple[list[str], Known]] = []  # what those who delete ids have seen
        self.aware: dict[str, bool] = {}  # whether a producer knows that vectors have left
        self.positions: list[Position] = []
        self.alive: set[str] = set()
        # What the consumers think
        self.hands: dict[str, list[Lease]] = {}
        self.commits: list[tuple[list[Embedded], list[Refused]]] = []

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One event out of those that can happen now, the chain from add to commit most often.

        As rules of their own they would be switched off for whole runs, and commits be rare.
        """
        events: list[Callable[[Draw], None]] = [self.add] * 3
        events += [self.beat, self.die, self.wake]
        events += [self.claim] * 4 * bool(self.entries)
        events += [self.commit] * 4 * bool(self.hands)
        events += [self.release] * bool(self.hands or self.entries)
        events += [self.send_the_last_chunk_again] * bool(self.answers)
        events += [self.commit_again] * bool(self.commits)
        events += [self.retry] * bool(self.letters)
        events += [self.evict, self.renumber] * bool(self.vectors)
        events += [self.remove] * 2 * bool(self.last_text)
        events += self.more_events()
        named = {event.__name__: event for event in events}
        named[data.draw(st.sampled_from([event.__name__ for event in events]))](data.draw)

    # The producers

    def add(self, draw: Draw) -> None:
        producer = draw(PRODUCERS)
        chunk = draw(st.lists(st.tuples(IDS, TEXTS, PAGES), min_size=1, max_size=6))
        jobs = [Job(id, text, {"page": page} if page else None) for id, text, page in chunk]
        last = {id: (text, page) for id, text, page in chunk}
        since = self.since.setdefault(producer, self.seq)
        counts = dict(new=0, unchanged=0, duplicates=len(jobs) - len(last), dead=0)
        counts["evicted"] = counts["replacing"] = 0
        aware = self.aware.setdefault(producer, self.any_evicted)
        any_renewed = False
        for id, (text, page) in last.items():
            self.last_text[id] = text
            counts["evicted"] += aware and self._is_evicted(id, text)
            before = id in self.latest or id in self.letters or id in self.vectors
            any_renewed |= self._renew(id, text, page)
            became = self._enqueue(id, text, page, since, aware)
            counts[became] += 1
            counts["replacing"] += before and became == "new"
        self.seq += any_renewed
        chunk_sent = self.adders[producer].chunk(jobs)
        chunk_sent.send()
        added, _ = chunk_sent.reply()
        assert added == Added(**counts)
        self.aware[producer] = self.any_evicted
        self.answers[producer] = (chunk_sent, added)

    def _is_evicted(self, id: str, text: str) -> bool:
        """Whether the last that is known of an id is that the vector of this text has left."""
        here = id in self.latest or id in self.letters or id in self.vectors
        return not here and self.evicted.get(id) == text

    def _renew(self, id: str, text: str, page: int | None) -> bool:
        """Whether a text that is stored or queued gets what is kept beside it now."""
        if id in self.latest:
            entry = self.entries[self.latest[id]]
            return entry.text == text and page not in (None, entry.page)
        if id in self.letters or id not in self.vectors or self.vectors[id].text != text:
            return False
        vector = self.vectors[id]
        self.vectors[id] = vector._replace(page=page or vector.page)
        return self.vectors[id] != vector

    def _enqueue(self, id: str, text: str, page: int | None, since: int, aware: bool) -> str:
        known: str | None = None
        ours = False
        is_outdated = False
        if id in self.latest:
            known, ours = self.entries[self.latest[id]].text, self.latest[id] > since
            is_outdated = self._renew(id, text, page)
        elif id in self.letters:
            if self.letters[id] == text:
                return "dead"
            del self.letters[id]
        elif id in self.vectors:
            known, ours = self.vectors[id].text, self.vectors[id].seq > since
        elif aware and self._is_evicted(id, text):
            known = text
        if known != text or is_outdated:
            self._push(id, text, page)
        return "duplicates" if ours else "unchanged" if known == text else "new"

    def _push(self, id: str, text: str, page: int | None) -> None:
        self.seq += 1
        self.entries[self.seq] = Entry(id, text, page)
        self.latest[id] = self.seq

    def send_the_last_chunk_again(self, draw: Draw) -> None:
        producer = draw(st.sampled_from(sorted(self.answers)))
        chunk, added = self.answers[producer]
        assert chunk.reply()[0] == added

    def retry(self, draw: Draw) -> None:
        letters = draw(st.none() | st.lists(IDS, max_size=3))
        asked = list(self.letters) if letters is None else list(dict.fromkeys(letters))
        # The order among them is Redis'; only that they are the latest of their ids matters.
        found = [id for id in asked if id in self.letters]
        if letters is None and len(found) > 1:
            found = [letter.id for letter in self.collection.dead()]
        assert self.collection.retry(letters) == len(found)
        for id in found:
            self._push(id, self.letters.pop(id), self.letter_pages[id])

    # The consumers

    def claim(self, draw: Draw) -> None:
        """In whatever order jobs are leased: each may be, and none is left that should be."""
        consumer, count = draw(CONSUMERS), draw(st.integers(1, 3))
        if consumer not in self.alive:
            assert self.collection.backlog.claim(consumer, count) == []
            self.collection.backlog.keep_alive(consumer)
            self.alive.add(consumer)
        lost = draw(st.sampled_from([False] * 4 + [True]))
        held = [seq for seq, entry in self.entries.items() if entry.owner == consumer]
        # What is deadly it sets aside first, as anybody does.
        again = {
            seq
            for seq in held[:count]
            if not self._is_done(seq) and self.entries[seq].lost < DEADLY
        }
        leases = self.collection.backlog.claim(consumer, count)
        if not leases:  # so does a slice of work
            leases = self.collection.backlog.claim(consumer, count, quarantined=True)
        owners = self._owners()
        given_up = self._take_leave_of(consumer, owners)
        for seq, owner in owners.items():
            self._move(seq, consumer, owner)
        leased = [seq_of(lease) for lease in leases]
        assert len(set(leased)) == len(leased) <= count
        assert again <= set(leased)
        for lease, seq in zip(leases, leased):
            entry = self.entries[seq]
            assert entry.owner == consumer
            assert not self._is_done(seq)
            told = (lease.job.id, lease.job.text, lease.attempts)
            assert told == (entry.id, entry.text, entry.attempts)
            assert lease.lost >= entry.lost
            entry.lost = lease.lost
        if not leases and given_up < 10 * count:
            # What it still holds itself is more than it asked for: no slice asks for so little.
            others = [seq for seq, entry in self.entries.items() if entry.owner != consumer]
            free = [seq for seq in others if self._is_free_for(seq, consumer)]
            assert all(self._is_done(seq) for seq in free)
        if leases and not lost:
            self.hands.setdefault(consumer, []).extend(leases)

    def _owners(self) -> dict[int, str | None]:
        """Who holds each job of the stream, as Redis has it."""
        jobs = f"vec:{{{self.collection.name}}}:jobs"
        if not self.direct.exists(jobs):
            return {}
        found = cast("list[tuple[bytes, object]]", self.direct.xrange(jobs))
        owners: dict[int, str | None] = {number_of(entry): None for entry, _ in found}
        held = self.direct.xpending_range(jobs, "workers", "-", "+", 10_000)
        for one in cast("list[dict[str, bytes]]", held):
            owners[number_of(one["message_id"])] = one["consumer"].decode()
        return owners

    def _is_done(self, seq: int) -> bool:
        """Whether a later enqueue has taken its place, or its very text is stored."""
        entry = self.entries[seq]
        stored = entry.id in self.vectors and self.vectors[entry.id].text == entry.text
        return self.latest.get(entry.id) != seq or stored

    def _is_free_for(self, seq: int, consumer: str) -> bool:
        owner = self.entries[seq].owner
        return owner in (None, "released", consumer) or owner not in self.alive

    def _take_leave_of(self, consumer: str, owners: dict[int, str | None]) -> int:
        """Jobs that a claim took out of the stream unpaid; how many there were."""
        gone = [seq for seq in self.entries if seq not in owners]
        for seq in gone:
            assert self._is_done(seq)
            assert self._is_free_for(seq, consumer)
            entry = self.entries.pop(seq)
            if self.latest.get(entry.id) == seq:
                del self.latest[entry.id]
                stored = self.vectors[entry.id]
                self.vectors[entry.id] = Vector(entry.text, seq, entry.page or stored.page)
        return len(gone)

    def _move(self, seq: int, consumer: str, owner: str | None) -> None:
        entry = self.entries[seq]
        if owner != entry.owner:
            assert owner in (consumer, "released")
            assert self._is_free_for(seq, consumer)
            if owner == "released":  # set aside
                assert entry.owner is not None
                assert entry.owner != consumer or entry.lost >= DEADLY
            entry.owner = owner

    def commit(self, draw: Draw) -> None:
        consumer = draw(st.sampled_from(sorted(self.hands)))
        verdicts = draw(st.lists(st.booleans(), min_size=1, max_size=4))
        hand = self.hands.pop(consumer)
        if hand[len(verdicts) :]:
            self.hands[consumer] = hand[len(verdicts) :]
        finished = hand[: len(verdicts)]
        embedded: list[Embedded] = []
        refused: list[Refused] = []
        for lease, good in zip(finished, verdicts):
            if good:
                embedded.append(Embedded(lease, self.vector(lease.job.text), False))
            else:
                refused.append(Refused(lease, "poison", "no"))
        self._commit(embedded, refused)
        self.commits.append((embedded, refused))

    def commit_again(self, draw: Draw) -> None:
        self._commit(*self.commits[draw(st.integers(0, len(self.commits) - 1))])

    def _commit(self, embedded: list[Embedded], refused: list[Refused]) -> None:
        counts = dict(stored=0, dead=0, superseded=0, fenced=0)
        leases = [(one.lease, True) for one in embedded] + [(one.lease, False) for one in refused]
        here = {seq_of(lease) for lease, _ in leases}
        ended = {seq: self.entries.pop(seq) for seq in here & self.entries.keys()}
        for lease, good in leases:
            entry = ended.pop(seq_of(lease), None)
            latest = self.latest.get(lease.job.id)
            if entry is None:
                counts["fenced"] += 1
                continue
            early = self.entries.get(latest or 0)
            stands_for = early is not None and good and early.text == entry.text
            if latest != seq_of(lease) and not stands_for:
                counts["superseded"] += 1
                continue
            assert latest is not None
            page = entry.page
            if early is not None:
                page = early.page or page
                del self.entries[latest]
            del self.latest[entry.id]
            self.vectors.pop(entry.id, None)
            if good:
                self.vectors[entry.id] = Vector(entry.text, latest, page)
            else:
                self.letters[entry.id], self.letter_pages[entry.id] = entry.text, page
            counts["stored" if good else "dead"] += 1
        assert self.store(embedded, refused) == Committed(**counts)

    def store(self, embedded: list[Embedded], refused: list[Refused]) -> Committed:
        return self.collection.backlog.commit(embedded, refused)

    def is_of(self, data: bytes, text: str) -> bool:
        """Whether this is what is stored of the vector of a text."""
        return data == self.vector(text)

    def more_events(self) -> list[Callable[[Draw], None]]:
        return []

    def release(self, draw: Draw) -> None:
        consumer, failures, end = draw(CONSUMERS), draw(st.integers(0, 2)), draw(st.booleans())
        failed = self.hands.pop(consumer, [])[:failures]
        expected = [entry for entry in self.entries.values() if entry.owner == consumer]
        counted: set[int] = set()
        for lease in failed:
            seq = seq_of(lease)
            if seq in self.entries and self.entries[seq].owner == consumer and seq not in counted:
                self.entries[seq].attempts += 1
                counted.add(seq)
        # One entry once, as a slice names it, also where it was leased twice with deaths between.
        failed = list({lease.entry: lease for lease in failed}.values())
        assert self.collection.backlog.release(consumer, failed, end_slice=end) == len(expected)
        for entry in expected:
            entry.owner = "released"
        if end and self.seq:
            self.alive.discard(consumer)

    # The exporter

    def evict(self, draw: Draw) -> None:
        """Evict some that were written just now, or long ago and may have been replaced since."""
        present = self._positions()
        self.positions += present
        chosen = draw(st.lists(st.sampled_from(self.positions), max_size=4))
        expected = {position for position in chosen if position in present}
        assert self.collection.eviction.evict("exporter", chosen) == len(expected)
        for position in expected:
            self.evicted[position.id] = self.vectors.pop(position.id).text
        self.evictions += len(expected)
        self.any_evicted = self.evictions > 0 or self.any_evicted

    def renumber(self, draw: Draw) -> None:
        """As where Redis went back in time: some come behind all others."""
        present = self._positions()
        self.positions += present
        chosen = draw(st.lists(st.sampled_from(self.positions), max_size=4, unique=True))
        above = draw(st.integers(0, 50))
        self.collection.eviction.renumber(chosen, above)
        moved = [position.id for position in chosen if position in present]
        left = [position.id for position in present if position.id not in moved]
        assert [position.id for position in self._positions()] == left + moved
        assert all(
            position.number > above for position in self._positions() if position.id in moved
        )

    def _positions(self) -> list[Position]:
        positions = []
        for record in self.collection.reader.finished(0, 100):
            assert record.number is not None and record.digest is not None
            text, _, page = self.vectors[record.id]
            assert record.digest == text_digest(text) and self.is_of(record.data, text)
            assert record.meta == ({"page": page} if page else None)
            positions.append(Position(record.number, record.id, record.digest))
        assert len(positions) == len(self.vectors)
        return positions

    # Those who delete

    def remove(self, draw: Draw) -> None:
        """Delete ids as they are now, or as they were when one looked long ago."""
        asked = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
        self.looks.append((asked, self.collection.reader.known(asked)))
        asked, known = draw(st.sampled_from(self.looks[-1:] * 2 + self.looks))
        proofs = [state.dead or gone for state, gone in zip(known.states, known.evicted)]
        pairs = list(zip(asked, proofs))
        expected = [id for id, proof in pairs if self._goes(id, proof, known.seq)]
        assert self.collection.removal.remove(pairs, known.born, known.seq) == len(expected)
        for id in expected:
            self.entries.pop(self.latest.pop(id, 0), None)
            self.vectors.pop(id, None)
            self.letters.pop(id, None)
            self.evictions -= self.evicted.pop(id, None) is not None
            del self.last_text[id]
        self.removed += len(expected)

    def _goes(self, id: str, proof: bytes, since: int) -> bool:
        """Whether nothing was enqueued under the id since one looked, as far as can be told."""
        if id in self.latest:
            return self.latest[id] <= since
        if id in self.vectors:
            return self.vectors[id].seq <= since
        if id in self.letters:
            return text_digest(self.letters[id]) == proof
        return id in self.evicted and text_digest(self.evicted[id])[:5] == proof[:5]

    def beat(self, draw: Draw) -> None:
        consumer = draw(CONSUMERS)
        self.collection.backlog.keep_alive(consumer)
        self.alive.add(consumer)

    def die(self, draw: Draw) -> None:
        consumer = draw(CONSUMERS)
        self.bench.kill(consumer)
        self.alive.discard(consumer)

    def wake(self, draw: Draw) -> None:
        slots = draw(st.integers(0, 3))
        assert len(self.collection.backlog.wake(slots)) <= slots

    # What always holds

    @invariant()
    def the_ledger_is_exact(self) -> None:
        status = check_ledger(self.collection.status())
        owned = sum(entry.owner not in (None, "released") for entry in self.entries.values())
        seen = (status.embedded, status.dead, status.leased, status.backlog)
        assert seen == (len(self.vectors), len(self.letters), owned, len(self.entries))
        assert (status.evicted, status.removed) == (self.evictions, self.removed)

    @invariant()
    def every_id_is_in_one_place_with_its_last_text(self) -> None:
        for id, text in self.last_text.items():
            if id in self.latest:
                assert self.entries[self.latest[id]].text == text
            else:
                stored = self.vectors[id].text if id in self.vectors else self.evicted.get(id)
                assert (self.letters.get(id) or stored) == text
        states = dict(zip("abc", self.collection.reader.states(list("abc"))))
        for id, state in states.items():
            stored = self.vectors[id].text if id in self.vectors else None
            queued = self.entries[self.latest[id]].text if id in self.latest else None
            assert state.stored == (text_digest(stored) if stored else None)
            assert state.dead == (text_digest(self.letters[id]) if id in self.letters else None)
            assert state.queued == (text_digest(queued)[:8] if queued else None)

    def teardown(self) -> None:
        """Drained, each id has the vector of its last text or is dead with it; nothing else is."""
        for consumer in ("c0", "c1"):
            self.bench.kill(consumer)
        while leases := self.bench.claim("last") or claim_quarantined(self.bench, "last"):
            vectors = [Embedded(lease, self.vector(lease.job.text), False) for lease in leases]
            self.store(vectors, [])
        note(f"last texts: {self.last_text}")
        if not self.collection.exists():
            assert not self.last_text
            return
        dead = {letter.id: letter.text for letter in self.collection.dead()}
        stored = {one.id: one.data for one in self.collection.reader.finished(0, 100)}
        assert not self.collection.backlog.size()
        assert dead.keys() | stored.keys() | self.evicted.keys() == self.last_text.keys()
        assert not dead.keys() & stored.keys()
        for id, text in self.last_text.items():
            if id in dead:
                assert dead[id] == text
            elif id in stored:
                assert self.is_of(stored[id], text)
            else:
                assert self.evicted[id] == text
        if self.seq:
            keys = {key.rpartition(b":")[2] for key in self._keys() if b":doc:" not in key}
            assert not keys & {b"attempts", b"queued"}, keys
        docs = [key for key in self._keys() if b":doc:" in key]
        assert len(docs) == len(stored)

    def _keys(self) -> list[bytes]:
        return list(self.direct.scan_iter(f"vec:{{{self.collection.name}}}:*", count=1000))


def test_the_ledger_and_the_last_texts_survive_any_order_of_events(
    settings: Settings, redis_client: redis.Redis
) -> None:
    Fleet.settings_in_use, Fleet.direct = settings, redis_client
    run_state_machine_as_test(
        Fleet,
        settings=hypothesis_settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
