"""A server on the loopback, as good as the API or as bad as it is told, and its callers.

`server` follows a plan: one reply for each request, then the API's own behaviour. `caller` is a
Client or an AsyncClient behind one blocking face, so that one table of behaviours is run over both.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import httpx
import pytest

from vector_embed_client import AsyncClient, Client, VectorEmbedError

KEY = "vec_test-key-0123456789"
DIMENSIONS = 4

T = TypeVar("T")


class Seen(NamedTuple):
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    connection: int
    at: float  # time.monotonic()

    @property
    def json(self) -> dict[str, object]:
        value = json.loads(self.content)
        assert isinstance(value, dict)
        return value


Reply = Callable[[socket.socket, Seen], None]


def vector(text: str) -> list[float]:
    """The vector that the server has for `text`."""
    number = zlib.crc32(text.encode())
    return [1.0, len(text) / 16384, (number >> 16) / 65536, (number & 0xFFFF) / 65536]


def raw(
    status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
) -> bytes:
    """The bytes of a whole answer, with a Content-Length that may be a lie."""
    fields = {"Content-Type": "application/json", **(headers or {})}
    fields["Content-Length"] = str(len(body) if length is None else length)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode("latin-1") + body


def reply(status: int, body: object | bytes, headers: dict[str, str] | None = None) -> Reply:
    """A well-formed answer; `body` is bytes or a JSON value."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda connection, seen: connection.sendall(raw(status, content, headers))


def later(event: threading.Event, then: Reply) -> Reply:
    """`then`, once `event` is set."""

    def answer(connection: socket.socket, seen: Seen) -> None:
        assert event.wait(20)
        then(connection, seen)

    return answer


