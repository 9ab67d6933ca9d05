"""The errors of this library, as one small tree.

    VectorEmbedError            anything this library raises about a request
    ├── AuthenticationError     401, 403: the key
    ├── RateLimitError          429: wait, then send again
    ├── ValidationError         400, 413, 422, or found by the client: nothing was sent
    ├── ServerError             5xx
    └── NetworkError            no answer, or an incomplete one

A 200 with a wrong body is a plain VectorEmbedError with the code `bad_response`.

Errors travel: they survive pickle, copy and `cls(*error.args)` (Celery's JSON result backend), so
every argument is a plain value and has a default. They never hold the key, the texts or an httpx
object.
"""

from __future__ import annotations


class VectorEmbedError(Exception):
    """The base of every error about a request.

    Attributes:
        code: A short stable word for programs: see the table in docs/client/errors.md.
        status: The HTTP status, or None if there was no answer or nothing was sent.
        body: What the server said in `detail`, `error` or `message`: at most 300 characters, and
            nothing that it repeats of the request.
        request_id: The id that a proxy or the server gave the request, for bug reports.
        retry_after: Whole seconds to wait, rounded up, if the server named them (429 and 503).
        wait: The same, not rounded. None in an error that was pickled or copied.
        index: Which text is at fault, counted from 0, if that is known.
    """

    def __init__(
        self,
        message: str = "",
        code: str = "error",
        status: int | None = None,
        body: str = "",
        request_id: str | None = None,
        retry_after: int | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(message, code, status, body, request_id, retry_after, index)
        self.message = message
        self.code = code
        self.status = status
        self.body = body
        self.request_id = request_id
        self.retry_after = retry_after
        self.index = index
        self.wait: float | None = None

    def __str__(self) -> str:
        return self.message


class AuthenticationError(VectorEmbedError):
    """The key is wrong, revoked or not allowed to do this (401, 403). Not retried."""


class RateLimitError(VectorEmbedError):
    """Too many requests, or the daily quota is used up (429). Nothing was charged.

    `retry_after` is None if the server does not say when to try again, as for the daily quota.
    """


class ValidationError(VectorEmbedError):
    """The request is wrong: 400, 413, 422, or found by the client before it was sent.

    `status` is None if nothing was sent. `index` names the text at fault, if that is known.
    """


class ServerError(VectorEmbedError):
    """The server failed (5xx)."""


class NetworkError(VectorEmbedError):
    """No answer: the connection was refused or lost, a timeout, or an incomplete answer.

    Attributes:
        reused: Whether the connection had served a request before. Then the failure says little
            about the server: the connection may have been dead. False in an error made from
            `args`, and with an `http_client` of your own, where it is not known.
    """

    reused = False
