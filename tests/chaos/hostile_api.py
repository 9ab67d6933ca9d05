"""A hostile API: every answer that a stranger could send, beside the right one.

    python -m tests.chaos.hostile_api --share 0.5 --seed 1

prints `listening on http://127.0.0.1:PORT`. A share of the requests gets an answer from `ANSWERS`,
picked by chance; the others get the API's own, with vectors of the `Hashed` engine. SIGUSR1 makes
it well from then on. At SIGTERM it prints how often it sent which answer.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import signal
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NamedTuple

from faulty_api.vectors import Hashed

DIMENSIONS = 64
_HANG_SECONDS = 20.0  # at most: longer than any timeout of the worker under test
_ENGINE = Hashed(DIMENSIONS)


class Asked(NamedTuple):
    """One request, as far as an answer depends on it."""

    texts: list[str]
    body: bytes


Answer = Callable[[socket.socket, Asked], bool]  # whether the connection is kept


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A whole answer; its Content-Length may be a lie."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def right(asked: Asked, dimensions: int = DIMENSIONS) -> bytes:
    """The body of the right answer, or of the same with vectors of another length."""
    engine = _ENGINE if dimensions == DIMENSIONS else Hashed(dimensions)
    rows = b",".join(engine.row(packed) for packed in engine.pack(asked.texts))
    cached = json.dumps([False] * len(asked.texts)).encode()
    return b'{"embeddings":[%b],"cached":%b,"dimensions":%d}' % (rows, cached, dimensions)


def well(line: socket.socket, asked: Asked) -> bool:
    """What the API answers."""
    line.sendall(http(200, right(asked)))
    return True


def _says(status: int, detail: object, *headers: str, kept: bool = True) -> Answer:
    body = json.dumps({"detail": detail}).encode()
    return _sends(http(status, body, *headers), kept=kept)


def _sends(content: bytes, *, kept: bool = True) -> Answer:
    def answer(line: socket.socket, asked: Asked) -> bool:
        line.sendall(content)
        return kept

    return answer


def _body(make: Callable[[Asked], bytes], status: int = 200) -> Answer:
    def answer(line: socket.socket, asked: Asked) -> bool:
        line.sendall(http(status, make(asked)))
        return True

    return answer


def _doubled(line: socket.socket, asked: Asked) -> bool:
    """The right answer twice: the second would be taken for the next request's."""
    line.sendall(2 * http(200, right(asked)))
    return True


def _bytes_after(line: socket.socket, asked: Asked) -> bool:
    line.sendall(http(200, right(asked)) + b"HTTP/1.1 200 OK\r\n")
    return True


def _drips(content: bytes) -> Answer:
    def answer(line: socket.socket, asked: Asked) -> bool:
        ends = time.monotonic() + _HANG_SECONDS
        for byte in content:
            if time.monotonic() > ends:
                break
            line.sendall(bytes([byte]))
            time.sleep(0.5)
        return False

    return answer


def _continues(line: socket.socket, asked: Asked) -> bool:
    """1xx answers without an end."""
    ends = time.monotonic() + _HANG_SECONDS
    while time.monotonic() < ends:
        line.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 20)
        time.sleep(0.02)
    return False


def _hangs(line: socket.socket, asked: Asked) -> bool:
    line.settimeout(_HANG_SECONDS)
    with suppress(OSError):
        line.recv(1)
    return False


def _lost(line: socket.socket, asked: Asked) -> bool:
    return False


