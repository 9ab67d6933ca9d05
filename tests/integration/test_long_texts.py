"""Long texts that are split: a document's pieces follow its text, however it is edited."""

from __future__ import annotations

import json
import random
import sys
from contextlib import suppress
from typing import Any

import pytest
import redis
from shell import Shell
from stored import Bench, ids, positions, vector_of

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
    return {job.id: vector_of(job.text) for job in pieces_of(corpus)}


def pieces_of(corpus: dict[str, str]) -> list[Job]:
    jobs = Long("split", size=SIZE).apply([Job(*item) for item in corpus.items()], "")
    return [job for job in jobs if isinstance(job, Job)]


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


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(3))
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
        metas = {record.id: record.meta for record in bench.collection}
        assert metas == {job.id: job.meta for job in pieces_of(corpus)}
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


def test_pieces_that_only_moved_are_not_paid_for_and_say_where_they_are(bench: Bench) -> None:
    parts = ["one " * 40, "two " * 40, "three " * 30]
    split(bench, ("doc", "\n\n".join(parts)))
    parts[0] = "one " * 35
    text = "\n\n\n".join(parts)
    enqueue(
        [("doc", text)], "wiki", model="m", long="split", chunk_size=SIZE, settings=bench.settings
    )
    assert ids(bench.claim()) == ["doc#0001"]
    bench.kill("c")
    bench.embed_all()
    for record in bench.collection:
        meta: Any = record.meta
        assert vector_of(text[meta["start"] : meta["end"]]) == record.tobytes()


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


def test_a_program_is_told_of_an_id_that_looks_like_a_piece_s(bench: Bench) -> None:
    texts: list[Text] = [("doc#0001", "x"), Job("other#10000", "x"), ("doc#0000", "fine")]
    texts += [{"id": "a", "text": "x", "parent": "p"}, ("doc#1", "fine")]
    receipt = enqueue(texts, "wiki", long="split", settings=bench.settings)
    assert (receipt.new, receipt.rejected) == (2, 3)
    assert [rejection.reason for rejection in receipt.rejections] == [
        "id: 'doc#0001' is like a piece's: rename it, or do not split long texts",
        "id: 'other#10000' is like a piece's: rename it, or do not split long texts",
        "kept fields: pieces have their own 'parent': do not keep it",
    ]
    assert enqueue(texts, "wiki", settings=bench.settings).rejected == 0


def test_documents_in_two_files_are_counted_as_documents(bench: Bench, shell: Shell) -> None:
    chance = random.Random(9)
    for name in ("one.jsonl", "two.jsonl"):
        shell.write(name, *({"id": id, "text": text_of(chance, 150)} for id in ("doc", name)))
    ran = shell("vec-enqueue", "one.jsonl", "two.jsonl", "--collection", "wiki", *OPTIONS)
    assert "Warning: wiki: 1 id in more than one source" in ran.stderr


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
    born, seq, *_ = bench.collection.reader.known([])
    left = {600}
    for steps in range(16):
        client.steps = steps
        with suppress(redis.ConnectionError):
            removal.delete_outgrown({"doc": 2}, born, seq)
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
    assert surplus.find().surplus == 0


def test_of_a_document_that_comes_again_the_last_text_counts_wherever_a_chunk_ends(
    bench: Bench,
) -> None:
    ids = [*["doc#0001", "doc#0002", "doc#0003", "other", "doc#0001", "doc#0002", "more"], "last"]
    for size in range(1, len(ids) + 1):
        adder = bench.collection.adder()
        documents = Documents(bench.collection.removal, lambda step: step())
        chunks = [
            [Job(id, f"{n} {id}", PIECE if "#" in id else None) for id in ids[n : n + size]]
            for n in range(0, len(ids), size)
        ]
        for chunk, following in zip(chunks, [*chunks[1:], []]):
            adder.add(chunk)
            documents.settle(chunk, following, adder.born, adder.seq)
        bench.embed_all()
        wanted = {"doc#0001", "doc#0002", "other", "more", "last"}
        assert set(bench.collection.ids()) == wanted, size


