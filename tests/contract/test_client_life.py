"""A client's life: keys, addresses, threads, forks, event loops, cancellation, idle connections."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import FrameType

import httpx
import pytest
from forking import in_child

import vector_embed_client
from vector_embed_client import AsyncClient, Client, EmbedResponse

from .loopback import KEY, Caller, Server, as_the_api, later, silence, vector

KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])


@KINDS
def test_a_key_is_required(kind: type[Client]) -> None:
    with pytest.raises(ValueError, match="API key required"):
        kind()
    with pytest.raises(ValueError, match="API key required"):
        kind(api_key=" \n")


@KINDS
@pytest.mark.parametrize("key", ["vec_ä", "vec_a b", "vec_a\nb", "Bearer vec_a", "vec_a\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    kind: type[Client], key: str
) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        kind(api_key=key)
    assert key not in str(caught.value)
    assert "vec_" not in str(caught.value)


def test_key_and_address_come_from_the_environment(
    caller: Caller, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTOR_EMBED_API_KEY", f" {KEY}-2 ")
    monkeypatch.setenv("VECTOR_EMBED_BASE_URL", server.url + "/")
    client = caller.client(api_key=None, base_url=None)
    caller.call("stats")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}-2"
    assert server.requests[0].path == "/v1/stats"
    assert client.api_key == f"{KEY}-2"


def test_what_is_passed_stands_above_the_environment(
    caller: Caller, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTOR_EMBED_API_KEY", "vec_other")
    monkeypatch.setenv("VECTOR_EMBED_BASE_URL", "http://127.0.0.1:1")
    caller.client()
    caller.call("stats")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@KINDS
@pytest.mark.parametrize(
    "options",
    [
        {"api_key": b"vec_a"},
        {"api_key": 7},
        {"base_url": 7},
        {"base_url": b"http://a"},
        {"model": ""},
        {"model": None},
        {"timeout": 1e12},
        {"timeout": 0},
        {"timeout": None},
        {"timeout": True},
        {"timeout": httpx.Timeout(3)},
        {"retries": 1.0},
        {"retries": -1},
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused_in_one_line(
    kind: type[Client], options: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))) as caught:
        kind(**{"api_key": KEY, **options})  # type: ignore[arg-type]  # that is the test
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 160


@KINDS
def test_a_client_shows_what_it_was_made_with(kind: type[Client]) -> None:
    client = kind(KEY, "http://127.0.0.1:1/base/", "large", timeout=5, retries=0)
    assert (client.api_key, client.base_url) == (KEY, "http://127.0.0.1:1/base")
    assert (client.model, client.timeout, client.retries) == ("large", 5.0, 0)
    usual = kind(KEY)
    assert usual.base_url == "https://api.vector-embed-cache.com"
    assert (usual.model, usual.timeout, usual.retries) == ("nomic-v1.5", 30.0, 3)


@KINDS
@pytest.mark.parametrize(
    "url", ["api.example.com", "ftp://a", "http://u:p@a", "http://a?b=c", "http://a b"]
)
def test_an_address_that_is_none_is_refused(kind: type[Client], url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        kind(KEY, url)


@KINDS
def test_a_client_shows_no_key(kind: type[Client]) -> None:
    client = kind(KEY, "http://127.0.0.1:1")
    assert KEY not in repr(client)
    assert KEY not in repr(vars(client))
    assert repr(client.api_key) == "'***'"


def test_what_programs_for_the_first_client_look_at_is_there() -> None:
    # Private names of the API's first client, by which its own tests go.
    with Client(KEY, "http://127.0.0.1:1") as client:
        assert not client._http_client.is_closed
        assert (client._api_key, client._base_url) == (KEY, "http://127.0.0.1:1")
        assert client._model == "nomic-v1.5"
    assert client._http_client.is_closed


def test_ones_own_http_client_is_used_and_left_open(caller: Caller, server: Server) -> None:
    own = caller.http_client(headers={"X-Team": "search"}, auth=("user", "password"))
    client = caller.client(http_client=own)
    caller.call("embed", "a")
    assert server.requests[0].headers["x-team"] == "search"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    caller.finish(client.close())
    assert not own.is_closed


@pytest.mark.parametrize("is_given", [False, True])
def test_a_closed_client_says_so_and_may_be_closed_again(caller: Caller, is_given: bool) -> None:
    client = caller.client(http_client=caller.http_client() if is_given else None)
    caller.call("stats")
    for _ in range(2):
        caller.finish(client.close())
    with pytest.raises(RuntimeError, match=f"this {type(client).__name__} is closed"):
        caller.call("stats")
    with pytest.raises(RuntimeError, match="is closed"):
        caller.call("embed_many", ["a"])
    with pytest.raises(RuntimeError, match="is closed"):
        caller.enter(client)


def test_a_client_that_was_never_used_can_be_closed(caller: Caller) -> None:
    client = caller.client()
    caller.finish(client.close())
    with pytest.raises(RuntimeError, match="is closed"):
        caller.call("stats")


def test_one_connection_serves_many_calls(caller: Caller, server: Server) -> None:
    for _ in range(20):
        caller.call("embed", "a")
    assert server.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_costs_no_error(
    caller: Caller, server: Server
) -> None:
    server.idle_seconds = 0.05
    for _ in range(5):
        caller.call("embed", "a", retries=0)
        closed = time.monotonic() + 0.15
        while time.monotonic() < closed:
            time.sleep(0.02)
    assert server.connections == 5


def test_an_idle_connection_is_given_up_before_the_server_does(
    caller: Caller, server: Server
) -> None:
    caller.call("embed", "a", retries=0)
    idle = time.monotonic() + 4.1
    while time.monotonic() < idle:
        time.sleep(0.1)
    caller.call("embed", "a", retries=0)
    assert server.connections == 2


def test_one_client_serves_many_threads(server: Server) -> None:
    texts = [f"text {i}" for i in range(400)]
    with Client(KEY, server.url) as client, ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(client.embed, texts))
    assert [answer.vector for answer in answers] == [vector(text) for text in texts]


def test_a_sixteenth_request_waits_its_turn_which_counts_against_the_deadline(
    server: Server,
) -> None:
    go = threading.Event()
    server.usual = later(go, as_the_api)
    with Client(KEY, server.url) as client, ThreadPoolExecutor(15) as threads:
        held = [threads.submit(client.embed, "a") for _ in range(15)]
        while server.in_flight < 15:
            time.sleep(0.01)
        with pytest.raises(Exception, match="timeout: no whole answer within 0.2 s"):
            client.embed("b", deadline=0.2)
        assert server.most_in_flight == 15
        go.set()
        assert all(isinstance(future.result(), EmbedResponse) for future in held)
        assert client.embed("b").vector == vector("b")


OURS = os.path.dirname(vector_embed_client.__file__)


class Interrupter:
    """Strikes like a signal: KeyboardInterrupt at the `step`-th instruction in the client."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, frame: FrameType, event: str, argument: object) -> Interrupter | None:
        if os.path.dirname(frame.f_code.co_filename) != OURS:
            return None
        if frame.f_code.co_name not in ("_attempt", "exchange", "_exchange", "_in_thread", "start"):
            return self
        frame.f_trace_opcodes = True
        self.left -= event == "opcode"
        if self.left == 0:
            raise KeyboardInterrupt
        return self


