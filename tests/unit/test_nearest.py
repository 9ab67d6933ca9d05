"""A search finds what a sort of everything would, page by page, with numpy and without."""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from collections.abc import Mapping, Sequence

import fakeredis
import pytest
from numpy import int64

from worker.store.connection import given
from worker.store.keys import CollectionKeys
from worker.store.search import Search
from worker.types import Hit


@pytest.fixture(params=["numpy", "plain"], autouse=True)
def numpy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "numpy", None)
    else:
        pytest.importorskip("numpy")


class Stored:
    """A collection as commits would leave it."""

    def __init__(self, redis: fakeredis.FakeRedis) -> None:
        self.redis = redis
        self.keys = CollectionKeys("vec", "wiki")
        self.number = 0
        redis.hset(self.keys.info, mapping={"model": "m", "born": "1"})

    def add(self, id: str, *numbers: float, **meta: object) -> None:
        self.number += 1
        fields: dict[str, bytes] = {
            "vector": struct.pack(f"<{len(numbers)}f", *numbers),
            "hash": b"0123456789abcdef" + b"%d %d" % (self.number, self.number),
        }
        if meta:
            fields["meta"] = json.dumps(meta).encode()
        old = self.redis.hget(self.keys.doc(id), "hash")
        if old is not None:
            self.redis.xdel(self.keys.done, b"%d-0" % int(old.split()[-1]))
        self.redis.hset(self.keys.doc(id), mapping=fields)  # type: ignore[arg-type]
        self.redis.xadd(self.keys.done, {"id": id}, id=f"{self.number}-0")

    def nearest(
        self, query: Sequence[float], count: int, filter: Mapping[str, object] | None = None
    ) -> list[Hit]:
        return Search(given(self.redis), self.keys, filter).nearest(query, count)

    def ids(
        self, query: Sequence[float], count: int, filter: Mapping[str, object] | None = None
    ) -> list[str]:
        return [hit.record.id for hit in self.nearest(query, count, filter)]


@pytest.fixture
def stored(fake_redis: fakeredis.FakeRedis) -> Stored:
    return Stored(fake_redis)


def test_a_score_is_the_cosine_whatever_the_lengths(stored: Stored) -> None:
    stored.add("across", 0.0, 0.5)
    stored.add("against", -9.0, 0.0)
    stored.add("same", 2.0, 0.0)

    hits = stored.nearest([0.25, 0.0], 3)

    assert [hit.record.id for hit in hits] == ["same", "across", "against"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.0, -1.0])


def test_the_best_of_many_pages_are_found_in_their_order(stored: Stored) -> None:
    chance = random.Random(1)
    vectors = {str(n): [chance.gauss(0, 1) for _ in range(8)] for n in range(600)}
    for id, vector in vectors.items():
        stored.add(id, *vector)
    query = [chance.gauss(0, 1) for _ in range(8)]

    def cosine(id: str) -> float:
        vector = vectors[id]
        return sum(a * b for a, b in zip(vector, query)) / math.hypot(*vector)

    assert stored.ids(query, 20) == sorted(vectors, key=cosine, reverse=True)[:20]


def test_of_equals_the_earlier_comes_first_and_fewer_than_asked_are_all(stored: Stored) -> None:
    assert stored.nearest([1.0], 3) == []
    stored.add("a", 1.0)
    stored.add("b", 2.0)
    stored.add("c", 3.0)

    assert stored.ids([1.0], 2) == ["a", "b"]
    assert stored.ids([1.0], 9) == ["a", "b", "c"]


def test_of_the_pieces_of_a_document_the_nearest_alone_is_found(stored: Stored) -> None:
    for n in range(1, 51):
        stored.add(f"doc#{n:04}", 1.0, n / 100, parent="doc", start=n, end=n + 1)
    stored.add("other#0001", 1.0, 5.0)  # an id like a piece's, of a text that is none
    stored.add("last", 0.0, 1.0)

    hits = stored.nearest([1.0, 0.0], 3)

    assert [hit.record.id for hit in hits] == ["doc#0001", "other#0001", "last"]
    assert [hit.document for hit in hits] == ["doc", "other#0001", "last"]


def test_a_document_is_found_once_whichever_of_its_pieces_comes_first(stored: Stored) -> None:
    def add(id: str, angle: float, parent: str | None) -> None:
        meta = {} if parent is None else {"parent": parent, "start": 0, "end": 9}
        stored.add(id, math.cos(angle), math.sin(angle), **meta)

    add("a#0001", 0.5, "a")
    add("b", 0.3, None)
    add("a#0002", 0.1, "a")
    add("c#0001", 0.2, "c")
    add("d#0001", 0.6, None)
    add("c#0002", 0.15, "c")

    found = stored.nearest([1.0, 0.0], 3)
    assert [(hit.document, hit.record.id) for hit in found] == [
        *[("a", "a#0002"), ("c", "c#0002"), ("b", "b")]
    ]
    assert [hit.document for hit in stored.nearest([1.0, 0.0], 9)] == ["a", "c", "b", "d#0001"]


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({}, "abcde"),
        ({"lang": "en"}, "ac"),
        ({"lang": ["en", "de"]}, "abc"),
        ({"lang": "en", "year": 1999}, "c"),
        ({"year": 1999.0}, "c"),
        ({"year": int64(1999)}, "c"),
        ({"lang": {"en", "de"}}, "abc"),
        ({"year": True}, "d"),
        ({"year": 1}, ""),
        ({"year": None}, "e"),
        ({"tags": [["x", "y"]]}, "b"),
        ({"nope": None}, ""),
        ({"lang": []}, ""),
    ],
)
def test_a_filter_lets_through_what_has_one_of_the_values(
    stored: Stored, filter: Mapping[str, object], found: str
) -> None:
    stored.add("e", 1.0, 0.4, year=None)
    stored.add("d", 1.0, 0.3, year=True)
    stored.add("c", 1.0, 0.2, lang="en", year=1999)
    stored.add("b", 1.0, 0.1, lang="de", tags=["x", "y"])
    stored.add("a", 1.0, 0.0, lang="en")

    assert "".join(stored.ids([1.0, 0.0], 9, filter)) == found


@pytest.mark.parametrize("query", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_query_without_a_direction_is_an_error(stored: Stored, query: list[float]) -> None:
    with pytest.raises(ValueError, match="must have finite numbers, not all of them zero"):
        stored.nearest(query, 1)


def test_a_text_that_changes_while_it_is_searched_is_answered_as_it_is_now(stored: Stored) -> None:
    """A page is compared, then the texts in it are deleted and replaced."""
    for n in range(300):
        stored.add(str(n), 1.0, n / 1000)
    compared: list[int] = []

    def change(vectors: int) -> None:
        if not compared:
            stored.redis.delete(stored.keys.doc("0"))
            stored.add("1", 0.0, 1.0, new=True)
            stored.add("2", 1.0, 0.0, new=True)
        compared.append(vectors)

    hits = Search(given(stored.redis), stored.keys).nearest([1.0, 0.0], 4, progress=change)

    assert [hit.record.id for hit in hits] == ["2", "3", "4", "5"]
    assert [hit.record.meta for hit in hits][:2] == [{"new": True}, None]
    assert hits[0].score == pytest.approx(1.0)
    assert compared[-1] >= 300
