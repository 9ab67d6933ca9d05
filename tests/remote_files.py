"""A web server for files, with the faults that such servers have."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Callable, Union
from urllib.parse import quote, unquote

# After how many bytes the connection is cut, or the status in place of them.
Fault = Union[int, str, None]


class FileServer:
    """Files by their path. `address` ends with `/`.

    `fault` is asked before each answer to a GET, with the path, the offset and the bytes.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.fault: Callable[[str, int, bytes], Fault] = lambda *_: None
        self.ranges = True
        self.versions = True  # sends an ETag
        self.sizes = True  # sends a Content-Length
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str, str | None]] = []  # method, path with query, range

    @property
    def sent(self) -> list[str | None]:
        """The ranges of the GET requests."""
        return [part for method, _, part in self.asked if method == "GET"]


@contextmanager
def file_server() -> Iterator[FileServer]:
    """A server at a free port of the loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    files = FileServer(f"http://127.0.0.1:{server.server_port}/")
    server.files = files  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Headers alone."""
        self._answer(False)

    def do_GET(self) -> None:
        """A file, or a part of it."""
        self._answer(True)

    def _answer(self, body: bool) -> None:
        files: FileServer = self.server.files  # type: ignore[attr-defined]
        asked = self.headers.get("Range")
        files.asked.append((self.command, self.path, asked))
        path = unquote(self.path.split("?")[0]).lstrip("/")
        data = files.files.get(path)
        if data is None and (not path or path.endswith("/")):
            data = self._index(files, path)
        if data is None:
            return self._status(404)
        start, end = 0, len(data)
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "") if files.ranges else None
        if part is not None:
            start, end = int(part[1]), min(int(part[2]) + 1, len(data))
        fault = files.fault(path, start, data[start:end]) if body else None
        if isinstance(fault, str):
            return self._status(int(fault))
        self.send_response(200 if part is None else 206)
        if part is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        if files.versions:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        for name, value in files.headers.items():
            self.send_header(name, value)
        if files.sizes:
            self.send_header("Content-Length", str(end - start))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if body:
            self._send(data[start:end], fault, files.sizes)

    def _send(self, data: bytes, cut: int | None, whole: bool) -> None:
        try:
            for at in range(0, len(data) if cut is None else cut, 50_000):
                piece = data[at : at + 50_000][: None if cut is None else cut - at]
                self.wfile.write(piece if whole else b"%x\r\n%b\r\n" % (len(piece), piece))
            if cut is not None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif not whole:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _status(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @staticmethod
    def _index(files: FileServer, folder: str) -> bytes | None:
        below = [path[len(folder) :] for path in files.files if path.startswith(folder)]
        names = {re.sub("/.*", "/", name, flags=re.S) for name in below}
        links = [f'<a href="{quote(name)}">{name}</a>' for name in names]
        return "".join(['<a href="?C=N;O=D">Name</a>', *links]).encode() if names else None
