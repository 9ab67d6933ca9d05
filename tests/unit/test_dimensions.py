"""How long may the vectors of a collection be? Two answers have to agree."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from vector_embed_client import EmbeddingArray
from worker.engine.evidence import Experience
from worker.engine.verdicts import DimensionsChanged, Unwell, embed
from worker.types import Embedded, Job, Lease


class Api:
    """Answers with vectors of these dimensions, request by request; the last ones stay."""

    def __init__(self, *dimensions: int) -> None:
        self.requests: list[list[str]] = []
        self._dimensions = list(dimensions)

    def send(self, texts: Sequence[str]) -> EmbeddingArray:
        self.requests.append(list(texts))
        said = self._dimensions.pop(0) if len(self._dimensions) > 1 else self._dimensions[0]
        data = struct.pack("<f", 1.0) * said * len(texts)
        return EmbeddingArray(data, said, [False] * len(texts))


def lengths(
    count: int, api: Api, dimensions: int | None, experience: Experience | None = None
) -> set[int]:
    """The lengths of the vectors that are to be stored, all `count` of them."""
    leases = [Lease(b"1-%d" % n, Job(f"id{n}", f"text {n}"), 0, 0) for n in range(count)]
    trial = embed(leases, "m", api.send, experience, dimensions)
    outcomes = [outcome for some in trial for outcome in some]
    assert len(outcomes) == count
    return {len(one.vector) // 4 for one in outcomes if isinstance(one, Embedded)}


@pytest.mark.parametrize(("count", "requests"), [(100, [1, 99]), (2, [1, 1]), (1, [1, 1])])
def test_a_first_length_is_confirmed_by_a_second_request(count: int, requests: list[int]) -> None:
    api = Api(768)
    assert lengths(count, api, None) == {768}
    assert [len(texts) for texts in api.requests] == requests


def test_a_length_that_two_requests_agreed_on_is_not_asked_for_again() -> None:
    experience = Experience()
    lengths(1, Api(768), None, experience)
    api = Api(768)
    assert lengths(100, api, None, experience) == {768}
    assert len(api.requests) == 1


def test_two_answers_that_disagree_store_nothing() -> None:
    with pytest.raises(DimensionsChanged, match="1,024 dimensions, and then with 768"):
        lengths(100, Api(1024, 768), None)


def test_a_length_that_cannot_be_is_no_length() -> None:
    assert lengths(100, Api(20_000, 768), None) == {768}
    with pytest.raises(Unwell, match="20,000 dimensions"):
        lengths(100, Api(20_000), None)


def test_another_length_for_once_is_tried_again() -> None:
    assert lengths(100, Api(1024, 768), 768) == {768}


def test_another_length_at_a_second_look_too_stores_nothing() -> None:
    api = Api(1024)
    with pytest.raises(DimensionsChanged, match="1,024 dimensions, not with 768"):
        lengths(100, api, 768)
    assert [len(texts) for texts in api.requests] == [100, 1]
