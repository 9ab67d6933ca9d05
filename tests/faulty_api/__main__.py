"""The local API with vectors from a hash, faults on demand, and a log.

    python -m faulty_api

prints `listening on http://127.0.0.1:PORT` and serves until SIGTERM. It also answers, without a
key, `PUT /_faults` (a `Faults` as JSON; replaces the last one), `GET /_log` (what was asked and
answered so far) and `POST /_reset` (everything forgotten, all faults off).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.local.answers import refused, server_error
from worker.local.api import LocalAPI, Server, create_app, key_of, read_json, serve
from worker.local.validation import Wrong

from .answers import over_quota, proxy_answer, spoiled
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
from .vectors import Hashed

REMEMBERED_REQUESTS = 10_000  # by the log


@dataclass
class Log:
    """What was asked and answered, for tests to count.

    `charged` counts texts paid for, also those of a 500: what it exceeds the cache by was paid in
    vain. Status 0 is a request that got no answer. `recent` has (time, path, texts, status).
    `by_key` counts the answers to requests for vectors by key and status.
    """

    requests: int = 0
    texts: int = 0
    charged: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)  # requests, by number of texts
    by_key: dict[str, Counter[str]] = field(default_factory=dict)
    recent: deque[tuple[float, str, int, int]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED_REQUESTS)
    )


class FaultyAPI(LocalAPI):
    """The local API; the faults have their say at each step of a request."""

    def forget(self) -> None:
        super().forget()
        self.log = Log()
        self.trouble = Trouble(Faults())
        self._charged: Counter[str] = Counter()  # texts, by key and day
        self._computing = 0

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            Route("/_faults", self.set_faults, methods=["PUT"]),
            Route("/_log", self.show_log, methods=["GET"]),
            Route("/_reset", self.reset, methods=["POST"]),
        ]

    async def set_faults(self, request: Request) -> Response:
        try:
            self.trouble = Trouble(read_faults(await read_json(request)), self.trouble)
        except FaultsError as error:
            raise refused(400, str(error)) from None
        return Response(status_code=204)

    async def show_log(self, request: Request) -> Response:
        return JSONResponse(
            {**vars(self.log), "recent": list(self.log.recent), "distinct": len(self.cache)}
        )

    async def reset(self, request: Request) -> Response:
        self.forget()
        return Response(status_code=204)

    async def embed(self, request: Request) -> Response:
        body = await read_json(request)
        texts = [body.get("text")] if isinstance(body, dict) else []
        return await self._embed(request, body, texts, super().embed)

    async def embed_batch(self, request: Request) -> Response:
        body = await read_json(request)
        texts = body.get("texts") if isinstance(body, dict) else []
        return await self._embed(request, body, texts, super().embed_batch)

    async def search(self, request: Request) -> Response:
        await self._pass_proxy(request, [])
        return await super().search(request)

    async def stats(self, request: Request) -> Response:
        await self._pass_proxy(request, [])
        return await super().stats(request)

    def authorise(self, request: Request, wrongs: Sequence[Wrong]) -> str:
        key = key_of(request, wrongs)
        valid = self.trouble.faults.keys
        rule = self.trouble.at(ACCOUNT, request.state.texts, key)
        answer = rule.answer if rule is not None else ""
        if answer == "revoked" or (valid is not None and key not in valid):
            raise refused(401, "Invalid or revoked API key")
        if answer == "forbidden":
            raise refused(403, "Forbidden")
        super().authorise(request, wrongs)
        if answer == "account":
            raise refused(400, "Free tier requires BYOK provider")
        if answer == "quota":
            raise over_quota(self.trouble.faults.quota or 0)
        return key

    async def compute(self, request: Request, model: str, texts: Sequence[str]) -> list[bytes]:
        every: list[str] = request.state.texts
        rule = self.trouble.at(TEXT, every, _key_in(request.scope))
        answer = rule.answer if rule is not None else ""
        if rule is not None and answer == "named":
            index = next(index for index, text in enumerate(every) if rule.marker in text)
            told = f"Value error, texts[{index}] cannot be embedded"
            wrong = {"type": "value_error", "loc": ["body"], "msg": told}
            raise refused(422, [{**wrong, "input": request.state.body, "ctx": {"error": {}}}])
        if answer == "unnamed":
            raise refused(400, "Invalid input")
        if answer == "error_on_miss" and texts:
            raise server_error()
        self._charge(key_of(request, []), len(texts))
        if texts:
            await self._delay(len(texts))
        packed = await super().compute(request, model, texts)
        if answer == "error":
            raise server_error()
        return packed

    async def _embed(
        self,
        request: Request,
        body: object,
        texts: object,
        call: Callable[[Request], Awaitable[Response]],
    ) -> Response:
        request.state.body = body
        found = texts if isinstance(texts, list) else []
        strings = [text for text in found if isinstance(text, str)]
        request.scope["texts"] = len(strings)
        await self._pass_proxy(request, strings)
        response = await call(request)
        rule = self.trouble.at(ANSWER, strings, _key_in(request.scope))
        return response if rule is None else spoiled(rule, strings, response)

    async def _pass_proxy(self, request: Request, texts: Sequence[str]) -> None:
        """What stands in front of the server: its rate limit, and its faults."""
        request.state.texts = texts
        key = _key_in(request.scope)
        wait = self.trouble.over_rate(key)
        if wait is not None:
            header = retry_after_header(self.trouble.faults.retry_after, wait)
            raise refused(429, "Too Many Requests", header)
        rule = self.trouble.at(PROXY, texts, key)
        if rule is None:
            return
        if rule.answer == "hang":
            await asyncio.sleep(rule.seconds)
        else:
            raise proxy_answer(rule)

    def _charge(self, key: str, texts: int) -> None:
        """Count texts against the day's quota, all or none. Nothing is ever given back."""
        day = f"{key} {datetime.now(timezone.utc).date()}"
        quota = self.trouble.faults.quota
        if texts and quota is not None and self._charged[day] + texts > quota:
            raise over_quota(quota)
        self._charged[day] += texts
        self.log.charged += texts

    async def _delay(self, texts: int) -> None:
        """Take the time that the faults say for computing this number of texts."""
        faults = self.trouble.faults
        self._computing += 1
        try:
            if faults.freeze_at is not None and self._computing >= faults.freeze_at:
                await asyncio.sleep(faults.freeze_seconds)
            seconds = self.trouble.seconds(texts)
            if seconds:
                await asyncio.sleep(seconds)
        finally:
            self._computing -= 1


