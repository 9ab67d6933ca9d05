"""The layouts: what is kept of a vector, and how it is read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.layout import (
    DTYPES,
    PLAIN,
    SIZES,
    Layout,
    LayoutError,
    asked,
    decode,
    lengths_of,
    memory,
)
from worker.local.vectors import WORDLLAMA_DIMENSIONS, WORDLLAMA_MODEL

NOMIC = "nomic-v1.5"

layouts = st.builds(
    Layout,
    st.sampled_from([NOMIC, WORDLLAMA_MODEL, "m"]),
    st.sampled_from([None, 1, 64, 256, 768]),
    st.sampled_from(DTYPES),
)


@st.composite
def batches(draw: st.DrawFn) -> NDArray[np.float32]:
    """Vectors as an API may answer: of any scale, none of them zero or of one number alone."""
    count, length = draw(st.integers(1, 5)), draw(st.sampled_from([8, 64, 256, 768]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = np.float32(10.0) ** draw(st.integers(-30, 30))
    rows: NDArray[np.float32] = random.standard_normal((count, length)).astype(np.float32) * scale
    return rows


def cosines(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    one, other = rows.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products: NDArray[np.float64] = (one * other).sum(axis=1) / lengths
    return products


@given(layouts, batches())
def test_a_layout_keeps_the_direction_of_a_vector_and_its_own_number_of_bytes(
    layout: Layout, rows: NDArray[np.float32]
) -> None:
    answered = rows.shape[1]
    stored = layout.encode(rows)
    assert {len(data) for data in stored} == {layout.size(answered)}
    read = decode(b"".join(stored), layout.dtype, len(stored))
    assert read.shape == (len(rows), layout.length(answered)) and read.dtype == np.float32
    if layout.is_plain:
        assert stored == [row.tobytes() for row in rows]
        return
    # int8 rounds by at most 1/254 of the greatest number.
    least = {"float32": 0.999_999, "float16": 0.999_99, "int8": 0.999}[layout.dtype]
    assert (cosines(read, layout.cut(rows)) > least).all()
    assert np.allclose(np.linalg.norm(read, axis=1), 1, atol=1e-3)


@given(layouts, batches())
def test_a_vector_is_stored_the_same_whichever_others_are_beside_it(
    layout: Layout, rows: NDArray[np.float32]
) -> None:
    assert layout.encode(rows) == [layout.encode(row[None])[0] for row in rows]


@given(layouts, batches())
def test_what_is_in_a_layout_already_stays_the_same(
    layout: Layout, rows: NDArray[np.float32]
) -> None:
    stored = layout.encode(rows)
    read = decode(b"".join(stored), layout.dtype, len(stored))
    again = decode(b"".join(layout.encode(read)), layout.dtype, len(stored))
    assert np.allclose(again, read, atol=1e-3) and (cosines(again, read) > 0.999_99).all()


@given(st.sampled_from(DTYPES), st.sampled_from([512, 256, 128, 64]), batches())
def test_a_layout_can_be_made_smaller_again(
    dtype: str, length: int, rows: NDArray[np.float32]
) -> None:
    first = Layout(NOMIC, None, dtype)
    between = decode(b"".join(first.encode(rows)), dtype, len(rows))
    last = Layout(NOMIC, length, "float16")
    twice = decode(b"".join(last.encode(between)), "float16", len(rows))
    once = decode(b"".join(last.encode(rows)), "float16", len(rows))
    assert (cosines(once, twice) > 0.995).all()


def test_nomic_is_cut_as_its_model_card_says_and_others_are_cut_alone() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 768)).astype(np.float32) + 0.5
    normed = (rows - rows.mean(axis=1, keepdims=True)) / np.sqrt(rows.var(axis=1, keepdims=True))
    for model, before in ((NOMIC, normed), ("nomic-ai/nomic-embed-text-v1.5", normed), ("m", rows)):
        expected = before[:, :256] / np.linalg.norm(before[:, :256], axis=1, keepdims=True)
        assert np.allclose(Layout(model, 256).cut(rows), expected, atol=1e-5)
    whole = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.allclose(Layout(NOMIC, None, "float16").cut(rows), whole, atol=1e-6)
    # What was cut before had its layer norm then.
    once, twice = Layout(NOMIC, 128).cut(rows), Layout(NOMIC, 128).cut(Layout(NOMIC, 256).cut(rows))
    assert np.allclose(once, twice, atol=1e-6)


def test_a_vector_of_which_a_cut_leaves_nothing_is_found() -> None:
    rows = np.ones((2, 8), np.float32)
    rows[1, :4] = 0
    assert Layout("m", 4).can_keep(rows[:1]) and Layout("m", None, "int8").can_keep(rows)
    assert not Layout("m", 4).can_keep(rows)
    assert not Layout(NOMIC, 256).can_keep(np.ones((1, 768), np.float32))  # the layer norm


@given(layouts)
def test_a_layout_is_read_back_from_what_is_kept_of_it(layout: Layout) -> None:
    assert Layout.read(layout.model, str(layout)) == layout
    assert (str(layout) == "") == layout.is_plain == (layout == PLAIN._replace(model=layout.model))


def test_a_layout_of_a_later_version_is_refused() -> None:
    with pytest.raises(LayoutError, match="'bits 64' is of a later version: upgrade"):
        Layout.read("m", "bits 64")


@pytest.mark.parametrize(
    ("model", "dimensions", "dtype", "force", "layout"),
    [
        (NOMIC, None, None, False, None),
        (NOMIC, 256, None, False, Layout(NOMIC, 256)),
        (NOMIC, 768, None, False, Layout(NOMIC)),
        (NOMIC, 768, "float16", False, Layout(NOMIC, None, "float16")),
        (NOMIC, 300, "int8", True, Layout(NOMIC, 300, "int8")),
        ("m", None, "float16", False, Layout("m", None, "float16")),
        ("m", 64, None, True, Layout("m", 64)),
        (WORDLLAMA_MODEL, 128, None, False, Layout(WORDLLAMA_MODEL, 128)),
    ],
)
def test_a_layout_is_what_was_asked_for(
    model: str, dimensions: int | None, dtype: str | None, force: bool, layout: Layout | None
) -> None:
    assert asked(model, dimensions, dtype, force=force) == layout


@pytest.mark.parametrize(
    ("model", "dimensions", "dtype", "force", "told"),
    [
        (NOMIC, 300, None, False, "trained for 768, 512, 256, 128, 64: another length may lose"),
        (NOMIC, 1024, None, True, "vectors of nomic-v1.5 have 768 dimensions, not 1024"),
        ("m", 256, None, False, "the lengths m was trained for are not known: another length"),
        ("m", 0, None, True, "dimensions must be at least 1, not 0"),
        ("m", None, "float8", False, "dtype 'float8' must be float32, float16 or int8"),
    ],
)
def test_what_cannot_be_or_may_lose_much_is_refused(
    model: str, dimensions: int | None, dtype: str | None, force: bool, told: str
) -> None:
    with pytest.raises(LayoutError, match=told):
        asked(model, dimensions, dtype, force=force)


@pytest.mark.parametrize(
    ("length", "dtype", "measured"),
    [
        (768, "float32", 3910),
        (768, "float16", 2115),
        (256, "float32", 1603),
        (256, "float16", 962),
        (768, "int8", 1219),
        (256, "int8", 643),
        (128, "float16", 650),
    ],
)
def test_the_memory_of_a_vector_is_near_what_was_measured(
    length: int, dtype: str, measured: int
) -> None:
    assert abs(memory(length, dtype) - measured) < 0.02 * measured


def test_the_lengths_of_the_local_model_are_known() -> None:
    assert lengths_of(WORDLLAMA_MODEL)[0] == WORDLLAMA_DIMENSIONS
    assert SIZES == {"float32": 4, "float16": 2, "int8": 1}
