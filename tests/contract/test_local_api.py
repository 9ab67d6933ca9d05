"""The local API answers as the real server was seen to: neither kinder nor harsher."""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx
import pytest
from faulty_api.vectors import expected_vector
from servers import API, API_KEY, wait_until

MODEL = "nomic-v1.5"


@pytest.fixture
def http(api: API) -> Iterator[httpx.Client]:
    """A plain HTTP client with a good key: no client library between the test and the bytes."""
    with httpx.Client(
        base_url=api.base_url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10
    ) as client:
        yield client


def details(answer: httpx.Response) -> list[dict[str, object]]:
    assert answer.status_code == 422, answer.text
    found = answer.json()["detail"]
    assert isinstance(found, list)
    return found


# Answers


def test_embed_answers_the_vector_of_the_text(http: httpx.Client) -> None:
    answer = http.post("/v1/embed", json={"text": "hello", "model": MODEL, "public": False})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "embedding": expected_vector("hello"),
        "cached": False,
        "dimensions": 768,
    }


def test_a_batch_answers_parallel_arrays_in_request_order(http: httpx.Client) -> None:
    http.post("/v1/embed", json={"text": "two"})
    answer = http.post("/v1/embed/batch", json={"texts": ["one", "two", "three"]})
    assert answer.json() == {
        "embeddings": [expected_vector(text) for text in ("one", "two", "three")],
        "cached": [False, True, False],
        "dimensions": 768,
    }


def test_a_hundred_texts_answer_1_62_megabytes_of_unit_vectors(http: httpx.Client) -> None:
    answer = http.post("/v1/embed/batch", json={"texts": [f"text {n}" for n in range(100)]})
    assert len(answer.content) == pytest.approx(1_620_000, rel=0.02)
    for vector in answer.json()["embeddings"]:
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-6)


def test_answers_carry_no_request_id_rate_limits_or_compression(http: httpx.Client) -> None:
    answer = http.post("/v1/embed", json={"text": "x"}, headers={"Accept-Encoding": "gzip"})
    assert set(answer.headers) == {"date", "server", "content-length", "content-type"}


def test_unknown_request_fields_are_ignored(http: httpx.Client) -> None:
    assert http.post("/v1/embed", json={"text": "x", "colour": "red"}).status_code == 200


def test_stats_count_hits_misses_and_the_cache(http: httpx.Client) -> None:
    http.post("/v1/embed/batch", json={"texts": ["a", "b", "a"]})
    http.post("/v1/embed", json={"text": "a"})
    assert http.get("/v1/stats").json() == {"cache_hits": 1, "cache_misses": 3, "total_cached": 2}


def test_health_needs_no_key(api: API) -> None:
    answer = httpx.get(f"{api.base_url}/v1/health")
    assert answer.json() == {"status": "ok", "version": "1.0.0"}


@pytest.mark.parametrize("same", ["hello world", "  Hello   World ", "HELLO\n\tworld"])
def test_texts_that_normalise_alike_share_one_entry(http: httpx.Client, same: str) -> None:
    first = http.post("/v1/embed", json={"text": "Hello World"}).json()
    again = http.post("/v1/embed", json={"text": same}).json()
    assert again == {**first, "cached": True}


def test_white_space_is_embedded_and_shares_one_entry(http: httpx.Client) -> None:
    assert http.post("/v1/embed", json={"text": " "}).json()["cached"] is False
    assert http.post("/v1/embed", json={"text": "\n\n"}).json()["cached"] is True


# Search


def test_search_finds_the_nearest_texts_with_scores_from_zero_to_one(http: httpx.Client) -> None:
    http.post("/v1/embed/batch", json={"texts": ["one", "two", "three"]})
    http.post("/v1/embed", json={"text": "two"})
    answer = http.post("/v1/search", json={"query_text": "two", "model": MODEL, "top_k": 2}).json()
    assert set(answer) == {"results", "total", "search_time_ms", "model", "dimensions"}
    assert (answer["total"], answer["model"], answer["dimensions"]) == (2, MODEL, 768)
    first, second = answer["results"]
    assert first["text"] == "two"
    assert first["score"] == pytest.approx(1.0)
    assert (first["model"], first["hit_count"], first["vector"]) == (MODEL, 1, None)
    assert re.fullmatch("[0-9a-f]{64}", first["text_hash"])
    other = expected_vector(second["text"])
    cosine = sum(a * b for a, b in zip(expected_vector("two"), other))
    assert second["score"] == pytest.approx((cosine + 1) / 2)


