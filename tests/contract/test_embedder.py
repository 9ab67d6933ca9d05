"""What the adapters of the frameworks share, without a framework."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from vector_embed_client import AsyncClient, Client, ValidationError
from vector_embed_client.integrations.embedder import Embedder

from .loopback import KEY, Server, vector

LISTS: list[object] = [["good", " "], ["a" * 10_001], [5], "a bare string", 7, None]


def embedder(server: Server, **options: object) -> Embedder:
    return Embedder(lambda: KEY, server.url, **options)  # type: ignore[arg-type]  # of a test


def waited(work: Callable[[], Awaitable[object]]) -> object:
    async def call() -> object:
        return await work()

    return asyncio.run(call())


def test_many_texts_are_full_batches_and_their_vectors_are_in_order(server: Server) -> None:
    texts = [f"text {i}" for i in range(250)]
    vectors = [vector(text) for text in texts]
    made = embedder(server)
    assert made.embed_many(iter(texts)) == vectors
    assert waited(lambda: made.embed_many_async(texts)) == vectors
    assert made.embed("one") == waited(lambda: made.embed_async("one")) == vector("one")
    sizes = [len(seen.json.get("texts", [1])) for seen in server.requests]  # type: ignore[arg-type]  # lists
    assert sorted(sizes) == [1, 1, 50, 50, 100, 100, 100, 100]


def test_no_texts_are_no_request(server: Server) -> None:
    made = embedder(server)
    assert made.embed_many([]) == waited(lambda: made.embed_many_async([])) == []
    assert server.requests == []


@pytest.mark.parametrize("wrong", LISTS, ids=lambda wrong: repr(wrong)[:20])
def test_a_wrong_text_is_named_before_any_is_sent(server: Server, wrong: object) -> None:
    texts: Any = [f"text {i}" for i in range(250)] + wrong if isinstance(wrong, list) else wrong
    made = embedder(server)
    for call in (made.embed_many, lambda given: waited(lambda: made.embed_many_async(given))):
        with pytest.raises(ValidationError) as caught:
            call(texts)
        assert caught.value.index == (249 + len(wrong) if isinstance(wrong, list) else None)
    assert server.requests == []


def test_a_setting_that_makes_no_sense_is_an_error_when_it_is_checked(server: Server) -> None:
    for options in ({"timeout": -1}, {"retries": 0.5}, {"model": " "}):
        with pytest.raises(ValueError, match=next(iter(options))):
            embedder(server, **options).check()
    with pytest.raises(ValueError, match="VECTOR_EMBED_API_KEY"):
        Embedder().check()


def test_the_settings_go_with_each_request(server: Server) -> None:
    with Client(KEY, server.url, model="another") as client:
        for made, model in (
            (embedder(server), "nomic-v1.5"),
            (embedder(server, model="mine"), "mine"),
            (Embedder(client=client), "another"),
            (Embedder(client=client, model="mine"), "mine"),
        ):
            made.embed("one")
            made.embed_many(["two"])
            assert [seen.json["model"] for seen in server.requests[-2:]] == [model, model]
            assert made.model == model


def test_a_client_that_was_given_is_used_and_left_open(server: Server) -> None:
    with Client(KEY, server.url) as client:
        made = Embedder(client=client)
        made.embed("one")
        made.close()
        del made
        client.embed("two")
        assert server.connections == 1


def test_the_other_kind_of_client_is_made_with_the_settings_of_the_one_given(
    server: Server,
) -> None:
    with Client(KEY, server.url, model="mine") as client:
        assert waited(lambda: Embedder(client=client).embed_async("one")) == vector("one")
    other = Embedder(async_client=AsyncClient(KEY, server.url, model="mine"))
    assert other.embed("one") == vector("one")
    assert {seen.json["model"] for seen in server.requests} == {"mine"}
    assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {KEY}"}


def test_a_client_with_an_http_client_of_its_own_is_not_made_again(server: Server) -> None:
    with httpx.Client(headers={"X-Team": "search"}) as own:
        made = Embedder(client=Client(KEY, server.url, http_client=own))
        made.embed("one")
        with pytest.raises(ValueError, match="http_client of its own"):
            waited(lambda: made.embed_async("two"))
        with pytest.raises(ValueError, match="http_client of its own"):
            pickle.dumps(made)
        assert copy.deepcopy(made).embed("three") == vector("three")
    assert [seen.headers["x-team"] for seen in server.requests] == ["search", "search"]


@pytest.mark.parametrize("other", [{"key": lambda: KEY}, {"base_url": "http://localhost"}])
def test_a_client_and_a_key_or_an_address_are_one_too_many(
    server: Server, other: dict[str, object]
) -> None:
    with Client(KEY, server.url) as client, pytest.raises(ValueError, match="leave out"):
        Embedder(client=client, **other)  # type: ignore[arg-type]  # that is the test


def test_a_pickle_has_the_settings_and_not_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embedder(server, model="mine", timeout=7.5, retries=1)
    made.embed("one")
    pickled = pickle.dumps(made)
    assert KEY.encode() not in pickled
    assert KEY not in repr(made)
    loaded = pickle.loads(pickled)
    with pytest.raises(ValueError, match="VECTOR_EMBED_API_KEY"):
        loaded.embed("two")
    monkeypatch.setenv("VECTOR_EMBED_API_KEY", KEY)
    assert loaded.embed("two") == vector("two")
    assert (loaded.client.model, loaded.client.timeout, loaded.client.retries) == ("mine", 7.5, 1)


def test_a_copy_keeps_the_key_and_the_connections(server: Server) -> None:
    made = embedder(server)
    for one in (made, copy.copy(made), copy.deepcopy(made)):
        one.embed("one")
    assert server.connections == 1


def test_threads_and_event_loops_share_one_embedder(server: Server) -> None:
    made = embedder(server)
    texts = [f"text {i}" for i in range(40)]
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(made.embed, texts))
        waits = list(threads.map(lambda text: waited(lambda: made.embed_async(text)), texts))
    assert found == waits == [vector(text) for text in texts]


def test_an_embedder_that_was_closed_opens_new_connections(server: Server) -> None:
    made = embedder(server)

    async def twice() -> None:
        for _ in range(2):
            await made.embed_async("one")
            await made.close_async()

    for _ in range(2):
        made.embed("one")
        made.close()
    made.close()
    asyncio.run(twice())
    assert server.connections == 4


ENDS = {
    "used by a thread": "Embedder().embed('one')",
    "used at the end": "kept = Embedder(); kept.embed('one')",
    "used in a loop": "import asyncio; asyncio.run(Embedder().embed_async('one'))",
    "used in two loops": """
import asyncio
kept = Embedder()
async def use(): await kept.embed_many_async(['one', 'two'])
asyncio.run(use())
asyncio.run(use())
""",
    "used at the end of a loop": """
import asyncio
async def use():
    kept = Embedder()
    await asyncio.gather(*(kept.embed_async(str(i)) for i in range(8)))
asyncio.run(use())
""",
    "dropped in a loop": """
import asyncio
async def use():
    await Embedder().embed_async('one')
    gc.collect()
    await asyncio.sleep(0.01)
asyncio.run(use())
""",
}


@pytest.mark.parametrize("script", ENDS.values(), ids=ENDS.keys())
def test_an_embedder_that_no_one_closes_warns_of_nothing(server: Server, script: str) -> None:
    begin = "import gc\nfrom vector_embed_client.integrations.embedder import Embedder\n"
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", f"{begin}{script}\ngc.collect()"],
        env={"VECTOR_EMBED_API_KEY": KEY, "VECTOR_EMBED_BASE_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert server.requests