class Entrance:
    """Every request passes here first, to be logged."""

    def __init__(self, app: ASGIApp, api: FaultyAPI) -> None:
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
            await self.app(scope, receive, noted)
        finally:
            texts = scope.get("texts", 0)
            log.in_flight -= 1
            log.requests += 1
            log.texts += texts
            log.statuses[str(status)] += 1
            if texts:
                log.batches[str(texts)] += 1
                log.by_key.setdefault(_key_in(scope), Counter())[str(status)] += 1
            log.recent.append((time.time(), scope["path"], texts, status))


def _key_in(scope: Scope) -> str:
    """The API key of a request, or whatever is in its place."""
    said: bytes = dict(scope["headers"]).get(b"authorization", b"")
    return said.decode("latin-1").partition(" ")[2]


class BreakingServer(Server):
    """A server that gives answers their connection to break."""

    def __init__(self, app: ASGIApp) -> None:
        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                scope["transport"] = next(
                    one.transport
                    for one in self.server_state.connections
                    if isinstance(one, H11Protocol) and one.client == scope["client"]
                )
            await app(scope, receive, send)

        super().__init__(with_transport)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m faulty_api", description="the tests' API")
    parser.add_argument("--dimensions", type=int, default=768)
    api = FaultyAPI(Hashed(parser.parse_args().dimensions))
    serve(api, BreakingServer(Entrance(create_app(api), api)))


if __name__ == "__main__":
    main()
