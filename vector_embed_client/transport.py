"""The connections of our own clients: httpx's transports over sockets that keep four promises.

* **One time limit for the whole exchange.** httpx and httpcore give each step of an exchange a new
  timeout, so headers that come byte by byte, or endless 1xx answers, hold a thread for ever. Here
  each step gets the time that is left (see `Exchange`). No timeout applies to looking up a name and
  trying its addresses: a thread does that, once per connection, and is left behind.
* **No connection is used again after a 5xx.** The server then closes it without saying so, or
  leaves it open and deaf. (httpcore itself closes it after an answer that was not read to its end.)
* **No connection is used again with bytes left over.** A second answer to one request would be
  taken for the answer to the next. Such a connection counts as readable (see `_Incoming`). The pool
  closes an idle connection that is readable, and the first step of a request checks again, because
  another thread may come between. The limit: bytes that arrive when the next request is on its way.
* **After a failure on a used connection no idle one is used again.** If one was dead, all may be.
  The next attempt uses a new connection.

`Connection: close` with each request of a few texts would be another way to get rid of left-over
bytes. Measured for one text: 0.9 ms instead of 0.7 on one machine, 43 ms instead of 22 with a round
trip of 20 ms; TLS takes one or two round trips more.

The one private name is `_pool` of httpx's transports: httpx has no argument for it. (A transport
that is not httpx's would not need it, but pytest-httpx and respx replace only httpx's.) An httpx
without `_pool` keeps its own connections, and a warning says so.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Optional, cast

import httpcore
import httpx

from . import http, threads
from .base import logger
from .exchange import Exchange
from .route import Route

# Bytes of a request's body that are sent in one step, within the time that is left.
_SENT_AT_ONCE = 65_536

# The most bytes of a head, with the answers of 1xx before it and what was read along with it.
_HEAD_BYTES = 1_048_576

# Asyncio reads up to this much at once, and keeps what we do not take where we cannot see it.
_READ_AT_ONCE = 262_144

# A piece of a compressed answer becomes a thousand times as long at most.
_COMPRESSED_AT_ONCE = 4_096

SocketOptions = Optional[Iterable[httpcore.SOCKET_OPTION]]


class Transport(httpx.HTTPTransport):
    """For httpx.Client."""

    def __init__(self, route: Route, limits: httpx.Limits) -> None:
        super().__init__(verify=route.ssl_context or False, limits=limits, proxy=route.proxy)
        self._backend = _Backend()
        self._is_ours = _has_pool(self)
        if self._is_ours:
            kinds = (httpcore.ConnectionPool, httpcore.SOCKSProxy, httpcore.HTTPProxy)
            self._pool = _pool(kinds, route, limits, self._backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _exchange_of(request)
        exchange.reused = self._is_ours  # until a connection is made for it
        try:
            response = super().handle_request(request)
        except httpx.TransportError:
            if exchange.reused:
                self._backend.renounce()
            raise
        stream = response.extensions.get("network_stream")
        if isinstance(stream, _Stream):  # not if a test replaces the connections
            response.stream = _Body(response, stream)
        return response


class AsyncTransport(httpx.AsyncHTTPTransport):
    """For httpx.AsyncClient."""

    def __init__(self, route: Route, limits: httpx.Limits) -> None:
        super().__init__(verify=route.ssl_context or False, limits=limits, proxy=route.proxy)
        self._backend = _AsyncBackend()
        self._is_ours = _has_pool(self)
        if self._is_ours:
            kinds = (
                httpcore.AsyncConnectionPool,
                httpcore.AsyncSOCKSProxy,
                httpcore.AsyncHTTPProxy,
            )
            self._pool = _pool(kinds, route, limits, self._backend)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _exchange_of(request)
        exchange.reused = self._is_ours
        try:
            response = await super().handle_async_request(request)
        except httpx.TransportError:
            if exchange.reused:
                self._backend.renounce()
            raise
        stream = response.extensions.get("network_stream")
        if isinstance(stream, _AsyncStream):
            response.stream = _AsyncBody(response, stream)
        return response


def _has_pool(transport: object) -> bool:
    """Whether this httpx keeps its connections where we can replace them by ours."""
    if hasattr(transport, "_pool"):
        return True
    logger.warning("This httpx is not known: timeouts hold for each step of a request, not for all")
    return False


def _pool(
    kinds: tuple[Callable[..., Any], ...], route: Route, limits: httpx.Limits, backend: object
) -> Any:
    """The connections of a route. `kinds`: httpcore's pool without a proxy, for SOCKS, for HTTP."""
    direct, socks, http_proxy = kinds
    options: dict[str, Any] = {
        "network_backend": backend,
        "ssl_context": route.ssl_context,
        "max_connections": limits.max_connections,
        "max_keepalive_connections": limits.max_keepalive_connections,
        "keepalive_expiry": limits.keepalive_expiry,
    }
    if route.proxy is None:
        return direct(**options)
    kind = socks if route.is_socks else http_proxy
    return kind(**options, proxy_url=str(route.proxy.url), proxy_auth=route.proxy.auth)


def _exchange_of(request: httpx.Request) -> Exchange:
    return _exchange(request.extensions["timeout"]["read"], Exchange(http.MAX_SECONDS))


def _exchange(timeout: float | None, usual: Exchange) -> Exchange:
    """The exchange that a timeout belongs to; `usual` for a step without one."""
    if timeout is None:
        return usual
    return timeout if isinstance(timeout, Exchange) else Exchange(timeout)


def _left(exchange: Exchange) -> float:
    seconds = exchange.left()
    if seconds <= 0:
        raise httpcore.TimeoutException
    return seconds


