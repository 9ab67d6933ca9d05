"""Answers: every body that the local API sends.

The vectors of an answer are JSON already, so no Python floats are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from starlette.responses import JSONResponse, PlainTextResponse, Response


class Refusal(Exception):
    """Ends a request with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class Row(NamedTuple):
    """One text of an answer: its vector as JSON, and whether it was cached."""

    vector: bytes
    cached: bool


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


def refused(status: int, detail: object, retry_after: str | None = None) -> Refusal:
    """An error: its `detail` is a text, or for a 422 a list of entries."""
    headers = None if retry_after is None else {"Retry-After": retry_after}
    return Refusal(JSONResponse({"detail": detail}, status, headers))


def server_error() -> Refusal:
    """A 500, which is not JSON."""
    return Refusal(PlainTextResponse("Internal Server Error", 500))
