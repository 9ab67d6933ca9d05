"""Long texts that are split: a document's pieces follow its text, however it is edited."""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from typing import Any

import pytest
import redis
from shell import Shell
from stored import Bench, vector_of

from worker import Text, enqueue
from worker.corpus.long import Long
from worker.export.surplus import Surplus
from worker.store.connection import given
from worker.store.removal import Documents, Removal
from worker.types import Job, Rejection, document_of, piece_id

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="semantic-text-splitter needs Python 3.10"
)
SIZE = 200
OPTIONS = ("--long", "split", "--chunk-size", str(SIZE))


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A prompt for the model of the bench."""
    shell.environ["VECTOR_EMBED_MODEL"] = "m"
    return shell


def split(bench: Bench, *texts: Text, size: int = SIZE) -> None:
    """Enqueue texts, the long ones in pieces, and embed them."""
    enqueue(texts, "wiki", model="m", long="split", chunk_size=size, settings=bench.settings)
    bench.embed_all()


def text_of(chance: random.Random, words: int) -> str:
    return " ".join(f"w{chance.randrange(10**6)}" for _ in range(words))


def expected(corpus: dict[str, str]) -> dict[str, bytes]:
    """The vector of each id that the collection must have, and no other."""
    jobs = Long("split", size=SIZE).apply([Job(*item) for item in corpus.items()], "")
    return {job.id: vector_of(job.text) for job in jobs if isinstance(job, Job)}


def edited(chance: random.Random, corpus: dict[str, str]) -> dict[str, str]:
    """The corpus with some documents longer, shorter, changed, gone and new."""
    result = {}
    for id, text in corpus.items():
        words = text.split()
        kind = chance.randrange(8)
        if kind == 0:
            continue
        if kind == 1:
            words = words[: chance.randrange(1, len(words) + 1)]
        elif kind == 2:
            words += text_of(chance, chance.randrange(1, 80)).split()
        elif kind == 3:
            words[chance.randrange(len(words))] = "changed"
        result[id] = " ".join(words)
    result[f"new-{chance.randrange(10**9)}"] = text_of(chance, chance.randrange(1, 150))
    return result


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.heavy) for seed in (1, 2))]
)
def test_after_each_edit_the_collection_has_exactly_the_pieces_of_the_corpus(
    bench: Bench, shell: Shell, seed: int
) -> None:
    chance = random.Random(seed)
    corpus = {f"doc-{n}": text_of(chance, chance.randrange(1, 150)) for n in range(30)}
    for _ in range(6):
        before = bench.stored() if bench.collection.exists() else {}
        shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in corpus.items()))
        ran = shell("vec-enqueue", "wiki.jsonl", "--prune", "--yes", *OPTIONS)
        assert ran.returncode == 0, ran.stderr
        wanted = expected(corpus)
        changed = [id for id, vector in wanted.items() if before.get(id) != vector]
        assert bench.status.pending == len(changed)  # only these are paid for
        bench.embed_all()
        assert bench.stored() == wanted
        verified = shell("vec", "verify", "wiki.jsonl", *OPTIONS)
        assert (verified.returncode, verified.stderr) == (0, "")
        corpus = edited(chance, corpus)


def test_a_document_that_becomes_shorter_loses_its_tail_without_prune(bench: Bench) -> None:
    chance = random.Random(1)
    for words in (150, 90, 10, 120, 40):
        text = text_of(chance, words)
        split(bench, ("doc", text), ("other", "stays"))
        ids = set(bench.collection.ids())
        assert ids == {*expected({"doc": text}), "other"}


def test_of_a_document_that_comes_twice_the_last_text_counts(bench: Bench) -> None:
    chance = random.Random(2)
    long, short = text_of(chance, 150), text_of(chance, 40)
    for first, last in ((long, short), (short, long), (long, "word"), ("word", long)):
        split(bench, ("doc", first), ("doc", last))
        assert set(bench.collection.ids()) == set(expected({"doc": last}))


def test_a_rejected_document_keeps_its_pieces(bench: Bench, shell: Shell) -> None:
    text = text_of(random.Random(3), 150)
    shell.write("wiki.jsonl", {"id": "doc", "text": text})
    assert shell("vec-enqueue", "wiki.jsonl", *OPTIONS).returncode == 0
    bench.embed_all()
    shell.write("wiki.jsonl", {"id": "doc", "text": " "}, {"id": "other", "text": "x"})
    assert shell("vec-enqueue", "wiki.jsonl", "--prune", "--yes", *OPTIONS).returncode == 1
    bench.embed_all()
    assert {document_of(id)[0] for id in bench.collection.ids()} == {"doc", "other"}


def test_meta_says_where_a_piece_is(bench: Bench) -> None:
    text = text_of(random.Random(4), 100)
    split(bench, {"id": "doc", "text": text, "lang": "en"})
    for record in bench.collection:
        meta = dict(record.meta or {})
        assert (meta["parent"], meta["lang"]) == ("doc", "en")
        assert 0 < int(str(meta["end"])) - int(str(meta["start"])) <= SIZE


def test_options_of_pieces_go_with_split_alone(shell: Shell) -> None:
    shell.write("wiki.jsonl", {"id": "doc", "text": "x"})
    for options, said in (
        (["--long", "cut", "--overlap", "10"], "go with --long split"),
        (["--long", "split", "--chunk-size", "10", "--overlap", "10"], "less than --chunk-size"),
    ):
        for command in (("vec-enqueue",), ("vec", "verify")):
            ran = shell(*command, "wiki.jsonl", *options)
            assert ran.returncode == 2 and said in ran.stderr


class Breaking(redis.Redis):
    """A connection that breaks before the step after so many, `breaks` times."""

    steps = 0
    breaks = 1_000_000

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "EVALSHA":
            if self.steps == 0 and self.breaks:
                self.breaks -= 1
                raise redis.ConnectionError("cut")
            self.steps = max(0, self.steps - 1)
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@pytest.mark.heavy
def test_an_interrupted_removal_of_a_tail_leaves_no_gap(bench: Bench) -> None:
    split(bench, ("doc", "x" * 600), size=1)
    client: Any = Breaking.from_url(bench.settings.redis_url)
    removal = Removal(given(client), bench.collection.keys)
    left = {600}
    for steps in range(597, 608):
        client.steps = steps
        with suppress(redis.ConnectionError):
            removal.delete_outgrown({"doc": 2})
        ids = set(bench.collection.ids())
        assert ids == {piece_id("doc", number + 1) for number in range(len(ids))}
        left.add(len(ids))
    assert min(left) == 2 and len(left) > 2


def test_a_redis_that_is_away_for_a_moment_does_not_end_a_run_at_a_rejected_line(
    bench: Bench,
) -> None:
    split(bench, ("doc", text_of(random.Random(5), 100)))
    client: Any = Breaking.from_url(bench.settings.redis_url)
    client.steps = 10
    surplus = Surplus(given(client), bench.collection.keys)
    client.steps, client.breaks = 0, 2
    lines = list(surplus.watch([Rejection(1, "doc", "empty", "")]))
    assert len(lines) == 1 and client.breaks == 0
    client.steps = 100
    assert surplus.find(None).surplus == 0


def test_of_a_document_that_comes_again_much_later_the_last_text_counts(bench: Bench) -> None:
    def run(lag: int, *ids: str) -> None:
        documents = Documents(
            Removal(bench.collection.client, bench.collection.keys), lag, lambda step: step()
        )
        for job in documents.watch(Job(id, f"text {id}") for id in ids):
            bench.add((job.id, job.text))
        documents.end()
        bench.embed_all()

    for lag in (1, 2):  # at once, and when two others were read
        run(lag, "doc#0001", "doc#0002", "other", "doc", "more", "last")
        assert set(bench.collection.ids()) == {"doc", "other", "more", "last"}
