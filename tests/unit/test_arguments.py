"""What a program says that cannot be meant is one line, which names it and says what it must be."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import fakeredis
import numpy as np
import pytest

from worker import Collection, LayoutError, enqueue
from worker.settings import Settings
from worker.store.keys import CollectionKeys

COUNT = 120  # vectors, each of two numbers


@pytest.fixture
def wiki() -> Collection:
    """A collection as commits would leave it."""
    client, keys = fakeredis.FakeRedis(), CollectionKeys("vec", "wiki")
    client.hset(keys.info, mapping={"model": "m", "born": "1", "dimensions": 2, "commits": COUNT})
    for number in range(1, COUNT + 1):
        vector = struct.pack("<2f", number, 1)
        fields: dict[Any, Any] = {
            "vector": vector,
            "hash": b"0123456789abcdef%d %d" % (number, number),
        }
        client.hset(keys.doc(f"id-{number}"), mapping=fields)
        client.xadd(keys.done, {"id": f"id-{number}"}, id=f"{number}-0")
    return Collection("wiki", settings=Settings(), connection=client)


def wrong(value: object) -> Any:
    """What a type checker would refuse."""
    return value


Act = Callable[[Any], object]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda wiki: wiki.search([1, 2], k=1.5), "k must be a whole number, not 1.5"),
        (lambda wiki: wiki.search([1, 2], k="3"), "k must be a whole number, not '3'"),
        (lambda wiki: wiki.search([1, 2], k=None), "k must be a whole number, not None"),
        (lambda wiki: wiki.search(None), "the query must be a text or one vector of numbers: None"),
        (lambda wiki: wiki.search(7), "the query must be a text or one vector of numbers: int"),
        (lambda wiki: wiki.search(["a", "b"]), "a text or one vector of numbers: list"),
        (lambda wiki: wiki.search(np.ones((1, 2))), "a text or one vector of numbers: ndarray"),
        (lambda wiki: wiki.search([1, 2], filter="a=b"), "filter must map .*, not be 'a=b'"),
        (lambda wiki: wiki.compare("1", force=True), "dimensions must be a whole number, not '1'"),
        (lambda wiki: wiki.compare(1.0, force=True), "dimensions must be a whole number, not 1.0"),
        (lambda wiki: wiki.compare(sample=1e3), "sample must be a whole number, not 1000.0"),
        (
            lambda wiki: wiki.shrink([1], force=True),
            r"must be a whole number, not \[1\]",
        ),
        (lambda wiki: enqueue(["a"], "w", dimensions=wrong("1")), "dimensions must be a whole"),
        (
            lambda wiki: enqueue(["a"], "w", long="split", chunk_size=wrong(9.5)),
            "chunk_size must be a",
        ),
        (
            lambda wiki: enqueue(["a"], "w", long="split", overlap=wrong("9")),
            "overlap must be a whole",
        ),
    ],
)
def test_what_is_of_another_type_is_named(wiki: Collection, act: Act, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        act(wiki)


@pytest.mark.parametrize("dtype", ["", "float64", 16, ["int8"], np.float16, np.dtype("float16")])
@pytest.mark.parametrize("name", ["compare", "shrink"])
def test_a_dtype_is_one_of_three_names(wiki: Collection, name: str, dtype: object) -> None:
    with pytest.raises(LayoutError, match="must be float32, float16 or int8"):
        getattr(wiki, name)(dtype=dtype)


def test_whole_numbers_of_numpy_are_taken(wiki: Collection) -> None:
    assert len(wiki.search(np.ones(2), k=np.int64(3))) == 3


def test_a_search_for_more_texts_than_there_are_finds_all(wiki: Collection) -> None:
    assert len(wiki.search([1, 2], k=10 * COUNT)) == COUNT


def test_a_length_that_the_model_is_not_known_for_is_forced_in_the_words_of_a_program(
    wiki: Collection,
) -> None:
    for act in (wiki.compare, wiki.shrink):
        with pytest.raises(LayoutError, match="pass force=True if you know that it does not$"):
            act(1)