def test_search_leaves_out_texts_and_adds_vectors_when_asked(http: httpx.Client) -> None:
    http.post("/v1/embed", json={"text": "one"})
    asked = {"query_vector": expected_vector("one"), "model": MODEL, "min_score": 0.9}
    asked |= {"include_text": False, "include_vectors": True}
    (found,) = http.post("/v1/search", json=asked).json()["results"]
    assert found["text"] is None
    assert found["vector"] == expected_vector("one")


@pytest.mark.parametrize(
    ("asked", "status", "detail"),
    [
        ({"query_text": "x", "model": "none"}, 400, "Unknown model: none"),
        ({"query_vector": [1.0, 0.0], "model": MODEL}, 400, "Invalid query vector: "),
        ({"query_vector": [0.0] * 768, "model": MODEL}, 500, "Internal Server Error"),
        ({"query_vector": [1.0] * 768, "model": MODEL}, 500, "Internal Server Error"),
    ],
)
def test_search_refuses(
    http: httpx.Client, asked: dict[str, object], status: int, detail: str
) -> None:
    answer = http.post("/v1/search", json=asked)
    assert answer.status_code == status
    said = answer.json()["detail"] if status == 400 else answer.text
    assert said.startswith(detail)


@pytest.mark.parametrize(
    ("asked", "loc"),
    [
        ({"query_text": "x"}, ["body", "model"]),
        ({"model": MODEL}, ["body"]),
        ({"query_text": "x", "model": MODEL, "top_k": 0}, ["body", "top_k"]),
        ({"query_text": "x", "model": MODEL, "top_k": 101}, ["body", "top_k"]),
        ({"query_text": "x", "model": MODEL, "min_score": 1.1}, ["body", "min_score"]),
    ],
)
def test_search_names_the_field_that_is_wrong(
    http: httpx.Client, asked: dict[str, object], loc: list[str]
) -> None:
    assert [entry["loc"] for entry in details(http.post("/v1/search", json=asked))] == [loc]


# Errors, row by row


def test_no_authorization_header_is_a_422(api: API) -> None:
    (entry,) = details(httpx.post(f"{api.base_url}/v1/embed", json={"text": "x"}))
    assert entry["loc"] == ["header", "authorization"]
    assert entry["msg"] == "Field required"


@pytest.mark.parametrize(
    ("key", "detail"),
    [("vec_wrong", "Invalid or revoked API key"), ("sk-1", "Invalid API key format")],
)
def test_a_wrong_key_is_a_401(api: API, http: httpx.Client, key: str, detail: str) -> None:
    api.faults(keys=[API_KEY])
    answer = http.post("/v1/embed", json={"text": "x"}, headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()) == (401, {"detail": detail})
    assert http.post("/v1/embed", json={"text": "x"}).status_code == 200


def test_an_empty_text_is_too_short(http: httpx.Client) -> None:
    (entry,) = details(http.post("/v1/embed", json={"text": ""}))
    assert (entry["type"], entry["loc"]) == ("string_too_short", ["body", "text"])


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("", "Value error, texts[1] must be at least 1 character"),
        ("x" * 10_001, "Value error, texts[1] exceeds max length of 10000 characters"),
    ],
)
def test_the_first_bad_text_of_a_batch_is_named_and_the_body_echoed(
    http: httpx.Client, bad: str, told: str
) -> None:
    body = {"texts": ["good", bad, "", "good"]}
    (entry,) = details(http.post("/v1/embed/batch", json=body))
    assert (entry["loc"], entry["msg"], entry["input"]) == (["body"], told, body)


def test_a_text_of_10_000_code_points_is_taken(http: httpx.Client) -> None:
    assert http.post("/v1/embed", json={"text": "é" * 10_000}).status_code == 200


def test_101_texts_are_too_long_and_all_echoed(http: httpx.Client) -> None:
    texts = [f"text {n}" for n in range(101)]
    (entry,) = details(http.post("/v1/embed/batch", json={"texts": texts}))
    assert (entry["type"], entry["loc"]) == ("too_long", ["body", "texts"])
    assert entry["input"] == texts


