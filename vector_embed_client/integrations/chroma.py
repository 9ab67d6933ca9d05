"""The client library as a Chroma embedding function.

Chroma stores the settings of a collection's embedding function. It makes the function again from
them, wherever this module has been imported.
"""

from __future__ import annotations

from typing import Any

from . import missing

try:
    import numpy
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ModuleNotFoundError as error:
    raise missing(error, "chroma") from None

from ..client import Client
from .embedder import Embedder, key_of_environment

Config = dict[str, Any]


@register_embedding_function
class VectorEmbedEmbeddingFunction(EmbeddingFunction[Documents]):
    """A Chroma embedding function.

        import chromadb
        from vector_embed_client.integrations.chroma import VectorEmbedEmbeddingFunction

        embed = VectorEmbedEmbeddingFunction()  # the key is in VECTOR_EMBED_API_KEY
        collection = chromadb.Client().create_collection("wiki", embedding_function=embed)
        collection.add(ids=["1", "2"], documents=["hello", "world"])

    A call raises VectorEmbedError or one of its subclasses. Chroma stores the address, model,
    timeout and retries, and never the key: a process that opens the collection without an embedding
    function reads the key from VECTOR_EMBED_API_KEY, at the first call.

    Args:
        api_key: The key. Default: VECTOR_EMBED_API_KEY.
        base_url: The address of the API. Default: VECTOR_EMBED_BASE_URL, else the public API.
        model: The model. Default: that of Client.
        timeout: Seconds for each attempt. Default: that of Client.
        retries: How often a failed request is sent again. Default: that of Client.
        client: A Client of your own, in place of a key and an address. You close it.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        *,
        client: Client | None = None,
    ) -> None:
        # Nothing is checked here: Chroma makes one from the settings where there may be no key.
        key = key_of_environment if api_key is None else lambda: api_key
        self._embedder = Embedder(key, base_url, model, timeout, retries, client)

    def __call__(self, input: Documents) -> Embeddings:
        """The vectors of any number of texts, in the same order: all of them, or an error."""
        vectors = self._embedder.embed_many(input)
        return [numpy.array(vector, dtype=numpy.float32) for vector in vectors]

    @staticmethod
    def name() -> str:
        """The name under which Chroma stores the settings."""
        return "vector_embed"

    def get_config(self) -> Config:
        """The settings. Raises ValueError for a client with an http_client of its own."""
        embedder = self._embedder
        embedder.check_settings_suffice()
        return {
            "base_url": embedder.base_url,
            "model": embedder.model,
            "timeout": embedder.timeout,
            "retries": embedder.retries,
        }

    @staticmethod
    def build_from_config(config: Config) -> VectorEmbedEmbeddingFunction:
        """The function that has these settings."""
        return VectorEmbedEmbeddingFunction(**config)

    def validate_config_update(self, old_config: Config, new_config: Config) -> None:
        """Raise ValueError for another model: its vectors cannot be compared with those stored."""
        if new_config.get("model", old_config["model"]) != old_config["model"]:
            raise ValueError(
                f"the collection has vectors of {old_config['model']}: "
                f"make another collection for {new_config['model']}"
            )

    def default_space(self) -> Space:
        """Cosine."""
        return "cosine"
