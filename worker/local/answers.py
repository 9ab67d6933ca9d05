"""Answers: every body that the local API sends.

The vectors of an answer are JSON already, so no Python floats are made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from starlette.responses import PlainTextResponse, Response

from .validation import Wrong


class Refusal(Exception):
    """Ends a request with this answer."""

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


def embedded(row: Row, dimensions: int) -> Response:
    """The answer to an embed of one text."""
    body = b'{"embedding":%b,"cached":%b,"dimensions":%d}'
    body %= (row.vector, orjson.dumps(row.cached), dimensions)
    return Response(body, media_type="application/json")


def batch_embedded(rows: Sequence[Row], dimensions: int) -> Response:
    """The answer to a batch: parallel arrays."""
    vectors = b",".join([row.vector for row in rows])
    cached = orjson.dumps([row.cached for row in rows])
    body = b'{"embeddings":[%b],"cached":%b,"dimensions":%d}' % (vectors, cached, dimensions)
    return Response(body, media_type="application/json")


def refused(status: int, detail: str, retry_after: str | None = None) -> Refusal:
    """An error with a `detail` in words."""
    response = json_answer({"detail": detail}, status)
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    return Refusal(response)


def unprocessable(wrongs: Sequence[Wrong]) -> Refusal:
    """A 422: `detail` is a list."""
    return Refusal(json_answer({"detail": [wrong.as_json() for wrong in wrongs]}, 422))


def server_error() -> Refusal:
    """A 500, which is not JSON."""
    return Refusal(PlainTextResponse("Internal Server Error", 500))