def test_reports_speak_of_documents_and_their_pieces(bench: Bench, shell: Shell) -> None:
    chance = random.Random(8)
    corpus = {"doc": text_of(chance, 150), "short": "word", "late": text_of(chance, 60)}
    jobs = [{"id": id, "text": text} for id, text in corpus.items()]
    shell.write("wiki.jsonl", *jobs[:2])
    planned = shell("vec-enqueue", "wiki.jsonl", "--dry-run", *OPTIONS).stdout.splitlines()
    pieces = sum(id.startswith("doc#") for id in expected(corpus))
    assert planned[1].split() == ["documents", "2", "1", "of", "them", "split"]
    assert planned[2].split() == ["texts", f"{pieces + 1}"]
    shell("vec-enqueue", "wiki.jsonl", *OPTIONS)
    enqueue([("old#0001", "a stranger")], "wiki", settings=bench.settings)
    leases = bench.claim()
    refused = [lease for lease in leases if lease.job.id in ("doc#0002", "doc#0003")]
    bench.commit([lease for lease in leases if lease not in refused], refused)
    shell.write("wiki.jsonl", *jobs)
    ran = shell("vec", "verify", "wiki.jsonl", *OPTIONS)
    late = sum(id.startswith("late#") for id in expected(corpus))
    numbers = ", ".join(str(n) for n in range(1, late + 1))
    assert ran.stderr.splitlines() == [
        "dead: doc (pieces 2, 3)",
        f"missing: late (pieces {numbers})",
        "surplus: old#0001",
    ]
    assert ran.stdout == (
        f"wiki: {pieces - 1} of {pieces + 1 + late} texts in 3 documents embedded, 0 pending, "
        f"2 dead, {late} missing, 1 surplus; 0 lines rejected\n"
    )
    meta = dict(refused[0].job.meta or {})
    table = shell("vec", "dead", "wiki").stdout
    assert f"refuses it (characters {meta['start']} to {meta['end']} of doc)" in table
    letters = json.loads(shell("vec", "dead", "wiki", "--json").stdout)
    assert sorted((one["id"], one["document"]) for one in letters) == [
        *[("doc#0002", "doc"), ("doc#0003", "doc")]
    ]


def test_a_document_in_two_chunks_loses_nothing_that_comes_in_the_second(bench: Bench) -> None:
    pieces = [Job(piece_id("doc", n), f"text {n}", PIECE) for n in range(1, 5)]
    put(bench, "embedded", *pieces)
    adder = bench.collection.adder()
    documents = Documents(bench.collection.removal, lambda step: step())
    added = []
    for chunk, following in ((pieces[:2], pieces[2:3]), (pieces[2:3], [])):
        added.append(adder.add(chunk))
        documents.settle(chunk, following, adder.born, adder.seq)
    assert [(one.new, one.unchanged) for one in added] == [(0, 2), (0, 1)]
    assert set(bench.stored()) == {"doc#0001", "doc#0002", "doc#0003"}


@pytest.mark.heavy
def test_an_evicted_document_that_becomes_shorter_loses_its_tail_in_the_folder_too(
    bench: Bench, shell: Shell
) -> None:
    chance = random.Random(10)
    corpus = {"doc": text_of(chance, 150), "other": text_of(chance, 100), "short": "word"}

    def edition(**changed: str) -> str:
        corpus.update(changed)
        shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in corpus.items()))
        assert shell("vec-enqueue", "wiki.jsonl", *OPTIONS).returncode == 0
        bench.embed_all()
        said = shell("vec", "export", "wiki", "-o", "out/", "--evict").stdout
        verified = shell("vec", "verify", "wiki.jsonl", "--export", "out", *OPTIONS)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return said

    assert "tombstones" not in edition()
    tail = [id for id in expected(corpus) if id.startswith("doc#")][3:]
    assert f"{len(tail)} tombstones" in edition(doc=corpus["doc"][:450])
    assert held(bench, *tail) == []


# A piece is known by its meta, not by its id


PIECE: dict[str, object] = {"parent": "doc", "start": 0, "end": 9}
STATES = ("queued", "leased", "embedded", "dead", "evicted")


def put(bench: Bench, state: str, *jobs: Job) -> None:
    """Enqueue jobs, each a text of its own, and bring them into a state."""
    bench.collection.adder().add(jobs)
    if state == "leased":
        bench.claim("holder")
    elif state != "queued":
        bench.embed_all(refuse=[job.text for job in jobs] if state == "dead" else [])
    if state == "evicted":
        of_them = [one for one in positions(bench) if one.id in {job.id for job in jobs}]
        assert bench.collection.eviction.evict("token", of_them) == len(jobs)


