"""The environment of a program that uses a framework: a key, an address, and no other host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import API, API_KEY

from . import faces
from .faces import Face

# Before any framework is imported: they read these then, and some would report to their makers.
os.environ |= {
    "ANONYMIZED_TELEMETRY": "False",  # Chroma
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}

FACES = {
    "langchain": ("langchain_core", faces.langchain),
    "llama_index": ("llama_index.core", faces.llama_index),
    "haystack_documents": ("haystack", faces.haystack_documents),
    "haystack_text": ("haystack", faces.haystack_text),
    "chroma": ("chromadb", faces.chroma),
}
strangers: list[str] = []


def _see_strangers(event: str, arguments: tuple[object, ...]) -> None:
    """Remember each address outside this machine that Python looks up or connects to."""
    host: object = None
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and host not in ("", "127.0.0.1", "localhost", "::1"):
        strangers.append(host)


sys.addaudithook(_see_strangers)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.frameworks)


@pytest.fixture(autouse=True)
def no_other_host() -> Iterator[None]:
    """A test fails if its framework looks for a host outside this machine."""
    strangers.clear()
    yield
    assert strangers == []


@pytest.fixture(autouse=True)
def environment(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and the address of the local API."""
    monkeypatch.setenv("VECTOR_EMBED_API_KEY", API_KEY)
    monkeypatch.setenv("VECTOR_EMBED_BASE_URL", api.base_url)


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Face:
    """The adapter of each framework that is installed."""
    framework, make = FACES[request.param]
    pytest.importorskip(framework)
    return make()
