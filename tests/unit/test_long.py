"""Long texts: rejected, cut, or split into pieces that cover the text."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vector_embed_client.http import text_fault
from worker.corpus import Corpus, Reading
from worker.corpus.long import KINDS, Long
from worker.types import Job, Rejection, document_of, parent_of, piece_id

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="semantic-text-splitter needs Python 3.10"
)
SPACE = " \n\t\u00a0\u2003\u0085\u200b\x1c\x1f"
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TEXTS = st.lists(st.one_of(WORDS, st.sampled_from(["\n\n", "# ", "```\n", *SPACE]))).map("".join)


def pieces(long: Long, text: str, id: str = "doc") -> list[Job]:
    jobs = list(long.apply([Job(id, text, {"lang": "en"})], ""))
    assert all(isinstance(job, Job) for job in jobs)
    return [job for job in jobs if isinstance(job, Job)]


@example("\x1c" * 30 + "a" * 30, 10, 0, "text")
@given(TEXTS, st.integers(1, 40), st.integers(0, 39), st.sampled_from(KINDS))
def test_pieces_cover_the_text_in_order_and_none_is_too_long(
    text: str, size: int, overlap: int, kind: str
) -> None:
    long = Long("split", kind, size, min(overlap, size - 1))
    jobs = pieces(long, text)
    if len(text) <= size:
        assert jobs == [Job("doc", text, {"lang": "en"})]
        return
    end = 0
    for number, job in enumerate(jobs, 1):
        assert job.id == piece_id("doc", number)
        meta = dict(job.meta or {})
        assert (meta["parent"], meta["lang"]) == ("doc", "en")
        first, last = int(str(meta["start"])), int(str(meta["end"]))
        assert job.text == text[first:last]
        assert len(job.text) <= size and text_fault(job.text) is None
        assert text[end:first].strip() == "" if first >= end else end - first <= long.overlap
        assert last > end
        end = last
    assert text[end:].strip() == ""


def test_pieces_stay_the_same_while_the_text_before_them_does() -> None:
    long = Long("split", size=100)
    text = " ".join(f"word{n}" for n in range(20_000))
    before = pieces(long, text)
    after = pieces(long, text[:100_000] + "changed" + text[100_000:])
    same = [one == other for one, other in zip(before, after)]
    changed = same.index(False)
    meta = dict(before[changed].meta or {})
    assert int(str(meta["end"])) >= 99_900


def test_a_long_text_takes_time_in_proportion_to_its_length() -> None:
    long = Long("split", "markdown", 1000)
    jobs = pieces(long, "# Heading\n\nSome words of a paragraph.\n\n" * 50_000)
    assert len(jobs) > 1000


def test_a_piece_of_a_long_text_is_as_long_as_if_the_splitter_had_the_whole() -> None:
    splitter = pytest.importorskip("semantic_text_splitter")
    chance = random.Random(1)
    words = ["w" * chance.randrange(1, 12) + chance.choice(" \n.") for _ in range(20_000)]
    text = "".join(words)
    for size, overlap in ((50, 0), (1000, 0), (1000, 200)):
        whole = splitter.TextSplitter(size, overlap).chunk_indices(text)
        found = pieces(Long("split", "text", size, overlap), text)
        assert [(dict(job.meta or {})["start"], job.text) for job in found] == whole


def test_lines_keep_their_order_and_few_are_read_before_they_are_needed() -> None:
    read = 0

    def lines() -> Iterator[Job | Rejection]:
        nonlocal read
        for number in range(200):
            read += 1
            if number % 3 == 0:
                yield Job(f"{number}", "word " * 10_000)
            elif number % 3 == 1:
                yield Job(f"{number}", "short")
            else:
                yield Rejection(number, f"{number}", "text: empty", "")

    seen: dict[str, None] = {}
    for line in Long("split", size=1000).apply(lines(), ""):
        seen[document_of(line.id or "")[0]] = None
        assert read - len(seen) <= 3 * 1_000_000 // 50_000 + 3
    assert list(seen) == [str(number) for number in range(200)]


def test_an_error_among_the_lines_reaches_the_reader() -> None:
    def lines() -> Iterator[Job | Rejection]:
        yield Job("a", "word " * 10_000)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(Long("split", size=1000).apply(lines(), ""))


def lines_of(path: Path, long: Long, *lines: dict[str, object]) -> list[Job | Rejection]:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep = ["parent"] if "parent" in lines[0] else []
    with Corpus(str(path), Reading(keep=keep, long=long)) as corpus:
        return list(corpus)


@pytest.mark.parametrize(("way", "sizes"), [("cut", [10_000]), ("split", [10_000, 2_345])])
def test_a_long_text_is_cut_or_split_where_that_is_asked(
    tmp_path: Path, way: str, sizes: list[int]
) -> None:
    lines = lines_of(tmp_path / "c.jsonl", Long(way), {"id": "a", "text": "x" * 12_345})
    assert [len(line.text) for line in lines if isinstance(line, Job)] == sizes


def test_a_long_text_is_rejected_else_and_the_way_out_is_said(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path / "c.jsonl", Long(), {"id": "a", "text": "x" * 12_345})
    assert isinstance(line, Rejection) and (line.line, line.id) == (1, "a")
    assert line.reason == (
        "text: 12,345 characters, more than 10,000: --long cut or --long split takes it"
    )


@pytest.mark.parametrize("size", [1, 12_345])
@pytest.mark.parametrize("way", ["cut", "split"])
def test_what_is_wrong_otherwise_stays_a_rejection(tmp_path: Path, way: str, size: int) -> None:
    long = Long(way, size=10 if way == "split" else 10_000)
    lines: list[dict[str, object]] = [
        {"id": "a", "text": " " * size},
        {"id": "b", "text": "x" * size + "\ud800"},
    ]
    found = lines_of(tmp_path / "c.jsonl", long, *lines)
    assert [line.id for line in found if isinstance(line, Rejection)] == ["a", "b"]


def test_an_id_or_a_field_that_looks_like_a_piece_s_is_refused_where_texts_are_split(
    tmp_path: Path,
) -> None:
    line: dict[str, object] = {"id": "a#0001", "text": "x", "parent": "a"}
    kept = Job("a#0001", "x", {"parent": "a"})
    assert lines_of(tmp_path / "c.jsonl", Long("cut"), line) == [kept]
    split = Long("split")
    (found,) = lines_of(tmp_path / "c.jsonl", split, line)
    assert isinstance(found, Rejection) and "is like a piece's" in found.reason
    (found,) = lines_of(tmp_path / "c.jsonl", split, {**line, "id": "a"})
    assert isinstance(found, Rejection) and "'parent'" in found.reason
    assert lines_of(tmp_path / "c.jsonl", split, {"id": "a#1", "text": "x"}) == [Job("a#1", "x")]


@pytest.mark.parametrize(
    "options",
    [
        {"way": "chop"},
        {"way": "split", "kind": "html"},
        {"way": "cut", "size": 10},
        {"way": "split", "size": 0},
        {"way": "split", "size": 10_001},
        {"way": "split", "size": 10, "overlap": 10},
        {"way": "split", "overlap": -1},
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Long(**options)  # type: ignore[arg-type]


def test_the_id_of_a_piece_tells_its_document() -> None:
    assert document_of(piece_id("a#0002", 12_345)) == ("a#0002", 12_345)
    for id in ("a#12", "a#0000", "a#00001", "a#\u0661\u0662\u0663\u0664"):
        assert document_of(id) == (id, 0)


@pytest.mark.parametrize(
    ("id", "meta", "parent"),
    [
        ("a#0001", {"parent": "a", "start": 0, "end": 9}, "a"),
        ("a#0001", None, None),
        ("a#0001", {"parent": "b", "start": 0, "end": 9}, None),
        ("a#0001", {"parent": "a", "start": "0", "end": 9}, None),
        ("a#0001", {"parent": "a"}, None),
        ("a", {"parent": "a", "start": 0, "end": 9}, None),
    ],
)
def test_a_piece_is_known_by_its_meta(
    id: str, meta: dict[str, object] | None, parent: str | None
) -> None:
    assert parent_of(id, meta) == parent
