"""Which error each answer becomes, with the API's own bodies, and what no error may hold."""

from __future__ import annotations

import html
import itertools
import json
import logging
import re
import traceback
from collections.abc import AsyncIterator
from urllib.parse import quote, quote_plus, unquote

import pytest

from vector_embed_client import (
    AuthenticationError,
    NetworkError,
    RateLimitError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)

from .loopback import KEY, Caller, Server, reply

TEXT = "the patient, Jane Roe, was born on 3 May"


def refusal(loc: list[object], msg: str, kind: str = "value_error") -> dict[str, object]:
    """A 422 as the API writes it: the request is echoed."""
    echo = {"texts": [TEXT, "short"], "model": "nomic-v1.5"}
    return {"detail": [{"type": kind, "loc": loc, "msg": msg, "input": echo, "ctx": {"e": TEXT}}]}


EMPTY_IN_BATCH = refusal(["body"], "Value error, texts[1] must be at least 1 character")
LONG_IN_BATCH = refusal(["body"], "Value error, texts[1] exceeds max length of 10000 characters")
NO_KEY = refusal(["header", "authorization"], "Field required", "missing")
SHORT = refusal(["body", "text"], "String should have at least 1 character", "string_too_short")
BY_PLACE = refusal(["body", "texts", 17], "Input should be a valid string", "string_type")
TOO_MANY = refusal(["body", "texts"], "List should have at most 100 items", "too_long")
QUOTA = "Rate limit exceeded. Limit: 50000/day. Resets at: 2026-11-23 00:00 UTC"

# status, body, class, code, index, what the message says
ANSWERS: list[tuple[int, object, type[VectorEmbedError], str, int | None, str]] = [
    (
        401,
        {"detail": "Invalid or revoked API key"},
        AuthenticationError,
        "invalid_key",
        None,
        "Invalid or revoked API key",
    ),
    (
        401,
        {"detail": "Invalid API key format"},
        AuthenticationError,
        "invalid_key",
        None,
        "Invalid API key format",
    ),
    (403, {"detail": "Forbidden"}, AuthenticationError, "forbidden", None, "Forbidden"),
    (404, {"detail": "Not Found"}, VectorEmbedError, "http_error", None, "Not Found"),
    (405, {"detail": "Method Not Allowed"}, VectorEmbedError, "http_error", None, "Method Not All"),
    (422, NO_KEY, ValidationError, "missing_key", None, "header.authorization: Field required"),
    (422, SHORT, ValidationError, "invalid_request", None, "body.text: String should have at"),
    (422, EMPTY_IN_BATCH, ValidationError, "invalid_request", 1, "texts[1] must be at least 1"),
    (422, LONG_IN_BATCH, ValidationError, "invalid_request", 1, "texts[1] exceeds max length"),
    (422, BY_PLACE, ValidationError, "invalid_request", 17, "body.texts.17: Input should be"),
    (422, TOO_MANY, ValidationError, "invalid_request", None, "body.texts: List should have"),
    (
        413,
        {"detail": "Request body exceeds max size of 1000000 bytes"},
        ValidationError,
        "too_large",
        None,
        "exceeds max size",
    ),
    (
        400,
        {"detail": "Unknown model: nope"},
        ValidationError,
        "invalid_request",
        None,
        "Unknown model: nope",
    ),
    (
        400,
        {"detail": "texts[3] cannot be embedded"},
        ValidationError,
        "invalid_request",
        3,
        "texts[3] cannot be embedded",
    ),
    (
        400,
        {"detail": "Free tier requires BYOK provider"},
        ValidationError,
        "account",
        None,
        "Free tier requires BYOK provider",
    ),
    (400, {"error": "bad input"}, ValidationError, "invalid_request", None, "bad input"),
    (400, {"error": {"message": "bad"}}, ValidationError, "invalid_request", None, "bad"),
    (400, {"message": "bad"}, ValidationError, "invalid_request", None, "bad"),
    (400, [1, 2], ValidationError, "invalid_request", None, "the server answered 400 Bad Request"),
    (400, {"detail": {"a": 1}}, ValidationError, "invalid_request", None, "answered 400"),
    (422, {"detail": [1, {"loc": 3}]}, ValidationError, "invalid_request", None, "invalid"),
    (429, {"detail": QUOTA}, RateLimitError, "rate_limited", None, "Limit: 50000/day"),
    (
        408,
        b"",
        VectorEmbedError,
        "request_timeout",
        None,
        "the server answered 408 Request Timeout",
    ),
    (500, b"Internal Server Error", ServerError, "server_error", None, "Internal Server Error"),
    (
        502,
        b"<html><head><title>502 Bad Gateway</title><style>p {}</style></head>\n<hr>nginx</html>",
        ServerError,
        "server_error",
        None,
        "the server answered 502 Bad Gateway",
    ),
    (503, b"", ServerError, "server_error", None, "the server answered 503 Service Unavailable"),
    (599, b"\xff\xfe\x00", ServerError, "server_error", None, ""),
    (418, b"", VectorEmbedError, "http_error", None, "the server answered 418"),
    (307, b"", VectorEmbedError, "redirect", None, "check base_url"),
]


