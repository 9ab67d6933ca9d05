"""The local API: it answers as the vector-embed-cache server does.

Fields, statuses, error bodies, limits and the cache by normalised text are those of the real API.
`validation.py` finds what is wrong with a request, `vectors.py` makes the vectors. Everything is
kept in memory and lost at the end.

    python -m worker.local.api

prints `listening on http://127.0.0.1:PORT` and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import mul
from typing import TypeVar

import orjson
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from . import answers, validation
from .answers import Answer, Refusal
from .validation import BatchBody, EmbedBody, SearchBody, Wrong, wrongs_of
from .vectors import Engine, WordLlama, normalise

MAX_BODY_BYTES = 1_000_000

Body = TypeVar("Body", EmbedBody, BatchBody, SearchBody)


@dataclass
class Entry:
    """One cached text. Its vector is as the engine packs it."""

    text: str
    packed: bytes
    hits: int = 0


class LocalAPI:
    """The server's memory and its answers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # One thread: the engine needs no lock, and texts wait in its queue until it is loaded.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self.forget()

    def forget(self) -> None:
        """Return to the state of a new server."""
        self.cache: dict[str, Entry] = {}  # by sha256 of the normalised text
        self.hits: Counter[str] = Counter()  # by key
        self.misses: Counter[str] = Counter()

    def load(self) -> Future[None]:
        """Begin to load the engine. Requests are accepted meanwhile, and wait for it."""
        return self._thread.submit(self.engine.load)

    def routes(self) -> list[Route]:
        """The calls of the API."""
        return [
            Route("/v1/embed", self.embed, methods=["POST"]),
            Route("/v1/embed/batch", self.embed_batch, methods=["POST"]),
            Route("/v1/search", self.search, methods=["POST"]),
            Route("/v1/stats", self.stats, methods=["GET"]),
            Route("/v1/health", self.health, methods=["GET"]),
        ]

    async def embed(self, request: Request) -> Response:
        key, body = await self._admit(request, EmbedBody)
        [vector], [cached] = await self._vectors(request, key, body, [body.text])
        return Answer({"embedding": vector, "cached": cached, "dimensions": self.engine.dimensions})

    async def embed_batch(self, request: Request) -> Response:
        key, body = await self._admit(request, BatchBody)
        vectors, cached = await self._vectors(request, key, body, body.texts)
        return Answer(
            {"embeddings": vectors, "cached": cached, "dimensions": self.engine.dimensions}
        )

    async def search(self, request: Request) -> Response:
        _, body = await self._admit(request, SearchBody)
        if body.model != self.engine.model:
            raise answers.refused(400, f"Unknown model: {body.model}")
        if body.query_vector is None:
            query = self.engine.numbers((await self.pack([body.query_text or ""]))[0])
        else:
            query = body.query_vector
            if len(query) != self.engine.dimensions:
                told = f"expected {self.engine.dimensions} dimensions, got {len(query)}"
                raise answers.refused(400, f"Invalid query vector: {told}")
            if abs(math.sqrt(sum(map(mul, query, query))) - 1) > 0.01:
                raise answers.server_error()
        start = time.perf_counter()
        entries = list(self.cache.items())
        found = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._nearest, query, entries, body
        )
        return JSONResponse(
            {
                "results": found,
                "total": len(found),
                "search_time_ms": round(1000 * (time.perf_counter() - start)),
                "model": body.model,
                "dimensions": self.engine.dimensions,
            }
        )

    async def stats(self, request: Request) -> Response:
        key = self.authorise(request, [])
        counts = {"cache_hits": self.hits[key], "cache_misses": self.misses[key]}
        return JSONResponse({**counts, "total_cached": len(self.cache)})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": "1.0.0"})

    def authorise(self, request: Request, wrongs: Sequence[Wrong]) -> str:
        """The request's key. Refused: no key, a wrong key, then a wrong body."""
        key = key_of(request, wrongs)
        if wrongs:
            raise answers.refused(422, wrongs)
        return key

    async def compute(self, request: Request, model: str, texts: Sequence[str]) -> list[bytes]:
        """The vectors of those of the request's texts that the cache does not have."""
        if model != self.engine.model:
            raise answers.server_error()  # as on the real server, which checks the model this late
        return await self.pack(texts) if texts else []

    async def pack(self, texts: Sequence[str]) -> list[bytes]:
        """The engine's vectors."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.engine.pack, texts)

    async def _admit(self, request: Request, kind: type[Body]) -> tuple[str, Body]:
        """The key and the body of a request, if neither is refused."""
        body, wrongs = None, []
        try:
            body = kind.model_validate(await read_json(request), from_attributes=True)
        except ValidationError as error:
            wrongs = wrongs_of(error)
        key = self.authorise(request, wrongs)
        assert body is not None
        return key, body

    async def _vectors(
        self, request: Request, key: str, body: EmbedBody | BatchBody, texts: Sequence[str]
    ) -> tuple[list[orjson.Fragment], list[bool]]:
        """The vectors of the texts, and which of them were cached."""
        hashes = [hashlib.sha256(normalise(text).encode()).hexdigest() for text in texts]
        model = body.model if "model" in body.model_fields_set else self.engine.model
        cache = self.cache if model == self.engine.model else {}
        hits = {one: cache[one].packed for one in hashes if one in cache}
        misses = [index for index, one in enumerate(hashes) if one not in hits]
        packed = await self.compute(request, model, [texts[index] for index in misses])
        computed = dict(zip(misses, packed))
        for index, vector in computed.items():
            # The first of the texts that normalise alike decides what all of them get.
            self.cache.setdefault(hashes[index], Entry(texts[index], vector))
        cached = [index not in computed for index in range(len(texts))]
        for one, hit in zip(hashes, cached):
            self.cache[one].hits += hit
        self.misses[key] += len(misses)
        self.hits[key] += len(texts) - len(misses)
        rows = [computed.get(index) or hits[one] for index, one in enumerate(hashes)]
        return [orjson.Fragment(self.engine.row(row)) for row in rows], cached

    def _nearest(
        self, query: Sequence[float], entries: Sequence[tuple[str, Entry]], body: SearchBody
    ) -> list[dict[str, object]]:
        scored = []
        for text_hash, entry in entries:
            vector = self.engine.numbers(entry.packed)
            score = (sum(map(mul, query, vector)) + 1) / 2
            if score >= body.min_score:
                scored.append((score, text_hash, entry, vector))
        scored.sort(key=lambda one: -one[0])
        return [
            {
                "text_hash": text_hash,
                "score": score,
                "text": entry.text if body.include_text else None,
                "vector": vector if body.include_vectors else None,
                "model": self.engine.model,
                "hit_count": entry.hits,
            }
            for score, text_hash, entry, vector in scored[: body.top_k]
        ]


class Server(uvicorn.Server):
    """uvicorn that speaks as the real server does, HTTP/1.1 alone."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=H11Protocol,
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                timeout_keep_alive=5,  # as the real server
                timeout_graceful_shutdown=1,
            )
        )


