"""The client library of the vector-embed-cache API: `Client` and `AsyncClient`.

    from vector_embed_client import Client

    with Client(api_key="vec_...") as client:
        for response in client.embed_batch(["hello", "world"]):
            print(response.vector)

`__all__` lists everything that a program may rely on.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    AuthenticationError,
    NetworkError,
    RateLimitError,
    ServerError,
    ValidationError,
    VectorEmbedError,
)
from .http import VERSION as __version__
from .http import no_waiting
from .types import (
    EmbeddingArray,
    EmbedResponse,
    HealthResponse,
    SearchResponse,
    SearchResult,
    StatsResponse,
)

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


_LAZY = {"AsyncClient": ".async_client", "Client": ".client"}


def __getattr__(name: str) -> object:
    # Asyncio would take most of the import's time, and a program that uses Client never needs it.
    # A program that only wants an error or a limit needs no httpx.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_LAZY[name], __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
