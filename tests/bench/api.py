"""A light API: answers made beforehand, so that what is measured is who reads them.

    python -m tests.bench.api --latency 0.2

A thread for each connection sleeps through the latency, which takes no processor time, and sends
1.6 MB for 100 texts in one call, for which the kernel alone works. The vectors are of unit length,
written as the server writes them: full-length doubles, no white space.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import socket
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

MOST_TEXTS = 100


class Answers:
    """Whole HTTP answers for 1 to 100 texts."""

    def __init__(self, dimensions: int) -> None:
        rng = random.Random(1)
        self._rows = [_unit_row(rng, dimensions) for _ in range(MOST_TEXTS)]
        self._dimensions = dimensions
        self._made = {MOST_TEXTS: self._make(MOST_TEXTS)}

    def of(self, texts: int) -> bytes:
        """The answer to that many texts, head and all."""
        if texts not in self._made:
            self._made[texts] = self._make(texts)
        return self._made[texts]

    def _make(self, texts: int) -> bytes:
        rows, cached = b",".join(self._rows[:texts]), b",".join([b"false"] * texts)
        body = b'{"embeddings":[%b],"cached":[%b],"dimensions":%d}'
        body %= (rows, cached, self._dimensions)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % len(body) + body


def _unit_row(rng: random.Random, dimensions: int) -> bytes:
    row = [rng.gauss(0, 1) for _ in range(dimensions)]
    length = math.hypot(*row)
    return json.dumps([number / length for number in row], separators=(",", ":")).encode()


class Server:
    """Answers every request after `latency` seconds, on a free port of the loopback."""

    def __init__(self, answers: Answers, latency: float) -> None:
        self._answers = answers
        self._latency = latency
        self._requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Until the process is ended."""
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._answer_all, args=(connection,), daemon=True).start()

    def _answer_all(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            while (body := _read_body(requests)) is not None:
                if not body:  # GET /requests: how many there were
                    count = str(self._requests).encode()
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
                    connection.sendall(head % len(count) + count)
                    continue
                self._requests += 1
                begun = time.monotonic()
                answer = self._answers.of(len(json.loads(body)["texts"]))
                time.sleep(max(0.0, begun + self._latency - time.monotonic()))
                connection.sendall(answer)


def _read_body(requests: BinaryIO) -> bytes | None:
    """The body of the next request; None at the end of the connection."""
    size = 0
    while line := requests.readline():
        if line == b"\r\n":
            return requests.read(size)
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            size = int(value)
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.api", description=__doc__)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--dimensions", type=int, default=768)
    asked = parser.parse_args(arguments)
    server = Server(Answers(asked.dimensions), asked.latency)
    print(f"listening on {server.url}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
