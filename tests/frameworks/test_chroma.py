"""Chroma: collections on disk, whose settings have no key, opened again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_api.vectors import expected_vector
from servers import API

pytest.importorskip("chromadb")

import chromadb
from chromadb.config import Settings
from chromadb.utils.embedding_functions import known_embedding_functions

from vector_embed_client import ValidationError
from vector_embed_client.integrations.chroma import VectorEmbedEmbeddingFunction

SECRET = "vec_passed-as-an-argument"
Open = Callable[[], Any]


@pytest.fixture
def store(tmp_path: Path) -> Open:
    """Opens the store on disk."""
    settings = Settings(anonymized_telemetry=False)
    return lambda: chromadb.PersistentClient(str(tmp_path / "store"), settings)


def nearest(collection: Any, text: str) -> str:
    found: str = collection.query(query_texts=[text], n_results=1)["documents"][0][0]
    return found


def test_a_collection_embeds_what_is_added_and_what_is_asked(store: Open, api: API) -> None:
    collection = store().create_collection(
        "wiki", embedding_function=VectorEmbedEmbeddingFunction()
    )
    texts = [f"text {i}" for i in range(250)]
    collection.add(ids=texts, documents=texts)
    assert api.log().batches == {100: 2, 50: 1}
    assert nearest(collection, "text 77") == "text 77"
    stored = collection.get(ids=["text 3"], include=["embeddings"])["embeddings"][0]
    assert stored.tolist() == pytest.approx(expected_vector("text 3"), abs=1e-6)


def test_a_stored_collection_is_opened_without_a_function_and_its_files_have_no_key(
    store: Open, api: API, tmp_path: Path
) -> None:
    api.faults(keys=[SECRET])
    embed = VectorEmbedEmbeddingFunction(SECRET, api.base_url, timeout=7.0, retries=1)
    collection = store().create_collection("wiki", embedding_function=embed)
    collection.add(ids=["1", "2"], documents=["one", "two"])
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"vector_embed" in data for data in files)
    assert not any(SECRET.encode() in data for data in files)

    script = (
        "import sys, chromadb, vector_embed_client.integrations.chroma\n"
        "collection = chromadb.PersistentClient(sys.argv[1]).get_collection('wiki')\n"
        "print(collection.query(query_texts=['two'], n_results=1)['ids'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")],
        env={**os.environ, "VECTOR_EMBED_API_KEY": SECRET, "VECTOR_EMBED_BASE_URL": "http://x"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stdout == "[['2']]\n", ended.stderr


def test_a_collection_is_opened_where_there_is_no_key(
    store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = VectorEmbedEmbeddingFunction()
    made = store().create_collection("wiki", embedding_function=embed)
    made.add(ids=["1"], documents=["one"])
    monkeypatch.delenv("VECTOR_EMBED_API_KEY")
    collection = store().get_collection("wiki")
    assert collection.get()["documents"] == ["one"]
    with pytest.raises(ValueError, match="set VECTOR_EMBED_API_KEY"):
        nearest(collection, "one")


def test_the_config_makes_the_same_function_again() -> None:
    embed = VectorEmbedEmbeddingFunction(model="mine", timeout=7.0, retries=1)
    config = embed.get_config()
    assert VectorEmbedEmbeddingFunction.build_from_config(config).get_config() == config
    assert not embed.is_legacy()
    assert known_embedding_functions["vector_embed"] is VectorEmbedEmbeddingFunction


def test_another_model_is_refused_for_the_same_collection(store: Open) -> None:
    embed = VectorEmbedEmbeddingFunction()
    collection = store().create_collection("wiki", embedding_function=embed)
    for other in (VectorEmbedEmbeddingFunction(timeout=5.0), embed):
        collection.modify(configuration={"embedding_function": other})
    with pytest.raises(ValueError, match="make another collection for mine"):
        other = VectorEmbedEmbeddingFunction(model="mine")
        collection.modify(configuration={"embedding_function": other})


def test_a_wrong_document_is_named_through_a_collection(store: Open, api: API) -> None:
    embed = VectorEmbedEmbeddingFunction()
    collection = store().create_collection("wiki", embedding_function=embed)
    with pytest.raises(ValidationError) as caught:
        collection.add(ids=["1", "2"], documents=["good", "x" * 10_001])
    assert caught.value.index == 1
    assert collection.count() == 0
    assert api.log().requests == 0
