"""Batches keep both limits of a request, whatever the texts."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.batching import items_of, pack
from worker.types import Job, Lease

MODEL = "nomic-v1.5"
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
        st.sampled_from("aé漢😀\x00").map(lambda character: character * 10_000),
    ),
    max_size=250,
)


def lease(number: int, text: str, attempts: int = 0) -> Lease:
    return Lease(f"1-{number}".encode(), Job(str(number), text), attempts, 0)


@given(TEXTS)
def test_every_batch_fits_one_request(texts: list[str]) -> None:
    for batch in pack([lease(n, text) for n, text in enumerate(texts)], MODEL):
        body = {"texts": [item.text for item in batch], "model": "nomic-v1.5", "public": False}
        encoded = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        assert 1 <= len(batch) <= 100
        assert len(encoded) <= 1_000_000


@given(TEXTS)
def test_every_lease_is_in_exactly_one_batch_beside_its_own_text(texts: list[str]) -> None:
    leases = [lease(n, text) for n, text in enumerate(texts)]
    packed = [
        (one.job.id, item.text)
        for batch in pack(leases, MODEL)
        for item in batch
        for one in item.leases
    ]
    assert sorted(packed) == sorted((one.job.id, one.job.text) for one in leases)


def test_texts_of_the_largest_size_burst_the_byte_limit_before_the_count() -> None:
    texts = [f"{n:04d}" + "x" * 9_996 for n in range(100)]
    leases = [lease(n, text) for n, text in enumerate(texts)]
    sizes = [len(batch) for batch in pack(leases, MODEL)]
    assert len(sizes) == 2
    assert sum(sizes) == 100


def test_equal_texts_share_one_slot() -> None:
    items = items_of([lease(0, "a"), lease(1, "b"), lease(2, "a")])
    assert [(item.text, len(item.leases)) for item in items] == [("a", 2), ("b", 1)]


def test_a_text_that_failed_alone_is_sent_alone_and_last() -> None:
    batches = list(pack([lease(0, "suspect", attempts=1), lease(1, "a"), lease(2, "b")], MODEL))
    assert [[item.text for item in batch] for batch in batches] == [["a", "b"], ["suspect"]]
