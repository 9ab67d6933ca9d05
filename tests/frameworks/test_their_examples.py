"""The frameworks' own examples, as they ship them, with only the embedding object replaced."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from importlib.metadata import metadata
from textwrap import dedent
from typing import Any

import pytest
from servers import API

BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.M | re.S)


def run(text: str, *replaced: tuple[str, str]) -> dict[str, Any]:
    """Run the examples in `text`, one after the other; returns their names."""
    code = "\n".join(dedent(block) for _, block in BLOCK.findall(dedent(text)))
    for old, new in replaced:
        assert old in code
        code = code.replace(old, new)
    names: dict[str, Any] = {}
    compiled = compile(code, "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)
    if inspect.iscoroutine(result):
        asyncio.run(result)
    return names


def test_the_example_of_langchain_for_its_vector_store(api: API) -> None:
    stores = pytest.importorskip("langchain_core.vectorstores")
    module = "vector_embed_client.integrations.langchain"
    names = run(
        stores.InMemoryVectorStore.__doc__,
        ("langchain_openai import OpenAIEmbeddings", f"{module} import VectorEmbedEmbeddings"),
        ("OpenAIEmbeddings()", "VectorEmbedEmbeddings()"),
    )
    assert names["results"]
    assert api.log().texts > 3


def test_the_example_of_haystack_for_its_retriever(api: API) -> None:
    retrievers = pytest.importorskip("haystack.components.retrievers")
    kinds = "OpenAIDocumentEmbedder, OpenAITextEmbedder"
    module = "vector_embed_client.integrations.haystack"
    names = run(
        retrievers.InMemoryEmbeddingRetriever.__doc__,
        (f"haystack.components.embedders import {kinds}", f"{module} import {kinds}"),
        ("OpenAI", "VectorEmbed"),
    )
    assert len(names["result"]["documents"]) == 2
    assert api.log().texts == 3


def test_the_example_of_chroma_in_its_readme(api: API) -> None:
    pytest.importorskip("chromadb")
    module = "vector_embed_client.integrations.chroma"
    made = f"__import__('{module}', fromlist=['x']).VectorEmbedEmbeddingFunction()"
    named = 'create_collection("all-my-documents"'
    names = run(
        metadata("chromadb")["Description"] or str(metadata("chromadb").get_payload()),  # type: ignore[attr-defined]  # a Message
        (named, f"{named}, embedding_function={made}"),
    )
    assert len(names["results"]["ids"][0]) == 2
    assert api.log().texts == 3
