"""The client library behind the embedding classes of four frameworks.

    from vector_embed_client.integrations.langchain import VectorEmbedEmbeddings
    from vector_embed_client.integrations.llama_index import VectorEmbedEmbedding
    from vector_embed_client.integrations.haystack import (
        VectorEmbedDocumentEmbedder,
        VectorEmbedTextEmbedder,
    )
    from vector_embed_client.integrations.chroma import VectorEmbedEmbeddingFunction

Each module imports its framework, and nothing else does. Each framework is an extra.
"""


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The error for a framework that is not installed: one line that names the extra."""
    told = f"{error.name} is missing: pip install 'vector-embed-cache-client[{extra}]'"
    return ModuleNotFoundError(told, name=error.name)