def drip(content: bytes, pause: float, first: int = 0) -> Reply:
    """All of an answer, its first bytes at once and the rest one by one."""

    def answer(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(content[:first])
        for byte in content[first:]:
            connection.sendall(bytes([byte]))
            time.sleep(pause)

    return answer


def truncated(body: bytes) -> Reply:
    """An answer that promises more than it sends, and hangs up."""

    def answer(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(raw(200, body, length=len(body) + 100))
        connection.shutdown(socket.SHUT_RDWR)

    return answer


def reset(connection: socket.socket, seen: Seen) -> None:
    """No answer but a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up(connection: socket.socket, seen: Seen) -> None:
    """No answer, and the connection closed."""
    connection.shutdown(socket.SHUT_RDWR)


def silence(connection: socket.socket, seen: Seen) -> None:
    """No answer, the connection open until the client closes it."""
    connection.settimeout(20)
    connection.recv(1)


def bytes_of(content: bytes) -> Reply:
    """Any bytes at all, and the connection closed."""

    def answer(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_RDWR)

    return answer


def as_the_api(connection: socket.socket, seen: Seen) -> None:
    """What the API answers to a good request."""
    connection.sendall(raw(200, json.dumps(answer_of(seen)).encode()))


def answer_of(seen: Seen) -> object:
    """The JSON of the API's answer."""
    if seen.path == "/v1/embed":
        text = str(seen.json["text"])
        return {"embedding": vector(text), "cached": False, "dimensions": DIMENSIONS}
    if seen.path == "/v1/embed/batch":
        texts = seen.json["texts"]
        assert isinstance(texts, list)
        return {
            "embeddings": [vector(text) for text in texts],
            "cached": [i % 2 == 1 for i in range(len(texts))],
            "dimensions": DIMENSIONS,
        }
    if seen.path == "/v1/search":
        return {
            "results": [
                {
                    "text_hash": "abc",
                    "score": 0.97,
                    "text": None,
                    "vector": None,
                    "model": "nomic-v1.5",
                    "hit_count": 3,
                }
            ],
            "total": 1,
            "search_time_ms": 65,
            "model": "nomic-v1.5",
            "dimensions": DIMENSIONS,
        }
    if seen.path == "/v1/stats":
        return {"cache_hits": 0, "cache_misses": 2, "total_cached": 9}
    return {"status": "ok", "version": "1.0.0"}


class Server:
    """Serves on a thread for each connection, until `stop`."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.usual: Reply = as_the_api
        self.idle_seconds = 20.0  # after which an idle connection is closed
        self._plan: list[Reply] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def open_connections(self) -> int:
        """Connections that neither side has closed yet."""
        with self._lock:
            return len(self._open)

    def plan(self, *replies: Reply) -> None:
        """Answer the next requests with these, then as usual."""
        with self._lock:
            self._plan.extend(replies)

    def stop(self) -> None:
        if self._listener.fileno() < 0:
            return
        # A shutdown wakes the accepting thread, a close alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
                number = self.connections
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            while True:
                connection.settimeout(self.idle_seconds)
                seen = _read(connection, number)
                if seen is None:
                    return
                with self._lock:
                    self.requests.append(seen)
                    answer = self._plan.pop(0) if self._plan else self.usual
                    self.in_flight += 1
                    self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    answer(connection, seen)
                finally:
                    with self._lock:
                        self.in_flight -= 1
        except OSError:
            pass  # the client is gone, or the test is over
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _read(connection: socket.socket, number: int) -> Seen | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, content = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    while len(content) < int(headers.get("content-length", 0)):
        content += connection.recv(65536)
    method, path, _ = first.split(" ")
    return Seen(method, path, headers, content, number, time.monotonic())


class Caller:
    """A client of either kind; `call` blocks and returns what the method returns."""

    def __init__(self, kind: str, base_url: str) -> None:
        self.kind = kind
        self.base_url = base_url
        self.made: list[Client | AsyncClient] = []
        self.opened: list[httpx.Client | httpx.AsyncClient] = []
        self.loop = asyncio.new_event_loop()

    def client(self, **options: object) -> Client | AsyncClient:
        """A client of this kind, closed when the test ends."""
        kind = Client if self.kind == "sync" else AsyncClient
        client = kind(**{"api_key": KEY, "base_url": self.base_url, **options})  # type: ignore[arg-type]  # the options of a test
        self.made.append(client)
        return client

    def http_client(self, **options: object) -> httpx.Client | httpx.AsyncClient:
        """An httpx client of this kind, closed when the test ends."""
        kind = httpx.Client if self.kind == "sync" else httpx.AsyncClient
        client = kind(**options)  # type: ignore[arg-type]  # the options of a test
        self.opened.append(client)
        return client

    # The two clients have the same methods, which is what the tests find out.
    def call(self, method: str, *args: object, **options: object) -> object:
        """`method` of the last client made, or of one with no options."""
        client = self.made[-1] if self.made else self.client()
        return self.finish(getattr(client, method)(*args, **options))

    def fails(self, method: str, *args: object, **options: object) -> VectorEmbedError:
        """The error that the call ends in."""
        with pytest.raises(VectorEmbedError) as caught:
            self.call(method, *args, **options)
        return caught.value

    def finish(self, outcome: object) -> object:
        """What `outcome` comes to: awaited, or collected into a list."""
        if hasattr(outcome, "__aiter__"):

            async def collect() -> list[object]:
                return [item async for item in outcome]

            return self.loop.run_until_complete(collect())
        if inspect.iscoroutine(outcome):
            return self.loop.run_until_complete(outcome)
        if isinstance(outcome, Iterator):
            return list(outcome)
        return outcome

    def enter(self, client: Client | AsyncClient) -> object:
        """Enter the client's context."""
        if isinstance(client, Client):
            return client.__enter__()
        return self.finish(client.__aenter__())

    def close(self) -> None:
        for client in self.made:
            self.finish(client.close())
        for http_client in self.opened:
            if isinstance(http_client, httpx.Client):
                http_client.close()
            else:
                self.finish(http_client.aclose())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