@pytest.mark.parametrize("status, body, kind, code, index, words", ANSWERS)
def test_an_answer_becomes_its_error(
    caller: Caller,
    server: Server,
    status: int,
    body: object,
    kind: type[VectorEmbedError],
    code: str,
    index: int | None,
    words: str,
) -> None:
    server.plan(reply(status, body, {"X-Request-Id": "req-1"}))
    error = caller.fails("embed_batch", [TEXT, "short"], retries=0)
    assert type(error) is kind
    assert (error.status, error.code, error.index) == (status, code, index)
    assert words in str(error)
    assert error.body in str(error)
    assert error.request_id == "req-1"
    assert error.retry_after is None
    assert len(error.body) <= 300
    assert "\n" not in str(error)


def test_a_redirect_is_not_followed_even_by_ones_own_client(caller: Caller, server: Server) -> None:
    caller.client(http_client=caller.http_client(follow_redirects=True))
    server.plan(reply(307, b"", {"Location": "/elsewhere"}))
    assert caller.fails("embed", "a").status == 307
    assert [seen.path for seen in server.requests] == ["/v1/embed"]


async def one_by_one() -> AsyncIterator[str]:
    yield "a"


# What would be refused anyway is not sent.
REFUSED: list[tuple[str, object, str, int | None]] = [
    ("embed", "", "text cannot be embedded: empty", None),
    ("embed", " \t\n", "white space only", None),
    ("embed", "a" * 10_001, "10,001 characters, more than 10,000", None),
    ("embed", "a\ud800", "unpaired surrogate at character 1", None),
    ("embed", 7, "not a string but int", None),
    ("embed_batch", ["a", ""], "texts[1] cannot be embedded: empty", 1),
    ("embed_batch", ["a", None], "texts[1] cannot be embedded: not a string", 1),
    ("embed_batch", ["a"] * 101, "a batch takes at most 100 texts", None),
    ("embed_batch", [], "a batch of no texts", None),
    ("embed_batch", "hello", "a list of strings, not one str", None),
    ("embed_batch", b"hello", "a list of strings, not one bytes", None),
    ("embed_batch", None, "a list of strings, not one NoneType", None),
    ("embed_batch", ["é" * 10_000] * 51, "bytes, more than 1,000,000", None),
    ("embed_batch_array", ["a" * 10_000] * 100, "bytes, more than 1,000,000", None),
    ("search", " ", "white space only", None),
    ("search", None, "needs a text or a vector", None),
    ("embed_batch", itertools.repeat("endless"), "at most 100 texts", None),
    ("embed_batch", one_by_one(), "a list of strings, not one async_generator", None),
]


