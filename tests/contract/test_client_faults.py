"""A faulty server: every call ends in an answer or in one of our errors, and in nothing else."""

from __future__ import annotations

import gzip
import json
import random
import socket
import time
import zlib

import pytest

from vector_embed_client import EmbedResponse, NetworkError, ServerError, VectorEmbedError

from .loopback import (
    Caller,
    Reply,
    Seen,
    Server,
    bytes_of,
    drip,
    raw,
    reply,
    truncated,
    vector,
)

GOOD = {"embeddings": [[1.0, 2.0], [3.0, 4.0]], "cached": [False, True], "dimensions": 2}


def columns(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}, separators=(",", ":")).encode()


def first_row(row: str) -> bytes:
    return columns().replace(b"[1.0,2.0]", row.encode())


WRONG: dict[str, bytes] = {
    "one vector too few": columns(embeddings=[[1.0, 2.0]]),
    "one vector too many": columns(embeddings=[[1.0, 2.0]] * 3),
    "one flag too few": columns(cached=[False]),
    "a flag that is a number": columns(cached=[0, 1]),
    "no flags": columns(cached=None),
    "no vectors": columns(embeddings=None),
    "a wrong dimension": columns(dimensions=3),
    "a dimension of zero": columns(embeddings=[[], []], dimensions=0),
    "a dimension that is true": columns(embeddings=[[1.0], [2.0]], dimensions=True),
    "no dimension": columns(dimensions=None),
    "a short row": first_row("[1.0]"),
    "a null row": first_row("null"),
    "an object for a row": first_row('{"0":1.0,"1":2.0}'),
    "a null": first_row("[1.0,null]"),
    "a string": first_row('[1.0,"2.0"]'),
    "a list": first_row("[1.0,[2.0]]"),
    "true": first_row("[1.0,true]"),
    "false": first_row("[1.0,false]"),
    "true in a spaced body": columns().replace(b"[[1.0,", b"[ [ true , "),
    "NaN": first_row("[1.0,NaN]"),
    "Infinity": first_row("[1.0,-Infinity]"),
    "an overflow": first_row("[1.0,1e999]"),
    "a huge whole number": first_row("[1.0,1" + "0" * 400 + "]"),
    "true before lists of lists": columns().replace(b"[[1.0,", b"[ [true,")[:-1]
    + b',"more":[[1]]}',
    "not JSON": b"{",
    "nothing": b"",
    "a string for everything": b'"ok"',
    "an empty list": b"[]",
    "rows of unequal length": json.dumps(
        [
            {"vector": [1.0], "cached": False, "dimensions": 1},
            {"vector": [1.0, 2.0], "cached": False, "dimensions": 2},
        ]
    ).encode(),
    "rows that are none": b"[1, 2]",
    "bytes that are not UTF-8": columns().replace(b"cached", b"\xff\xff"),
    "a nest of lists": b"[" * 100_000,
}

WRONG_FOR_FLOAT32 = {
    "a row of zeros": first_row("[0.0,-0.0]"),
    "a row that float32 makes zeros": first_row("[1e-60,-1e-60]"),
    "a number beyond float32": first_row("[1.0,1e39]"),
}


@pytest.mark.parametrize("method", ["embed_batch", "embed_batch_array"])
@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_is_a_typed_error(
    caller: Caller, server: Server, method: str, body: bytes
) -> None:
    server.plan(reply(200, body, {"X-Request-Id": "req-1"}))
    error = caller.fails(method, ["a", "b"], retries=0)
    assert type(error) is VectorEmbedError
    assert (error.code, error.status, error.request_id) == ("bad_response", 200, "req-1")


@pytest.mark.parametrize("body", WRONG_FOR_FLOAT32.values(), ids=WRONG_FOR_FLOAT32.keys())
def test_a_row_that_float32_cannot_hold_is_refused(
    caller: Caller, server: Server, body: bytes
) -> None:
    server.plan(reply(200, body))
    error = caller.fails("embed_batch_array", ["a", "b"], retries=0)
    assert (error.code, error.status) == ("bad_response", 200)


@pytest.mark.parametrize(
    "method, body",
    [
        ("embed", b'{"embedding": [1.0, NaN], "cached": false, "dimensions": 2}'),
        ("embed", b'{"embedding": [1.0, true], "cached": false, "dimensions": 2}'),
        ("embed", b'{"embedding": [1.0], "cached": "no", "dimensions": 1}'),
        ("search", b'{"results": [{}], "total": 1, "search_time_ms": 1}'),
        ("search", b'{"results": {}, "total": 1, "search_time_ms": 1}'),
        ("search", b'{"results": [], "total": "1", "search_time_ms": 1}'),
        ("stats", b'{"cache_hits": 1}'),
        ("health", b'{"status": 1, "version": "1"}'),
    ],
)
def test_every_call_checks_its_answer(
    caller: Caller, server: Server, method: str, body: bytes
) -> None:
    server.plan(reply(200, body))
    arguments = ["a"] if method in ("embed", "search") else []
    assert caller.fails(method, *arguments, retries=0).code == "bad_response"


def test_fields_that_nobody_asked_for_do_no_harm(caller: Caller, server: Server) -> None:
    server.plan(reply(200, columns(model="left-to-right", usage={"fast": True})))
    assert caller.call("embed_batch", ["a", "b"]) == [
        EmbedResponse([1.0, 2.0], False, 2),
        EmbedResponse([3.0, 4.0], True, 2),
    ]


