"""The peers: Celery as most people use it for this, one message for each text.

    celery -A tests.bench.peers worker -P threads -c 16

`embed_one` embeds the text of its message; `embed_some` is celery-batches, which gathers the
messages that a worker has prefetched, up to a hundred, and embeds them in one request. Both post
with httpx, read with orjson and write with one command to Redis, and keep no results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
import numpy
import orjson
import redis
from celery import Celery

try:
    from celery_batches import Batches
except ImportError:
    Batches = None

REDIS_URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
QUEUE = "bench"

app = Celery("bench", broker=REDIS_URL, set_as_current=False)
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    # As many as fill the batches of all threads; for single texts it is no hindrance.
    worker_prefetch_multiplier=200,
    broker_connection_retry_on_startup=True,
)


@contextmanager
def producer(redis_url: str) -> Iterator[Any]:
    """What sends messages there, over one connection: `app.send_task(..., producer=producer)`."""
    with app.connection_for_write(url=redis_url) as connection:
        yield app.amqp.Producer(connection)


@cache
def _http() -> httpx.Client:
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    return httpx.Client(limits=limits, timeout=30)


@cache
def _store() -> redis.Redis:
    return redis.Redis.from_url(REDIS_URL)


def _embed(ids: Sequence[str], texts: Sequence[str]) -> None:
    body = orjson.dumps({"texts": texts, "model": "nomic-v1.5"})
    url = os.environ["BENCH_API_URL"] + "/v1/embed/batch"
    headers = {"Content-Type": "application/json", "Authorization": "Bearer vec_bench"}
    answer = orjson.loads(_http().post(url, content=body, headers=headers).content)
    rows = numpy.array(answer["embeddings"], dtype=numpy.float32)
    _store().mset({f"peer:{id}": row.tobytes() for id, row in zip(ids, rows)})
    _store().incrby("peer-done", len(ids))


@app.task(name="embed_one")
def embed_one(id: str, text: str) -> None:
    _embed([id], [text])


if Batches is not None:

    @app.task(name="embed_some", base=Batches, flush_every=100, flush_interval=1)
    def embed_some(requests: Sequence[Any]) -> None:
        _embed([r.args[0] for r in requests], [r.args[1] for r in requests])
