"""The client library as Haystack components: a text embedder and a document embedder."""

# Haystack reads the annotations of `run`, so they must not be strings.

from dataclasses import replace
from typing import Any, Optional, Union

from . import missing

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret, deserialize_secrets_inplace
except ModuleNotFoundError as error:
    raise missing(error, "haystack") from None

from ..async_client import AsyncClient
from ..client import Client
from .embedder import Embedder, key_of_environment


class _Component:
    """What both components share."""

    def __init__(
        self,
        api_key: Optional[Union[Secret, str]],
        base_url: Optional[str],
        model: Optional[str],
        timeout: Optional[float],
        retries: Optional[int],
        client: Optional[Client],
        async_client: Optional[AsyncClient],
        **parameters: Any,
    ) -> None:
        secret = Secret.from_token(api_key) if isinstance(api_key, str) else api_key
        key = key_of_environment if secret is None else secret.resolve_value
        self._embedder = Embedder(key, base_url, model, timeout, retries, client, async_client)
        self._api_key = secret
        self._parameters = parameters  # of this kind of component

    def warm_up(self) -> None:
        """Make the client. Raises ValueError for a wrong setting or a missing key."""
        self._embedder.check()

    def close(self) -> None:
        """Close the connections of `run`, except those of your own client. A run opens new ones."""
        self._embedder.close()

    async def close_async(self) -> None:
        """Close the connections of `run_async`."""
        await self._embedder.close_async()

    def to_dict(self) -> dict[str, Any]:
        """The component as a dictionary, which has at most the name of the key's variable."""
        embedder = self._embedder
        embedder.check_settings_suffice()
        data: dict[str, Any] = default_to_dict(
            self,
            api_key=None if self._api_key is None else self._api_key.to_dict(),
            base_url=embedder.base_url,
            model=embedder.model,
            timeout=embedder.timeout,
            retries=embedder.retries,
            **self._parameters,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component that `to_dict` made `data` of."""
        parameters = dict(data.get("init_parameters", {}))
        deserialize_secrets_inplace(parameters, keys=["api_key"])
        return default_from_dict(cls, {**data, "init_parameters": parameters})

    def __reduce__(self) -> tuple[Any, ...]:
        # A token would be in the pickle. Its `to_dict` refuses it.
        return type(self).from_dict, (self.to_dict(),)

    def _text(self, *parts: str) -> str:
        """A text to embed."""
        separator = self._parameters.get("embedding_separator", "")
        return f"{self._parameters['prefix']}{separator.join(parts)}{self._parameters['suffix']}"

    def _meta(self) -> dict[str, Any]:
        return {"model": self._embedder.model}

    def _get_telemetry_data(self) -> dict[str, Any]:
        return self._meta()


@component
class VectorEmbedTextEmbedder(_Component):
    """Embeds one string, such as a query for an embedding retriever.

        from vector_embed_client.integrations.haystack import VectorEmbedTextEmbedder

        embedder = VectorEmbedTextEmbedder()  # the key is in VECTOR_EMBED_API_KEY
        vector = embedder.run("hello world")["embedding"]

    `run` raises VectorEmbedError or one of its subclasses. In a pipeline it is the `__cause__` of
    Haystack's PipelineRuntimeError.

    Args:
        api_key: The key, as a Secret or a string. Default: VECTOR_EMBED_API_KEY. A component with
            a key as such, and not the name of its variable, cannot be saved or pickled.
        base_url: The address of the API. Default: VECTOR_EMBED_BASE_URL, else the public API.
        model: The model. Default: that of Client.
        timeout: Seconds for each attempt. Default: that of Client.
        retries: How often a failed request is sent again. Default: that of Client.
        prefix: Put before each text.
        suffix: Put after each text.
        client: A Client of your own, in place of a key and an address. You close it.
        async_client: An AsyncClient of your own, for `run_async`.
    """

    def __init__(
        self,
        api_key: Optional[Union[Secret, str]] = None,
        base_url: Optional[str] = None,
        model: Optional[str] = None,
        timeout: Optional[float] = None,
        retries: Optional[int] = None,
        prefix: str = "",
        suffix: str = "",
        *,
        client: Optional[Client] = None,
        async_client: Optional[AsyncClient] = None,
    ) -> None:
        settings = (api_key, base_url, model, timeout, retries, client, async_client)
        # Not `super()`: `component` makes another class of this one.
        _Component.__init__(self, *settings, prefix=prefix, suffix=suffix)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """`embedding`: the vector of `text`; `meta`: the model."""
        return {"embedding": self._embedder.embed(self._checked(text)), "meta": self._meta()}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """As `run`."""
        vector = await self._embedder.embed_async(self._checked(text))
        return {"embedding": vector, "meta": self._meta()}

    def _checked(self, text: object) -> str:
        if not isinstance(text, str):
            kind = type(text).__name__
            told = f"{type(self).__name__} takes a string, not {kind}"
            raise TypeError(f"{told}: VectorEmbedDocumentEmbedder takes a list of Documents")
        return self._text(text)


@component
class VectorEmbedDocumentEmbedder(_Component):
    """Embeds documents: the result has copies of them, in the same order, each with its vector.

        from haystack import Document
        from vector_embed_client.integrations.haystack import VectorEmbedDocumentEmbedder

        embedder = VectorEmbedDocumentEmbedder()  # the key is in VECTOR_EMBED_API_KEY
        documents = embedder.run([Document(content="hello world")])["documents"]

    Either all documents are embedded, or `run` raises an error. Its `index` is the position of the
    document at fault, if that is known.

    Args:
        api_key: As in VectorEmbedTextEmbedder. So are the next four.
        prefix: Put before each text.
        suffix: Put after each text.
        meta_fields_to_embed: Fields of `meta` whose values are put before a document's content.
        embedding_separator: Put between these values and the content.
        client: As in VectorEmbedTextEmbedder. So is `async_client`.
    """

    def __init__(
        self,
        api_key: Optional[Union[Secret, str]] = None,
        base_url: Optional[str] = None,
        model: Optional[str] = None,
        timeout: Optional[float] = None,
        retries: Optional[int] = None,
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: Optional[list[str]] = None,
        embedding_separator: str = "\n",
        *,
        client: Optional[Client] = None,
        async_client: Optional[AsyncClient] = None,
    ) -> None:
        _Component.__init__(
            self,
            *(api_key, base_url, model, timeout, retries, client, async_client),
            prefix=prefix,
            suffix=suffix,
            meta_fields_to_embed=list(meta_fields_to_embed or []),
            embedding_separator=embedding_separator,
        )

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """`documents`: copies with their vectors, in the same order; `meta`: the model."""
        vectors = self._embedder.embed_many(self._texts(documents))
        return {"documents": _with_vectors(documents, vectors), "meta": self._meta()}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """As `run`."""
        vectors = await self._embedder.embed_many_async(self._texts(documents))
        return {"documents": _with_vectors(documents, vectors), "meta": self._meta()}

    def _texts(self, documents: list[Document]) -> list[str]:
        is_list = isinstance(documents, list)
        if not is_list or not all(isinstance(one, Document) for one in documents):
            told = f"{type(self).__name__} takes a list of Documents"
            raise TypeError(f"{told}: VectorEmbedTextEmbedder takes a string")
        fields = self._parameters["meta_fields_to_embed"]
        return [
            self._text(
                *(str(one.meta[name]) for name in fields if one.meta.get(name) is not None),
                one.content or "",
            )
            for one in documents
        ]


def _with_vectors(documents: list[Document], vectors: list[list[float]]) -> list[Document]:
    return [replace(one, embedding=vector) for one, vector in zip(documents, vectors)]
