"""Documents that are split, edited, rejected, deleted and pruned in any order, beside strangers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from stored import Bench, positions

from worker.corpus.long import Long
from worker.export.surplus import Surplus
from worker.export.verify import verify
from worker.producer import Progress, produce
from worker.settings import Settings
from worker.store.adder import Adder
from worker.types import Job, Rejection, document_of, parent_of, piece_id, text_digest

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        sys.version_info < (3, 10), reason="semantic-text-splitter needs Python 3.10"
    ),
]
DOCUMENTS = ("a", "b", "a#")
MOST = 9  # pieces of a document


class Line(NamedTuple):
    """A line of a corpus: a document of so many words, of which one was edited; or a rejection."""

    id: str
    words: int
    edited: int
    rejected: bool


class Run(NamedTuple):
    """What one command is asked for."""

    lines: list[Line]
    size: int
    split: bool
    prune: bool


LINES = st.lists(
    st.builds(
        Line,
        st.sampled_from(DOCUMENTS),
        st.integers(1, MOST),
        st.integers(0, MOST),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=4,
)
RUNS = st.builds(Run, LINES, st.sampled_from([8, 17]), st.booleans(), st.booleans())
STRANGERS = st.builds(piece_id, st.sampled_from(DOCUMENTS), st.integers(1, MOST))


class Documents(RuleBasedStateMachine):
    """One collection, and what it must hold."""

    settings_in_use: Settings

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(self.settings_in_use)
        self.collection = self.bench.collection
        self.collection.drop()
        self.held: dict[str, Job] = {}
        self.edits = 0

    # What happens

    @rule(run=RUNS)
    def run(self, run: Run) -> None:
        lines = self.lines(run)
        surplus = Surplus(self.collection.client, self.collection.keys)
        list(self.produce(surplus.watch(lines), run.split))
        brought = self.apply(lines, run.split)
        if run.prune and brought:
            sum(surplus.remove(surplus.find()))
            self.held = {id: job for id, job in self.held.items() if id in brought}
            self.is_exactly(lines, run.split)

    @rule(run=RUNS)
    def killed_and_run_again(self, run: Run) -> None:
        lines = self.lines(run)
        steps = self.produce(lines, run.split)
        next(steps, None)  # its chunk is sent
        del steps
        list(self.produce(lines, run.split))
        self.apply(lines, run.split)

    @rule(first=RUNS, second=RUNS)
    def two_producers_at_once(self, first: Run, second: Run) -> None:
        """The second one has a text of its own in each piece: what is unchanged has no number."""
        lines = self.lines(first)
        self.edits += 1
        later = [line._replace(edited=-self.edits) for line in second.lines]
        others = self.lines(second._replace(lines=later))
        steps = self.produce(lines, first.split)
        list(islice(steps, 1))  # its chunk is sent
        list(self.produce(others, second.split))
        list(steps)
        self.apply(lines, first.split)
        self.apply(others, second.split)

    @rule(id=STRANGERS, text=st.sampled_from(["stranger", "other"]))
    def a_stranger_comes(self, id: str, text: str) -> None:
        self.bench.add((id, text))
        self.held[id] = Job(id, text)

    @rule(id=st.sampled_from(DOCUMENTS))
    def a_document_is_deleted(self, id: str) -> None:
        if self.collection.exists():
            self.collection.delete([id])
            self.held.pop(id, None)
            self.outgrow(id, 0)

    @rule(count=st.integers(1, 20), refused=st.integers(0, 3))
    def work(self, count: int, refused: int) -> None:
        leases = self.bench.claim(count=count)
        self.bench.commit(leases[refused:], leases[:refused])

    @rule()
    def evict(self) -> None:
        if self.collection.exists():
            self.collection.eviction.evict("token", positions(self.bench))

    # What must be

    @invariant()
    def the_collection_holds_exactly_the_last_texts(self) -> None:
        if not self.collection.exists():
            assert not self.held
            return
        ids = {*self.held, *DOCUMENTS}
        ids |= {piece_id(id, n) for id in DOCUMENTS for n in range(1, 8 * MOST)}
        known = self.collection.reader.known(sorted(ids))
        found = {}
        for id, state, evicted in zip(sorted(ids), known.states, known.evicted):
            latest = state.queued or state.stored or state.dead or evicted
            if latest:
                found[id] = latest[:5]
        assert found == {id: text_digest(job.text)[:5] for id, job in self.held.items()}

    def is_exactly(self, lines: list[Job | Rejection], split: bool) -> None:
        """After a run that pruned, verify agrees, whatever was rejected."""
        good = {document_of(line.id or "")[0] for line in lines if isinstance(line, Job)}
        bad = {line.id for line in lines if isinstance(line, Rejection)}
        is_evicted = any(self.collection.reader.known(sorted(self.held)).evicted)
        if is_evicted or good & bad or not self.collection.exists():
            return
        found = verify(
            lines,
            self.collection.reader.states,
            names=self.collection.reader.names(),
            documents=split,
        )
        assert (found.missing, found.surplus) == (0, 0), found
        assert found.texts == found.embedded + found.pending + found.dead

    # The parts of a run

    def lines(self, run: Run) -> list[Job | Rejection]:
        """The corpus, as `Corpus` would give it."""
        made: list[Job | Rejection] = []
        for number, line in enumerate(run.lines, 1):
            words = [f"w{n:03}{line.id[:1]}" for n in range(line.words)]
            words[line.edited % line.words] = f"e{line.edited:03}"
            if line.edited < 0:  # none of them is as in another run
                words = [f"{line.edited}-{n}" for n in range(line.words)]
            text = " ".join(words)
            if line.rejected or not run.split and len(text) > run.size:
                made.append(Rejection(number, line.id, "text: too long", ""))
            else:
                made.append(Job(line.id, text))
        if not run.split:
            return made
        return list(Long("split", size=run.size).apply(made, ""))

    def produce(self, lines: object, split: bool) -> Iterator[Progress]:
        adder = Adder(self.collection.client, self.collection.keys, "m")
        return produce(
            lines,  # type: ignore[arg-type]
            adder,
            self.settings_in_use,
            documents=split,
            rejected=lambda rejection: None,
        )

    def apply(self, lines: list[Job | Rejection], split: bool) -> set[str]:
        """Do the same to the model; returns the ids that the run brought."""
        brought: set[str] = set()
        pieces: dict[str, int] = {}
        before = dict(self.held)
        for line in lines:
            assert line.id is not None
            brought.add(line.id)
            if isinstance(line, Rejection):
                brought |= {id for id, job in before.items() if parent_of(id, job.meta) == line.id}
                continue
            self.held[line.id] = line
            parent = parent_of(line.id, line.meta)
            if split:
                number = pieces.get(parent or line.id, 0) + 1 if parent else 0
                is_first = line.meta is None or line.meta["start"] == 0
                pieces[parent or line.id] = 1 if parent and is_first else number
        for id, number in pieces.items():
            if number:
                self.held.pop(id, None)
            self.outgrow(id, number)
        note(f"{lines} -> {sorted(self.held)}")
        return brought

    def outgrow(self, document: str, pieces: int) -> None:
        """The document has so many pieces, and no more: as far as one id follows the other."""
        number = pieces + 1
        while (id := piece_id(document, number)) in self.held or self.is_beyond(document, number):
            if id in self.held and parent_of(id, self.held[id].meta) == document:
                del self.held[id]
            number += 1

    def is_beyond(self, document: str, number: int) -> bool:
        """Whether the document has pieces behind a gap that was looked into as well, or not."""
        behind = [
            id
            for id, job in self.held.items()
            if parent_of(id, job.meta) == document and id > piece_id(document, number)
        ]
        there = self.collection.reader.known(behind)
        for id, state, evicted in zip(behind, there.states, there.evicted):
            if not (any(state) or evicted):
                del self.held[id]
        return False


def test_a_collection_holds_exactly_the_pieces_of_the_last_texts_in_any_order_of_events(
    settings: Settings,
) -> None:
    Documents.settings_in_use = settings
    run_state_machine_as_test(
        Documents,
        settings=hypothesis_settings(
            max_examples=60,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