def create_app(api: LocalAPI) -> ASGIApp:
    """The API as an ASGI app."""
    errors = (Refusal, HTTPException, UnicodeEncodeError)
    return Starlette(routes=api.routes(), exception_handlers=dict.fromkeys(errors, _refusal))


def serve(api: LocalAPI, server: Server, port: int = 0) -> None:
    """Serve until SIGTERM or Ctrl-C. Port 0: any free one."""
    # uvicorn ends cleanly on a signal, and then raises the signal again: exit with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    api.load().add_done_callback(_end_without_engine)
    listener = socket.create_server(("127.0.0.1", port))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.run([listener])


def main() -> None:
    """Serve real vectors."""
    parser = argparse.ArgumentParser(prog="python -m worker.local.api", description="the local API")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    api = LocalAPI(WordLlama())
    serve(api, Server(create_app(api)), parser.parse_args().port)


def _end_without_engine(loading: Future[None]) -> None:
    error = loading.exception()
    if error is not None:
        print(f"cannot load the engine: {error}", file=sys.stderr, flush=True)
        os._exit(1)


# Requests


def key_of(request: Request, wrongs: Sequence[Wrong]) -> str:
    """The API key. The refusal of a request without a key names all its faults."""
    header = request.headers.get("authorization")
    if header is None:
        raise answers.refused(422, [validation.NO_AUTHORIZATION, *wrongs])
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer" or not key.startswith("vec_"):
        raise answers.refused(401, "Invalid API key format")
    return key


async def read_json(request: Request) -> object:
    """The JSON of a request, of at most a million bytes."""
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        raise answers.refused(413, f"Request body exceeds max size of {MAX_BODY_BYTES} bytes")
    content = await request.body()
    if not content:
        raise answers.refused(422, [validation.NO_BODY])
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise answers.refused(422, [validation.not_json(error.pos, error.msg)]) from None
    except UnicodeDecodeError:
        raise answers.refused(400, "There was an error parsing the body") from None


def _refusal(request: Request, error: Exception) -> Response:
    """The answer to a request that ended with an error, of ours or of starlette."""
    if isinstance(error, Refusal):
        return error.response
    if isinstance(error, HTTPException):  # no such call
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    # An unpaired surrogate can neither be hashed nor repeated in a 422.
    return answers.server_error().response


if __name__ == "__main__":
    main()
