"""Verification says of every id what became of its last line, however many there are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.export.verify import Verification, verify
from worker.types import Job, Position, Rejection, State, piece_id, text_digest

NOTHING = State(None, None, None)


def queued(text: str) -> bytes:
    return text_digest(text)[:8]


def outcome(text: str, state: State) -> str:
    """The one kind that a single text in that state is counted as."""
    result = verify([Job("a", text)], lambda ids: [state])
    counts = {
        "embedded": result.embedded,
        "pending": result.pending,
        "dead": result.dead,
        "missing": result.missing,
    }
    (kind,) = [kind for kind, count in counts.items() if count]
    assert result.texts == sum(counts.values()) == 1
    assert result.complete == (kind == "embedded")
    return kind


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (State(text_digest("new"), None, None), "embedded"),
        (State(text_digest("new"), queued("new"), None), "embedded"),
        (State(text_digest("new"), queued("old"), None), "missing"),
        (State(text_digest("new"), None, text_digest("new")), "embedded"),
        (State(text_digest("old"), None, None), "missing"),
        (State(text_digest("old"), queued("new"), None), "pending"),
        (State(None, queued("new"), text_digest("new")), "pending"),
        (State(None, queued("old"), text_digest("new")), "dead"),
        (State(None, None, text_digest("new")), "dead"),
        (State(None, None, text_digest("old")), "missing"),
        (NOTHING, "missing"),
    ],
)
def test_a_text_counts_as_what_its_id_says_of_exactly_that_text(state: State, kind: str) -> None:
    assert outcome("new", state) == kind


def test_the_last_line_of_an_id_decides() -> None:
    stored = [State(text_digest("second"), None, None)]
    lines = [Job("a", "first"), Job("a", "second")]
    assert verify(lines, lambda ids: stored).complete
    assert verify(reversed(lines), lambda ids: stored).missing_ids == ("a",)


def test_a_rejected_line_makes_the_verification_incomplete_and_is_shown() -> None:
    rejection = Rejection(2, None, "text: empty", '{"text": ""}')
    result = verify([Job("a", "x"), rejection], lambda ids: [State(text_digest("x"), None, None)])
    assert (result.texts, result.embedded, result.rejected) == (1, 1, 1)
    assert result.rejections == (rejection,)
    assert not result.complete


def test_an_empty_corpus_is_complete_and_asks_nothing() -> None:
    def never(ids: Sequence[str]) -> Sequence[State]:
        raise AssertionError(ids)

    assert verify([], never) == Verification(0, 0, 0, 0, 0, 0, (), (), (), ())
    assert verify([], never).complete


def test_samples_are_ten_at_most_and_counts_are_whole() -> None:
    lines = [Job(str(number), "x") for number in range(50)]
    rejections = [Rejection(number, None, "text: empty", "") for number in range(1, 31)]
    result = verify([*lines, *rejections], lambda ids: [NOTHING] * len(ids))
    assert (result.missing, len(result.missing_ids)) == (50, 10)
    assert (result.rejected, len(result.rejections)) == (30, 10)
    assert set(result.missing_ids) <= {job.id for job in lines}


def test_every_id_is_asked_once_and_a_thousand_at_a_time() -> None:
    asked: list[str] = []

    def states(ids: Sequence[str]) -> Sequence[State]:
        assert 0 < len(ids) <= 1000
        asked.extend(ids)
        return [NOTHING] * len(ids)

    result = verify((Job(f"id {number % 2500}", "x") for number in range(5000)), states)
    assert result.missing == 2500
    assert sorted(asked) == sorted({f"id {number}" for number in range(2500)})


def test_too_few_states_are_an_error_and_never_a_guess() -> None:
    with pytest.raises(ValueError, match="1 states for 2 ids"):
        verify([Job("a", "x"), Job("b", "x")], lambda ids: [NOTHING])


def test_a_corpus_larger_than_memory_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spilled = False

    def states(ids: Sequence[str]) -> Sequence[State]:
        nonlocal spilled
        spilled = spilled or any(tmp_path.iterdir())
        return [NOTHING] * len(ids)

    lines = (Job(f"id {number}", "x") for number in range(1000))
    assert verify(lines, states, in_memory=100).missing == 1000
    assert spilled
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "filed", "surplus"),
    [
        (State(text_digest("text"), None, None), None, 1),
        (State(None, queued("text"), None), None, 1),
        (State(None, None, text_digest("text")), None, 1),
        (NOTHING, "text", 1),
        (State(text_digest("text"), queued("new"), None), "old", 1),
        (NOTHING, None, 0),  # it left while the corpus was read
    ],
)
def test_an_id_that_is_held_and_not_in_the_corpus_is_surplus(
    state: State, filed: str | None, surplus: int
) -> None:
    def states(ids: Sequence[str]) -> Sequence[State]:
        return [state if id == "b" else State(text_digest("x"), None, None) for id in ids]

    exported = [] if filed is None else [Position(1, "b", text_digest(filed))]
    corpus: list[Job | Rejection] = [Job("a", "x"), Rejection(2, "r", "text: empty", "")]
    result = verify(corpus[:1], states, exported, names=["a", "b"])
    assert (result.surplus, result.surplus_ids) == (surplus, ("b",) * surplus)
    assert (result.texts, result.complete) == (1, not surplus)
    rejected = verify(corpus, states, exported, names=["a", "b", "r"], in_memory=1)
    assert rejected.surplus_ids == result.surplus_ids
    assert verify(corpus[:1], states, exported).complete  # surplus is allowed


@pytest.mark.parametrize("in_memory", [1, 3, 1000])
@pytest.mark.parametrize("sizes", [(5, 2), (2, 5), (3, 0), (0, 3), (4, 0, 2), (0, 4, 1), (3, 3)])
def test_of_a_document_that_comes_twice_the_last_pieces_count(
    sizes: Sequence[int], in_memory: int
) -> None:
    versions = [
        [Job(piece_id("doc", n), f"{round} {n}") for n in range(1, size + 1)]
        or [Job("doc", f"{round}")]
        for round, size in enumerate(sizes)
    ]
    stored = {job.id: text_digest(job.text) for job in versions[-1]}
    held = [piece_id("doc", 3), "doc", *stored]

    def states(ids: Sequence[str]) -> Sequence[State]:
        return [State(stored.get(id), None, None) for id in ids]

    jobs = [job for jobs in versions for job in [*jobs, Job("other", "missing")]]
    result = verify(jobs, states, names=held, documents=True, in_memory=in_memory)
    assert (result.embedded, result.missing, result.surplus) == (len(stored), 1, 0)
    assert result.missing_ids == ("other",)
    assert result.documents == 2


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("in_memory", [1, 1000])
def test_neither_a_rejected_id_nor_the_pieces_of_a_rejected_document_are_surplus(
    in_memory: int, documents: bool
) -> None:
    held = ["doc#0001", "doc#0002", "gone#0001", "other#0003"]
    lines: list[Job | Rejection] = [
        Rejection(1, "other#0003", "id: is like a piece's", ""),
        Rejection(2, "doc", "text: empty", ""),
        Job("other", "x"),
    ]
    result = verify(
        lines,
        lambda ids: [State(text_digest("x"), None, None) for _ in ids],
        names=held,
        documents=documents,
        in_memory=in_memory,
    )
    assert (result.texts, result.embedded, result.rejected) == (1, 1, 2)
    assert result.surplus_ids == ("gone#0001",)
    assert result.documents == (1 if documents else None)


texts = st.sampled_from(["one", "two", "three"])
ids = st.one_of(
    st.integers(0, 30).map(str),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
)
optional_text = st.none() | texts


@given(
    lines=st.lists(
        st.builds(Job, ids, texts) | st.builds(Rejection, st.integers(1), st.none(), ids, ids),
        max_size=80,
    ),
    stored=st.dictionaries(ids, texts),
    waiting=st.dictionaries(ids, texts),
    dead=st.dictionaries(ids, texts),
    in_memory=st.sampled_from([1, 5, 1000]),
)
def test_verification_equals_a_plain_dict_of_the_last_lines(
    lines: list[Job | Rejection],
    stored: dict[str, str],
    waiting: dict[str, str],
    dead: dict[str, str],
    in_memory: int,
) -> None:
    def states(ids: Sequence[str]) -> Sequence[State]:
        return [
            State(
                text_digest(stored[id]) if id in stored else None,
                queued(waiting[id]) if id in waiting else None,
                text_digest(dead[id]) if id in dead else None,
            )
            for id in ids
        ]

    last = {line.id: line.text for line in lines if isinstance(line, Job)}
    kinds: dict[str, set[str]] = {"embedded": set(), "pending": set(), "dead": set()}
    for id, text in last.items():
        if stored.get(id) == text and waiting.get(id, text) == text:
            kinds["embedded"].add(id)
        elif waiting.get(id) == text:
            kinds["pending"].add(id)
        elif dead.get(id) == text:
            kinds["dead"].add(id)
    rejected = [line for line in lines if isinstance(line, Rejection)]

    result = verify(lines, states, in_memory=in_memory)

    assert result.texts == len(last)
    assert result.embedded == len(kinds["embedded"])
    assert result.pending == len(kinds["pending"])
    assert result.dead == len(kinds["dead"])
    assert result.missing == len(last) - sum(map(len, kinds.values()))
    assert result.rejected == len(rejected)
    assert result.rejections == tuple(rejected[:10])
    assert set(result.pending_ids) <= kinds["pending"]
    assert result.complete == (result.embedded == len(last) and not rejected)


# Exported files


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (NOTHING, "embedded"),
        (State(None, queued("text"), None), "embedded"),
        (State(text_digest("text"), None, None), "embedded"),
        (State(None, queued("other"), None), "missing"),
        (State(text_digest("other"), None, None), "missing"),
        (State(None, None, text_digest("other")), "missing"),
        (State(None, None, text_digest("text")), "dead"),
    ],
)
def test_a_vector_in_a_file_counts_unless_redis_knows_of_a_later_text(
    state: State, kind: str
) -> None:
    exported = [Position(1, "a", text_digest("text"))]

    result = verify([Job("a", "text")], lambda ids: [state], exported)

    assert getattr(result, kind) == 1
    assert result.exported == (kind == "embedded" and state.stored is None)


@given(
    lines=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["x", "y"]))),
    files=st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from(["x", "y"]))),
    in_memory=st.sampled_from([1, 3, 1000]),
)
def test_the_last_vector_of_the_files_and_the_last_line_of_an_id_count(
    lines: list[tuple[str, str]], files: list[tuple[str, str]], in_memory: int
) -> None:
    result = verify(
        [Job(id, text) for id, text in lines],
        lambda ids: [NOTHING] * len(ids),
        [Position(n, id, text_digest(text)) for n, (id, text) in enumerate(files)],
        in_memory=in_memory,
    )

    expected = sum(dict(files).get(id) == text for id, text in dict(lines).items())
    assert (result.texts, result.embedded, result.exported) == (
        len(dict(lines)),
        expected,
        expected,
    )