@pytest.mark.parametrize(
    ("path", "content", "loc"),
    [
        ("/v1/embed", b"", ["body"]),
        ("/v1/embed", b"[1]", ["body"]),
        ("/v1/embed", b'{"text": 1}', ["body", "text"]),
        ("/v1/embed", b"{}", ["body", "text"]),
        ("/v1/embed", b'{"text"', ["body", 7]),
        ("/v1/embed/batch", b'{"texts": []}', ["body", "texts"]),
        ("/v1/embed/batch", b'{"texts": "abc"}', ["body", "texts"]),
        ("/v1/embed/batch", b'{"texts": ["a", null]}', ["body", "texts", 1]),
    ],
)
def test_a_malformed_body_is_a_422(
    http: httpx.Client, path: str, content: bytes, loc: list[object]
) -> None:
    assert details(http.post(path, content=content))[0]["loc"] == loc


def test_a_body_over_1_000_000_bytes_is_a_413(http: httpx.Client) -> None:
    texts = ["x" * 9_996] * 100
    fits = json.dumps({"texts": texts}, separators=(",", ":")).encode()
    assert len(fits) <= 1_000_000
    assert http.post("/v1/embed/batch", content=fits).status_code == 200
    answer = http.post("/v1/embed/batch", content=fits + b" " * (1_000_001 - len(fits)))
    assert answer.status_code == 413
    assert answer.json() == {"detail": "Request body exceeds max size of 1000000 bytes"}


def test_an_unknown_model_is_a_500_that_charges(api: API, http: httpx.Client) -> None:
    answer = http.post("/v1/embed/batch", json={"texts": ["a", "b"], "model": "none"})
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["content-type"].startswith("text/plain")
    assert api.log().charged == 2


