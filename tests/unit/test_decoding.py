"""Answers read back, by either decoder, are what was written; anything else is a BadAnswer."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vector_embed_client.answers import (
    read_array,
    read_batch,
    read_embedding,
    read_health,
    read_search,
    read_stats,
)
from vector_embed_client.http import BadAnswer
from vector_embed_client.types import EmbeddingArray, EmbedResponse

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[float]], list[bool]]:
    dimensions = draw(st.integers(1, 6))
    row = st.lists(numbers, min_size=dimensions, max_size=dimensions)
    rows = draw(st.lists(row, min_size=1, max_size=5))
    flags = st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))
    return rows, draw(flags)


def columns(rows: list[list[float]], cached: list[bool], *, compact: bool) -> bytes:
    separators = (",", ":") if compact else None
    value = {"embeddings": rows, "cached": cached, "dimensions": len(rows[0])}
    return json.dumps(value, separators=separators).encode()


def in_rows(rows: list[list[float]], cached: list[bool]) -> bytes:
    return json.dumps(
        [{"vector": r, "cached": c, "dimensions": len(r)} for r, c in zip(rows, cached)]
    ).encode()


@given(batches(), st.booleans())
def test_a_batch_is_read_in_both_shapes(
    batch: tuple[list[list[float]], list[bool]], compact: bool
) -> None:
    rows, cached = batch
    expected = [EmbedResponse(row, hit, len(row)) for row, hit in zip(rows, cached)]
    assert read_batch(columns(rows, cached, compact=compact), len(rows)) == expected
    assert read_batch(in_rows(rows, cached), len(rows)) == expected


@given(batches(), st.booleans())
def test_an_array_holds_the_same_numbers_or_refuses_a_row_of_zeros(
    batch: tuple[list[list[float]], list[bool]], compact: bool
) -> None:
    rows, cached = batch
    content = columns(rows, cached, compact=compact)
    if any(not any(row) for row in rows):
        with pytest.raises(BadAnswer, match="all zeros"):
            read_array(content, len(rows))
        return
    array = read_array(content, len(rows))
    flat = [number for row in rows for number in row]
    assert array.tobytes() == struct.pack(f"<{len(flat)}f", *flat)
    assert array.cached == cached


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "embedding",
                    "embeddings",
                    "vector",
                    "cached",
                    "dimensions",
                    "results",
                    "total",
                    "status",
                ]
            ),
            children,
            max_size=4,
        )
    ),
)


@given(anything.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50))
def test_any_bytes_are_an_answer_or_a_bad_answer(content: bytes) -> None:
    for read in (
        read_embedding,
        lambda content: read_batch(content, 2),
        lambda content: read_array(content, 2),
        read_search,
        read_stats,
        read_health,
    ):
        try:
            read(content)
        except BadAnswer as error:
            assert str(error)


@given(batches(), st.data())
def test_one_foreign_value_anywhere_is_found(
    batch: tuple[list[list[float]], list[bool]], data: st.DataObject
) -> None:
    rows, cached = batch
    row = data.draw(st.sampled_from(rows))
    place = data.draw(st.integers(0, len(row) - 1))
    foreign = [None, True, False, "1.0", [1.0], math.nan, math.inf]
    row[place] = data.draw(st.sampled_from(foreign))  # type: ignore[assignment]  # that is the test
    for compact in (True, False):
        for read in (read_batch, read_array):
            with pytest.raises(BadAnswer):
                read(columns(rows, cached, compact=compact), len(rows))


def test_an_array_gives_rows_without_copying() -> None:
    data = struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    array = EmbeddingArray(data, 3, [True, False])
    assert len(array) == 2
    assert list(array.row(0)) == [1, 2, 3]
    assert list(array.row(-1)) == [4, 5, 6]
    assert bytes(array.row(1)) == data[12:]
    assert len(array.row(1)) == 3
    assert array.row(1).obj is data
    assert array.tobytes() is data
    assert repr(array) == "EmbeddingArray(2 x 3 float32)"
    with pytest.raises(IndexError):
        array.row(2)
    with pytest.raises(TypeError):
        array.row(0)[0] = 1.0


def test_an_array_of_the_wrong_size_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="7 bytes are not 1 rows of 2"):
        EmbeddingArray(b"1234567", 2, [True])


def test_an_array_is_numpys_without_copying() -> None:
    numpy = pytest.importorskip("numpy")
    data = struct.pack("<4f", 1, 2, 3, 4)
    found = EmbeddingArray(data, 2, [True, False]).to_numpy()
    assert found.shape == (2, 2)
    assert found.dtype == numpy.float32
    assert found.tolist() == [[1, 2], [3, 4]]
    assert numpy.shares_memory(found, numpy.frombuffer(data, dtype="<f4"))
