"""Answers that no well server sends: refusals of a proxy, and right answers made wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import orjson
from starlette.responses import JSONResponse, Response

from worker.local.answers import Refusal, refused

from .broken import Drip, Reset, Truncated
from .faults import Rule, rule_retry_after

_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"


def over_quota(quota: int) -> Refusal:
    """A 429 without Retry-After."""
    # The server names the midnight that has passed, not the one to wait for.
    midnight = datetime.now(timezone.utc).strftime("%Y-%m-%d 00:00 UTC")
    return refused(429, f"Rate limit exceeded. Limit: {quota}/day. Resets at: {midnight}")


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


def spoiled(rule: Rule, texts: Sequence[str], response: Response) -> Response:
    """The right answer to an embed of `texts`, as `rule` spoils it."""
    body = bytes(response.body)
    if rule.answer == "lost":
        return Reset()
    if rule.answer == "garbage":
        return Response(_PAGE.format("Sign in to the network"), media_type="text/html")
    if rule.answer == "truncate":
        return Truncated(body)
    if rule.answer == "drip":
        return Drip(body, rule.seconds)
    answer = orjson.loads(body)
    if rule.answer == "rows":
        return JSONResponse(_as_rows(answer))
    if "embedding" in answer:
        answer["embedding"] = _spoiled_vector(rule, texts[0], answer["embedding"])
    else:
        vectors = answer["embeddings"]
        answer["embeddings"] = [_spoiled_vector(rule, *pair) for pair in zip(texts, vectors)]
        for column in (answer["embeddings"], answer["cached"]):
            if len(texts) > 1 and rule.answer in ("short", "long"):
                column[:] = column[:-1] if rule.answer == "short" else [*column, column[-1]]
    if rule.answer == "resized":
        answer["dimensions"] -= 1
    # Not orjson: it has no NaN.
    return Response(json.dumps(answer, separators=(",", ":")), media_type="application/json")


def _as_rows(answer: dict[str, Any]) -> object:
    """Rows instead of columns, as other deployments answer."""
    one = "embedding" in answer
    vectors = [answer["embedding"]] if one else answer["embeddings"]
    cached = [answer["cached"]] if one else answer["cached"]
    rows = [
        {"vector": vector, "cached": hit, "dimensions": answer["dimensions"]}
        for vector, hit in zip(vectors, cached)
    ]
    return rows[0] if one else rows


def _spoiled_vector(rule: Rule, text: str, vector: list[float]) -> list[float]:
    """The vector of `text`, made wrong if the text is one of the rule's."""
    if rule.marker not in text:
        return vector
    if rule.answer in ("dimension", "resized"):
        return vector[:-1]
    if rule.answer in ("nan", "infinity"):
        return [math.nan if rule.answer == "nan" else math.inf, *vector[1:]]
    if rule.answer == "even":  # a layer norm leaves nothing of it
        return [0.5] * len(vector)
    return [0.0] * len(vector) if rule.answer == "zero" else vector
