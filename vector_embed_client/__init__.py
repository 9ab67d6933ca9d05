"""The client library of the vector-embed-cache API: `Client` and `AsyncClient`.

    from vector_embed_client import Client

    with Client(api_key="vec_...") as client:
        for response in client.embed_batch(["hello", "world"]):
            print(response.vector)

`__all__` lists everything that a program may rely on.
"""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .client import Client

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


def __getattr__(name: str) -> object:
    # Asyncio would take most of the import's time, and a program that uses Client never needs it;
    # one that wants no more than an error or a limit needs no httpx.
    if name == "AsyncClient":
        from .async_client import AsyncClient

        globals()[name] = AsyncClient
        return AsyncClient
    if name == "Client":
        from .client import Client

        globals()[name] = Client
        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
