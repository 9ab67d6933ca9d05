"""What a corpus would come to, counted before anything is sent."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner

from vector_embed_client.http import batch_body, encode
from worker.cli import vec_enqueue
from worker.cli.dry_run import plan_page
from worker.corpus.spill import Distinct, Spill
from worker.engine.plan import Plan, Planner
from worker.monitor.figures import size
from worker.settings import parse_rate
from worker.types import Job, Rate, piece_id


@pytest.mark.parametrize("held", [5600, 10**9])
def test_different_values_are_counted_exactly_in_memory_and_out_of_it(held: int) -> None:
    chance = random.Random(1)
    values = [chance.randrange(3000) for _ in range(20_000)]
    distinct = Distinct(held)

    for value in values:
        distinct.add(("wiki", str(value)))

    assert distinct.count() == len(set(values))


def test_a_spill_holds_less_than_12_megabytes() -> None:
    spill = Spill()
    tracemalloc.start()

    for number in range(20_000):
        spill.add(number, bytes(1_000))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000
    assert sum(map(len, spill.read())) == 20_000_000


def test_requests_are_packed_as_the_worker_packs_its_claims() -> None:
    planner = Planner("nomic-v1.5", keep_text=False)
    long = "é" * 10_000  # 20,000 bytes: 49 fit into a request
    for number in range(100):
        planner.add(Job(str(number), f"{number} {long}"[:10_000]), "wiki")
    for number in range(250):
        planner.add(Job(f"short-{number}", f"text {number % 50}"), "wiki")

    plan = planner.plan()

    assert plan.requests == 3 + 3
    assert (plan.texts, plan.ids, plan.distinct) == (350, 350, 150)


def test_of_a_document_that_comes_again_the_last_pieces_count() -> None:
    def plan(documents: bool) -> Plan:
        planner = Planner("m", keep_text=False, documents=documents)
        for version, sizes in enumerate([(5, 0, 2), (3, 4, 0)]):
            for id, pieces in zip("abc", sizes):
                ids = [piece_id(id, n) for n in range(1, pieces + 1)] or [id]
                for one in ids:
                    planner.add(Job(one, f"{version} {one}"), "wiki")
        return planner.plan()

    split = plan(documents=True)
    assert (split.texts, split.documents, split.split) == (16, 3, 2)
    assert split.ids == 3 + 4 + 1
    assert plan(documents=False).ids == 5 + 5 + 3  # of each version some that the other has not
    assert list(
        plan_page("x", split, dimensions=2, high_water=9, quota=None, rate=None, documents=True)
    )[1:3] == [
        "  documents            3  2 of them split",
        "  texts               16  8 of them of documents that come again",
    ]


def test_the_bytes_to_send_are_those_of_the_bodies() -> None:
    texts = [f"text {number} ü" for number in range(7)]
    planner = Planner("m", keep_text=False)
    for number, text in enumerate(texts):
        planner.add(Job(str(number), text), "wiki")

    # A comma a text, one more than in the list.
    assert planner.plan().request_bytes == len(encode(batch_body(texts, "m"))) + 1


def test_a_page_tells_everything_asked() -> None:
    plan = Plan(2_000_000, 12, 1_900_000, 1_500_000, 20_100, 10**9, 6 * 10**8, 0)

    lines = list(
        plan_page(
            "wiki.jsonl",
            plan,
            dimensions=768,
            high_water=1_000_000,
            quota=50_000,
            rate=Rate(10.0, "requests"),
        )
    )

    assert lines == [
        "wiki.jsonl: a dry run, nothing was sent",
        "  texts             2,000,000  100,000 of them under the id of another",
        "  distinct texts    1,500,000  charged once each; twice if two requests overlap",
        "  rejected lines           12",
        "  requests             20,100  1.0 GB to send",
        "  Redis                300 MB  for the queue, of at most 1,000,000 texts",
        "                       7.7 GB  for 1,900,000 vectors of 768 dimensions",
        "  quota               30 days  at 50,000 texts a day",
        "  time            33 min 30 s  at 10.0 requests/s",
        "  It may be less: what is stored, queued or cached already costs nothing.",
    ]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (2e15, "2,000 TB")],
)
def test_bytes_are_shown_in_the_unit_that_fits(number: float, shown: str) -> None:
    assert size(number) == shown


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ("600/min", Rate(10.0, "requests")),
        ("5 requests/s", Rate(5.0, "requests")),
        (" 36000 Texts / hour ", Rate(10.0, "texts")),
        ("43200texts/day", Rate(0.5, "texts")),
        ("0.5/sec", Rate(0.5, "requests")),
    ],
)
def test_a_rate_is_read(said: str, rate: Rate) -> None:
    assert parse_rate(said) == rate


@pytest.mark.parametrize("said", ["", "5", "0/s", "-1/s", "5/week", "5 tokens/s", "x/s", "5/"])
def test_what_is_no_rate_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="a rate is like 600/min"):
        parse_rate(said)


def test_a_dry_run_sends_nothing_writes_nothing_and_needs_neither_redis_nor_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"id": number, "text": "a text"}) for number in range(3)]
    Path("wiki.jsonl").write_text("\n".join([*lines, "broken"]))

    answer = CliRunner().invoke(
        vec_enqueue, ["wiki.jsonl", "--dry-run", "--redis-url", "redis://127.0.0.1:1"]
    )

    assert "  time " not in answer.output  # nobody said a rate
    assert answer.exit_code == 1  # as without --dry-run: a line is rejected
    assert "  distinct texts        1  " in answer.output
    assert "wiki.jsonl:4: rejected: malformed JSON" in answer.output
    assert list(tmp_path.iterdir()) == [tmp_path / "wiki.jsonl"]


def test_the_rate_of_the_environment_is_taken_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECTOR_EMBED_RATE", "1/min")
    Path("wiki.txt").write_text("one\ntwo\n")

    answer = CliRunner().invoke(vec_enqueue, ["wiki.txt", "--dry-run"])
    given = CliRunner().invoke(vec_enqueue, ["wiki.txt", "--dry-run", "--rate", "2 texts/h"])

    assert " 1 min 0 s  at 1.0 requests/min" in answer.output
    assert " 1 h 0 min  at 2.0 texts/h" in given.output


@pytest.mark.parametrize("option", [["--quota", "5"], ["--rate", "5/s"]])
def test_what_belongs_to_a_dry_run_is_refused_without_it(option: list[str]) -> None:
    answer = CliRunner().invoke(vec_enqueue, ["wiki.jsonl", *option])

    assert answer.exit_code == 2
    assert "--quota and --rate go with --dry-run" in answer.output
