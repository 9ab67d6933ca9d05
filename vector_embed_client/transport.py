"""The connections of our own clients: httpx's transports over sockets that keep four promises.

* **One time limit for the whole exchange.** httpx and httpcore give each step of an exchange a new
  timeout, so headers that come byte by byte, or endless 1xx answers, hold a thread for ever. Here
  each step gets the time that is left (see `Exchange`); AsyncClient cancels the whole. No timeout
  applies to looking up a name and trying its addresses: a thread does that, once per connection,
  and is left behind.
* **No connection is used again after a 5xx.** The server then closes it without saying so, or
  leaves it open and deaf. (httpcore itself closes it after an answer that was not read to its end.)
* **No connection is used again with bytes left over.** A second answer to one request would be
  taken for the answer to the next. The limit: bytes that arrive when the next request is on its
  way.
* **After a failure on a used connection no idle one is used again.** If one was dead, all may be.
  The next attempt uses a new connection.

A connection that must not be used again says that it is readable (see `_AnyStream`): the pool
closes an idle connection that is readable. The first step of a request checks again, because
another thread may come between.

`Connection: close` with each request of a few texts would be another way to get rid of left-over
bytes. Measured for one text: 0.9 ms instead of 0.7 on one machine, 43 ms instead of 22 with a round
trip of 20 ms; TLS takes one or two round trips more.

The private names are httpx's `_pool` and httpcore's `_network_backend`: httpx has no argument for
it. (A transport that is not httpx's would need neither, but pytest-httpx and respx replace only
httpx's.) An httpx without these names makes its own connections, and a warning says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from ssl import SSLContext, SSLError, SSLWantReadError
from typing import Any, Optional, cast

import httpcore
import httpx

from . import http, threads
from .base import Exchange, logger
from .route import Route

# An Exchange, or a number of seconds. None is a step of a SOCKS proxy's greeting: no HTTP yet.
Timeout = Optional[float]

# Bytes of a request's body that are sent in one step, within the time that is left.
_SENT_AT_ONCE = 65_536

# The most bytes of a head, with the answers of 1xx before it and what was read along with it.
_HEAD_BYTES = 1_048_576

# Asyncio reads up to this much at once, and keeps what we do not take where we cannot see it.
_READ_AT_ONCE = 262_144

# More connections than request slots, so that a cancelled request that still closes delays no one.
_LIMITS = httpx.Limits(
    max_connections=http.MAX_IN_FLIGHT + 5,
    max_keepalive_connections=http.MAX_IN_FLIGHT + 5,
    keepalive_expiry=http.KEEPALIVE_SECONDS,
)

# A piece of a compressed answer becomes a thousand times as long at most.
_COMPRESSED_AT_ONCE = 4_096


class Transport(httpx.HTTPTransport):
    """For httpx.Client."""

    def __init__(self, route: Route) -> None:
        super().__init__(verify=route.ssl_context or False, limits=_LIMITS, proxy=route.proxy)
        self._backend = _Backend(self)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._backend.under_way(request):
            return _watched(super().handle_request(request))


class AsyncTransport(httpx.AsyncHTTPTransport):
    """For httpx.AsyncClient."""

    def __init__(self, route: Route) -> None:
        super().__init__(verify=route.ssl_context or False, limits=_LIMITS, proxy=route.proxy)
        self._backend = _AsyncBackend(self)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with self._backend.under_way(request):
            return _watched(await super().handle_async_request(request))


def _exchange(timeout: Timeout, usual: Exchange | None = None) -> Exchange:
    """The exchange that a timeout belongs to; `usual` for a step without one."""
    if timeout is None:
        return Exchange(http.MAX_SECONDS) if usual is None else usual
    return timeout if isinstance(timeout, Exchange) else Exchange(timeout)


def _left(exchange: Exchange) -> float:
    """The seconds that the next step may take. Raises TimeoutException if none are left."""
    seconds = exchange.left()
    if seconds <= 0:
        raise httpcore.TimeoutException
    return seconds


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))


def _watched(response: httpx.Response) -> httpx.Response:
    """An answer whose body is counted, unless a test replaces the connections."""
    stream = response.extensions.get("network_stream")
    if isinstance(stream, _AnyStream):
        stream.begin_body(response.status_code, response.headers)
        is_compressed = "content-encoding" in response.headers
        response.stream = _Body(response.stream, stream, is_compressed)
    return response


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer: its bytes are counted."""

    def __init__(self, inner: Any, stream: _AnyStream, is_compressed: bool) -> None:
        self._inner = inner
        self._stream = stream
        self._is_compressed = is_compressed

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            yield from self._parts(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            for part in self._parts(piece):
                yield part

    def _parts(self, piece: bytes) -> Iterable[bytes]:
        self._stream.count(piece)
        return _pieces(piece, _COMPRESSED_AT_ONCE) if self._is_compressed else (piece,)

    def close(self) -> None:
        self._inner.close()

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Connections:
    """The connections of a transport. Those of an earlier generation are not used again."""

    def __init__(self, transport: object) -> None:
        self.generation = 0
        pool: Any = getattr(transport, "_pool", None)
        self._is_used = hasattr(pool, "_network_backend")
        if self._is_used:
            pool._network_backend = self
        else:
            logger.warning(
                "This httpx is not known: timeouts hold for each step of a request, not for all"
            )

    @contextmanager
    def under_way(self, request: httpx.Request) -> Iterator[None]:
        """Note whether a request uses an old connection, and if it fails, use none of them again.

        Requests that are under way on the others are finished.
        """
        exchange = _exchange(request.extensions["timeout"]["read"])
        exchange.reused = self._is_used  # until a connection is made for it
        try:
            yield
        except BaseException as error:
            # An AsyncClient cancels a request whose time is over.
            failed = isinstance(error, httpx.TransportError) or exchange.left() <= 0
            if exchange.reused and failed:
                self.generation += 1
            raise


class _AnyStream:
    """A connection. It finds the bytes that are left over after an answer.

    If the body's length is known, all bytes beyond it are left over. Before that, and in a body of
    chunks, the parser first gets all but the last byte, and the last one when it asks for more: if
    the answer has ended before, it never asks.
    """

    def __init__(self, inner: Any, connections: _Connections, exchange: Exchange) -> None:
        self._inner = inner
        self._connections = connections
        self._generation = connections.generation
        self._exchange = exchange
        self._begin_head()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            is_old = self._generation != self._connections.generation
            if is_old or self._is_last or self._held:
                return True
        return self._inner.get_extra_info(info)

    def _begin_write(self, timeout: Timeout) -> Exchange:
        """The exchange that the next bytes belong to. It may be the connection's next one."""
        exchange = _exchange(timeout, self._exchange)
        if exchange is not self._exchange:
            if self.get_extra_info("is_readable"):
                raise httpcore.ConnectionNotAvailable  # the pool takes another one then
            self._begin_head()
        self._exchange = exchange
        return exchange

    def _begin_head(self) -> None:
        """The next bytes are the head of an answer."""
        self._held = b""
        self._is_last = False  # no further answer is to come over this connection
        self._head_size = 0
        self._in_head = True
        self._expected: int | None = None  # bytes of the body that the parser has not had

    def begin_body(self, status: int, headers: httpx.Headers) -> None:
        """The parser has the head. What it read beyond it comes out as the body's beginning."""
        self._in_head = False
        self._is_last = status >= 500
        if "transfer-encoding" not in headers and "content-length" in headers:
            self._expected = int(headers["content-length"])

    def count(self, piece: bytes) -> None:
        """The parser gave this part of the body."""
        if self._expected is not None:
            self._expected -= len(piece)

    def _is_whole(self) -> bool:
        """Whether the byte that is held back is the last of the answer, or looks like it."""
        if not self._held or self._expected == 1:
            return bool(self._held)
        return self._expected is None and not self._inner.get_extra_info("is_readable")

    def _rest(self) -> bytes:
        """The byte that was held back."""
        rest, self._held = self._held, b""
        return rest

    def _passed_on(self, data: bytes) -> bytes:
        """The part of the read `data` that the parser gets now."""
        data = self._rest() + data
        if self._expected is not None:
            if len(data) > self._expected:
                self._is_last = True
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


class _Stream(_AnyStream, httpcore.NetworkStream):
    """For httpx.Client."""

    def read(self, max_bytes: int, timeout: Timeout = None) -> bytes:
        left = _left(_exchange(timeout, self._exchange))
        if timeout is None:
            return cast(bytes, self._inner.read(max_bytes, left))
        if self._is_whole():
            return self._rest()
        return self._passed_on(self._inner.read(max_bytes, left))

    def write(self, buffer: bytes, timeout: Timeout = None) -> None:
        exchange = self._begin_write(timeout)
        for piece in _pieces(buffer, _SENT_AT_ONCE):
            self._inner.write(piece, _left(exchange))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: Timeout = None
    ) -> httpcore.NetworkStream:
        exchange = _exchange(timeout, self._exchange)
        inner = self._inner.start_tls(ssl_context, server_hostname, _left(exchange))
        return _Stream(inner, self._connections, exchange)