@pytest.mark.parametrize("method, argument, words, index", REFUSED)
def test_what_would_be_refused_is_not_sent(
    caller: Caller, server: Server, method: str, argument: object, words: str, index: int | None
) -> None:
    error = caller.fails(method, argument)
    assert isinstance(error, ValidationError)
    assert (error.status, error.index) == (None, index)
    assert words in str(error)
    assert server.requests == []


NO_UNIT_VECTORS = [[], [float("nan")], [float("inf")], ["a"], 7, [0.0, 0.0], [1.0, 1.0], [0.98]]


@pytest.mark.parametrize("vector", NO_UNIT_VECTORS)
def test_a_vector_that_the_server_would_choke_on_is_not_sent(
    caller: Caller, server: Server, vector: object
) -> None:
    assert isinstance(caller.fails("search", vector=vector), ValidationError)
    assert isinstance(caller.fails("search", "text", vector=[1.0]), ValidationError)
    assert isinstance(caller.fails("embed", "a", model="\ud800"), ValidationError)
    assert server.requests == []


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0},
        {"top_k": 101},
        {"top_k": 2.5},
        {"top_k": "3"},
        {"top_k": True},
        {"min_score": float("nan")},
        {"min_score": -0.1},
        {"min_score": 1.1},
        {"min_score": "0.5"},
    ],
)
def test_a_search_that_would_be_refused_is_not_sent(
    caller: Caller, server: Server, options: dict[str, object]
) -> None:
    error = caller.fails("search", "a", **options)
    assert isinstance(error, ValidationError)
    assert next(iter(options)) in str(error)
    assert server.requests == []


def test_a_vector_one_percent_off_is_sent_as_it_is(caller: Caller, server: Server) -> None:
    caller.call("search", vector=[1.009, 0.0])
    assert server.requests[0].json["query_vector"] == [1.009, 0.0]


def test_a_refused_connection_names_the_address(caller: Caller, server: Server) -> None:
    server.stop()
    error = caller.fails("embed", TEXT, retries=0)
    assert isinstance(error, NetworkError)
    assert (error.code, error.status) == ("connection_error", None)
    assert server.url in str(error)


ECHOES = [
    reply(422, EMPTY_IN_BATCH),
    reply(422, {"detail": [{"loc": ["body"], "msg": f"not {TEXT}", "input": KEY, TEXT: KEY}]}),
    reply(400, {"detail": f"cannot embed '{TEXT}' for {KEY}"}),
    reply(400, {"detail": f"cannot embed '{TEXT[:25]}...' for Bearer {KEY}"}),
    reply(400, {"detail": f"{TEXT.upper()} for {KEY.upper()}"}),
    reply(400, {"detail": TEXT.replace(" ", " \n  ")}),
    reply(400, {"detail": f"/v1/embed?text={quote(TEXT)}&or={quote_plus(TEXT)}"}),
    reply(400, {"detail": quote(quote(html.escape(f"'{TEXT}'")))}),
    reply(400, {"detail": f"in {json.dumps(json.dumps({'texts': [TEXT]}))}"}),
    reply(502, f"<p>{html.escape(TEXT + ' &')}</p>".encode()),
    reply(502, "".join(f"&#{ord(c)};" for c in TEXT).encode()),
    reply(500, "".join(f"\\u{ord(c):04x}" for c in TEXT).encode()),
    reply(401, {"detail": f"Invalid key: {KEY[:15]}..."}),
    reply(400, {"error": {"texts": [TEXT], "key": KEY}}),
    reply(400, {TEXT: [KEY]}),
    reply(500, f"Traceback: {TEXT!r}\n{KEY}".encode()),
    reply(502, f"<html><p>{TEXT}</p><p>{KEY}</p></html>".encode(), {"X-Request-Id": KEY}),
    reply(200, {"embeddings": [TEXT], "cached": [KEY], "dimensions": TEXT}),
    reply(200, f"{TEXT} {KEY}".encode()),
]


def letters(said: str) -> str:
    """What a person makes out of `said`, whatever it was escaped for."""
    unescaped = html.unescape(unquote(re.sub(r"\\u(....)", r"&#x\1;", said)))
    return "".join(c for c in unescaped.casefold() if c.isalnum())


