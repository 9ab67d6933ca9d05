"""The local API: the vector-embed-cache server's answers, without the server.

It follows the real one row by row: fields, statuses, error bodies, limits, charges, the cache keyed
by the normalised text. What is a wrong request is left to `validation.py`, what a vector is to
`vectors.py`, the bytes of the answers to `answers.py`, what goes wrong on purpose to `faults.py`.
Everything is kept in memory and forgotten at the end.

    python -m worker.local.api --engine hash --control

prints `listening on http://127.0.0.1:PORT` and serves until SIGTERM. Under `--control` it also
answers, without a key, `PUT /_faults` (a `Faults` as JSON; replaces the last one), `GET /_log`
(what was asked and answered so far) and `POST /_reset` (everything forgotten, all faults off).
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
from collections import Counter, deque
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from operator import mul
from types import FrameType
from typing import Callable

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .answers import (
    Refusal,
    Row,
    embedded,
    json_answer,
    over_quota,
    proxy_answer,
    refused,
    server_error,
    unprocessable,
)
from .faults import (
    ACCOUNT,
    ANSWER,
    PROXY,
    TEXT,
    Faults,
    FaultsError,
    Trouble,
    read_faults,
    retry_after_header,
)
from .validation import (
    NO_AUTHORIZATION,
    NO_BODY,
    Wrong,
    not_json,
    refused_text,
    wrong_with_batch,
    wrong_with_embed,
    wrong_with_search,
)
from .vectors import Engine, Hashed, WordLlama, normalise

MAX_BODY_BYTES = 1_000_000
REMEMBERED_REQUESTS = 10_000  # by the log


@dataclass
class Entry:
    """One cached text. Its vector is as the engine packs it."""

    text: str
    packed: bytes
    hits: int = 0


@dataclass
class Account:
    """What one key has used."""

    hits: int = 0
    misses: int = 0
    charged: Counter[str] = field(default_factory=Counter)  # texts, by day


@dataclass
class Log:
    """What was asked and answered, for tests to count.

    `charged` counts texts paid for, also those of a 500: what it exceeds the cache by was paid in
    vain. Status 0 is a request that got no answer. `recent` has (time, path, texts, status).
    """

    requests: int = 0
    texts: int = 0
    charged: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)  # requests, by number of texts
    recent: deque[tuple[float, str, int, int]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED_REQUESTS)
    )


class LocalAPI:
    """The server's memory and its answers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # One thread: the engine needs no lock, and texts wait for `load` by standing in line.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self.forget()

    def forget(self) -> None:
        """Be as new, all faults off."""
        self.cache: dict[str, Entry] = {}  # by sha256 of the normalised text
        self.accounts: dict[str, Account] = {}
        self.log = Log()
        self.trouble = Trouble(Faults())
        self.computing = 0

    def load(self) -> Future[None]:
        """Begin to load the engine. Requests are taken meanwhile, and wait for it."""
        return self._thread.submit(self.engine.load)

    # The calls of the API

    async def embed(self, request: Request) -> Response:
        body = await _body(request)
        texts = _strings([body.get("text")] if isinstance(body, dict) else [])
        rows = await self._embed(request, body, texts, wrong_with_embed(body))
        return self._embedded(texts, rows, batch=False)

    async def embed_batch(self, request: Request) -> Response:
        body = await _body(request)
        texts = _strings(body.get("texts") if isinstance(body, dict) else [])
        rows = await self._embed(request, body, texts, wrong_with_batch(body))
        return self._embedded(texts, rows, batch=True)

    async def search(self, request: Request) -> Response:
        body = await _body(request)
        await self._pass_proxy([])
        self._account(request, [], wrong_with_search(body))
        assert isinstance(body, dict)
        model = body["model"]
        if model != self.engine.model:
            raise refused(400, f"Unknown model: {model}")
        if body.get("query_text") is not None:
            query = self.engine.numbers((await self._pack([body["query_text"]]))[0])
        else:
            query = body["query_vector"]
            if len(query) != self.engine.dimensions:
                told = f"expected {self.engine.dimensions} dimensions, got {len(query)}"
                raise refused(400, f"Invalid query vector: {told}")
            if abs(math.sqrt(sum(map(mul, query, query))) - 1) > 0.01:
                raise server_error()
        start = time.perf_counter()
        entries = list(self.cache.items())
        found = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._nearest, query, entries, body
        )
        return json_answer(
            {
                "results": found,
                "total": len(found),
                "search_time_ms": round(1000 * (time.perf_counter() - start)),
                "model": model,
                "dimensions": self.engine.dimensions,
            }
        )

    async def stats(self, request: Request) -> Response:
        await self._pass_proxy([])
        account = self._account(request, [], [])
        counts = {"cache_hits": account.hits, "cache_misses": account.misses}
        return json_answer({**counts, "total_cached": len(self.cache)})

    async def health(self, request: Request) -> Response:
        return json_answer({"status": "ok", "version": "1.0.0"})

    # The calls of tests

    async def set_faults(self, request: Request) -> Response:
        try:
            self.trouble = Trouble(read_faults(await _body(request)))
        except FaultsError as error:
            raise refused(400, str(error)) from None
        return Response(status_code=204)

    async def show_log(self, request: Request) -> Response:
        return json_answer(
            {**vars(self.log), "recent": list(self.log.recent), "distinct": len(self.cache)}
        )

    async def reset(self, request: Request) -> Response:
        self.forget()
        return Response(status_code=204)

    # The way of a request

    async def _embed(
        self, request: Request, body: object, texts: Sequence[str], wrongs: Sequence[Wrong]
    ) -> list[Row]:
        request.scope["texts"] = len(texts)
        await self._pass_proxy(texts)
        account = self._account(request, texts, wrongs)
        assert isinstance(body, dict)
        rule = self.trouble.at(TEXT, texts)
        if rule is not None and rule.answer == "named":
            index = next(index for index, text in enumerate(texts) if rule.marker in text)
            raise unprocessable([refused_text(body, f"texts[{index}] cannot be embedded")])
        if rule is not None and rule.answer == "unnamed":
            raise refused(400, "Invalid input")
        if body.get("model", self.engine.model) != self.engine.model:
            # As on the real server: nobody looks at the model before the texts are charged.
            self._charge(account, len(texts))
            raise server_error()
        try:
            keys = [hashlib.sha256(normalise(text).encode()).hexdigest() for text in texts]
        except UnicodeEncodeError:  # an unpaired surrogate
            raise server_error() from None
        misses = [index for index, key in enumerate(keys) if key not in self.cache]
        if rule is not None and rule.answer == "error_on_miss" and misses:
            raise server_error()
        self._charge(account, len(misses))
        hits = {key: self.cache[key].packed for key in keys if key in self.cache}
        packed = await self._compute([texts[index] for index in misses])
        if rule is not None and rule.answer == "error":
            raise server_error()
        computed = dict(zip(misses, packed))
        for index, vector in computed.items():
            # Whoever comes first decides what all texts that normalise alike get.
            self.cache.setdefault(keys[index], Entry(texts[index], vector))
        for index, key in enumerate(keys):
            self.cache[key].hits += index not in computed
        account.misses += len(misses)
        account.hits += len(texts) - len(misses)
        return [
            Row(self.engine.row(computed.get(index) or hits[key]), index not in computed)
            for index, key in enumerate(keys)
        ]

    def _embedded(self, texts: Sequence[str], rows: Sequence[Row], *, batch: bool) -> Response:
        rule = self.trouble.at(ANSWER, texts)
        return embedded(texts, rows, self.engine.dimensions, batch=batch, rule=rule)

    async def _pass_proxy(self, texts: Sequence[str]) -> None:
        """What stands in front of the server: its rate limit, and its faults."""
        wait = self.trouble.over_rate()
        if wait is not None:
            header = retry_after_header(self.trouble.faults.retry_after, wait)
            raise refused(429, "Too Many Requests", header)
        rule = self.trouble.at(PROXY, texts)
        if rule is None:
            return
        if rule.answer == "hang":
            await asyncio.sleep(rule.seconds)
        else:
            raise proxy_answer(rule)

    def _account(self, request: Request, texts: Sequence[str], wrongs: Sequence[Wrong]) -> Account:
        """The account of the request's key. Refused: no key, a wrong key, then a wrong body."""
        header = request.headers.get("authorization")
        if header is None:
            raise unprocessable([NO_AUTHORIZATION, *wrongs])
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer" or not key.startswith("vec_"):
            raise refused(401, "Invalid API key format")
        valid = self.trouble.faults.keys
        rule = self.trouble.at(ACCOUNT, texts)
        answer = rule.answer if rule is not None else ""
        if answer == "revoked" or (valid is not None and key not in valid):
            raise refused(401, "Invalid or revoked API key")
        if answer == "forbidden":
            raise refused(403, "Forbidden")
        if wrongs:
            raise unprocessable(wrongs)
        if answer == "account":
            raise refused(400, "Free tier requires BYOK provider")
        if answer == "quota":
            raise over_quota(self.trouble.faults.quota or 0)
        return self.accounts.setdefault(key, Account())

    def _charge(self, account: Account, texts: int) -> None:
        """Count texts against the day's quota, all or none. Nothing is ever given back."""
        today = datetime.now(timezone.utc).date().isoformat()
        quota = self.trouble.faults.quota
        if texts and quota is not None and account.charged[today] + texts > quota:
            raise over_quota(quota)
        account.charged[today] += texts
        self.log.charged += texts

    async def _compute(self, texts: Sequence[str]) -> list[bytes]:
        if not texts:
            return []
        faults = self.trouble.faults
        self.computing += 1
        try:
            if faults.freeze_at is not None and self.computing >= faults.freeze_at:
                await asyncio.sleep(faults.freeze_seconds)
            seconds = self.trouble.seconds(len(texts))
            if seconds:
                await asyncio.sleep(seconds)
            return await self._pack(texts)
        finally:
            self.computing -= 1

    async def _pack(self, texts: Sequence[str]) -> list[bytes]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.engine.pack, texts)

    def _nearest(
        self,
        query: Sequence[float],
        entries: Sequence[tuple[str, Entry]],
        body: Mapping[str, object],
    ) -> list[dict[str, object]]:
        top_k, least = body.get("top_k", 10), body.get("min_score", 0)
        assert isinstance(top_k, int) and isinstance(least, (int, float))
        scored = []
        for key, entry in entries:
            vector = self.engine.numbers(entry.packed)
            score = (sum(map(mul, query, vector)) + 1) / 2
            if score >= least:
                scored.append((score, key, entry, vector))
        scored.sort(key=lambda one: -one[0])
        return [
            {
                "text_hash": key,
                "score": score,
                "text": entry.text if body.get("include_text", True) else None,
                "vector": vector if body.get("include_vectors") else None,
                "model": self.engine.model,
                "hit_count": entry.hits,
            }
            for score, key, entry, vector in scored[:top_k]
        ]


