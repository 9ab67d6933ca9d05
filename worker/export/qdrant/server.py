"""A Qdrant server: where it is, requests over HTTP, and their errors in one line without the key.

httpx is enough for the ten requests that a sink makes. Measured for points of 768 numbers:
Qdrant's own client takes 0.18 ms of processor for each, mostly to build and check its models, and
2.5 s to import; JSON made by orjson takes 0.05 ms.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from vector_embed_client.http import retry_after_seconds

from ..rows import ExportError
from ..sink import SinkAway

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # looked at before each use

_PORT = 6333
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_KEEPALIVE_SECONDS = 4.0  # the server closes an idle connection after 5
_MOST_PATIENCE = 60.0  # seconds that a Retry-After is heeded
PAGE = 1000  # points that are read at once
_SHOWN = 200  # characters of what an error answer says
_PASSING = (408, 425, 429)  # statuses that another try may help, beside 5xx
_LIKE = (
    "the address of a Qdrant is like qdrant://HOST:6333/COLLECTION, or qdrants:// for TLS; its key "
    "is in QDRANT_API_KEY, or as :KEY@ before the host, special characters as %XX"
)


class NotThere(ExportError):
    """The server has no such collection."""


@dataclass(frozen=True)
class Address:
    """Where a collection of Qdrant is. `str()` has no key."""

    host: str  # with its port
    is_tls: bool
    collection: str
    key: str = field(repr=False)

    def __str__(self) -> str:
        return f"qdrant{'s' if self.is_tls else ''}://{self.host}/{self.collection}"


def read_address(address: str, collection: str) -> Address:
    """Read `address`; it may name another collection than `collection`. Raises ExportError."""
    try:
        parts = urlsplit(address)
        port = parts.port or _PORT
    except ValueError:
        raise ExportError(_LIKE) from None
    name = unquote(parts.path).strip("/")
    odd = parts.query or parts.fragment or "/" in name
    if odd or not parts.hostname or parts.scheme not in ("qdrant", "qdrants"):
        raise ExportError(_LIKE)
    key = unquote(parts.password or parts.username or "") or os.environ.get("QDRANT_API_KEY", "")
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ExportError("the key of the Qdrant has characters that no header can have")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", parts.scheme == "qdrants", name or collection, key)


class Server:
    """The server at an address."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = httpx.Client(
            base_url=f"http{'s' if address.is_tls else ''}://{address.host}",
            headers={"api-key": address.key} if address.key else {},
            verify=address.is_tls,  # without TLS, certificates need not be loaded
            timeout=_TIMEOUT,
            limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_SECONDS),
        )
        weakref.finalize(self, self._client.close)
        self._not_before = 0.0  # as a Retry-After said

    def __str__(self) -> str:
        return str(self._address)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The result of a request. `body` may be JSON already, as bytes.

        Raises SinkAway if another try may help; NotThere, or ExportError with the server's words.
        """
        time.sleep(max(0.0, self._not_before - time.monotonic()))
        content = body if body is None or isinstance(body, bytes) else dumps(body)
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            answer = self._client.request(method, path, content=content, headers=headers)
        except httpx.RequestError as error:
            reason = _line(str(error)) or type(error).__name__
            raise SinkAway(f"{self._address} does not answer: {reason}") from None
        if answer.is_success:
            try:
                return answer.json()["result"]
            except (ValueError, KeyError, TypeError):
                raise ExportError(f"{self._address} does not answer as a Qdrant does") from None
        said = f"{self._words(answer)} ({answer.status_code})"
        if answer.status_code >= 500 or answer.status_code in _PASSING:
            patience = retry_after_seconds(answer.headers, time.time()) or 0.0
            self._not_before = time.monotonic() + min(patience, _MOST_PATIENCE)
            raise SinkAway(f"{self._address} is busy or unwell: {said}")
        if answer.status_code == 404:
            raise NotThere(f"{self._address} is not there: {said}: start the export again")
        if answer.status_code in (401, 403):
            raise ExportError(
                f"{self._address} refuses the key: {said}: set QDRANT_API_KEY to one that may read "
                "and write, and make collections"
            )
        raise ExportError(f"{self._address} refuses a request: {said}")

    def make(self, path: str, config: object) -> Any:
        """What the server says of the collection at this path, which is made if it is not there."""
        with suppress(NotThere):
            return self.ask("GET", path)
        try:
            self.ask("PUT", path, config)
        except SinkAway:
            raise
        except ExportError as error:  # made by another meanwhile?
            with suppress(NotThere):
                return self.ask("GET", path)
            raise error
        return self.ask("GET", path)

    def points(self, path: str, wanted: Mapping[str, object]) -> Iterator[Any]:
        """The points of a collection, page by page; none if it is not there."""
        body = {"with_payload": True, "with_vector": False, "limit": PAGE, **wanted}
        with suppress(NotThere):
            while True:
                page = self.ask("POST", f"{path}/points/scroll", body)
                yield from page["points"]
                body["offset"] = page["next_page_offset"]
                if body["offset"] is None:
                    return

    def _words(self, answer: httpx.Response) -> str:
        """What an error answer says, without the key."""
        try:
            said = answer.json()["status"]["error"]
        except (ValueError, KeyError, TypeError):
            said = answer.text
        said = _line(str(said))
        key = self._address.key
        return (said.replace(key, "***") if key else said)[:_SHOWN] or answer.reason_phrase


def dumps(value: object) -> bytes:
    """JSON; numpy's arrays are lists."""
    if orjson is not None:
        try:
            return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError:  # a whole number above 64 bits
            pass
    return json.dumps(value, ensure_ascii=False, default=lambda array: array.tolist()).encode()


def _line(said: str) -> str:
    return " ".join(said.split())
