"""Errors travel between processes, whole."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

import vector_embed_client
from vector_embed_client import (
    AuthenticationError,
    NetworkError,
    RateLimitError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)

KINDS = [
    VectorEmbedError,
    AuthenticationError,
    RateLimitError,
    ValidationError,
    ServerError,
    NetworkError,
]
FIELDS = {
    "message": "Rate limit exceeded",
    "code": "rate_limited",
    "status": 429,
    "body": '{"detail": "Rate limit exceeded"}',
    "request_id": "req-1",
    "retry_after": 7,
    "index": 3,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def same(error: VectorEmbedError, other: object) -> bool:
    return (
        type(other) is type(error)
        and isinstance(other, VectorEmbedError)
        and vars(other) == vars(error)
        and str(other) == str(error)
        and other.args == error.args
    )


@every_kind
def test_an_error_survives_pickle_and_copy(kind: type[VectorEmbedError]) -> None:
    error = kind(**FIELDS)  # type: ignore[arg-type]  # the fields of an error
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert same(error, pickle.loads(pickle.dumps(error, protocol)))
    assert same(error, copy.copy(error))
    assert same(error, copy.deepcopy(error))


@every_kind
def test_an_error_survives_json_as_its_arguments(kind: type[VectorEmbedError]) -> None:
    error = kind(**FIELDS)  # type: ignore[arg-type]  # the fields of an error
    assert same(error, kind(*json.loads(json.dumps(error.args))))


@every_kind
def test_an_error_survives_celerys_json_result_backend(kind: type[VectorEmbedError]) -> None:
    backends = pytest.importorskip("celery.backends.base")
    celery = pytest.importorskip("celery")
    backend = backends.Backend(app=celery.Celery(set_as_current=False), serializer="json")
    error = kind(**FIELDS)  # type: ignore[arg-type]  # the fields of an error
    stored = json.loads(json.dumps(backend.prepare_exception(error)))
    assert same(error, backend.exception_to_python(stored))


@every_kind
def test_an_error_can_be_made_from_nothing(kind: type[VectorEmbedError]) -> None:
    error = kind()
    assert (str(error), error.code, error.status, error.retry_after) == ("", "error", None, None)
    assert same(error, pickle.loads(pickle.dumps(error)))


@every_kind
def test_every_error_is_a_vector_embed_error(kind: type[VectorEmbedError]) -> None:
    assert issubclass(kind, VectorEmbedError)
    assert getattr(vector_embed_client, kind.__name__) is kind


def test_an_error_says_its_message_and_shows_its_fields() -> None:
    error = RateLimitError("slow down", code="rate_limited", status=429, retry_after=30)
    assert str(error) == "slow down"
    assert "429" in repr(error)
    assert error.retry_after == 30