class Entrance:
    """Every request passes here first: the size limit, and the log."""

    def __init__(self, app: ASGIApp, api: LocalAPI) -> None:
        self.app = app
        self.api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        log = self.api.log
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        log.in_flight += 1
        log.most_in_flight = max(log.most_in_flight, log.in_flight)
        try:
            length = dict(scope["headers"]).get(b"content-length", b"0")
            if int(length) > MAX_BODY_BYTES:
                told = f"Request body exceeds max size of {MAX_BODY_BYTES} bytes"
                await refused(413, told).response(scope, receive, noted)
            else:
                await self.app(scope, receive, noted)
        finally:
            texts = scope.get("texts", 0)
            log.in_flight -= 1
            log.requests += 1
            log.texts += texts
            log.statuses[str(status)] += 1
            if texts:
                log.batches[str(texts)] += 1
            log.recent.append((time.time(), scope["path"], texts, status))


def create_app(api: LocalAPI, *, control: bool = False) -> ASGIApp:
    """The API as an ASGI app; `control` adds the calls of tests."""
    routes = [
        Route("/v1/embed", _guarded(api.embed), methods=["POST"]),
        Route("/v1/embed/batch", _guarded(api.embed_batch), methods=["POST"]),
        Route("/v1/search", _guarded(api.search), methods=["POST"]),
        Route("/v1/stats", _guarded(api.stats), methods=["GET"]),
        Route("/v1/health", _guarded(api.health), methods=["GET"]),
    ]
    if control:
        routes += [
            Route("/_faults", _guarded(api.set_faults), methods=["PUT"]),
            Route("/_log", _guarded(api.show_log), methods=["GET"]),
            Route("/_reset", _guarded(api.reset), methods=["POST"]),
        ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_call})
    return Entrance(app, api)


