"""The ways to the server: TLS with a certificate of one's own, an HTTP proxy, both, and SOCKS."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vector_embed_client import NetworkError

from .loopback import Caller, Seen, Server, answer_of, drip, raw, vector

Serve = Callable[[socket.socket], None]


class Listeners:
    """Servers of the test, each connection served by a thread."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def listen(self, serve: Serve) -> int:
        """The port at which `serve` is given each connection."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._open.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=served, args=(connection,), daemon=True).start()

        def served(connection: socket.socket) -> None:
            try:
                serve(connection)
            except OSError:
                pass  # the other side is gone
            finally:
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    def close(self) -> None:
        for listener in self._open:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close()


class Certificate(NamedTuple):
    file: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1 that no one knows."""
    directory = tmp_path_factory.mktemp("tls")
    made = Certificate(directory / "cert.pem", directory / "key.pem")
    command = "openssl req -x509 -nodes -days 2 -subj /CN=test -newkey ec"
    options = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(made.key)]
    options += ["-out", str(made.file)]
    for said in ("subjectAltName=IP:127.0.0.1", "keyUsage=critical,digitalSignature,keyCertSign"):
        options += ["-addext", said]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    return made


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1_000_000):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _join(one: socket.socket, other: socket.socket) -> None:
    threading.Thread(target=_pass_on, args=(other, one), daemon=True).start()
    _pass_on(one, other)


def _terminate_tls(certificate: Certificate, server: Server) -> Serve:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            _join_tls(secured, server)

    return serve


def _join_tls(secured: ssl.SSLSocket, server: Server) -> None:
    """One exchange after the other: no TLS socket serves two threads at once."""
    with socket.create_connection(_place(server.url)) as behind:
        while request := secured.recv(1_000_000):
            while _is_part(request):
                request += secured.recv(1_000_000)
            behind.sendall(request)
            answer = behind.recv(1_000_000)
            while answer:
                secured.sendall(answer)
                behind.settimeout(0.05)
                try:
                    answer = behind.recv(1_000_000)
                except socket.timeout:
                    break
                if not answer:
                    return
            behind.settimeout(None)


def _is_part(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return not end or (length is not None and len(body) < int(length[1]))


def _place(address: str) -> tuple[str, int]:
    host, port = address.rsplit("//")[-1].rsplit(":")
    return host, int(port)


def _proxy(asked: list[str]) -> Serve:
    """An HTTP proxy that notes what it was asked for."""

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(1_000_000):
            while _is_part(data):
                data += connection.recv(1_000_000)
            first = data.split(b"\r\n")[0].decode()
            asked.append(first)
            if first.startswith("CONNECT "):
                with socket.create_connection(_place(first.split()[1])) as behind:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    _join(connection, behind)
                return
            origin = first.split()[1].split("/v1/")[0]
            with socket.create_connection(_place(origin)) as behind:
                behind.sendall(data.replace(origin.encode(), b"", 1))
                connection.sendall(behind.recv(1_000_000))

    return serve


def _doubled(connection: socket.socket, seen: Seen) -> None:
    connection.sendall(raw(200, json.dumps(answer_of(seen)).encode()) * 2)


@pytest.fixture(params=["tls", "proxy", "tls through a proxy"])
def way(
    request: pytest.FixtureRequest,
    caller: Caller,
    server: Server,
    listeners: Listeners,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """The client of `caller` goes this way; returns what a proxy is asked for."""
    asked: list[str] = []
    if "tls" in request.param:
        caller.base_url = (
            f"https://127.0.0.1:{listeners.listen(_terminate_tls(certificate, server))}"
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    if "proxy" in request.param:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{listeners.listen(_proxy(asked))}")
    return asked


def test_a_connection_serves_many_calls_whatever_the_way(
    caller: Caller, server: Server, way: list[str]
) -> None:
    for i in range(5):
        assert caller.call("embed", f"text {i}", retries=0).vector == vector(f"text {i}")  # type: ignore[attr-defined]  # an EmbedResponse
    if not way:
        assert server.connections == 1
    elif way[0].startswith("CONNECT"):
        assert (len(way), server.connections) == (1, 1)
    else:
        assert way == [f"POST {server.url}/v1/embed HTTP/1.1"] * 5


def test_a_doubled_answer_shifts_no_later_one_whatever_the_way(
    caller: Caller, server: Server, way: list[str]
) -> None:
    server.usual = _doubled
    for i in range(5):
        assert caller.call("embed", f"text {i}", retries=0).vector == vector(f"text {i}")  # type: ignore[attr-defined]  # an EmbedResponse
    assert server.connections == 5


def test_an_attempt_ends_with_its_timeout_whatever_the_way(
    caller: Caller, server: Server, way: list[str]
) -> None:
    caller.call("embed", "a")
    server.usual = drip(raw(200, b" " * 2000), 0.02)
    error = caller.fails("embed", "a", retries=0, timeout=0.5)
    assert isinstance(error, NetworkError)


@pytest.mark.parametrize("size", [16_384, 2_000_001])
def test_a_long_answer_through_tls_arrives_whole_and_so_does_the_next(
    caller: Caller,
    server: Server,
    listeners: Listeners,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    def padded(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(raw(200, json.dumps(answer_of(seen)).encode().ljust(size)))

    port = listeners.listen(_terminate_tls(certificate, server))
    caller.base_url = f"https://127.0.0.1:{port}"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    server.usual = padded
    for i in range(3):
        texts = [f"text {i} {j}" for j in range(100)]
        answers = caller.call("embed_batch", texts, retries=0)
        assert [one.vector for one in answers] == [vector(text) for text in texts]  # type: ignore[attr-defined]  # a list of EmbedResponse
    assert server.connections == 1


def test_a_certificate_that_no_one_knows_is_refused(
    caller: Caller, server: Server, listeners: Listeners, certificate: Certificate
) -> None:
    port = listeners.listen(_terminate_tls(certificate, server))
    caller.client(base_url=f"https://127.0.0.1:{port}", retries=0)
    error = caller.fails("embed", "a")
    assert error.code == "connection_error"
    assert "certificate" in str(error).lower()


def _socks(connection: socket.socket) -> None:
    """A SOCKS 5 proxy for addresses of IPv4, with no password."""
    connection.recv(100)
    connection.sendall(b"\x05\x00")
    wanted = connection.recv(100)
    place = (socket.inet_ntoa(wanted[4:8]), int.from_bytes(wanted[8:10], "big"))
    with socket.create_connection(place) as behind:
        connection.sendall(b"\x05\x00\x00\x01" + wanted[4:10])
        _join(connection, behind)


def test_a_proxy_that_does_not_answer_is_named_without_its_password(
    caller: Caller, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://user:geheim@127.0.0.1:9")
    with pytest.raises(NetworkError, match="through the proxy http://127.0.0.1:9: ") as caught:
        caller.call("embed", "text", retries=0)
    assert "geheim" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("socksio") is None, reason="needs httpx[socks]")
def test_a_socks_proxy_is_used(
    caller: Caller, server: Server, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{listeners.listen(_socks)}")
    server.usual = _doubled
    for i in range(5):
        assert caller.call("embed", f"text {i}", retries=0).vector == vector(f"text {i}")  # type: ignore[attr-defined]  # an EmbedResponse
    assert server.connections == 5
