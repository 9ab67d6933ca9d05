"""LlamaIndex: an index, an ingestion pipeline in several processes, what it saves."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from typing import Any

import httpx
import pytest
from faulty_api.vectors import expected_vector
from servers import API, API_KEY

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from vector_embed_client import Client
from vector_embed_client.integrations.llama_index import VectorEmbedEmbedding

NODES = [TextNode(text=f"text {i}") for i in range(250)]


@pytest.mark.parametrize("use_async", [False, True])
def test_an_index_finds_the_node_that_is_asked_for(api: API, use_async: bool) -> None:
    index = VectorStoreIndex(NODES, embed_model=VectorEmbedEmbedding(), use_async=use_async)
    assert api.log().batches == {100: 2, 50: 1}
    retriever = index.as_retriever(similarity_top_k=1)
    assert [found.text for found in retriever.retrieve("text 77")] == ["text 77"]
    found = asyncio.run(retriever.aretrieve("text 211"))
    assert [one.text for one in found] == ["text 211"]


def test_an_ingestion_pipeline_embeds_in_several_processes(
    api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "cpu_count", lambda: 2)
    pipeline = IngestionPipeline(transformations=[VectorEmbedEmbedding()], disable_cache=True)
    nodes = pipeline.run(nodes=NODES, num_workers=2)
    assert [node.embedding for node in nodes] == [expected_vector(node.text) for node in NODES]  # type: ignore[attr-defined]  # text nodes
    assert api.log().texts == len(NODES)


def test_what_is_saved_makes_the_same_embedding_again(api: API) -> None:
    made = VectorEmbedEmbedding(api_key=API_KEY, model="mine", timeout=7.0, retries=1)
    saved = made.to_dict()
    loaded = VectorEmbedEmbedding.from_dict(saved)
    assert loaded.to_dict() == saved
    assert saved["class_name"] == "VectorEmbedEmbedding"
    assert (loaded.model_name, loaded.timeout, loaded.retries) == ("mine", 7.0, 1)
    assert API_KEY not in str(saved)


def test_a_cache_of_llama_index_sends_each_text_once(api: API) -> None:
    made = VectorEmbedEmbedding(embeddings_cache=SimpleKVStore())
    texts = ["one", "two", "three"]
    for _ in range(2):
        vectors = made.get_text_embedding_batch(texts)
        assert vectors == [expected_vector(text) for text in texts]
    assert api.log().texts == 3


def test_callbacks_and_smaller_batches_work_as_for_every_embedding(api: API) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    made = VectorEmbedEmbedding(callback_manager=CallbackManager([handler]), embed_batch_size=40)
    assert len(made.get_text_embedding_batch(["a text"] * 100)) == 100
    assert len(handler.get_event_pairs()) == 3
    assert api.log().batches == {40: 2, 20: 1}
    assert API_KEY not in str(handler.get_events())


def test_a_setting_cannot_be_changed_in_place() -> None:
    made: Any = VectorEmbedEmbedding()
    with pytest.raises(ValueError, match="frozen"):
        made.model_name = "another"


def test_an_http_client_of_the_program_is_not_left_out_of_a_pickle_in_silence() -> None:
    with httpx.Client() as own:
        made = VectorEmbedEmbedding(client=Client(http_client=own))
        with pytest.raises(ValueError, match="http_client of its own"):
            pickle.dumps(made)