def _half(line: socket.socket, asked: Asked) -> bool:
    body = right(asked)
    line.sendall(http(200, body[: len(body) // 2], length=len(body)))
    return False


def _endless(line: socket.socket, asked: Asked) -> bool:
    line.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n%b\r\n" % (2**20, b" " * 2**20)
    ends = time.monotonic() + _HANG_SECONDS
    while time.monotonic() < ends:
        line.sendall(chunk)
    return False


def _cookies(line: socket.socket, asked: Asked) -> bool:
    headers = [f"Set-Cookie: c{number}={'y' * 500}" for number in range(20)]
    line.sendall(http(200, right(asked), *headers))
    return True


def _named(asked: Asked) -> bytes:
    said = "Value error, texts[0] must be at least 1 character"
    wrong = {"loc": ["body"], "msg": said, "type": "value_error", "input": json.loads(asked.body)}
    return json.dumps({"detail": [wrong]}).encode()


def _spoiled(old: bytes, new: bytes) -> Answer:
    return _body(lambda asked: right(asked).replace(old, new, 1))


_NESTED = b"[" * 20_000_000 + b"]" * 20_000_000
_BOMB = gzip.compress(b" " * 200_000_000, 1)
_LONG_HEADER = "X-Long: " + "x" * 60_000

ANSWERS: dict[str, Answer] = {
    "doubled": _doubled,
    "bytes after": _bytes_after,
    "header drips": _drips(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 100),
    "body drips": _drips(http(200, b"{}" * 50)),
    "1xx without end": _continues,
    "hangs": _hangs,
    "lost": _lost,
    "half": _half,
    "endless": _endless,
    "nested arrays": _sends(http(200, _NESTED)),
    "nested arrays in an error": _sends(http(422, _NESTED)),
    "gzip bomb": _sends(http(200, _BOMB, "Content-Encoding: gzip")),
    "cookies": _cookies,
    "long header": _says(502, "no", _LONG_HEADER),
    "no http": _sends(b"\x16\x03\x01\x02\x00" * 100, kept=False),
    "status 999": _says(999, "what"),
    "length below zero": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}", kept=False),
    "two lengths": _sends(http(200, b"{}", "Content-Length: 7"), kept=False),
    "html": _sends(http(200, b"<html>Sign in</html>")),
    "empty": _sends(http(200, b"")),
    "null": _sends(http(200, b"null")),
    "not unicode": _sends(http(200, b'{"embeddings": "\xff\xfe"}')),
    "other dimensions": _body(lambda asked: right(asked, 32)),
    "huge dimensions": _spoiled(b'"dimensions":64', b'"dimensions":15700001'),
    "one vector less": _body(lambda asked: right(asked._replace(texts=asked.texts[:-1]))),
    "one vector more": _body(lambda asked: right(asked._replace(texts=[*asked.texts, "more"]))),
    "NaN": _spoiled(b"[[", b"[[NaN,"),
    "too large for float32": _spoiled(b"[[", b"[[1e39,"),
    "null in a vector": _spoiled(b"[[", b"[[null,"),
    "zero vector": _body(
        lambda asked: (
            b'{"embeddings":[%b],"cached":%b,"dimensions":64}'
            % (
                b",".join([b"[" + b",".join([b"0"] * 64) + b"]"] * len(asked.texts)),
                json.dumps([False] * len(asked.texts)).encode(),
            )
        )
    ),
    "500": _sends(http(500, b"Internal Server Error"), kept=False),
    "500 with 60 kB": _sends(http(500, b"x" * 60_000)),
    "503 with Retry-After 0": _says(503, "busy", "Retry-After: 0"),
    "503 with Retry-After 1": _says(503, "busy", "Retry-After: 1"),
    "503 with a date long past": _says(503, "busy", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
    "429": _says(429, "Too Many Requests"),
    "429 with Retry-After 1": _says(429, "slow", "Retry-After: 1"),
    "429 with nonsense": _says(429, "slow", "Retry-After: soon"),
    "408": _says(408, "slow"),
    "422 that names the first": _body(_named, 422),
    "422 for all": _says(422, [{"loc": ["body"], "msg": "no", "type": "x"}]),
    "400 for all": _says(400, "Invalid input"),
    "413": _says(413, "Request body exceeds max size of 1000000 bytes"),
    "404": _says(404, "Not Found"),
    "406": _says(406, "Not Acceptable"),
    "redirect": _says(302, "away", "Location: http://127.0.0.1:9/"),
    "401 with Retry-After": _says(401, "Invalid or revoked API key", "Retry-After: 1"),
    "403": _says(403, "blocked"),
}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Line)
        self.share = share
        self.sent: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def pick(self) -> Answer:
        with self._lock:
            hostile = self._chance.random() < self.share
            name = self._chance.choice(list(ANSWERS)) if hostile else "right"
            self.sent[name] += 1
            return ANSWERS.get(name, well)


class _Line(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError, ValueError):
            while (asked := self._read()) is not None:
                answer = self.server.pick()
                if not answer(self.connection, asked):
                    return

    def _read(self) -> Asked | None:
        if not self.rfile.readline():
            return None
        length = 0
        while (line := self.rfile.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = self.rfile.read(length)
        said = json.loads(body) if body else {}
        return Asked(said.get("texts") or [said.get("text", "")], body)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.hostile_api", description=__doc__)
    parser.add_argument("--share", type=float, default=0.5, help="of the answers that are hostile")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    server = _Server(asked.share, asked.seed)

    def heal(number: int, frame: FrameType | None) -> None:
        server.share = 0.0

    def end(number: int, frame: FrameType | None) -> None:
        print(json.dumps(server.sent), flush=True)
        sys.exit(0)

    signal.signal(signal.SIGUSR1, heal)
    signal.signal(signal.SIGTERM, end)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
