"""The names that a program may use, and no others."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

import vector_embed_client
from vector_embed_client import AsyncClient, Client

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


def test_the_import_brings_neither_asyncio_nor_numpy() -> None:
    # httpx brings what it brings; we add nothing heavy to it.
    script = (
        "import sys, httpx; before = set(sys.modules); import vector_embed_client; "
        "print(*sorted({'asyncio', 'numpy', 'concurrent.futures'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""
