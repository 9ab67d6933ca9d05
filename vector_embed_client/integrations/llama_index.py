"""The client library as a LlamaIndex embedding model."""

# Pydantic reads the annotations of the fields, so they must not be strings.

from typing import Any, Optional

from . import missing

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
except ModuleNotFoundError as error:
    raise missing(error, "llama-index") from None

from ..async_client import AsyncClient
from ..client import Client
from .embedder import Embedder, key_of_environment


class VectorEmbedEmbedding(BaseEmbedding):
    """A LlamaIndex embedding model for indexes, ingestion pipelines and `Settings.embed_model`.

        from vector_embed_client.integrations.llama_index import VectorEmbedEmbedding

        embed_model = VectorEmbedEmbedding()  # the key is in VECTOR_EMBED_API_KEY
        vectors = embed_model.get_text_embedding_batch(["hello", "world"])

    Every method raises VectorEmbedError or one of its subclasses. Threads and event loops may share
    one object. Neither its repr, its `to_dict()` nor a pickle of it has the key: the processes of
    an ingestion pipeline with `num_workers` read it from VECTOR_EMBED_API_KEY.

    Args:
        api_key: The key. Default: VECTOR_EMBED_API_KEY.
        base_url: The address of the API. Default: VECTOR_EMBED_BASE_URL, else the public API.
        model: The model. Default: that of Client.
        timeout: Seconds for each attempt. Default: that of Client.
        retries: How often a failed request is sent again. Default: that of Client.
        client: A Client of your own, in place of a key and an address. You close it.
        async_client: An AsyncClient of your own, for the methods with `await`.
        kwargs: What every BaseEmbedding takes: `callback_manager`, `embeddings_cache` and others.
    """

    model_name: str = Field(description="The model.", frozen=True)
    base_url: Optional[str] = Field(default=None, description="The address.", frozen=True)
    timeout: Optional[float] = Field(default=None, description="Seconds.", frozen=True)
    retries: Optional[int] = Field(default=None, description="Retries.", frozen=True)
    # The client itself makes batches for requests, and several at once. An error's index counts
    # over what it is given here.
    embed_batch_size: int = Field(
        default=1_000_000, gt=0, description="How many texts are given to the client at once."
    )
    _embedder: Embedder = PrivateAttr()

    def __init__(
        self,
        api_key: Optional[str] = None,
        base_url: Optional[str] = None,
        model: Optional[str] = None,
        timeout: Optional[float] = None,
        retries: Optional[int] = None,
        *,
        client: Optional[Client] = None,
        async_client: Optional[AsyncClient] = None,
        **kwargs: Any,
    ) -> None:
        key = key_of_environment if api_key is None else lambda: api_key
        model = kwargs.pop("model_name", model)  # so `from_dict` and `pickle` name it
        embedder = Embedder(key, base_url, model, timeout, retries, client, async_client)
        embedder.check()
        fields: dict[str, Any] = {
            "model_name": embedder.model,
            "base_url": embedder.base_url,
            "timeout": embedder.timeout,
            "retries": embedder.retries,
        }
        super().__init__(**fields, **kwargs)
        self._embedder = embedder

    @classmethod
    def class_name(cls) -> str:
        """The name in `to_dict()`."""
        return "VectorEmbedEmbedding"

    def __getstate__(self) -> dict[str, Any]:
        self._embedder.check_settings_suffice()  # LlamaIndex would only warn
        state: dict[str, Any] = super().__getstate__()
        return state

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.embed(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embedder.embed(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed_many(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._embedder.embed_async(query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self._embedder.embed_async(text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._embedder.embed_many_async(texts)
