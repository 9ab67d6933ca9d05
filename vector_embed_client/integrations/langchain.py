"""The client library as a LangChain embedding model."""

from __future__ import annotations

from . import missing

try:
    from langchain_core.embeddings import Embeddings
    from pydantic import SecretStr
except ModuleNotFoundError as error:
    raise missing(error, "langchain") from None

from ..async_client import AsyncClient
from ..client import Client
from .embedder import Embedder, key_of_environment


class VectorEmbedEmbeddings(Embeddings):
    """A LangChain embedding model for vector stores, retrievers and `CacheBackedEmbeddings`.

        from vector_embed_client.integrations.langchain import VectorEmbedEmbeddings

        embeddings = VectorEmbedEmbeddings()  # the key is in VECTOR_EMBED_API_KEY
        vectors = embeddings.embed_documents(["hello", "world"])

    Every method raises VectorEmbedError or one of its subclasses. Threads and event loops may share
    one object. Neither its repr nor a pickle of it has the key.

    Args:
        api_key: The key. Default: VECTOR_EMBED_API_KEY.
        base_url: The address of the API. Default: VECTOR_EMBED_BASE_URL, else the public API.
        model: The model. Default: that of Client.
        timeout: Seconds for each attempt. Default: that of Client.
        retries: How often a failed request is sent again. Default: that of Client.
        client: A Client of your own, in place of a key and an address. You close it.
        async_client: An AsyncClient of your own, for the methods with `await`.
    """

    def __init__(
        self,
        api_key: str | SecretStr | None = None,
        base_url: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        *,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
    ) -> None:
        key = key_of_environment if api_key is None else lambda: _plain(api_key)
        self._embedder = Embedder(key, base_url, model, timeout, retries, client, async_client)
        self._embedder.check()

    @property
    def model(self) -> str:
        """The model: a name for the namespace of a cache."""
        return self._embedder.model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of any number of texts, in the same order: all of them, or an error."""
        return self._embedder.embed_many(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return self._embedder.embed(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of any number of texts, in the same order: all of them, or an error."""
        return await self._embedder.embed_many_async(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return await self._embedder.embed_async(text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._embedder!r})"


def _plain(key: str | SecretStr) -> str:
    return key.get_secret_value() if isinstance(key, SecretStr) else key