@pytest.mark.heavy
@pytest.mark.parametrize("deadline", [None, 5])
def test_an_interruption_at_any_moment_leaves_all_slots(
    server: Server, deadline: float | None
) -> None:
    with Client(KEY, server.url) as client:
        client.embed("warm", deadline=deadline)
        step = 0
        while True:
            step += 1
            interrupter = Interrupter(step)
            before = sys.gettrace()
            sys.settrace(interrupter)
            try:
                client.embed("a", deadline=deadline)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
            if interrupter.left > 0:  # it was over before its time came
                break
        assert step > 50
        assert_all_slots_are_free(client, server)


def assert_all_slots_are_free(client: Client, server: Server) -> None:
    go = threading.Event()
    server.usual = later(go, as_the_api)
    with ThreadPoolExecutor(15) as threads:
        held = [threads.submit(client.embed, "a", deadline=20) for _ in range(15)]
        while server.in_flight < 15 and not any(future.done() for future in held):
            time.sleep(0.01)
        go.set()
        assert all(isinstance(future.result(), EmbedResponse) for future in held)


class SoftTimeLimit(Exception):
    pass


@pytest.mark.parametrize("stumbles", [False, True])
def test_an_interruption_while_a_thread_starts_leaves_all_slots(
    server: Server, monkeypatch: pytest.MonkeyPatch, stumbles: bool
) -> None:
    kept: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        kept.append(thread)  # as `threading` does then
        try:
            raise SoftTimeLimit
        except Exception:
            if stumbles:
                raise KeyError(thread)  # noqa: B904  # as `threading` does
            raise

    with Client(KEY, server.url) as client:
        with monkeypatch.context() as patch:
            start = threading.Thread.start
            patch.setattr(
                threading.Thread,
                "start",
                lambda thread: (
                    interrupted(thread) if thread.name == "vector-embed-client" else start(thread)
                ),
            )
            for _ in range(20):
                with pytest.raises(SoftTimeLimit):
                    client.embed("a", deadline=5)
        assert_all_slots_are_free(client, server)


