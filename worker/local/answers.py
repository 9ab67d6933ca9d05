"""Answers: what the local API sends."""

from __future__ import annotations

import orjson
from starlette.responses import JSONResponse, PlainTextResponse, Response


class Answer(JSONResponse):
    """JSON. A vector in it is an `orjson.Fragment`: JSON already, so no Python floats are made."""

    def render(self, content: object) -> bytes:
        return orjson.dumps(content)


class Refusal(Exception):
    """Ends a request with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def refused(status: int, detail: object, retry_after: str | None = None) -> Refusal:
    """An error: its `detail` is a text, or for a 422 a list of entries."""
    headers = None if retry_after is None else {"Retry-After": retry_after}
    return Refusal(JSONResponse({"detail": detail}, status, headers))


def server_error() -> Refusal:
    """A 500, which is not JSON."""
    return Refusal(PlainTextResponse("Internal Server Error", 500))
