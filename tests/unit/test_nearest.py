"""A search finds what a sort of everything would, page by page, with numpy and without."""

from __future__ import annotations

import math
import random
import struct
import sys

import pytest

from worker.export.search import nearest
from worker.types import Stored


def record(id: str, *numbers: float) -> Stored:
    return Stored(id, struct.pack(f"<{len(numbers)}f", *numbers), "m", False)


@pytest.fixture(params=["numpy", "plain"], autouse=True)
def numpy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "numpy", None)
    else:
        pytest.importorskip("numpy")


def test_a_score_is_the_cosine_whatever_the_lengths() -> None:
    records = [record("same", 2.0, 0.0), record("across", 0.0, 0.5), record("against", -9.0, 0.0)]

    hits = nearest([records], [0.25, 0.0], 3)

    assert [hit.record.id for hit in hits] == ["same", "across", "against"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.0, -1.0])


def test_the_best_of_many_pages_are_found_in_their_order() -> None:
    chance = random.Random(1)
    records = [record(str(n), *(chance.gauss(0, 1) for _ in range(8))) for n in range(500)]
    query = [chance.gauss(0, 1) for _ in range(8)]

    def cosine(one: Stored) -> float:
        vector = one.vector
        return sum(a * b for a, b in zip(vector, query)) / math.hypot(*vector)

    expected = sorted(records, key=cosine, reverse=True)[:20]
    pages = [records[start : start + 60] for start in range(0, 500, 60)]
    assert [hit.record.id for hit in nearest(pages, query, 20)] == [one.id for one in expected]


def test_of_equals_the_earlier_comes_first_and_fewer_than_asked_are_all() -> None:
    pages = [[record("a", 1.0), record("b", 2.0)], [record("c", 3.0)]]

    assert [hit.record.id for hit in nearest(pages, [1.0], 2)] == ["a", "b"]
    assert [hit.record.id for hit in nearest(pages, [1.0], 9)] == ["a", "b", "c"]
    assert nearest([], [1.0], 3) == []
