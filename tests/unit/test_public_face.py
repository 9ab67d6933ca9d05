"""The names that a program may use, and no others."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

import vector_embed_client
import worker
from vector_embed_client import (
    AsyncClient,
    Client,
    EmbedResponse,
    SearchResponse,
    SearchResult,
)

NAMES = [
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "EmbedResponse",
    "EmbeddingArray",
    "HealthResponse",
    "NetworkError",
    "RateLimitError",
    "SearchResponse",
    "SearchResult",
    "ServerError",
    "StatsResponse",
    "ValidationError",
    "VectorEmbedError",
    "__version__",
    "no_waiting",
]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(vector_embed_client.__all__) == NAMES
    for name in NAMES:
        assert getattr(vector_embed_client, name)
        assert name in dir(vector_embed_client)
    with pytest.raises(AttributeError, match="no attribute 'Foo'"):
        vector_embed_client.Foo  # noqa: B018  # that is the test


def public(kind: type) -> dict[str, inspect.Signature | None]:
    return {
        name: inspect.signature(member) if callable(member) else None
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    sync, as_async = public(Client), public(AsyncClient)
    assert as_async.pop("aclose") == as_async["close"]  # contextlib.aclosing asks for it
    assert list(sync) == list(as_async)
    for name, signature in sync.items():
        other = as_async[name]
        assert (signature is None) == (other is None)
        if signature and other:
            assert list(signature.parameters) == list(other.parameters), name
            defaults = [p.default for p in signature.parameters.values()]
            assert defaults == [p.default for p in other.parameters.values()], name
        assert (getattr(Client, name).__doc__ or "").strip(), name
        assert (getattr(AsyncClient, name).__doc__ or "").strip(), name


def test_answers_are_frozen() -> None:
    for name in ("EmbedResponse", "SearchResult", "SearchResponse", "StatsResponse"):
        kind = getattr(vector_embed_client, name)
        value = kind(*range(len(dataclasses.fields(kind))))
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(kind)[0].name, 1)


@pytest.mark.parametrize(
    "answer, shown",
    [
        (
            EmbedResponse([1 / 3] * 768, True, 768),
            "768 dimensions: [0.3333, 0.3333, 0.3333, ...], cached",
        ),
        (EmbedResponse([0.5, -2.0], False, 2), "2 dimensions: [0.5, -2]"),
        (SearchResult("f" * 64, 0.98765, "a secret", "m", 3), "'ffffffffffff', score 0.9877"),
        (
            SearchResponse([SearchResult("f" * 64, 1.0, None, "m", 3, [0.1] * 768)] * 5, 70, 2.5),
            "5 of 70 results",
        ),
    ],
)
def test_an_answer_is_shown_in_one_short_line(answer: object, shown: str) -> None:
    assert repr(answer) == f"{type(answer).__name__}({shown})"


# The worker


def shown_types(face: object) -> Iterator[str]:
    """The names of our classes in the annotations of a public function, class or method."""
    members = [face]
    if inspect.isclass(face):
        named = inspect.getmembers(face, inspect.isfunction)
        members += [member for name, member in named if name[0] != "_" or name == "__init__"]
    for member in members:
        for annotation in getattr(member, "__annotations__", {}).values():
            yield from re.findall(r"(?<![.\w])[A-Z][a-z]\w+", str(annotation))


def test_a_program_finds_every_type_that_a_public_signature_of_the_worker_shows() -> None:
    ours = {
        name
        for module in ("collection", "producer", "settings", "types", "store.errors")
        for name, member in vars(importlib.import_module(f"worker.{module}")).items()
        if inspect.isclass(member) and member.__module__.startswith("worker")
    }
    internal = {"Stored"}  # what a record is made of
    for name in worker.__all__:
        assert set(shown_types(getattr(worker, name))) & ours <= {*worker.__all__, *internal}, name


def test_whatever_is_no_public_name_of_the_worker_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'worker' has no attribute 'Backlog'"):
        worker.Backlog  # type: ignore[attr-defined]  # noqa: B018  # that is the test
