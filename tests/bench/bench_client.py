"""The client library alone: what a batch costs the program that asks, and what the import does.

    python -m tests.bench.bench_client

The limit of a batch is to fetch the same bytes with httpx and to decode them with orjson: a client
cannot do less. The peers are clients as one writes them oneself, with the JSON of the standard
library. The API answers at once, so all that is measured is work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

import httpx
import orjson

from vector_embed_client import AsyncClient, Client

from .bare import BODY, HEADERS, PATH, TEXTS
from .stack import API_KEY, stack
from .table import Table, machine

LIMIT = "httpx + orjson"


def batches(url: str, requests: int, runs: int) -> Table:
    """What 100 texts take, the answer decoded; each run takes all rows in turns."""
    table = Table("100 x 768, 1.6 MB", ("ms/batch", "cpu ms/batch"))
    address = url + PATH

    def with_orjson() -> None:
        body = orjson.dumps(BODY)
        orjson.loads(plain.post(address, content=body, headers=HEADERS).content)

    def with_json() -> None:
        plain.post(address, json=BODY, headers=HEADERS).json()

    def with_urllib() -> None:
        body = json.dumps(BODY).encode()
        request = urllib.request.Request(address, body, HEADERS)
        with urllib.request.urlopen(request) as answer:
            json.load(answer)

    def embed_async() -> None:
        loop.run_until_complete(asynchronous.embed_batch(TEXTS))

    loop = asyncio.new_event_loop()
    asynchronous = AsyncClient(API_KEY, url)
    with httpx.Client() as plain, Client(API_KEY, url) as client:
        rows: dict[str, Callable[[], object]] = {
            LIMIT: with_orjson,
            "embed_batch": lambda: client.embed_batch(TEXTS),
            "embed_batch, with a deadline": lambda: client.embed_batch(TEXTS, deadline=30),
            "embed_batch_array": lambda: client.embed_batch_array(TEXTS),
            "AsyncClient.embed_batch": embed_async,
            "httpx + json": with_json,
            "urllib + json": with_urllib,
        }
        for ask in rows.values():
            ask()  # connections are made at the first
        for _ in range(runs):
            for row, ask in rows.items():
                begun, used = time.perf_counter(), time.process_time()
                for _ in range(requests):
                    ask()
                took = (time.perf_counter() - begun) * 1000 / requests
                used = (time.process_time() - used) * 1000 / requests
                table.add(row, **{"ms/batch": took, "cpu ms/batch": used})
        loop.run_until_complete(asynchronous.close())
    loop.close()
    table.ratios("ms/batch", LIMIT)
    return table


def imports(runs: int) -> Table:
    """What a fresh process takes to its end that does nothing but import."""
    table = Table("a fresh process", ("ms",))
    for _ in range(runs):
        for line in (
            "import httpx",
            "import vector_embed_client",
            "from vector_embed_client import Client",
        ):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True)
            table.add(line, ms=(time.perf_counter() - begun) * 1000)
    table.ratios("ms", "import httpx")
    return table


def bench(requests: int, runs: int) -> None:
    with stack() as on:
        url, _ = on.api(0.0)
        batches(url, requests, runs).show()
    imports(runs).show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_client", description=__doc__)
    parser.add_argument("--requests", type=int, default=40, help="of 100 texts, in each run")
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args()
    print(machine())
    bench(asked.requests, asked.runs)


if __name__ == "__main__":
    main()
