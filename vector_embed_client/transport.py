"""The connections of a client of ours: httpx's transports over sockets that keep four promises.

* **A time limit for the whole exchange.** httpx and httpcore give each step of an exchange its
  timeout anew, so that headers that come byte by byte, or 1xx answers without end, hold a thread
  for ever. Here each step gets what is left (see `Exchange`). Looking up a name and trying each of
  its addresses obey no timeout at all: a thread does that, once a connection, and is left behind.
* **No connection is used again after a 5xx.** The server closes it then without saying so, or
  leaves it open and deaf. (After an answer that was not read to its end httpcore closes it.)
* **No connection is used again with bytes left over**: a second answer to one request would be
  taken for the answer to the next. The HTTP parser gets the last byte that was read when it asks
  for it. If the answer has ended before, it never asks, and the connection counts as readable, for
  which it is closed. Its pool looks at that, and, since another thread may come between, the first
  step of a request once more. The limit: bytes that arrive when the next request is on its way.
* **After a failure on a used connection no idle one is used again**: where one was dead, all may
  be. The next attempt is made on a new connection.

`Connection: close`
would be the other way to get rid of bytes left over: a new connection for each request of a few
texts, so a round trip more, or three with TLS, each time.

The one private name: `_pool` of httpx's transports, for which httpx has no argument of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Any, Optional

import httpcore
import httpx

from . import http, threads
from .exchange import Exchange
from .route import Route

# Of a request's body that is sent in one step: a reader so slow holds up a step, not the sum.
_SENT_AT_ONCE = 16_384

# Asyncio reads up to this much in one go; what is not taken from it lies where no one looks.
_READ_AT_ONCE = 262_144

# A piece of a compressed answer becomes a thousand times as long at most.
_COMPRESSED_AT_ONCE = 4_096

SocketOptions = Optional[Iterable[httpcore.SOCKET_OPTION]]


class Transport(httpx.HTTPTransport):
    """For httpx.Client."""

    def __init__(self, route: Route, limits: httpx.Limits) -> None:
        self._backend = _Backend()
        options = _options(route, limits)
        if route.proxy is None:
            self._pool = httpcore.ConnectionPool(network_backend=self._backend, **options)
        elif route.is_socks:
            self._pool = httpcore.SOCKSProxy(network_backend=self._backend, **options)
        else:
            self._pool = httpcore.HTTPProxy(network_backend=self._backend, **options)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _exchange_of(request)
        exchange.reused = True  # until a connection is made for it
        try:
            response = super().handle_request(request)
        except httpx.TransportError:
            if exchange.reused:
                self._backend.renounce()
            raise
        if "network_stream" in response.extensions:  # there is none where a test plays the server
            response.stream = _Body(response)
        return response


class AsyncTransport(httpx.AsyncHTTPTransport):
    """For httpx.AsyncClient."""

    def __init__(self, route: Route, limits: httpx.Limits) -> None:
        self._backend = _AsyncBackend()
        options = _options(route, limits)
        if route.proxy is None:
            self._pool = httpcore.AsyncConnectionPool(network_backend=self._backend, **options)
        elif route.is_socks:
            self._pool = httpcore.AsyncSOCKSProxy(network_backend=self._backend, **options)
        else:
            self._pool = httpcore.AsyncHTTPProxy(network_backend=self._backend, **options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _exchange_of(request)
        exchange.reused = True
        try:
            response = await super().handle_async_request(request)
        except httpx.TransportError:
            if exchange.reused:
                self._backend.renounce()
            raise
        if "network_stream" in response.extensions:
            response.stream = _AsyncBody(response)
        return response


def _options(route: Route, limits: httpx.Limits) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ssl_context": route.ssl_context,
        "max_connections": limits.max_connections,
        "max_keepalive_connections": limits.max_keepalive_connections,
        "keepalive_expiry": limits.keepalive_expiry,
    }
    if route.proxy is not None:
        options["proxy_url"] = str(route.proxy.url)
        options["proxy_auth"] = route.proxy.auth
    return options


def _exchange_of(request: httpx.Request) -> Exchange:
    timeouts = request.extensions["timeout"]
    return _exchange(timeouts["read"], Exchange(http.MAX_SECONDS))


def _exchange(timeout: float | None, usual: Exchange) -> Exchange:
    """The exchange that a timeout belongs to; `usual` for a step that is given none."""
    if timeout is None:
        return usual
    return timeout if isinstance(timeout, Exchange) else Exchange(timeout)


def _left(exchange: Exchange) -> float:
    seconds = exchange.left()
    if seconds <= 0:
        raise httpcore.TimeoutException
    return seconds


class _Body(httpx.SyncByteStream):
    """The body of an answer, after which its connection is closed where it must be."""

    def __init__(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._inner = response.stream
        self._size = _piece_size(response)
        self._closes = http.ends_connection(response.status_code)
        self._connection: httpcore.NetworkStream = response.extensions["network_stream"]

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            yield from _pieces(piece, self._size)

    def close(self) -> None:
        if self._closes:
            self._connection.close()  # before the pool has it back
        self._inner.close()


class _AsyncBody(httpx.AsyncByteStream):
    """The same for asyncio."""

    def __init__(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._inner = response.stream
        self._size = _piece_size(response)
        self._closes = http.ends_connection(response.status_code)
        self._connection: httpcore.AsyncNetworkStream = response.extensions["network_stream"]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            for part in _pieces(piece, self._size):
                yield part

    async def aclose(self) -> None:
        if self._closes:
            await self._connection.aclose()
        await self._inner.aclose()


def _piece_size(response: httpx.Response) -> int:
    return _COMPRESSED_AT_ONCE if "content-encoding" in response.headers else _READ_AT_ONCE


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    if len(data) <= size:
        yield data
    else:
        for begin in range(0, len(data), size):
            yield data[begin : begin + size]


class _Generation:
    """Which connections may be used again: those of the present generation."""

    def __init__(self) -> None:
        self.generation = 0

    def renounce(self) -> None:
        """Use none again of all that are open now; those at work finish what they do."""
        self.generation += 1


class _Tail:
    """Holds back the last byte of what was read, until it is asked for."""

    def __init__(self, backend: _Generation) -> None:
        self.held = b""
        self._backend = backend
        self._generation = backend.generation

    def cut(self, data: bytes) -> bytes:
        """All but the last byte; one byte alone is given, for no byte would mean the end."""
        data = self.held + data
        keep = len(data) > 1
        self.held = data[-1:] if keep else b""
        return data[:-1] if keep else data

    def rest(self) -> bytes:
        """The byte that was held back."""
        rest, self.held = self.held, b""
        return rest

    def ends_connection(self) -> bool:
        """Whether this connection is not to be used again."""
        return bool(self.held) or self._generation != self._backend.generation


class _Stream(httpcore.NetworkStream):
    """A connection. A step with no timeout is one of a SOCKS proxy's greeting: no HTTP yet."""

    def __init__(
        self, inner: httpcore.NetworkStream, backend: _Generation, exchange: Exchange
    ) -> None:
        self._inner = inner
        self._backend = backend
        self._exchange = exchange
        self._tail = _Tail(backend)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(_exchange(timeout, self._exchange))
        if timeout is None:
            return self._inner.read(max_bytes, left)
        if self._tail.held and not self._inner.get_extra_info("is_readable"):
            return self._tail.rest()
        return self._tail.cut(self._inner.read(max_bytes, left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        exchange = _exchange(timeout, self._exchange)
        if exchange is not self._exchange and self.get_extra_info("is_readable"):
            raise httpcore.ConnectionNotAvailable  # the pool takes another one then
        self._exchange = exchange
        for piece in _pieces(buffer, _SENT_AT_ONCE):
            self._inner.write(piece, _left(exchange))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        exchange = _exchange(timeout, self._exchange)
        inner = self._inner.start_tls(ssl_context, server_hostname, _left(exchange))
        return _Stream(inner, self._backend, exchange)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._tail.ends_connection():
            return True
        return self._inner.get_extra_info(info)


class _AsyncStream(httpcore.AsyncNetworkStream):
    """The same for asyncio."""

    def __init__(
        self, inner: httpcore.AsyncNetworkStream, backend: _Generation, exchange: Exchange
    ) -> None:
        self._inner = inner
        self._backend = backend
        self._exchange = exchange
        self._tail = _Tail(backend)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(_exchange(timeout, self._exchange))
        if timeout is None:
            return await self._inner.read(max_bytes, left)
        if self._tail.held and not self._inner.get_extra_info("is_readable"):
            return self._tail.rest()
        return self._tail.cut(await self._inner.read(_READ_AT_ONCE, left))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        exchange = _exchange(timeout, self._exchange)
        if exchange is not self._exchange and self.get_extra_info("is_readable"):
            raise httpcore.ConnectionNotAvailable  # the pool takes another one then
        self._exchange = exchange
        for piece in _pieces(buffer, _SENT_AT_ONCE):
            await self._inner.write(piece, _left(exchange))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        exchange = _exchange(timeout, self._exchange)
        inner = await self._inner.start_tls(ssl_context, server_hostname, _left(exchange))
        return _AsyncStream(inner, self._backend, exchange)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and (self._tail.ends_connection() or self._has_record()):
            return True
        return self._inner.get_extra_info(info)

    def _has_record(self) -> bool:
        """Whether asyncio has read something of TLS that no one took; asked between exchanges."""
        ssl_object = self._inner.get_extra_info("ssl_object")
        if ssl_object is None:
            return False
        try:
            ssl_object.read(1)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            return True
        return True


class _Backend(httpcore.NetworkBackend, _Generation):
    """Makes connections, each within the time of the exchange that asks for it."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.NetworkStream:
        exchange = _exchange(timeout, Exchange(http.MAX_SECONDS))
        exchange.reused = False
        left = _left(exchange)
        connect = partial(
            httpcore.SyncBackend().connect_tcp, host, port, left, local_address, socket_options
        )
        try:
            inner = threads.within(left, connect, discard=lambda stream: stream.close())
        except threads.Overdue:
            raise httpcore.ConnectTimeout from None
        return _Stream(inner, self, exchange)


class _AsyncBackend(httpcore.AsyncNetworkBackend, _Generation):
    """The same for asyncio."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.AsyncNetworkStream:
        exchange = _exchange(timeout, Exchange(http.MAX_SECONDS))
        exchange.reused = False
        inner = await httpcore.AnyIOBackend().connect_tcp(
            host, port, _left(exchange), local_address, socket_options
        )
        return _AsyncStream(inner, self, exchange)
