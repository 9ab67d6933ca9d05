"""How a program asks each framework for vectors: one face for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

Vector = list[float]


class Face(NamedTuple):
    """One adapter: how it is made, asked and saved. An embedder of documents has no `one`."""

    framework: str
    make: Callable[..., Any]
    many: Callable[[Any, list[str]], list[Vector]]
    one: Callable[[Any, str], Vector] | None = None
    many_async: Callable[[Any, list[str]], list[Vector]] | None = None
    one_async: Callable[[Any, str], Vector] | None = None
    save: Callable[[Any], str] | None = None  # what the framework would write into a file


def awaited(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def langchain() -> Face:
    from langchain_core.load import dumps

    from vector_embed_client.integrations.langchain import VectorEmbedEmbeddings

    return Face(
        "langchain_core",
        VectorEmbedEmbeddings,
        many=lambda made, texts: made.embed_documents(texts),
        one=lambda made, text: made.embed_query(text),
        many_async=lambda made, texts: awaited(made.aembed_documents(texts)),
        one_async=lambda made, text: awaited(made.aembed_query(text)),
        save=dumps,
    )


def llama_index() -> Face:
    from vector_embed_client.integrations.llama_index import VectorEmbedEmbedding

    return Face(
        "llama_index.core",
        VectorEmbedEmbedding,
        many=lambda made, texts: made.get_text_embedding_batch(texts),
        one=lambda made, text: made.get_query_embedding(text),
        many_async=lambda made, texts: awaited(made.aget_text_embedding_batch(texts)),
        one_async=lambda made, text: awaited(made.aget_query_embedding(text)),
        save=lambda made: made.to_json(),
    )


def haystack_documents() -> Face:
    from haystack import Document

    from vector_embed_client.integrations.haystack import VectorEmbedDocumentEmbedder

    def given(texts: list[str]) -> Any:
        return [Document(content=text) for text in texts]

    def vectors(result: Any) -> list[Vector]:
        return [one.embedding for one in result["documents"]]

    return Face(
        "haystack",
        VectorEmbedDocumentEmbedder,
        many=lambda made, texts: vectors(made.run(given(texts))),
        many_async=lambda made, texts: vectors(awaited(made.run_async(given(texts)))),
        save=lambda made: json.dumps(made.to_dict()),
    )


def haystack_text() -> Face:
    from vector_embed_client.integrations.haystack import VectorEmbedTextEmbedder

    return Face(
        "haystack",
        VectorEmbedTextEmbedder,
        many=lambda made, texts: [made.run(text)["embedding"] for text in texts],
        one=lambda made, text: made.run(text)["embedding"],
        one_async=lambda made, text: awaited(made.run_async(text))["embedding"],
        save=lambda made: json.dumps(made.to_dict()),
    )


def chroma() -> Face:
    from vector_embed_client.integrations.chroma import VectorEmbedEmbeddingFunction

    def vectors(made: Any, texts: list[str]) -> list[Vector]:
        return [vector.tolist() for vector in made(texts)]

    return Face(
        "chromadb",
        VectorEmbedEmbeddingFunction,
        many=vectors,
        one=lambda made, text: made.embed_query([text])[0].tolist(),
        save=lambda made: json.dumps(made.get_config()),
    )
