"""The client as a typed program uses it. Nothing runs this file: mypy --strict reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx

from vector_embed_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    EmbeddingArray,
    EmbedResponse,
    HealthResponse,
    NetworkError,
    RateLimitError,
    SearchResponse,
    ServerError,
    StatsResponse,
    ValidationError,
    VectorEmbedError,
    no_waiting,
)


def threads() -> None:
    with Client("vec_key", "https://api.example.com", "nomic-v1.5", 30.0, 3) as client:
        response: EmbedResponse = client.embed("hello", timeout=5, retries=0, deadline=10.0)
        vector: list[float] = response.vector
        cached: bool = response.cached
        responses: list[EmbedResponse] = client.embed_batch(["hello"], model="large")
        responses = client.embed_batch(text for text in ("a", "b"))
        array: EmbeddingArray = client.embed_batch_array(("hello", "world"))
        row: memoryview[float] = array.row(0)
        number: float = row[0]
        data: bytes = array.tobytes()
        shape: tuple[int, ...] = array.to_numpy().shape
        flags: list[bool] = array.cached
        many: Iterator[EmbedResponse] = client.embed_many(iter(["hello"]), max_in_flight=2)
        found: SearchResponse = client.search(text="hello", top_k=3, min_score=0.5)
        found = client.search(vector=vector, include_text=True, include_vectors=True)
        text: str | None = found.results[0].text
        near: list[float] | None = found.results[0].vector
        stats: StatsResponse = client.stats()
        health: HealthResponse = client.health()
    print(cached, responses, number, data, shape, flags, many, text, near, stats, health)


async def loops() -> None:
    async def source() -> AsyncIterator[str]:
        yield "hello"

    async with AsyncClient(http_client=httpx.AsyncClient()) as client:
        response: EmbedResponse = await client.embed("hello")
        responses: list[EmbedResponse] = await client.embed_batch(["a", "b"])
        await asyncio.gather(client.embed("a"), client.embed("b"))
        array: EmbeddingArray = await client.embed_batch_array(["hello"], deadline=10)
        many: AsyncIterator[EmbedResponse] = client.embed_many(source())
        async for response in client.embed_many(["hello"]):
            print(response)
        found: SearchResponse = await client.search("hello")
        stats: StatsResponse = await client.stats()
        health: HealthResponse = await client.health()
    print(responses, array, many, found, stats, health)


def errors(client: Client) -> None:
    try:
        client.embed("hello")
    except RateLimitError as error:
        wait: int | None = error.retry_after
        print(wait)
    except ValidationError as error:
        index: int | None = error.index
        print(index)
    except (AuthenticationError, ServerError, NetworkError):
        raise
    except VectorEmbedError as error:
        status: int | None = error.status
        code: str = error.code
        body: str = error.body
        request_id: str | None = error.request_id
        print(status, code, body, request_id)


def tests(client: Client) -> None:
    with no_waiting() as waits:
        client.embed("hello")
    seconds: list[float] = waits
    print(seconds)


def mistakes(client: Client) -> None:
    client.embed(7)  # type: ignore[arg-type]  # not a text
    client.embed("hello", retry=1)  # type: ignore[call-arg]  # no such option
    client.embed("hello").vector = []  # type: ignore[misc]  # frozen
    AsyncClient(http_client=httpx.Client())  # type: ignore[arg-type]  # the other kind