@pytest.mark.parametrize("echo", ECHOES)
def test_neither_key_nor_text_is_in_an_error_a_traceback_or_a_log(
    caller: Caller, server: Server, echo: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="vector_embed_client")
    server.usual = echo  # type: ignore[assignment]  # a Reply, which a parameter cannot say
    client = caller.client()
    error = caller.fails("embed_batch", [TEXT], retries=0)
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    said = [
        str(error),
        repr(error),
        error.body,
        repr(vars(error)),
        repr(client),
        lines,
        caplog.text,
    ]
    for place in said:
        assert letters(KEY[:12]) not in letters(place)
        assert letters(TEXT[:22]) not in letters(place)
    # The errors of httpx hold the request with the key in its headers.
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_lost_connection_leaves_no_httpx_error_behind(caller: Caller, server: Server) -> None:
    server.stop()
    error = caller.fails("embed", TEXT, retries=0)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    "texts", [["text", "must"], ["texts", "b"], ["texts[", "1"], ["value error"]]
)
def test_a_short_text_is_not_cut_out_of_ordinary_words(
    caller: Caller, server: Server, texts: list[str]
) -> None:
    server.plan(reply(422, EMPTY_IN_BATCH))
    error = caller.fails("embed_batch", texts, retries=0)
    assert "texts[1] must be at least 1 character" in str(error)
    assert error.index == 1


def test_a_short_text_is_masked_where_it_is_quoted(caller: Caller, server: Server) -> None:
    server.plan(reply(400, {"detail": "no 'Jane' or (jane), jane is no text: Jane"}))
    assert str(caller.fails("embed", "Jane")) == "no '[…]' or ([…]), jane is no text: […]"


def test_an_answer_that_is_nothing_but_an_echo_leaves_its_status(
    caller: Caller, server: Server
) -> None:
    server.plan(reply(400, {"detail": f'"{TEXT}"'}))
    assert str(caller.fails("embed", TEXT)) == "the server answered 400 Bad Request"


@pytest.mark.parametrize("text", ["as was said of texts[7] before", "texts[7] is what he said"])
def test_an_index_inside_an_echoed_text_is_not_taken_for_one(
    caller: Caller, server: Server, text: str
) -> None:
    server.plan(reply(400, {"detail": f"cannot embed {text!r}"}), reply(400, {"detail": text}))
    assert caller.fails("embed_batch", ["a", text]).index is None
    assert caller.fails("embed_batch", ["a", text]).index is None


def test_an_error_answer_may_be_megabytes_long(caller: Caller, server: Server) -> None:
    texts = [f"{i} {'long text ' * 900}" for i in range(100)]
    whole = {"detail": [{"loc": ["body"], "msg": "Value error, texts[99] no", "input": texts}]}
    server.plan(reply(422, whole))
    error = caller.fails("embed_batch", texts)
    assert error.index == 99
    assert len(str(error)) < 100
    server.plan(reply(400, {"detail": "x" * 60_000}))
    assert len(caller.fails("embed", "a").body) == 300


@pytest.mark.parametrize("status", [400, 403, 500, 502])
@pytest.mark.parametrize(
    "body",
    [
        b"x" * 3_000_000,
        b"<html><body>blocked by the proxy of Example Ltd</body></html>",
        b'{"detail": "cut',
        b'["detail", "of a list"]',
        {"unknown": "field", "detail": {"trace": "of the server"}},
        {"detail": [{"input": "echoed", "ctx": {"reason": "hidden"}}]},
    ],
)
def test_of_a_body_only_the_known_fields_of_its_json_are_shown(
    caller: Caller, server: Server, status: int, body: object
) -> None:
    server.plan(reply(status, body))
    error = caller.fails("embed", "a", retries=0)
    assert error.body in ("", ": invalid")
    assert str(error) == error.body or str(error).startswith(f"the server answered {status}")