class _AsyncStream(_AnyStream, httpcore.AsyncNetworkStream):
    """For httpx.AsyncClient. It limits the whole exchange, so no step needs a timer of its own."""

    async def read(self, max_bytes: int, timeout: Timeout = None) -> bytes:
        if timeout is None:
            return cast(bytes, await self._inner.read(max_bytes))
        if self._is_whole():
            return self._rest()
        return self._passed_on(await self._inner.read(_READ_AT_ONCE))

    async def write(self, buffer: bytes, timeout: Timeout = None) -> None:
        self._begin_write(timeout)
        for piece in _pieces(buffer, _SENT_AT_ONCE):
            await self._inner.write(piece)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: Timeout = None
    ) -> httpcore.AsyncNetworkStream:
        exchange = _exchange(timeout, self._exchange)
        inner = await self._inner.start_tls(ssl_context, server_hostname)
        return _AsyncStream(inner, self._connections, exchange)

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
        except SSLWantReadError:
            return False
        except SSLError:
            pass
        return True


class _Backend(httpcore.NetworkBackend, _Connections):
    """Makes connections, each within the time of its exchange."""

    def connect_tcp(
        self, host: str, port: int, timeout: Timeout = None, *others: Any, **options: Any
    ) -> httpcore.NetworkStream:
        exchange = _exchange(timeout)
        exchange.reused = False
        left = _left(exchange)
        connect = partial(httpcore.SyncBackend().connect_tcp, host, port, left, *others, **options)
        try:
            inner = threads.within(left, connect, discard=lambda stream: stream.close())
        except threads.Overdue:
            raise httpcore.ConnectTimeout from None
        return _Stream(inner, self, exchange)


class _AsyncBackend(httpcore.AsyncNetworkBackend, _Connections):
    """The same for asyncio."""

    async def connect_tcp(
        self, host: str, port: int, timeout: Timeout = None, *others: Any, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        exchange = _exchange(timeout)
        exchange.reused = False
        inner = await httpcore.AnyIOBackend().connect_tcp(host, port, None, *others, **options)
        return _AsyncStream(inner, self, exchange)
