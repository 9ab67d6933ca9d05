"""The client library of the vector-embed-cache API: `Client` and `AsyncClient`.

from vector_embed_client import Client

with Client(api_key="vec_...") as client:
    for response in client.embed_batch(["hello", "world"]):
        print(response.vector)
"""

from .async_client import AsyncClient
from .client import Client
from .embedding_array import EmbeddingArray
from .errors import (
    AuthenticationError,
    NetworkError,
    RateLimitError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)
from .http import VERSION as __version__
from .types import EmbedResponse, HealthResponse, SearchResponse, SearchResult, StatsResponse
from .waiting import no_waiting

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "EmbedResponse",
    "EmbeddingArray",
    "HealthResponse",
    "NetworkError",
    "RateLimitError",
    "SearchResponse",
    "SearchResult",
    "ServerError",
    "StatsResponse",
    "ValidationError",
    "VectorEmbedError",
    "__version__",
    "no_waiting",
]