class Server(uvicorn.Server):
    """uvicorn that says where it listens, and gives answers their connection to break."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                scope["transport"] = next(
                    one.transport
                    for one in self.server_state.connections
                    if isinstance(one, H11Protocol) and one.client == scope["client"]
                )
            await app(scope, receive, send)

        super().__init__(
            uvicorn.Config(
                with_transport,
                host="127.0.0.1",
                port=port,
                http=H11Protocol,
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                timeout_keep_alive=5,  # as the real server
                timeout_graceful_shutdown=1,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()
        print(f"listening on http://{host}:{port}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m worker.local.api", description="the local API")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--engine", choices=("hash", "wordllama"), default="wordllama")
    parser.add_argument("--dimensions", type=int, default=768, help="of the hash engine")
    parser.add_argument("--faults", default="{}", metavar="JSON", help="in force from the start")
    parser.add_argument("--control", action="store_true", help="answer /_faults, /_log, /_reset")
    said = parser.parse_args(arguments)
    api = LocalAPI(Hashed(said.dimensions) if said.engine == "hash" else WordLlama())
    try:
        api.trouble = Trouble(read_faults(json.loads(said.faults)))
    except ValueError as error:
        sys.exit(f"cannot start the local API: {error}")
    # uvicorn finishes its work on a signal and then raises the signal again: that is a clean end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    api.load().add_done_callback(_end_without_engine)
    Server(create_app(api, control=said.control), said.port).run()


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _end_without_engine(loading: Future[None]) -> None:
    error = loading.exception()
    if error is not None:
        print(f"cannot load the engine: {error}", file=sys.stderr, flush=True)
        os._exit(1)


# Requests


def _guarded(
    call: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            return await call(request)
        except Refusal as refusal:
            return refusal.response

    return guarded


async def _body(request: Request) -> object:
    content = await request.body()
    if not content:
        raise unprocessable([NO_BODY])
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)  # reads what orjson does not: unpaired surrogates, NaN
    except json.JSONDecodeError as error:
        raise unprocessable([not_json(error.pos, error.msg)]) from None
    except UnicodeDecodeError:
        raise refused(400, "There was an error parsing the body") from None


def _strings(texts: object) -> list[str]:
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


async def _no_such_call(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = json_answer({"detail": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


if __name__ == "__main__":
    main()
