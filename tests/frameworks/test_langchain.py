"""LangChain: its own tests of an embedding model, a vector store, a cache."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faulty_api.vectors import expected_vector
from servers import API, API_KEY

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import SecretStr

from vector_embed_client.integrations.langchain import VectorEmbedEmbeddings


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[VectorEmbedEmbeddings]:
        return VectorEmbedEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"api_key": "vec_other", "model": "nomic-v1.5"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        environment = {"VECTOR_EMBED_API_KEY": "vec_from-env"}
        return environment, {"model": "mine"}, {"model": "mine"}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[VectorEmbedEmbeddings]:
        return VectorEmbedEmbeddings


def test_a_vector_store_finds_the_text_that_is_asked_for() -> None:
    store = InMemoryVectorStore(VectorEmbedEmbeddings())
    store.add_documents([Document(f"text {i}") for i in range(120)])
    assert [one.page_content for one in store.similarity_search("text 77", k=1)] == ["text 77"]

    async def find() -> list[Document]:
        await store.aadd_texts(["a late text"])
        found: list[Document] = await store.as_retriever(search_kwargs={"k": 1}).ainvoke(
            "a late text"
        )
        return found

    assert [one.page_content for one in asyncio.run(find())] == ["a late text"]


def test_a_cache_of_langchain_sends_each_text_once(api: API) -> None:
    embeddings = pytest.importorskip("langchain_classic.embeddings")
    stores = pytest.importorskip("langchain_core.stores")
    store = stores.InMemoryByteStore()
    model = VectorEmbedEmbeddings()
    cached = embeddings.CacheBackedEmbeddings.from_bytes_store(
        model, store, namespace=model.model, key_encoder="blake2b"
    )
    texts = ["one", "two", "three"]
    for _ in range(2):
        assert cached.embed_documents(texts) == [expected_vector(text) for text in texts]
    assert cached.embed_documents(["two", "four"])[1] == expected_vector("four")
    assert api.log().texts == 4


def test_a_secret_is_taken_as_a_key(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VECTOR_EMBED_API_KEY")
    embeddings = VectorEmbedEmbeddings(SecretStr(API_KEY))
    assert embeddings.embed_query("one") == expected_vector("one")
    assert repr(embeddings) == f"VectorEmbedEmbeddings(base_url=None, model={embeddings.model!r})"
