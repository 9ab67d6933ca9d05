"""What the client library costs, against the least it could cost, in one run.

    python tests/bench/bench_client.py

The limit of a batch is fetching the same bytes with httpx and `loads`: a client cannot do less. The
limit of the import is `import httpx`. Each pair is measured by turns and the best of each is taken,
because noise of a shared machine only ever adds.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import httpx

from vector_embed_client import Client

try:
    import orjson

    loads: Callable[[bytes], object] = orjson.loads
    decoder = "orjson.loads"
except ImportError:
    loads = json.loads
    decoder = "json.loads"

TEXTS = [f"text number {i} of a batch" for i in range(100)]
DIMENSIONS = 768


def answer() -> bytes:
    """A batch's answer as the server writes it: full-length doubles, no white space."""
    rng = random.Random(1)
    rows = [[rng.uniform(-0.1, 0.1) for _ in range(DIMENSIONS)] for _ in TEXTS]
    columns = {"embeddings": rows, "cached": [False] * len(rows), "dimensions": DIMENSIONS}
    return json.dumps(columns, separators=(",", ":")).encode()


def serve(listener: socket.socket, body: bytes) -> None:
    """A thread for each connection, every request answered with `body`."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    whole = head % len(body) + body
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer_all, args=(connection, whole), daemon=True).start()


def answer_all(connection: socket.socket, whole: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while request := connection.recv(65536):
            while not request.endswith(b"}"):
                request += connection.recv(65536)
            connection.sendall(whole)


def best_of(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time of each, in seconds, measured by turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def fetched(plain: httpx.Client, url: str, request: str) -> object:
    return loads(plain.post(f"{url}/v1/embed/batch", content=request).content)


def importing(package: str) -> Callable[[], object]:
    return partial(subprocess.run, [sys.executable, "-c", f"import {package}"], check=True)


def show(title: str, times: dict[str, float], limit: str) -> None:
    print(f"\n{title:<44} {'ms':>8} {'ratio':>6}")
    for name, seconds in times.items():
        print(f"{name:<44} {seconds * 1e3:8.2f} {seconds / times[limit]:6.2f}")


def main() -> None:
    body = answer()
    request = json.dumps({"texts": TEXTS, "model": "nomic-v1.5"}, separators=(",", ":"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = multiprocessing.get_context("fork").Process(target=serve, args=(listener, body))
        server.start()
    fetch = f"httpx fetch + {decoder}"
    try:
        with httpx.Client() as plain, Client("vec_bench", url) as client:
            times = best_of(
                60,
                {
                    fetch: partial(fetched, plain, url, request),
                    "embed_batch": partial(client.embed_batch, TEXTS),
                    "embed_batch_array": partial(client.embed_batch_array, TEXTS),
                    "embed_batch(deadline=)": partial(client.embed_batch, TEXTS, deadline=30),
                },
            )
    finally:
        server.terminate()
        server.join()
    show(
        f"100 x {DIMENSIONS}, {len(body) / 1e6:.2f} MB, Python {sys.version.split()[0]}",
        times,
        fetch,
    )
    imports = {f"import {name}": importing(name) for name in ("httpx", "vector_embed_client")}
    show("a fresh process", best_of(15, imports), "import httpx")


if __name__ == "__main__":
    main()
