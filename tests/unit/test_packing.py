"""Texts are packed into as few requests as both limits allow, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vector_embed_client.calls import Packer, pack
from vector_embed_client.http import (
    MAX_BATCH_SIZE,
    MAX_BODY_BYTES,
    batch_body,
    encode,
    text_bytes,
)

MODEL = "nomic-v1.5"
pieces = st.sampled_from(["a", "é", "\x00", '"', "\U0001f600", "a b"])
texts = st.builds(lambda piece, times: piece * times, pieces, st.integers(1, 3300))


@given(st.lists(texts, max_size=300))
def test_batches_keep_order_fit_the_limits_and_could_take_no_more(found: list[str]) -> None:
    batches = list(pack(found, MODEL))
    assert [text for batch in batches for text in batch] == found
    for batch in batches:
        assert 1 <= len(batch) <= MAX_BATCH_SIZE
        assert len(encode(batch_body(batch, MODEL))) <= MAX_BODY_BYTES
    for batch, after in zip(batches, batches[1:]):
        one_more = len(encode(batch_body([*batch, after[0]], MODEL)))
        # The comma that the last text does not need is counted: one byte of a million.
        assert len(batch) == MAX_BATCH_SIZE or one_more + 1 > MAX_BODY_BYTES


def test_the_largest_text_fits_alone() -> None:
    largest = "\x00" * 10_000
    assert text_bytes(largest) == 60_003
    assert [len(batch) for batch in pack([largest] * 20, MODEL)] == [16, 4]


def test_a_long_name_of_a_model_takes_its_room() -> None:
    model = "m" * 30_000
    batches = list(pack(["a" * 10_000] * 200, model))
    assert max(len(encode(batch_body(batch, model))) for batch in batches) <= MAX_BODY_BYTES


def test_a_batch_is_given_as_soon_as_it_is_full() -> None:
    packer = Packer(MODEL)
    full = [packer.add("a") for _ in range(100)]
    assert full[:99] == [[]] * 99
    assert full[99] == [["a"] * 100]
    assert packer.rest() == []


def test_nothing_is_no_batch() -> None:
    assert list(pack([], MODEL)) == []