def test_the_thread_of_a_deadline_has_the_callers_context(server: Server) -> None:
    asker = ContextVar("asker", default="nobody")
    seen: list[str] = []
    hooks = {"request": [lambda request: seen.append(asker.get())]}
    asker.set("me")
    with httpx.Client(event_hooks=hooks) as own, Client(KEY, server.url, http_client=own) as client:
        client.embed("a", deadline=5)
        list(client.embed_many(["a"]))
    assert seen == ["me", "me"]


def test_where_no_thread_can_be_had_the_call_does_without(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "vector-embed-client":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Client(KEY, server.url) as client:
        assert client.embed("a", deadline=5).vector == vector("a")
        assert len(list(client.embed_many(["a"] * 250))) == 250


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_connections_of_its_own(server: Server) -> None:
    with Client(KEY, server.url) as client:
        assert client.embed("parent").vector == vector("parent")

        def embed() -> None:
            for i in range(5):
                assert client.embed(f"child {i}").vector == vector(f"child {i}")
            client.close()

        assert [in_child(embed) for _ in range(3)] == [0, 0, 0]
        assert client.embed("parent").vector == vector("parent")
    by_parent = {seen.connection for seen in server.requests if b"parent" in seen.content}
    by_child = {seen.connection for seen in server.requests if b"child" in seen.content}
    assert len(by_parent) == 1
    assert len(by_child) == 3
    assert not by_parent & by_child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_all_connections_are_taken_leaves_the_child_free(server: Server) -> None:
    go = threading.Event()
    server.plan(*[later(go, as_the_api)] * 15)
    with Client(KEY, server.url) as client, ThreadPoolExecutor(15) as threads:
        held = [threads.submit(client.embed, "a") for _ in range(15)]
        while server.in_flight < 15:
            time.sleep(0.01)
        assert in_child(lambda: client.embed("b", deadline=5)) == 0
        go.set()
        assert all(future.result().vector == vector("a") for future in held)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_an_http_client_of_another_process_is_refused(server: Server) -> None:
    with httpx.Client() as own:
        client = Client(KEY, server.url, http_client=own)

        def embed() -> None:
            with pytest.raises(RuntimeError, match="another process"):
                client.embed("a")

        assert in_child(embed) == 0
        assert client.embed("a").vector == vector("a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_an_async_client_works_after_a_fork(server: Server) -> None:
    client = AsyncClient(KEY, server.url)
    assert asyncio.run(client.embed("parent")).vector == vector("parent")

    def embed() -> None:
        assert asyncio.run(client.embed("child")).vector == vector("child")

    assert in_child(embed) == 0
    assert asyncio.run(client.embed("parent")).vector == vector("parent")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_an_async_client_forked_with_its_loop_has_connections_of_its_own(server: Server) -> None:
    client = AsyncClient(KEY, server.url)
    loop = asyncio.new_event_loop()

    def embed(text: str) -> list[float]:
        return loop.run_until_complete(client.embed(text)).vector

    def in_the_same_loop() -> None:
        assert embed("child") == vector("child")
        loop.run_until_complete(client.close())
        loop.run_until_complete(loop.shutdown_asyncgens())

    assert embed("parent") == vector("parent")
    assert [in_child(in_the_same_loop) for _ in range(2)] == [0, 0]
    assert embed("parent") == vector("parent")
    loop.run_until_complete(client.close())
    loop.close()
    assert [seen.connection for seen in server.requests] == [1, 2, 3, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@KINDS
def test_a_client_that_was_closed_before_the_fork_is_closed_after_it(
    kind: type[Client], server: Server
) -> None:
    caller = Caller("sync" if kind is Client else "async", server.url)
    client = caller.client()
    caller.call("stats")
    caller.finish(client.close())

    def use() -> None:
        with pytest.raises(RuntimeError, match="is closed"):
            caller.call("stats")

    assert in_child(use) == 0
    caller.close()


def test_an_async_client_works_in_one_loop_after_the_other(server: Server) -> None:
    client = AsyncClient(KEY, server.url)
    for i in range(3):
        assert asyncio.run(client.embed(f"loop {i}")).vector == vector(f"loop {i}")
    # Nothing was left open in the loops that are gone, or this would warn.
    del client
    gc.collect()
    assert server.connections == 3


def test_an_async_client_holds_no_loop_that_is_closed(server: Server) -> None:
    client = AsyncClient(KEY, server.url)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def embed() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await client.embed("a")

    for _ in range(5):
        asyncio.run(embed())
    gc.collect()
    assert [loop() for loop in loops[:-1]] == [None] * 4


def test_an_async_client_is_closed_in_all_its_loops(server: Server) -> None:
    client = AsyncClient(KEY, server.url)
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    assert asyncio.run_coroutine_threadsafe(client.embed("a"), other).result(10)

    async def use_and_close() -> None:
        await client.embed("a")
        await client.close()

    asyncio.run(use_and_close())
    with pytest.raises(RuntimeError, match="is closed"):
        asyncio.run_coroutine_threadsafe(client.embed("a"), other).result(10)
    while server.open_connections:
        time.sleep(0.01)
    other.call_soon_threadsafe(other.stop)
    thread.join(10)
    other.close()


def test_an_async_client_that_nobody_closed_is_closed_with_its_loop(server: Server) -> None:
    async def use(is_left: bool) -> None:
        client = AsyncClient(KEY, server.url)
        async for _ in client.embed_many(f"text {i}" for i in range(500)):
            if is_left:
                break

    for is_left in (True, True, False):
        asyncio.run(use(is_left))
        gc.collect()  # would warn of a connection that is still open


def test_an_async_client_works_in_two_loops_at_once(server: Server) -> None:
    client = AsyncClient(KEY, server.url)

    async def embed(name: str) -> list[list[float]]:
        return [(await client.embed(f"{name} {i}")).vector for i in range(50)]

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda name: asyncio.run(embed(name)), ["a", "b"]))
    assert answers == [[vector(f"{name} {i}") for i in range(50)] for name in "ab"]


async def test_cancelled_requests_leave_their_connections(server: Server) -> None:
    async with AsyncClient(KEY, server.url) as client:
        for _ in range(4):
            server.plan(*[silence] * 15)
            seen = len(server.requests)
            tasks = [asyncio.create_task(client.embed("a")) for _ in range(40)]
            while len(server.requests) < seen + 15:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        answers = await asyncio.gather(*[client.embed(f"{i}", deadline=10) for i in range(40)])
    assert [answer.vector for answer in answers] == [vector(f"{i}") for i in range(40)]


@pytest.mark.heavy
async def test_hundreds_at_once_take_no_longer_each_than_a_few(server: Server) -> None:
    async with AsyncClient(KEY, server.url) as client:
        began = time.monotonic()
        await asyncio.gather(*[client.embed(f"warm {i}") for i in range(40)])
        few = time.monotonic() - began
        began = time.monotonic()
        answers = await asyncio.gather(*[client.embed(f"{i}") for i in range(400)])
        many = time.monotonic() - began
    assert [answer.vector for answer in answers] == [vector(f"{i}") for i in range(400)]
    assert server.most_in_flight <= 15
    # Ten times as many take ten times as long; without a semaphore of our own it was a hundred.
    assert many < 40 * few
