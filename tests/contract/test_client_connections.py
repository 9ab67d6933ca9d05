"""Connections: each attempt ends in time, each answer is that of its request, none dead is used."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from vector_embed_client import (
    AsyncClient,
    Client,
    EmbedResponse,
    NetworkError,
    ServerError,
    VectorEmbedError,
)

from .loopback import (
    KEY,
    Caller,
    Reply,
    Seen,
    Server,
    answer_of,
    as_the_api,
    drip,
    hang_up,
    later,
    raw,
    reply,
    silence,
    vector,
)


def flood_of_1xx(connection: socket.socket, seen: Seen) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.01)


ENDLESS: dict[str, Reply] = {
    "headers that drip": drip(b"HTTP/1.1 200 OK\r\nX-Pad: " + b"a" * 2000, 0.02),
    "a flood of 1xx": flood_of_1xx,
    "a body that drips": drip(raw(200, b" " * 2000), 0.02, first=120),
    "a chunked body that drips": drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 400,
        0.02,
        first=47,
    ),
    "silence": silence,
}


@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS.keys())
@pytest.mark.parametrize("is_warm", [False, True], ids=["new connection", "used connection"])
def test_an_attempt_ends_with_its_timeout(
    caller: Caller, server: Server, answer: Reply, is_warm: bool
) -> None:
    if is_warm:
        caller.call("embed", "a")
    server.usual = answer
    began = time.monotonic()
    error = caller.fails("embed", "a", retries=0, timeout=0.4)
    assert time.monotonic() - began < 1.5
    assert isinstance(error, NetworkError)
    assert (error.code, error.reused) == ("timeout", is_warm)


def test_a_flood_of_1xx_ends_long_before_the_timeout(caller: Caller, server: Server) -> None:
    def flood(connection: socket.socket, seen: Seen) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000)

    server.usual = flood
    error = caller.fails("embed", "a", retries=0, timeout=600)
    assert (error.code, error.status) == ("connection_error", None)


def test_a_name_server_that_is_silent_holds_up_no_attempt(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    look_up = socket.getaddrinfo

    def silent(*asked: object, **options: object) -> object:
        answered.wait(20)
        return look_up(*asked, **options)  # type: ignore[arg-type]  # whatever it was asked

    with Client(KEY, server.url, timeout=0.3, retries=0) as client:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", silent)
            began = time.monotonic()
            with pytest.raises(NetworkError, match="timeout"):
                client.embed("a")
            assert time.monotonic() - began < 1.5
        answered.set()
        assert client.embed("a", timeout=20).vector == vector("a")
    while server.open_connections:  # the late connection was closed as well
        time.sleep(0.01)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_a_connection_is_not_used_again_after_a_5xx(
    caller: Caller, server: Server, status: int
) -> None:
    server.plan(*[reply(status, b"Internal Server Error")] * 3)
    for _ in range(3):
        assert isinstance(caller.fails("embed", "a", retries=0), ServerError)
    caller.call("embed", "a")
    assert [seen.connection for seen in server.requests] == [1, 2, 3, 4]


def test_a_connection_is_used_again_after_a_4xx(caller: Caller, server: Server) -> None:
    server.plan(*[reply(422, {"detail": "no"})] * 3)
    for _ in range(3):
        assert caller.fails("embed", "a", retries=0).status == 422
    caller.call("embed", "a")
    assert server.connections == 1


def test_threads_that_all_get_a_500_from_a_server_that_goes_deaf_then_all_see_it(
    server: Server,
) -> None:
    def fail_and_go_deaf(connection: socket.socket, seen: Seen) -> None:
        reply(500, b"Internal Server Error")(connection, seen)
        silence(connection, seen)

    server.usual = fail_and_go_deaf
    with Client(KEY, server.url, retries=0, timeout=10) as client, ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(client.embed, "a") for _ in range(60)]
        assert [type(call.exception()) for call in calls] == [ServerError] * 60


@pytest.mark.parametrize("fault", [silence, hang_up], ids=["silence", "hanging up"])
def test_after_a_failure_on_a_used_connection_no_idle_one_is_used(
    caller: Caller, server: Server, fault: Reply
) -> None:
    go = threading.Event()
    server.usual = later(go, as_the_api)
    client = caller.client(timeout=20)
    if isinstance(client, Client):
        with ThreadPoolExecutor(3) as threads:
            calls = [threads.submit(client.embed, "a") for _ in range(3)]
            _until(lambda: server.in_flight == 3)
            go.set()
            assert [call.result().vector for call in calls] == [vector("a")] * 3
    else:

        async def three() -> None:
            calls = [asyncio.create_task(client.embed("a")) for _ in range(3)]
            while server.in_flight < 3:
                await asyncio.sleep(0.01)
            go.set()
            await asyncio.gather(*calls)

        caller.finish(three())
    before = server.connections
    assert before == 3
    server.plan(fault)
    error = caller.fails("embed", "b", retries=0, timeout=0.5)
    assert isinstance(error, NetworkError)
    assert error.reused
    caller.call("embed", "c")
    assert server.requests[-1].connection == before + 1


def test_a_connection_that_cannot_be_made_was_not_used_before(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    caller.client(base_url=f"http://127.0.0.1:{port}", retries=0)
    error = caller.fails("embed", "a")
    assert isinstance(error, NetworkError)
    assert (error.code, error.reused) == ("connection_error", False)


def _chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


def _doubled(frame: Callable[[bytes], bytes], extra: int | None) -> Reply:
    def answer(connection: socket.socket, seen: Seen) -> None:
        whole = frame(json.dumps(answer_of(seen)).encode())
        connection.sendall(whole + whole[:extra])

    return answer


@pytest.mark.parametrize("extra", [None, 1, 40], ids=["a whole answer", "a byte", "a part"])
@pytest.mark.parametrize(
    "frame", [lambda body: raw(200, body), _chunked], ids=["with a length", "chunked"]
)
def test_bytes_left_over_never_answer_the_next_request(
    caller: Caller, server: Server, frame: Callable[[bytes], bytes], extra: int | None
) -> None:
    server.usual = _doubled(frame, extra)
    for i in range(10):
        answer = caller.call("embed", f"text {i}", retries=0)
        assert answer == EmbedResponse(vector(f"text {i}"), False, 4)
    texts = [f"text {i}" for i in range(100)]
    rows = caller.call("embed_batch", texts, retries=0)
    assert isinstance(rows, list)
    assert [row.vector for row in rows] == [vector(text) for text in texts]
    assert server.connections == 11


def test_no_cookie_is_kept(caller: Caller, server: Server) -> None:
    server.usual = lambda connection, seen: reply(
        200, answer_of(seen), {"Set-Cookie": f"c{len(server.requests)}={'x' * 500}; Path=/"}
    )(connection, seen)
    for _ in range(5):
        caller.call("embed", "a")
    assert not any("cookie" in seen.headers for seen in server.requests)


def test_a_client_closed_with_calls_in_flight_lets_them_end(server: Server) -> None:
    go = threading.Event()
    server.usual = later(go, as_the_api)
    client = Client(KEY, server.url)
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(client.embed, "a") for _ in range(3)]
        _until(lambda: server.in_flight == 3)
        client.close()
        with pytest.raises(RuntimeError, match="is closed"):
            client.embed("b")
        go.set()
        assert [call.result().vector for call in calls] == [vector("a")] * 3
    _until(lambda: server.open_connections == 0)


async def test_an_async_client_closed_with_calls_in_flight_lets_them_end(server: Server) -> None:
    go = threading.Event()
    server.usual = later(go, as_the_api)
    client = AsyncClient(KEY, server.url)
    calls = [asyncio.create_task(client.embed("a")) for _ in range(20)]
    while server.in_flight < 15:
        await asyncio.sleep(0.005)
    await client.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await client.embed("b")
    go.set()
    assert [answer.vector for answer in await asyncio.gather(*calls)] == [vector("a")] * 20
    while server.open_connections:
        await asyncio.sleep(0.005)


def test_this_httpx_takes_our_connections(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caller.call("embed", "a")
    assert not caplog.messages


NESTED = b"[],"


def _nested(size: int, head: bytes = b'{"detail":[', tail: bytes = b"[]]}") -> bytes:
    return head + NESTED * ((size - len(head) - len(tail)) // len(NESTED)) + tail


@pytest.mark.parametrize(
    "body",
    [
        _nested(1_500_000, b'{"embeddings":['),
        b"[" * 700_000 + b"]" * 700_000,
        b'{"embeddings":[' + b"{}," * 400_000 + b"{}]}",
        b'{"embeddings":[[' + b"1," * 8_000_000 + b"1]]}",
    ],
    ids=["lists", "deep lists", "objects", "numbers"],
)
@pytest.mark.parametrize("method", ["embed_batch", "embed_batch_array"])
def test_an_answer_of_another_shape_than_was_asked_for_is_not_decoded(
    caller: Caller, server: Server, method: str, body: bytes
) -> None:
    server.plan(reply(200, body))
    error = caller.fails(method, ["a"] * 100, retries=0)
    assert (type(error), error.code) == (VectorEmbedError, "bad_response")
    assert "than were asked for" in str(error)


@pytest.mark.parametrize(
    "method, arguments, options, most",
    [
        ("embed", ["a"], {}, 16_384 * 25 + 65_536),
        ("embed_batch", [["a"] * 100], {}, 100 * 16_384 * 25 + 65_536),
        ("embed_batch_array", [["a"] * 2], {"dimensions": 768}, 2 * 768 * 25 + 65_536),
        ("stats", [], {}, 65_536),
        ("health", [], {}, 65_536),
        ("search", ["a"], {"top_k": 1}, 120_000 + 65_536),
    ],
)
def test_an_answer_may_be_as_large_as_what_was_asked_for(
    caller: Caller,
    server: Server,
    method: str,
    arguments: list[object],
    options: dict[str, object],
    most: int,
) -> None:
    def padded(size: int) -> Reply:
        def answer(connection: socket.socket, seen: Seen) -> None:
            connection.sendall(raw(200, json.dumps(answer_of(seen)).encode().ljust(size)))

        return answer

    server.plan(padded(most), padded(most + 1))
    caller.call(method, *arguments, retries=0, **options)
    error = caller.fails(method, *arguments, retries=0, **options)
    assert (error.code, error.status) == ("bad_response", 200)
    assert f"{most:,} bytes" in str(error)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_of_an_error_as_much_is_read_as_is_worth_it(
    caller: Caller, server: Server, status: int
) -> None:
    server.plan(reply(status, _nested(30_000_000)))
    error = caller.fails("embed", "a", retries=0)
    assert error.status == status
    assert len(error.body) <= 300


def test_a_422_that_repeats_a_large_request_is_understood(caller: Caller, server: Server) -> None:
    texts = ["[{" * 4_000] * 100
    said = "Value error, texts[7] must be at least 1 character"
    body = {"detail": [{"loc": ["body"], "msg": said, "input": {"texts": texts}}]}
    server.plan(reply(422, body))
    assert caller.fails("embed_batch", texts, retries=0).index == 7


@pytest.mark.parametrize("method", ["embed_batch", "embed_batch_array"])
def test_a_vector_has_16_384_dimensions_at_most(
    caller: Caller, server: Server, method: str
) -> None:
    def answer(length: int) -> Reply:
        row = [1.0] + [0] * (length - 1)
        return reply(200, {"embeddings": [row], "cached": [False], "dimensions": length})

    server.plan(answer(16_384), answer(16_385))
    caller.call(method, ["a"], retries=0)
    error = caller.fails(method, ["a"], retries=0)
    assert error.code == "bad_response"
    assert "16,384" in str(error)


def _until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)