def test_a_slow_answer_is_an_answer(caller: Caller, server: Server) -> None:
    body = json.dumps({"embedding": vector("a"), "cached": False, "dimensions": 4}).encode()
    server.plan(drip(raw(200, body), 0.001))
    assert caller.call("embed", "a", retries=0) == EmbedResponse(vector("a"), False, 4)


@pytest.mark.parametrize("limit", ["timeout", "deadline"])
def test_a_dripping_body_ends_with_the_time_of_the_call(
    caller: Caller, server: Server, limit: str
) -> None:
    server.usual = drip(raw(200, b" " * 2000), 0.02, first=120)
    began = time.monotonic()
    error = caller.fails("embed", "a", retries=0, **{limit: 0.4})
    assert isinstance(error, NetworkError)
    assert error.code == "timeout"
    assert time.monotonic() - began < 1.5


def test_dripping_headers_end_with_the_deadline(caller: Caller, server: Server) -> None:
    server.usual = drip(b"HTTP/1.1 200 OK\r\nX-Pad: " + b"a" * 2000, 0.02)
    began = time.monotonic()
    error = caller.fails("embed", "a", deadline=0.4)
    assert isinstance(error, NetworkError)
    assert time.monotonic() - began < 1.5


def test_html_from_a_proxy_is_a_server_error(caller: Caller, server: Server) -> None:
    page = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
    server.plan(reply(502, page, {"Content-Type": "text/html"}))
    error = caller.fails("embed", "a", retries=0)
    assert isinstance(error, ServerError)
    assert str(error) == "the server answered 502 Bad Gateway"


def test_an_answer_without_end_is_given_up(caller: Caller, server: Server) -> None:
    sent = 0

    def endless(connection: socket.socket, seen: Seen) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 200_000_000:  # in vain, if nobody stops it
            connection.sendall(b" " * 1_000_000)
            sent += 1_000_000

    server.plan(endless)
    error = caller.fails("embed", "a", retries=0)
    assert (error.code, error.status) == ("bad_response", 200)
    assert "does not end" in str(error)
    assert sent < 100_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "GZip "])
def test_an_answer_may_be_compressed_as_asked(
    caller: Caller, server: Server, encoding: str
) -> None:
    named = encoding.strip().lower()
    packed = {"gzip": gzip.compress(columns()), "deflate": zlib.compress(columns())}
    body = packed.get(named, columns())
    server.plan(reply(200, body, {"Content-Encoding": encoding}))
    answers = caller.call("embed_batch", ["a", "b"])
    assert isinstance(answers, list)
    assert len(answers) == 2
    assert server.requests[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,gzip", "br", "zstd"])
def test_an_answer_compressed_otherwise_is_not_unpacked(
    caller: Caller, server: Server, encoding: str
) -> None:
    bomb = gzip.compress(gzip.compress(columns()))
    server.plan(*[reply(status, bomb, {"Content-Encoding": encoding}) for status in (200, 503)])
    assert caller.fails("embed_batch", ["a", "b"], retries=0).code == "bad_response"
    error = caller.fails("embed_batch", ["a", "b"], retries=0)
    assert (error.status, error.body) == (503, "")


def garbage() -> list[Reply]:
    rng = random.Random(7)
    good = raw(200, columns())
    replies: list[Reply] = [truncated(b""), truncated(columns())]
    for _ in range(25):
        noise = bytearray(good)
        for _ in range(rng.randrange(1, 12)):
            noise[rng.randrange(len(noise))] = rng.randrange(256)
        replies.append(bytes_of(bytes(noise)))
    for _ in range(5):
        replies.append(bytes_of(rng.randbytes(200)))
    for headers in (
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br, zstd, deflate"},
        {"Transfer-Encoding": "chunked"},
        {"Content-Type": "text/html; charset=klingon"},
        {"Set-Cookie": "=;=;;"},
        {"Location": "http://[::bad"},
    ):
        replies += [bytes_of(raw(status, columns(), headers)) for status in (200, 302, 500)]
    return replies


def test_garbage_is_a_typed_error_or_an_answer(caller: Caller, server: Server) -> None:
    for fault in garbage():
        server.plan(fault)
        try:
            caller.call("embed_batch", ["a", "b"], retries=0, timeout=2)
        except VectorEmbedError as error:
            assert error.code
    # And the client is none the worse for it.
    assert caller.call("embed", "a") == EmbedResponse(vector("a"), False, 4)


@pytest.mark.parametrize("location", ["javascript:alert(1)", "data:,", "http://xn--/"])
def test_a_redirect_to_no_address_is_a_redirect(
    caller: Caller, server: Server, location: str
) -> None:
    server.plan(reply(302, b"", {"Location": location}))
    assert caller.fails("embed", "a").code == "redirect"


@pytest.mark.parametrize(
    "body", [b'{"x":' + b"[" * 1000 + b"]" * 1000 + b"}", b'{"a":' * 1000 + b"1" + b"}" * 1000]
)
@pytest.mark.parametrize("status", [400, 500])
def test_an_error_that_is_nested_deeply_is_still_a_typed_error(
    caller: Caller, server: Server, status: int, body: bytes
) -> None:
    server.plan(reply(status, body))
    assert caller.fails("embed", "a", retries=0).status == status
