"""Any number of texts: in order, packed, several at once, and no further ahead than that."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from vector_embed_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    EmbedResponse,
    ValidationError,
)

from .loopback import KEY, Caller, Reply, Seen, Server, as_the_api, later, reply, vector


def batch_sizes(server: Server) -> list[int]:
    return [len(seen.json["texts"]) for seen in server.requests]  # type: ignore[arg-type]  # a list


def test_results_come_in_the_order_of_the_texts(caller: Caller, server: Server) -> None:
    texts = [f"text {i}" for i in range(1050)]
    answers = caller.call("embed_many", iter(texts))
    assert isinstance(answers, list)
    assert [answer.vector for answer in answers] == [vector(text) for text in texts]
    assert sorted(batch_sizes(server)) == [50] + [100] * 10


def test_batches_are_packed_by_bytes_as_well(caller: Caller, server: Server) -> None:
    texts = ["é" * 10_000] * 120
    answers = caller.call("embed_many", texts)
    assert isinstance(answers, list)
    assert len(answers) == 120
    assert sorted(batch_sizes(server)) == [22, 49, 49]
    assert max(len(seen.content) for seen in server.requests) <= 1_000_000


def test_no_texts_are_no_request(caller: Caller, server: Server) -> None:
    assert caller.call("embed_many", []) == []
    assert server.requests == []


def test_several_requests_are_under_way_at_once_and_no_more(caller: Caller, server: Server) -> None:
    arrived = threading.Barrier(3)

    def wait_for_the_others(connection: object, seen: object) -> None:
        arrived.wait(10)
        as_the_api(connection, seen)  # type: ignore[arg-type]  # as handed over

    server.usual = wait_for_the_others
    caller.call("embed_many", [f"text {i}" for i in range(850)], max_in_flight=3)
    assert server.most_in_flight == 3


@pytest.mark.parametrize("text", ["", None, "a" * 10_001])
def test_a_bad_text_is_refused_in_its_place(caller: Caller, server: Server, text: object) -> None:
    texts = [*("good" for _ in range(150)), text, "never sent"]
    seen: list[EmbedResponse] = []
    client = caller.client()
    with pytest.raises(ValidationError, match=r"texts\[150\]") as caught:
        if isinstance(client, Client):
            for answer in client.embed_many(texts):  # type: ignore[arg-type]  # that is the test
                seen.append(answer)
        else:

            async def read(client: AsyncClient) -> None:
                async for answer in client.embed_many(texts):  # type: ignore[arg-type]  # as above
                    seen.append(answer)

            caller.finish(read(client))
    assert caught.value.index == 150
    assert len(seen) == 150
    assert sorted(batch_sizes(server)) == [50, 100]


def test_an_index_of_the_server_counts_over_the_whole_input(caller: Caller, server: Server) -> None:
    server.plan(as_the_api, reply(422, {"detail": [{"loc": ["body", "texts", 7], "msg": "no"}]}))
    error = caller.fails("embed_many", ["a"] * 150, max_in_flight=1)
    assert error.index == 107
    assert error.args[-1] == 107


@pytest.mark.parametrize("texts", ["hello", b"hello", None, 7])
def test_what_is_no_list_of_texts_is_refused_at_once(caller: Caller, texts: object) -> None:
    client = caller.client()
    with pytest.raises(ValidationError):
        client.embed_many(texts)  # type: ignore[arg-type]  # that is the test
    for name, value in (("max_in_flight", 0), ("timeout", -1)):
        with pytest.raises(ValueError, match=name):
            client.embed_many(["a"], **{name: value})  # type: ignore[arg-type]  # that too


class Counted:
    """An endless input that knows how far it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        for number in itertools.count():
            self.read += 1
            yield f"text {number}"

    async def one_by_one(self) -> AsyncIterator[str]:
        for text in self:
            await asyncio.sleep(0)
            yield text


def test_an_endless_input_is_read_no_further_ahead_than_requests_go(server: Server) -> None:
    with Client(KEY, server.url) as client:
        source = Counted()
        answers = client.embed_many(source, max_in_flight=2)
        for number, answer in enumerate(itertools.islice(answers, 1000)):
            assert answer.vector == vector(f"text {number}")
            assert source.read <= number + 401


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_endless_input_may_be_async_or_not(server: Server, is_async: bool) -> None:
    async with AsyncClient(KEY, server.url) as client:
        source = Counted()
        texts = source.one_by_one() if is_async else source
        answers = client.embed_many(texts, max_in_flight=2)
        number = 0
        async for answer in answers:
            assert answer.vector == vector(f"text {number}")
            assert source.read <= number + 401
            number += 1
            if number == 1000:
                break
        # Left to the garbage collector, it would end when the loop may be gone already.
        await answers.aclose()  # type: ignore[attr-defined]  # of an async generator


def all_but_the_first(never: threading.Event) -> Reply:
    """Holds every batch but that of text 0 until `never`."""
    held = later(never, as_the_api)

    def answer(connection: socket.socket, seen: Seen) -> None:
        (as_the_api if b'"text 0"' in seen.content else held)(connection, seen)

    return answer


