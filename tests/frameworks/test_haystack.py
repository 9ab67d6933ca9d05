"""Haystack: pipelines with a document store, saved and loaded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faulty_api.vectors import expected_vector
from servers import API, API_KEY

pytest.importorskip("haystack")

import haystack
from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

from vector_embed_client import AuthenticationError
from vector_embed_client.integrations.haystack import (
    VectorEmbedDocumentEmbedder,
    VectorEmbedTextEmbedder,
)

# Haystack 2 runs `run_async` in a pipeline of another kind.
AsyncPipeline: Any = getattr(haystack, "AsyncPipeline", Pipeline)


@pytest.fixture(autouse=True)
def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Haystack 3 loads saved components of trusted modules only."""
    module = VectorEmbedTextEmbedder.__module__
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", module)


def indexing(store: InMemoryDocumentStore) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", VectorEmbedDocumentEmbedder())
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("embedder.documents", "writer.documents")
    return pipeline


def query(store: InMemoryDocumentStore, kind: Any = Pipeline) -> Any:
    pipeline = kind()
    pipeline.add_component("embedder", VectorEmbedTextEmbedder())
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return pipeline


def test_pipelines_index_documents_and_find_them(api: API) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    documents = [Document(content=f"text {i}", meta={"n": i}) for i in range(250)]
    written = indexing(store).run({"embedder": {"documents": documents}})
    assert written["writer"]["documents_written"] == 250
    assert api.log().batches == {100: 2, 50: 1}
    found = query(store).run({"embedder": {"text": "text 77"}})["retriever"]["documents"]
    assert [one.content for one in found] == ["text 77"]

    async def run() -> Any:
        pipeline = query(store, AsyncPipeline)
        return await pipeline.run_async({"embedder": {"text": "text 211"}})

    found = asyncio.run(run())["retriever"]["documents"]
    assert [one.content for one in found] == ["text 211"]


def test_a_saved_pipeline_is_loaded_again_and_has_only_the_name_of_the_keys_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = InMemoryDocumentStore()
    monkeypatch.setenv("MY_KEY", API_KEY)
    pipeline = Pipeline()
    secret = Secret.from_env_var("MY_KEY")
    embedder = VectorEmbedDocumentEmbedder(
        secret, meta_fields_to_embed=["title"], prefix="<", suffix=">", timeout=7.0, retries=1
    )
    pipeline.add_component("embedder", embedder)
    saved = pipeline.dumps()
    assert "MY_KEY" in saved
    assert API_KEY not in saved
    monkeypatch.delenv("VECTOR_EMBED_API_KEY")
    loaded = Pipeline.loads(saved)
    assert loaded.to_dict() == pipeline.to_dict()
    document = Document(content="body", meta={"title": "head"})
    result = loaded.run({"embedder": {"documents": [document]}})["embedder"]
    assert result["documents"][0].embedding == expected_vector("<head\nbody>")
    assert result["meta"] == {"model": "nomic-v1.5"}
    assert query(store).dumps() == Pipeline.loads(query(store).dumps()).dumps()


def test_a_pipeline_without_a_key_is_loaded_and_drawn_and_fails_when_it_is_warmed_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VECTOR_EMBED_API_KEY")
    pipeline = Pipeline.loads(query(InMemoryDocumentStore()).dumps())
    with pytest.raises(ValueError, match="set VECTOR_EMBED_API_KEY"):
        pipeline.warm_up()


def test_documents_are_copied_kept_in_order_and_doubles_are_not_lost(api: API) -> None:
    documents = [Document(id="same", content="one"), Document(id="same", content="two")]
    found = VectorEmbedDocumentEmbedder().run(documents=documents)["documents"]
    assert [one.embedding for one in found] == [expected_vector("one"), expected_vector("two")]
    assert [one.embedding for one in documents] == [None, None]
    assert [(one.id, one.content) for one in found] == [("same", "one"), ("same", "two")]


def test_an_error_in_a_pipeline_has_ours_as_its_cause(api: API) -> None:
    api.faults(rules=[{"answer": "revoked"}])
    with pytest.raises(Exception, match="Invalid or revoked") as caught:
        query(InMemoryDocumentStore()).run({"embedder": {"text": "one"}})
    error = caught.value
    assert isinstance(error, AuthenticationError) or isinstance(
        error.__cause__, AuthenticationError
    )
    assert API_KEY not in str(error)
    assert api.log().requests == 1


def test_the_wrong_component_for_an_input_is_told_of_the_right_one() -> None:
    documents: Any = [Document(content="one")]
    with pytest.raises(TypeError, match="VectorEmbedDocumentEmbedder takes a list"):
        VectorEmbedTextEmbedder().run(text=documents)
    for wrong in ("one", ["one"], None):
        with pytest.raises(TypeError, match="VectorEmbedTextEmbedder takes a string"):
            VectorEmbedDocumentEmbedder().run(documents=wrong)  # type: ignore[arg-type]  # that is the test


def test_a_closed_component_opens_new_connections_for_the_next_run() -> None:
    embedder = VectorEmbedTextEmbedder()

    async def run_and_close() -> list[float]:
        found = await embedder.run_async(text="one")
        await embedder.close_async()
        vector: list[float] = found["embedding"]
        return vector

    for _ in range(2):
        assert embedder.run(text="one")["embedding"] == expected_vector("one")
        embedder.close()
        assert asyncio.run(run_and_close()) == expected_vector("one")
