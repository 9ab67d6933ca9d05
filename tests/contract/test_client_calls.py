"""What each call sends and returns, with the API's own bodies."""

from __future__ import annotations

import sys

import pytest

from vector_embed_client import (
    EmbeddingArray,
    EmbedResponse,
    HealthResponse,
    SearchResponse,
    SearchResult,
    StatsResponse,
)

from .loopback import DIMENSIONS, KEY, Caller, Server, reply, vector


def test_embed_returns_the_vector_of_the_text(caller: Caller, server: Server) -> None:
    assert caller.call("embed", "hello world") == EmbedResponse(
        vector("hello world"), cached=False, dimensions=DIMENSIONS
    )
    assert server.requests[0].json == {"text": "hello world", "model": "nomic-v1.5"}


def test_embed_batch_keeps_the_order_of_the_texts(caller: Caller, server: Server) -> None:
    texts = ["b", "a", "b", "ü", "日本"]
    responses = caller.call("embed_batch", texts)
    assert responses == [
        EmbedResponse(vector(text), i % 2 == 1, DIMENSIONS) for i, text in enumerate(texts)
    ]
    assert server.requests[0].json == {"texts": texts, "model": "nomic-v1.5"}


def test_embed_batch_takes_any_iterable_but_a_string(caller: Caller) -> None:
    responses = caller.call("embed_batch", (text for text in ["a", "b"]))
    assert isinstance(responses, list)
    assert len(responses) == 2


def test_embed_batch_array_is_the_same_as_float32_rows(caller: Caller) -> None:
    texts = ["one", "two", "three"]
    array = caller.call("embed_batch_array", texts)
    assert isinstance(array, EmbeddingArray)
    assert (len(array), array.dimensions, array.cached) == (3, DIMENSIONS, [False, True, False])
    assert [list(array.row(i)) for i in range(3)] == [pytest.approx(vector(t)) for t in texts]


def test_an_answer_is_told_of_before_it_is_read_and_a_refusal_is_not(
    caller: Caller, server: Server
) -> None:
    told: list[int] = []

    def tell() -> None:
        told.append(len(server.requests))

    caller.call("embed_batch_array", ["a", "b"], on_answer=tell)
    assert told == [1]
    server.plan(reply(200, b"not JSON"))
    caller.fails("embed_batch_array", ["a"], on_answer=tell, retries=0)
    assert told == [1, 2]
    server.plan(reply(429, {"detail": "slow down"}), reply(500, b"broken"))
    for _ in range(2):
        caller.fails("embed_batch_array", ["a"], on_answer=tell, retries=0)
    assert told == [1, 2]


@pytest.mark.parametrize("method", ["embed_batch", "embed_batch_array"])
def test_the_answer_in_rows_is_read_as_well(caller: Caller, server: Server, method: str) -> None:
    rows = [{"vector": vector(t), "cached": t == "b", "dimensions": 4} for t in "ab"]
    server.plan(reply(200, rows))
    answer = caller.call(method, ["a", "b"])
    if isinstance(answer, EmbeddingArray):
        assert answer.cached == [False, True]
        assert list(answer.row(1)) == pytest.approx(vector("b"))
    else:
        assert answer == [EmbedResponse(vector(t), t == "b", 4) for t in "ab"]


def test_embed_reads_vector_for_embedding(caller: Caller, server: Server) -> None:
    server.plan(reply(200, {"vector": [0.5, 1], "cached": True, "dimensions": 2}))
    assert caller.call("embed", "a") == EmbedResponse([0.5, 1], cached=True, dimensions=2)


def test_search_by_text_asks_for_no_texts_unless_told(caller: Caller, server: Server) -> None:
    answer = caller.call("search", "find similar", top_k=3, min_score=0.5)
    result = SearchResult("abc", 0.97, None, "nomic-v1.5", 3, None)
    assert answer == SearchResponse([result], total=1, search_time_ms=65)
    assert server.requests[0].json == {
        "query_text": "find similar",
        "model": "nomic-v1.5",
        "top_k": 3,
        "min_score": 0.5,
        "include_text": False,
    }


def test_search_by_vector_returns_texts_and_vectors_if_told(caller: Caller, server: Server) -> None:
    found = {
        "text_hash": "abc",
        "score": 1,
        "text": "a",
        "vector": [0.6, 0.8],
        "model": "m",
        "hit_count": 0,
    }
    server.plan(reply(200, {"results": [found], "total": 1, "search_time_ms": 0.5}))
    answer = caller.call(
        "search", vector=(0.6, 0.8), model="m", include_text=True, include_vectors=True
    )
    result = SearchResult("abc", 1, "a", "m", 0, [0.6, 0.8])
    assert answer == SearchResponse([result], total=1, search_time_ms=0.5)
    assert server.requests[0].json == {
        "query_vector": [0.6, 0.8],
        "model": "m",
        "top_k": 10,
        "include_text": True,
        "include_vectors": True,
    }


def test_stats_returns_the_counts(caller: Caller) -> None:
    assert caller.call("stats") == StatsResponse(cache_hits=0, cache_misses=2, total_cached=9)


def test_health_is_asked_without_the_key(caller: Caller, server: Server) -> None:
    assert caller.call("health") == HealthResponse(status="ok", version="1.0.0")
    assert "authorization" not in server.requests[0].headers


def test_every_request_names_the_key_and_the_client(caller: Caller, server: Server) -> None:
    caller.client(api_key=f"  {KEY}\n")
    caller.call("stats")
    headers = server.requests[0].headers
    python = f"python/{sys.version_info.major}.{sys.version_info.minor}"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert headers["user-agent"] == f"vector-embed-cache-client/0.1.0 {python}"


def test_the_model_of_a_call_stands_above_the_clients(caller: Caller, server: Server) -> None:
    caller.client(model="large")
    caller.call("embed", "a")
    caller.call("embed_batch", ["a"], model="small")
    assert [seen.json["model"] for seen in server.requests] == ["large", "small"]


def test_the_body_is_compact_utf8(caller: Caller, server: Server) -> None:
    caller.call("embed_batch", ["é", "a\n"])
    assert server.requests[0].content == ('{"texts":["é","a\\n"],"model":"nomic-v1.5"}'.encode())
    assert "content-length" in server.requests[0].headers