async def test_an_async_iteration_that_is_left_cancels_its_requests(server: Server) -> None:
    never = threading.Event()
    server.usual = all_but_the_first(never)
    async with AsyncClient(KEY, server.url) as client:
        answers = client.embed_many(Counted(), max_in_flight=2)
        assert (await answers.__anext__()).vector == vector("text 0")
        await answers.aclose()  # type: ignore[attr-defined]  # of an async generator
    assert len(asyncio.all_tasks()) == 1
    never.set()


def test_an_iteration_that_is_left_waits_for_nobody(server: Server) -> None:
    never = threading.Event()
    server.usual = all_but_the_first(never)
    with Client(KEY, server.url) as client:
        answers = client.embed_many(Counted(), max_in_flight=2)
        assert next(answers).vector == vector("text 0")
        del answers
    never.set()


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_of_the_input_comes_after_the_answers_to_what_it_gave(
    caller: Caller, server: Server, is_async: bool
) -> None:
    def broken() -> Iterator[str]:
        yield from (f"text {i}" for i in range(250))
        raise OSError("the disk is gone")

    async def broken_async() -> AsyncIterator[str]:
        for text in broken():
            yield text

    client = caller.client()
    seen: list[EmbedResponse] = []
    with pytest.raises(OSError, match="the disk is gone"):
        if isinstance(client, Client):
            for answer in client.embed_many(broken()):
                seen.append(answer)
        else:

            async def read(client: AsyncClient) -> None:
                async for answer in client.embed_many(broken_async() if is_async else broken()):
                    seen.append(answer)

            caller.finish(read(client))
    assert [answer.vector for answer in seen] == [vector(f"text {i}") for i in range(250)]
    assert sorted(batch_sizes(server)) == [50, 100, 100]


def test_an_error_of_a_request_ends_the_iteration(caller: Caller, server: Server) -> None:
    server.plan(as_the_api, reply(401, {"detail": "revoked"}))
    answers = caller.client().embed_many([f"text {i}" for i in range(500)], max_in_flight=1)
    seen: list[object] = []
    if isinstance(answers, Iterator):
        with pytest.raises(AuthenticationError):
            for answer in answers:
                seen.append(answer)
        assert list(answers) == []
    else:

        async def read(answers: AsyncIterator[EmbedResponse]) -> None:
            with pytest.raises(AuthenticationError):
                async for answer in answers:
                    seen.append(answer)
            assert [answer async for answer in answers] == []

        caller.finish(read(answers))
    assert len(seen) == 100
    assert len(server.requests) == 2


def test_an_async_input_is_for_the_async_client(server: Server) -> None:
    texts = Counted().one_by_one()
    AsyncClient(KEY, server.url).embed_many(texts)
    with Client(KEY, server.url) as client, pytest.raises(ValidationError, match="not one async"):
        client.embed_many(texts)  # type: ignore[arg-type]  # that is the test


def test_no_more_than_fifteen_requests_are_prepared(server: Server) -> None:
    all_are_here = threading.Event()

    def wait_for_the_others(connection: socket.socket, seen: Seen) -> None:
        if server.in_flight == 15:
            all_are_here.set()
        assert all_are_here.wait(20)
        as_the_api(connection, seen)

    server.usual = wait_for_the_others
    source = Counted()
    with Client(KEY, server.url) as client:
        next(client.embed_many(source, max_in_flight=1000))
        assert source.read <= 1600


async def test_one_answer_is_looked_for_at_a_time(server: Server) -> None:
    async with AsyncClient(KEY, server.url) as client:
        answers = client.embed_many(["a", "b"])
        first = asyncio.ensure_future(answers.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already looking"):
            await answers.__anext__()
        assert (await first).vector == vector("a")


async def test_an_async_iteration_left_by_break_cancels_its_requests(server: Server) -> None:
    never = threading.Event()
    server.usual = all_but_the_first(never)
    async with AsyncClient(KEY, server.url) as client:
        async for answer in client.embed_many(Counted(), max_in_flight=3):
            assert answer.vector == vector("text 0")
            break
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
        never.set()
        assert (await client.embed("a")).vector == vector("a")


def test_a_process_that_leaves_an_iteration_ends_at_once(server: Server) -> None:
    never = threading.Event()
    server.usual = all_but_the_first(never)
    script = (
        "from vector_embed_client import Client\n"
        f"answers = Client('vec_a', {server.url!r}).embed_many(f'text {{i}}' for i in range(500))\n"
        "next(answers)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=15)
    never.set()


def test_its_threads_end_with_their_requests(server: Server) -> None:
    with Client(KEY, server.url) as client:
        assert len(list(client.embed_many(f"text {i}" for i in range(500)))) == 500
    while any(thread.name == "vector-embed-client" for thread in threading.enumerate()):
        time.sleep(0.01)