def test_an_unpaired_surrogate_is_a_500(http: httpx.Client) -> None:
    answer = http.post("/v1/embed", content=rb'{"text": "\ud800"}')
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def test_a_trailing_slash_is_a_307(api: API, http: httpx.Client) -> None:
    answer = http.post("/v1/embed/", json={"text": "x"})
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{api.base_url}/v1/embed"


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [("GET", "/v1/nothing", 404, "Not Found"), ("GET", "/v1/embed", 405, "Method Not Allowed")],
)
def test_other_paths_and_methods_say_so_in_json(
    http: httpx.Client, method: str, path: str, status: int, detail: str
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


def test_an_account_that_cannot_embed_is_a_400_for_every_text(api: API, http: httpx.Client) -> None:
    api.faults(rules=[{"answer": "account"}])
    for text in ("one", "two"):
        answer = http.post("/v1/embed", json={"text": text})
        assert (answer.status_code, answer.json()) == (
            400,
            {"detail": "Free tier requires BYOK provider"},
        )


def test_an_idle_connection_is_kept_for_five_seconds(api: API) -> None:
    url = httpx.URL(api.base_url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as line:
        line.sendall(b"GET /v1/health HTTP/1.1\r\nHost: local\r\n\r\n")
        assert line.recv(10_000).startswith(b"HTTP/1.1 200")
        start = time.monotonic()
        while line.recv(10_000):
            start = time.monotonic()
        assert time.monotonic() - start == pytest.approx(5.0, abs=0.7)


# The quota


def test_the_quota_counts_misses_and_refuses_a_batch_whole(api: API, http: httpx.Client) -> None:
    # Given a key with 5 texts a day, 3 of them used: duplicates are each charged
    api.faults(quota=5)
    assert http.post("/v1/embed/batch", json={"texts": ["a", "a", "b"]}).status_code == 200
    # When a batch would go over, it is refused and nothing of it charged
    answer = http.post("/v1/embed/batch", json={"texts": ["c", "d", "e"]})
    assert answer.status_code == 429
    assert "retry-after" not in answer.headers
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    told = f"Rate limit exceeded. Limit: 5/day. Resets at: {today} 00:00 UTC"
    assert answer.json() == {"detail": told}
    # Then a smaller one that fits is served, and hits always are
    assert http.post("/v1/embed/batch", json={"texts": ["c", "d", "a"]}).status_code == 200
    assert http.post("/v1/embed", json={"text": "e"}).status_code == 429
    assert http.post("/v1/embed/batch", json={"texts": ["a", "b", "c"]}).status_code == 200
    assert api.log().charged == 5


def test_a_500_keeps_the_charge_and_stores_nothing(api: API, http: httpx.Client) -> None:
    api.faults(rules=[{"answer": "error", "times": 1}])
    assert http.post("/v1/embed", json={"text": "a"}).status_code == 500
    assert http.post("/v1/embed", json={"text": "a"}).json()["cached"] is False
    assert api.log().charged == 2


def test_an_answer_that_is_lost_was_stored_and_costs_nothing_again(
    api: API, http: httpx.Client
) -> None:
    api.faults(rules=[{"answer": "lost", "times": 1}])
    with pytest.raises(httpx.ReadError):
        http.post("/v1/embed/batch", json={"texts": ["a", "b"]})
    again = http.post("/v1/embed/batch", json={"texts": ["a", "b"]}).json()
    assert again["cached"] == [True, True]
    assert api.log().charged == 2


# Faults


@pytest.mark.parametrize(
    ("answer", "status", "content_type", "body"),
    [
        ("slow_down", 429, "application/json", '{"detail":"Too Many Requests"}'),
        ("unavailable", 503, "application/json", '{"detail":"Service Unavailable"}'),
        ("request_timeout", 408, "application/json", '{"detail":"Request Timeout"}'),
        ("gateway", 502, "text/html; charset=utf-8", "<html>"),
        ("revoked", 401, "application/json", '{"detail":"Invalid or revoked API key"}'),
        ("forbidden", 403, "application/json", '{"detail":"Forbidden"}'),
        ("unnamed", 400, "application/json", '{"detail":"Invalid input"}'),
        ("error", 500, "text/plain; charset=utf-8", "Internal Server Error"),
        ("garbage", 200, "text/html; charset=utf-8", "<html>"),
    ],
)
def test_a_fault_answers(
    api: API, http: httpx.Client, answer: str, status: int, content_type: str, body: str
) -> None:
    api.faults(rules=[{"answer": answer}])
    got = http.post("/v1/embed/batch", json={"texts": ["a"]})
    assert (got.status_code, got.headers["content-type"]) == (status, content_type)
    assert got.text.startswith(body)


def test_a_poisoned_text_is_named_by_its_place(api: API, http: httpx.Client) -> None:
    api.faults(rules=[{"answer": "named", "marker": "POISON"}])
    (entry,) = details(http.post("/v1/embed/batch", json={"texts": ["a", "b", "POISON", "c"]}))
    assert str(entry["msg"]).startswith("Value error, texts[2] ")
    assert http.post("/v1/embed/batch", json={"texts": ["a", "b", "c"]}).status_code == 200


@pytest.mark.parametrize("answer", ["reset", "lost"])
def test_a_connection_is_reset(api: API, http: httpx.Client, answer: str) -> None:
    api.faults(rules=[{"answer": answer}])
    with pytest.raises(httpx.ReadError):
        http.post("/v1/embed", json={"text": "a"})
    wait_until(lambda: api.log().statuses.get(0) == 1, what="an answer that was none is counted")


def test_a_truncated_answer_ends_before_its_length(api: API, http: httpx.Client) -> None:
    api.faults(rules=[{"answer": "truncate"}])
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/v1/embed", json={"text": "a"})


def test_a_dripped_answer_takes_its_time_and_is_whole(api: API, http: httpx.Client) -> None:
    api.faults(rules=[{"answer": "drip", "seconds": 0.3}])
    start = time.monotonic()
    assert http.post("/v1/embed", json={"text": "a"}).json()["embedding"] == expected_vector("a")
    assert time.monotonic() - start >= 0.3


def test_wrong_counts(api: API, http: httpx.Client) -> None:
    for answer, count in (("short", 1), ("long", 3)):
        api.faults(rules=[{"answer": answer}])
        got = http.post("/v1/embed/batch", json={"texts": ["a", "b"]}).json()
        assert len(got["embeddings"]) == count


@pytest.mark.parametrize(
    ("answer", "number", "length"),
    [
        ("nan", math.nan, 768),
        ("infinity", math.inf, 768),
        ("zero", 0.0, 768),
        ("dimension", 1, 767),
    ],
)
def test_wrong_vectors_are_those_of_the_marked_texts_alone(
    api: API, http: httpx.Client, answer: str, number: float, length: int
) -> None:
    api.faults(rules=[{"answer": answer, "marker": "BAD"}])
    got = json.loads(http.post("/v1/embed/batch", json={"texts": ["a", "BAD"]}).content)
    good, bad = got["embeddings"]
    assert good == expected_vector("a")
    assert len(bad) == length
    if answer != "dimension":
        assert str(bad[0]) == str(number)


def test_other_deployments_answer_rows(api: API, http: httpx.Client) -> None:
    api.faults(rules=[{"answer": "rows"}])
    row = {"vector": expected_vector("a"), "cached": False, "dimensions": 768}
    assert http.post("/v1/embed", json={"text": "a"}).json() == row
    got = http.post("/v1/embed/batch", json={"texts": ["a", "b"]}).json()
    assert got == [{**row, "cached": True}, {**row, "vector": expected_vector("b")}]


def test_a_rule_skips_and_ends(api: API, http: httpx.Client) -> None:
    api.faults(rules=[{"answer": "error", "skip": 1, "times": 2}])
    statuses = [http.post("/v1/embed", json={"text": "a"}).status_code for _ in range(5)]
    assert statuses == [200, 500, 500, 200, 200]


def test_chance_is_the_same_for_the_same_seed(api: API, http: httpx.Client) -> None:
    def statuses() -> list[int]:
        api.faults(seed=7, rules=[{"answer": "gateway", "probability": 0.5}])
        return [http.post("/v1/embed", json={"text": "a"}).status_code for _ in range(20)]

    first = statuses()
    assert set(first) == {200, 502}
    assert statuses() == first


@pytest.mark.parametrize("limiter", ["window", "bucket"])
def test_the_rate_limiter_lets_so_many_through_and_says_when_to_come_back(
    api: API, http: httpx.Client, limiter: str
) -> None:
    api.faults(rate=3, per=30.0, limiter=limiter)
    answers = [http.post("/v1/embed", json={"text": "a"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    wait = 30 if limiter == "window" else 10
    assert wait - 2 <= int(answers[-1].headers["retry-after"]) <= wait


@pytest.mark.parametrize("form", ["seconds", "fraction", "date", "none"])
def test_the_rate_limiter_speaks_every_form_of_retry_after(
    api: API, http: httpx.Client, form: str
) -> None:
    api.faults(rate=1, per=30.0, retry_after=form)
    http.post("/v1/embed", json={"text": "a"})
    said = http.post("/v1/embed", json={"text": "a"}).headers.get("retry-after")
    if form == "none":
        assert said is None
    elif form == "date":
        wait = parsedate_to_datetime(said) - datetime.now(timezone.utc)
        assert 27 <= wait.total_seconds() <= 31
    else:
        assert re.fullmatch(r"\d+" if form == "seconds" else r"\d+\.\d{3}", said)
        assert 28 <= float(said) <= 30


@pytest.mark.parametrize("answer", ["slow_down", "unavailable"])
def test_a_rule_says_retry_after_verbatim_or_as_a_date(
    api: API, http: httpx.Client, answer: str
) -> None:
    api.faults(rules=[{"answer": answer, "retry_after": "0.5"}])
    assert http.post("/v1/embed", json={"text": "a"}).headers["retry-after"] == "0.5"
    api.faults(rules=[{"answer": answer, "retry_after": "+60"}])
    said = http.post("/v1/embed", json={"text": "a"}).headers["retry-after"]
    wait = parsedate_to_datetime(said) - datetime.now(timezone.utc)
    assert 58 <= wait.total_seconds() <= 61


def test_requests_in_compute_are_counted_and_freeze_the_server_when_too_many(api: API) -> None:
    api.faults(latency=0.5, freeze_at=3, freeze_seconds=1.5)
    seconds: list[float] = []

    def call(number: int) -> None:
        start = time.monotonic()
        httpx.post(
            f"{api.base_url}/v1/embed",
            json={"text": f"text {number}"},
            headers={"Authorization": f"Bearer {API_KEY}"},
        ).raise_for_status()
        seconds.append(time.monotonic() - start)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert api.log().most_in_flight == 3
    assert max(seconds) >= 2.0 > min(seconds) >= 0.5


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({"latencies": 1}, "unknown faults 'latencies'"),
        ({"latency": "1"}, "latency must be a number"),
        ({"quota": 1.5}, "quota must be a whole number"),
        ({"rules": [{"answer": "nonsense"}]}, "unknown answer 'nonsense'"),
        ({"rules": [{"answer": "nan", "maker": "x"}]}, "unknown rule 'maker'"),
    ],
)
def test_faults_that_mean_nothing_are_refused(
    http: httpx.Client, faults: dict[str, object], told: str
) -> None:
    answer = http.put("/_faults", json=faults)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(told)
