"""What the adapters share: texts become vectors through a Client or an AsyncClient.

An embedder makes its clients when they are first needed, one of each kind. All threads and event
loops use these two. It closes them when it is garbage collected, and never a client that it was
given.

A copy shares the clients. A pickle has the settings and never the key: a process that loads it
reads the key from VECTOR_EMBED_API_KEY.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Union

from .. import calls, http
from ..async_client import AsyncClient
from ..client import Client

Kind = TypeVar("Kind", Client, AsyncClient)
Clients = dict[type, Union[Client, AsyncClient]]


def key_of_environment() -> str | None:
    """No key: the client reads VECTOR_EMBED_API_KEY, or says that it is not set."""
    return None


class Embedder:
    """Embeds for an adapter. What is None has the default of Client.

    Args:
        key: Returns the key. It is called when a client is made.
        client: A Client of the user's, with its own key and address.
        async_client: The same for calls with `await`. If one of the two is given, the other is made
            with its settings.
    """

    def __init__(
        self,
        key: Callable[[], str | None] = key_of_environment,
        base_url: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
    ) -> None:
        self._key = key
        self.base_url, self.timeout, self.retries = base_url, timeout, retries
        self.model = http.DEFAULT_MODEL if model is None else model
        given = client or async_client
        if given is not None:
            if base_url is not None or key is not key_of_environment:
                told = "a client has its own key and address: leave out api_key and base_url"
                raise ValueError(told)
            self._key, self.base_url = lambda: given.api_key, given.base_url
            self.model = given.model if model is None else model
            self.timeout = given.timeout if timeout is None else timeout
            self.retries = given.retries if retries is None else retries
        pair = {Client: client, AsyncClient: async_client}
        self._given: Clients = {kind: one for kind, one in pair.items() if one is not None}
        self._made: Clients = {}
        weakref.finalize(self, _drop, self._made)

    @property
    def client(self) -> Client:
        """The Client, made at the first call. Raises ValueError for a setting or a missing key."""
        return self._client(Client)

    @property
    def async_client(self) -> AsyncClient:
        """The same for calls with `await`."""
        return self._client(AsyncClient)

    def check(self) -> None:
        """Raise ValueError now, and not at the first call, for a setting or a missing key."""
        if not self._given:
            self._client(Client)

    def check_settings_suffice(self) -> None:
        """Raise ValueError if a client that was given has more than settings: an http_client."""
        for client in self._given.values():
            if not client._is_own:
                raise ValueError(
                    f"this {type(client).__name__} has an http_client of its own, which cannot be "
                    "copied, pickled or saved: give client= and async_client= where each is used"
                )

    def embed(self, text: str) -> list[float]:
        """The vector of one text."""
        return self.client.embed(text, **self._options()).vector

    async def embed_async(self, text: str) -> list[float]:
        """The vector of one text."""
        return (await self.async_client.embed(text, **self._options())).vector

    def embed_many(self, texts: Iterable[str]) -> list[list[float]]:
        """The vectors of any number of texts, in the same order: all of them, or an error.

        All texts are checked before the first is sent. An error's `index` counts over all of them.
        """
        answers = self.client.embed_many(_checked(texts), **self._options())
        return [answer.vector for answer in answers]

    async def embed_many_async(self, texts: Iterable[str]) -> list[list[float]]:
        """The same for calls with `await`."""
        answers = self.async_client.embed_many(_checked(texts), **self._options())
        return [answer.vector async for answer in answers]

    def close(self) -> None:
        """Close the Client that was made here. The next call makes another."""
        _close(self._made)

    async def close_async(self) -> None:
        """The same for the AsyncClient."""
        client = self._made.pop(AsyncClient, None)
        if isinstance(client, AsyncClient):
            await client.close()

    def __repr__(self) -> str:
        return f"base_url={self.base_url!r}, model={self.model!r}"

    def __copy__(self) -> Embedder:
        return self

    def __deepcopy__(self, memo: object) -> Embedder:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        self.check_settings_suffice()
        settings = (self.base_url, self.model, self.timeout, self.retries)
        return Embedder, (key_of_environment, *settings)

    def _client(self, kind: type[Kind]) -> Kind:
        client = self._given.get(kind) or self._made.get(kind)
        if client is None:
            self.check_settings_suffice()
            # Of two threads that get here, one wins. The other's client has opened no connection.
            options = {"timeout": self.timeout, "retries": self.retries}
            set_options: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
            made = kind(self._key(), self.base_url, self.model, **set_options)
            client = self._made.setdefault(kind, made)
        assert isinstance(client, kind)
        return client

    def _options(self) -> dict[str, Any]:
        """The arguments of each call: a client that was given may have others."""
        return {"model": self.model, "timeout": self.timeout, "retries": self.retries}


def _checked(texts: Iterable[str]) -> list[str]:
    """`texts`, all of them valid. Raises ValidationError with the index of one that is not."""
    calls.check_iterable(texts)
    listed = list(texts)
    for index, text in enumerate(listed):
        calls.check_text(text, index)
    return listed


def _close(made: Clients) -> None:
    client = made.pop(Client, None)
    if isinstance(client, Client):
        client.close()


def _drop(made: Clients) -> None:
    _close(made)
    client = made.pop(AsyncClient, None)
    if isinstance(client, AsyncClient):
        client._close_later()
