"""Answers: every body the local API sends, the right ones and the wrong.

The answers to embeds are glued from vectors that are JSON already: their floats are never made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import orjson
from starlette.responses import PlainTextResponse, Response

from .broken import Drip, Reset, Truncated
from .faults import Rule, rule_retry_after
from .validation import Wrong

_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"


class Refusal(Exception):
    """The request ends here, with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class Row(NamedTuple):
    """One text of an answer: its vector as JSON, and whether it was cached."""

    vector: bytes
    cached: bool


def json_answer(content: object, status: int = 200) -> Response:
    """`content` as JSON."""
    try:
        body = orjson.dumps(content)
    except TypeError:  # an unpaired surrogate, echoed
        body = json.dumps(content).encode()
    return Response(body, status, media_type="application/json")


def embedded(
    texts: Sequence[str], rows: Sequence[Row], dimensions: int, *, batch: bool, rule: Rule | None
) -> Response:
    """The answer to an embed of `texts`, as `rule` spoils it."""
    if rule is None:
        return _as_json(_body(rows, dimensions, batch))
    if rule.answer == "lost":
        return Reset()
    if rule.answer == "garbage":
        return Response(_PAGE.format("Sign in to the network"), media_type="text/html")
    if rule.answer == "rows":
        return _as_json(_other_body(rows, dimensions, batch))
    said = dimensions - 1 if rule.answer == "resized" else dimensions
    body = _body(_spoiled(rule, texts, rows), said, batch)
    if rule.answer == "truncate":
        return Truncated(body)
    if rule.answer == "drip":
        return Drip(body, rule.seconds)
    return _as_json(body)


def _as_json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _body(rows: Sequence[Row], dimensions: int, batch: bool) -> bytes:
    vectors = b",".join([row.vector for row in rows])
    if batch:
        cached = orjson.dumps([row.cached for row in rows])
        return b'{"embeddings":[%b],"cached":%b,"dimensions":%d}' % (vectors, cached, dimensions)
    cached = orjson.dumps(rows[0].cached)
    return b'{"embedding":%b,"cached":%b,"dimensions":%d}' % (vectors, cached, dimensions)


def _other_body(rows: Sequence[Row], dimensions: int, batch: bool) -> bytes:
    """Rows instead of columns, as other deployments answer."""
    found = [
        b'{"vector":%b,"cached":%b,"dimensions":%d}'
        % (row.vector, orjson.dumps(row.cached), dimensions)
        for row in rows
    ]
    return b"[%b]" % b",".join(found) if batch else found[0]


def _spoiled(rule: Rule, texts: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The rows of an answer, those of the rule's texts made wrong."""
    if rule.answer == "short" and len(rows) > 1:
        return list(rows[:-1])
    if rule.answer == "long" and len(rows) > 1:
        return [*rows, rows[-1]]
    return [
        row._replace(vector=_spoiled_vector(rule, row.vector)) if rule.marker in text else row
        for text, row in zip(texts, rows)
    ]


def _spoiled_vector(rule: Rule, vector: bytes) -> bytes:
    numbers: list[float] = orjson.loads(vector)
    if rule.answer in ("dimension", "resized"):
        numbers = numbers[:-1]
    elif rule.answer == "nan":
        numbers[0] = math.nan
    elif rule.answer == "infinity":
        numbers[0] = math.inf
    elif rule.answer == "zero":
        numbers = [0.0] * len(numbers)
    else:
        return vector
    return json.dumps(numbers, separators=(",", ":")).encode()


def refused(status: int, detail: str, retry_after: str | None = None) -> Refusal:
    """An error with a `detail` in words."""
    response = json_answer({"detail": detail}, status)
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    return Refusal(response)


def unprocessable(wrongs: Sequence[Wrong]) -> Refusal:
    """A 422: `detail` is a list."""
    return Refusal(json_answer({"detail": [wrong.as_json() for wrong in wrongs]}, 422))


def over_quota(quota: int) -> Refusal:
    """A 429 without Retry-After."""
    # The server names the midnight that has passed, not the one to wait for.
    midnight = datetime.now(timezone.utc).strftime("%Y-%m-%d 00:00 UTC")
    return refused(429, f"Rate limit exceeded. Limit: {quota}/day. Resets at: {midnight}")


def server_error() -> Refusal:
    """A 500, which is no JSON."""
    return Refusal(PlainTextResponse("Internal Server Error", 500))


def proxy_answer(rule: Rule) -> Refusal:
    """What a rule of the proxy stage sends."""
    if rule.answer == "reset":
        return Refusal(Reset())
    if rule.answer == "gateway":
        return Refusal(Response(_PAGE.format("502 Bad Gateway"), 502, media_type="text/html"))
    if rule.answer == "status":
        return refused(rule.status, rule.detail, rule_retry_after(rule))
    if rule.answer == "request_timeout":
        return refused(408, "Request Timeout")
    if rule.answer == "unavailable":
        return refused(503, "Service Unavailable", rule_retry_after(rule))
    return refused(429, "Too Many Requests", rule_retry_after(rule))
