"""The client against the local API: each of its answers, as a caller sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from faulty_api.vectors import expected_vector
from servers import API, API_KEY

from vector_embed_client import (
    AuthenticationError,
    Client,
    NetworkError,
    RateLimitError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)


@pytest.fixture
def client(api: API) -> Iterator[Client]:
    """A client of the local API that tries nothing twice."""
    with Client(API_KEY, api.base_url, retries=0) as made:
        yield made


def unchecked(client: Client, path: str, body: object) -> VectorEmbedError:
    """The error for a request that the client itself would not send."""

    def as_asked(request: httpx.Request) -> httpx.Response:
        return httpx.post(client.base_url + path, headers=headers(request), json=body)

    with httpx.Client(transport=httpx.MockTransport(as_asked)) as own:
        bold = Client(API_KEY, client.base_url, retries=0, http_client=own)
        with pytest.raises(VectorEmbedError) as caught:
            bold.embed_batch(["good", "also good"])
    return caught.value


def headers(request: httpx.Request) -> dict[str, str]:
    return {"Authorization": request.headers["Authorization"]}


REFUSED: list[tuple[str, object, type[VectorEmbedError], int, str, int | None]] = [
    ("/v1/embed", {"text": ""}, ValidationError, 422, "invalid_request", None),
    ("/v1/embed/batch", {"texts": ["a", ""]}, ValidationError, 422, "invalid_request", 1),
    ("/v1/embed/batch", {"texts": ["a", "b" * 10_001]}, ValidationError, 422, "invalid_request", 1),
    ("/v1/embed/batch", {"texts": ["a"] * 101}, ValidationError, 422, "invalid_request", None),
    ("/v1/embed/batch", {"texts": ["a" * 10_000] * 100}, ValidationError, 413, "too_large", None),
    ("/v1/search", {"query_text": "a"}, ValidationError, 422, "invalid_request", None),
    (
        "/v1/search",
        {"query_vector": [0.0] * 768, "model": "nomic-v1.5"},
        ServerError,
        500,
        "server_error",
        None,
    ),
    ("/v1/embed/", {"text": "a"}, VectorEmbedError, 307, "redirect", None),
    ("/v1/nothing", {}, VectorEmbedError, 404, "http_error", None),
]


@pytest.mark.parametrize("path, body, kind, status, code, index", REFUSED)
def test_a_refusal_is_its_error(
    client: Client,
    path: str,
    body: object,
    kind: type[VectorEmbedError],
    status: int,
    code: str,
    index: int | None,
) -> None:
    error = unchecked(client, path, body)
    assert (type(error), error.status, error.code) == (kind, status, code)
    assert error.index == index


CALLS: list[tuple[Callable[[Client], object], type[VectorEmbedError], int]] = [
    (lambda client: client.embed("a", model="none"), ServerError, 500),
    (lambda client: client.search("a", model="none"), ValidationError, 400),
    (lambda client: client.search(vector=[1.0, 0.0]), ValidationError, 400),
]


@pytest.mark.parametrize("call, kind, status", CALLS)
def test_a_call_that_the_server_cannot_serve_is_its_error(
    client: Client, call: Callable[[Client], object], kind: type[VectorEmbedError], status: int
) -> None:
    with pytest.raises(kind) as caught:
        call(client)
    assert caught.value.status == status


def test_a_lost_key_and_a_wrong_one_are_told_apart(api: API) -> None:
    with Client("sk_other", api.base_url) as client, pytest.raises(AuthenticationError) as wrong:
        client.stats()
    assert str(wrong.value) == "Invalid API key format"

    def without_key(request: httpx.Request) -> httpx.Response:
        return httpx.get(request.url)

    with httpx.Client(transport=httpx.MockTransport(without_key)) as own:
        client = Client(API_KEY, api.base_url, http_client=own)
        with pytest.raises(ValidationError, match="Field required") as caught:
            client.stats()
    assert (caught.value.status, caught.value.code) == (422, "missing_key")


FAULTS: list[tuple[dict[str, object], type[VectorEmbedError], int | None, str, int | None]] = [
    ({"keys": ["vec_other"]}, AuthenticationError, 401, "invalid_key", None),
    ({"rules": [{"answer": "revoked"}]}, AuthenticationError, 401, "invalid_key", None),
    ({"rules": [{"answer": "forbidden"}]}, AuthenticationError, 403, "forbidden", None),
    ({"rules": [{"answer": "account"}]}, ValidationError, 400, "account", None),
    ({"quota": 1}, RateLimitError, 429, "rate_limited", None),
    (
        {"rules": [{"answer": "slow_down", "retry_after": "2.5"}]},
        RateLimitError,
        429,
        "rate_limited",
        3,
    ),
    (
        {"rules": [{"answer": "slow_down", "retry_after": "+90"}]},
        RateLimitError,
        429,
        "rate_limited",
        90,
    ),
    (
        {"rules": [{"answer": "unavailable", "retry_after": "7"}]},
        ServerError,
        503,
        "server_error",
        7,
    ),
    ({"rules": [{"answer": "gateway"}]}, ServerError, 502, "server_error", None),
    ({"rules": [{"answer": "request_timeout"}]}, VectorEmbedError, 408, "request_timeout", None),
    ({"rules": [{"answer": "error"}]}, ServerError, 500, "server_error", None),
    ({"rules": [{"answer": "reset"}]}, NetworkError, None, "connection_error", None),
    ({"rules": [{"answer": "lost"}]}, NetworkError, None, "connection_error", None),
    ({"rules": [{"answer": "truncate"}]}, NetworkError, None, "connection_error", None),
    ({"rules": [{"answer": "hang", "seconds": 5}]}, NetworkError, None, "timeout", None),
]


@pytest.mark.parametrize("faults, kind, status, code, retry_after", FAULTS)
def test_a_fault_is_its_error(
    client: Client,
    api: API,
    faults: dict[str, object],
    kind: type[VectorEmbedError],
    status: int | None,
    code: str,
    retry_after: int | None,
) -> None:
    api.faults(**faults)
    with pytest.raises(VectorEmbedError) as caught:
        client.embed_batch_array(["one", "two"], timeout=1 if code == "timeout" else 20)
    error = caught.value
    assert (type(error), error.status, error.code) == (kind, status, code)
    # Never earlier than told. A date is told in whole seconds, rounded up.
    assert (error.retry_after is None) == (retry_after is None)
    assert 0 <= (error.retry_after or 0) - (retry_after or 0) <= 5


@pytest.mark.parametrize(
    "wrong", ["garbage", "short", "long", "dimension", "nan", "infinity", "zero"]
)
def test_a_wrong_answer_is_a_bad_response(client: Client, api: API, wrong: str) -> None:
    api.faults(rules=[{"answer": wrong}])
    with pytest.raises(VectorEmbedError) as caught:
        client.embed_batch_array(["one", "two"])
    assert (caught.value.status, caught.value.code) == (200, "bad_response")


@pytest.mark.parametrize("slow", ["rows", "drip"])
def test_another_shape_or_a_slow_answer_is_an_answer(client: Client, api: API, slow: str) -> None:
    api.faults(rules=[{"answer": slow, "seconds": 0.5}])
    answers = client.embed_batch(["one", "two"])
    assert [answer.vector for answer in answers] == [expected_vector("one"), expected_vector("two")]


def test_what_is_cached_is_answered_when_the_servers_redis_is_down_or_the_quota_used_up(
    client: Client, api: API
) -> None:
    client.embed("known")
    for faults in ({"rules": [{"answer": "error_on_miss"}]}, {"quota": 1}):
        api.faults(**faults)
        assert client.embed("known").cached
        with pytest.raises((ServerError, RateLimitError)):
            client.embed_batch(["new", "also new"])


def test_sixteen_threads_at_once_get_their_own_answers(client: Client) -> None:
    texts = [f"text {number}" for number in range(160)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(client.embed, texts))
    assert [answer.vector for answer in answers] == [expected_vector(text) for text in texts]


def test_search_finds_by_text_and_by_vector(client: Client) -> None:
    vector = client.embed("one").vector
    client.embed("two")
    for found in (
        client.search("one", top_k=1, include_text=True),
        client.search(vector=vector, top_k=1, include_text=True, include_vectors=True),
    ):
        (result,) = found.results
        assert result.text == "one"
        assert math.isclose(result.score, 1.0, abs_tol=1e-6)
    assert result.vector == vector
    assert client.stats().total_cached == 2
    assert client.health().status == "ok"
