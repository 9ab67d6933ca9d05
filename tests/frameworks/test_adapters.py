"""What holds for the adapter of every framework."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faulty_api.vectors import expected_vector
from servers import API, API_KEY

from vector_embed_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    NetworkError,
    RateLimitError,
    ServerError,
    ValidationError,
    VectorEmbedError,
    no_waiting,
)

from .faces import Face, Vector

SECRET = "vec_passed-as-an-argument"


def calls(face: Face) -> list[Callable[[Any, list[str]], list[Vector]]]:
    """The ways to ask for the vectors of a list."""
    return [face.many, *([face.many_async] if face.many_async else [])]


def each(face: Face) -> list[Callable[[Any, str], Vector]]:
    """The ways to ask for the vector of one text."""
    return [one for one in (face.one, face.one_async) if one is not None]


def is_batched(face: Face) -> bool:
    return face.make.__name__ != "VectorEmbedTextEmbedder"  # type: ignore[attr-defined]  # a class


def test_every_text_has_its_vector_and_batches_are_full(face: Face, api: API) -> None:
    texts = [f"text {i}" for i in range(250)]
    texts[7] = texts[240]  # the same text twice
    vectors = [expected_vector(text) for text in texts]
    made = face.make()
    for call in calls(face):
        api.reset()
        assert call(made, texts) == vectors
        if is_batched(face):
            assert api.log().batches == {100: 2, 50: 1}
    for ask in each(face):
        assert ask(made, "a query") == expected_vector("a query")


def test_an_empty_list_costs_no_request(face: Face, api: API) -> None:
    made = face.make()
    for call in calls(face):
        if face.framework == "chromadb":  # Chroma itself refuses it
            with pytest.raises(ValueError, match="non-empty list"):
                call(made, [])
        else:
            assert call(made, []) == []
    assert api.log().requests == 0


@pytest.mark.parametrize("wrong", ["x" * 10_001, " ", ""], ids=["long", "blank", "empty"])
def test_a_text_that_cannot_be_embedded_is_named_and_nothing_is_sent(
    face: Face, api: API, wrong: str
) -> None:
    made = face.make()
    if is_batched(face):
        for call in calls(face):
            with pytest.raises(ValidationError, match=r"texts\[249\] cannot") as caught:
                call(made, [*(f"text {i}" for i in range(249)), wrong])
            assert caught.value.index == 249
    for ask in each(face):
        with pytest.raises(ValidationError, match="cannot be embedded"):
            ask(made, wrong)
    assert api.log().requests == 0


def test_a_text_that_the_api_refuses_is_named(face: Face, api: API) -> None:
    if not is_batched(face):
        pytest.skip("one text a call")
    api.faults(rules=[{"answer": "named", "marker": "poison"}])
    texts = [f"text {i}" for i in range(250)]
    texts[211] = "poison"
    for call in calls(face):
        with pytest.raises(ValidationError) as caught:
            call(face.make(), texts)
        assert (caught.value.index, caught.value.status) == (211, 422)


REFUSALS: list[tuple[dict[str, object], type[VectorEmbedError], bool]] = [
    ({"answer": "revoked"}, AuthenticationError, False),
    ({"answer": "forbidden"}, AuthenticationError, False),
    ({"answer": "unnamed"}, ValidationError, False),
    ({"answer": "error"}, ServerError, True),
    ({"answer": "slow_down"}, RateLimitError, True),
    ({"answer": "reset"}, NetworkError, True),
]


@pytest.mark.parametrize("rule, kind, is_retried", REFUSALS, ids=[str(r[0]) for r in REFUSALS])
def test_the_error_of_the_client_comes_through_and_no_framework_retries(
    face: Face, api: API, rule: dict[str, object], kind: type[VectorEmbedError], is_retried: bool
) -> None:
    api.faults(rules=[rule])
    ways: list[tuple[Callable[[Any, Any], object], object]] = []
    ways += [(call, ["a text"]) for call in calls(face)]
    ways += [(ask, "a text") for ask in each(face)]
    for retries in (0, 2):
        made = face.make(retries=retries)
        for way, given in ways:
            before = api.log().requests
            with no_waiting(), pytest.raises(VectorEmbedError) as caught:
                way(made, given)
            assert type(caught.value) is kind
            assert api.log().requests - before == (1 + retries if is_retried else 1)


def test_the_key_is_in_no_repr_no_pickle_and_nothing_that_is_saved(face: Face, api: API) -> None:
    api.faults(keys=[SECRET])
    made = face.make(api_key=SECRET)
    face.many(made, ["a text"])
    assert SECRET not in repr(made) + str(made)
    if face.framework == "haystack":
        for save in (face.save, pickle.dumps):
            with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
                save(made)  # type: ignore[misc]  # it has one
        return
    assert face.save is not None
    assert SECRET not in face.save(made)
    assert SECRET.encode() not in pickle.dumps(made)


def test_a_pickle_reads_the_key_from_the_environment(
    face: Face, api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = face.make(base_url=api.base_url, timeout=7.0, retries=1)
    pickled = pickle.dumps(made)
    monkeypatch.delenv("VECTOR_EMBED_BASE_URL")
    assert face.many(pickle.loads(pickled), ["a text"]) == [expected_vector("a text")]
    monkeypatch.delenv("VECTOR_EMBED_API_KEY")
    with pytest.raises(ValueError, match="VECTOR_EMBED_API_KEY"):
        face.many(pickle.loads(pickled), ["a text"])


def test_a_copy_embeds_too(face: Face, api: API) -> None:
    is_token = face.framework != "haystack"  # whose components are copied as they are saved
    api.faults(keys=[SECRET if is_token else API_KEY])
    made = face.make(api_key=SECRET) if is_token else face.make()
    for twin in (copy.copy(made), copy.deepcopy(made)):
        assert face.many(twin, ["a text"]) == [expected_vector("a text")]


def test_many_threads_share_one_adapter(face: Face) -> None:
    made = face.make()
    texts = [f"text {i}" for i in range(40)]

    def ask(number: int) -> list[Vector]:
        ways = calls(face)
        return ways[number % len(ways)](made, [texts[number]])

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(ask, range(40)))
    assert found == [[expected_vector(text)] for text in texts]


def test_an_adapter_is_made_around_clients_of_the_program(
    face: Face, api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VECTOR_EMBED_API_KEY")
    with Client(API_KEY, api.base_url) as client:
        made = face.make(client=client)
        if face.framework != "chromadb":
            made = face.make(client=client, async_client=AsyncClient(API_KEY, api.base_url))
        for call in calls(face):
            assert call(made, ["a text"]) == [expected_vector("a text")]
        for ask in each(face):
            assert ask(made, "a text") == expected_vector("a text")
        del made
        assert client.embed("still open")
        with pytest.raises(ValueError, match="leave out api_key"):
            face.make(api_key=SECRET, client=client)


def test_a_missing_key_is_one_clear_error(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VECTOR_EMBED_API_KEY")
    with pytest.raises(ValueError, match="set VECTOR_EMBED_API_KEY"):
        face.many(face.make(), ["a text"])