class _AnyBody:
    """The body of an answer. It closes its connection if that must not be used again."""

    def __init__(self, response: httpx.Response, stream: Any) -> None:
        self._inner: Any = response.stream
        self._is_compressed = "content-encoding" in response.headers
        self._closes = http.ends_connection(response.status_code)
        self._stream = stream
        self._incoming: _Incoming = stream.incoming
        self._incoming.begin_body(response.headers)


class _Body(_AnyBody, httpx.SyncByteStream):
    """For httpx.Client."""

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            self._incoming.count(piece)
            if self._is_compressed:
                yield from _pieces(piece, _COMPRESSED_AT_ONCE)
            else:
                yield piece

    def close(self) -> None:
        if self._closes:
            self._stream.close()  # before the pool has it back
        self._inner.close()


class _AsyncBody(_AnyBody, httpx.AsyncByteStream):
    """For httpx.AsyncClient."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._incoming.count(piece)
            if self._is_compressed:
                for part in _pieces(piece, _COMPRESSED_AT_ONCE):
                    yield part
            else:
                yield piece

    async def aclose(self) -> None:
        if self._closes:
            await self._stream.aclose()
        await self._inner.aclose()


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))


class _Generation:
    """Decides which connections may be used again: only those of the present generation."""

    def __init__(self) -> None:
        self.generation = 0

    def renounce(self) -> None:
        """Use none of the open connections again. Requests on them are finished."""
        self.generation += 1


class _Incoming:
    """What a connection receives. It finds the bytes that are left over after an answer.

    If the body's length is known, all bytes beyond it are left over. Before that, and in a body of
    chunks, the parser first gets all but the last byte, and the last one when it asks for more: if
    the answer has ended before, it never asks.
    """

    def __init__(self, backend: _Generation) -> None:
        self._backend = backend
        self._generation = backend.generation
        self.begin_head()

    def begin_head(self) -> None:
        """A request is sent: the next bytes are the head of its answer."""
        self._held = b""
        self._has_excess = False
        self._head_size = 0
        self._in_head = True
        self._expected: int | None = None  # bytes of the body that the parser has not had

    def begin_body(self, headers: httpx.Headers) -> None:
        """The parser has the head. What it read beyond it comes out as the body's beginning."""
        self._in_head = False
        if "transfer-encoding" not in headers and "content-length" in headers:
            self._expected = int(headers["content-length"])

    def count(self, piece: bytes) -> None:
        """The parser gave this part of the body."""
        if self._expected is not None:
            self._expected -= len(piece)

    def is_whole(self, connection: httpcore.NetworkStream | httpcore.AsyncNetworkStream) -> bool:
        """Whether the byte that is held back is the last of the answer, or looks like it."""
        if not self._held or self._expected == 1:
            return bool(self._held)
        return self._expected is None and not connection.get_extra_info("is_readable")

    def rest(self) -> bytes:
        """The byte that was held back."""
        rest, self._held = self._held, b""
        return rest

    def passed_on(self, data: bytes) -> bytes:
        """The part of the read `data` that the parser gets now."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._expected is not None:
            if len(data) > self._expected:
                self._has_excess = True
                data = data[: self._expected]
            return data
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > _HEAD_BYTES:
                raise httpcore.RemoteProtocolError("answers of 1xx, or a head, without an end")
        if len(data) > 1:  # a single byte is passed on: no byte at all would mean the end
            self._held = data[-1:]
            data = data[:-1]
        return data

    def ends_connection(self) -> bool:
        """Whether the connection is not to be used again."""
        is_dirty = bool(self._held) or self._has_excess
        return is_dirty or self._generation != self._backend.generation


class _AnyStream:
    """A connection. A step with no timeout is one of a SOCKS proxy's greeting: no HTTP yet."""

    def __init__(self, inner: Any, backend: _Generation, exchange: Exchange) -> None:
        self._inner = inner
        self._backend = backend
        self._exchange = exchange
        self.incoming = _Incoming(backend)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self.incoming.ends_connection():
            return True
        return self._inner.get_extra_info(info)

    def _begin_write(self, timeout: float | None) -> Exchange:
        """The exchange that the next bytes belong to. It may be the connection's next one."""
        exchange = _exchange(timeout, self._exchange)
        if exchange is not self._exchange:
            if self.get_extra_info("is_readable"):
                raise httpcore.ConnectionNotAvailable  # the pool takes another one then
            self.incoming.begin_head()
        self._exchange = exchange
        return exchange


class _Stream(_AnyStream, httpcore.NetworkStream):
    """For httpx.Client."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(_exchange(timeout, self._exchange))
        if timeout is None:
            return cast(bytes, self._inner.read(max_bytes, left))
        if self.incoming.is_whole(self._inner):
            return self.incoming.rest()
        return self.incoming.passed_on(self._inner.read(max_bytes, left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        exchange = self._begin_write(timeout)
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


class _AsyncStream(_AnyStream, httpcore.AsyncNetworkStream):
    """For httpx.AsyncClient."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(_exchange(timeout, self._exchange))
        if timeout is None:
            return cast(bytes, await self._inner.read(max_bytes, left))
        if self.incoming.is_whole(self._inner):
            return self.incoming.rest()
        return self.incoming.passed_on(await self._inner.read(_READ_AT_ONCE, left))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        exchange = self._begin_write(timeout)
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
        if info == "is_readable" and self._has_record():
            return True
        return super().get_extra_info(info)

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
            pass
        return True


class _Backend(httpcore.NetworkBackend, _Generation):
    """Makes connections, each within the time of its exchange."""

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