def held(bench: Bench, *ids: str) -> list[str]:
    """Those of the ids that are there."""
    known = bench.collection.reader.known(ids)
    parts = zip(ids, known.states, known.evicted)
    return [id for id, state, evicted in parts if any(state) or evicted]


@pytest.mark.parametrize("state", STATES)
def test_only_what_is_a_piece_of_a_document_is_deleted_as_its_tail(
    bench: Bench, state: str
) -> None:
    numbers = range(1, 40)
    strange: dict[int, dict[str, object] | None] = {
        3: None,
        7: {"parent": "other", "start": 0, "end": 9},
        8: {"parent": "doc"},
        20: {"title": "doc", "nested": {"parent": "doc", "start": 0, "end": 9}},
    }
    jobs = [Job(piece_id("doc", n), f"text {n}", strange.get(n, PIECE)) for n in numbers]
    put(bench, state, *jobs)
    adder = bench.collection.adder()
    adder.add([Job(piece_id("doc", n), f"new {n}", PIECE) for n in (1, 2)])
    bench.collection.removal.delete_outgrown({"doc": 2}, adder.born, adder.seq)
    ids = [piece_id("doc", n) for n in numbers]
    kept = [piece_id("doc", n) for n in (1, 2, *strange)]
    assert held(bench, *ids) == kept
    assert bench.collection.delete(["doc"]) == 2
    assert held(bench, *ids) == kept[2:]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("words", [1, 60])
def test_a_stranger_with_the_id_of_a_piece_stays_beside_a_document(
    bench: Bench, state: str, words: int
) -> None:
    put(bench, state, Job("doc#0009", "a stranger"), Job("doc#0010", "another"))
    if words > 1:
        put(bench, state, *(Job(piece_id("doc", n), f"stranger {n}") for n in range(5, 9)))
    text = text_of(random.Random(6), words)
    enqueue(
        [("doc", text)], "wiki", model="m", long="split", chunk_size=SIZE, settings=bench.settings
    )
    assert held(bench, "doc#0009", "doc#0010") == ["doc#0009", "doc#0010"]


def test_the_later_text_of_another_producer_is_no_tail(bench: Bench) -> None:
    ours, other = bench.collection.adder(), bench.collection.adder()
    pieces = [Job(piece_id("doc", n), f"text {n}", PIECE) for n in range(1, 9)]
    ours.add(pieces[:6])
    ours.add(pieces[:2])
    other.add([job._replace(text=f"later {job.id}") for job in pieces[3:]])
    documents = Documents(bench.collection.removal, lambda step: step())
    documents.settle(pieces[:2], [], ours.born, ours.seq)
    assert held(bench, *(job.id for job in pieces)) == [
        job.id for job in pieces if job.id != "doc#0003"
    ]


def test_a_tail_costs_few_requests_however_long_it_is(bench: Bench) -> None:
    put(bench, "queued", *(Job(piece_id("doc", n), f"t {n}", PIECE) for n in range(1, 801)))
    client: Any = Breaking.from_url(bench.settings.redis_url)
    client.steps = 1000
    born, seq, *_ = bench.collection.reader.known([])
    removal = Removal(given(client), bench.collection.keys)
    removal.delete_outgrown({"doc": 1, **{f"short {n}": 0 for n in range(249)}}, born, seq)
    assert held(bench, "doc#0001", "doc#0002", "doc#0800") == ["doc#0001"]
    assert 1000 - client.steps <= 16


def test_a_deleted_document_leaves_with_its_pieces(bench: Bench, shell: Shell) -> None:
    chance = random.Random(7)
    split(bench, ("doc", text_of(chance, 150)), ("other", text_of(chance, 150)), ("x", "x"))
    bench.add(("x#0001", "a stranger"))
    bench.embed_all()
    before = set(bench.collection.ids())
    pieces = [id for id in before if id.startswith("doc#")]
    ran = shell("vec", "delete", "wiki", "doc", "x", pieces[0])
    assert ran.stdout == f"wiki: {len(pieces) + 1} ids deleted\n"
    assert set(bench.collection.ids()) == before - {*pieces, "x"}
