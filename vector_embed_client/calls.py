"""Calls: each is one request, checked and encoded, with the reader of its answer.

What the server would refuse or fail on raises ValidationError without a status before it is sent.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from . import answers, http
from .errors import ValidationError
from .types import EmbeddingArray, EmbedResponse, HealthResponse, SearchResponse, StatsResponse

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Call(Generic[T]):
    """One request, checked and encoded. Its repr is the default one, which shows no text."""

    method: str
    path: str
    read: Callable[[bytes], T]  # the result of a 200; raises BadAnswer
    body: bytes | None = None
    texts: tuple[str, ...] = ()  # errors must not show them
    with_key: bool = True
    on_answer: Callable[[], object] | None = None  # called before `read`
    limit: http.Limit = http.Limit()  # the largest 200 that is accepted

    def limit_of(self, status: int) -> http.Limit:
        """The largest answer with `status` that is read. A 422 repeats the body of its request."""
        if 200 <= status < 300:
            return self.limit
        if status != 422 or self.body is None:
            return http.Limit()
        brackets = 2 * (self.body.count(b"[") + self.body.count(b"{")) + http.SMALL_ANSWER_BYTES
        size = 2 * len(self.body) + http.SMALL_ANSWER_BYTES
        return http.Limit(size, brackets, values=size)


def embed(text: str, model: str) -> Call[EmbedResponse]:
    """POST /v1/embed."""
    check_text(text)
    body = _body({"text": text, "model": model})
    limit = http.vectors_limit(1, None)
    return Call("POST", "/v1/embed", answers.read_embedding, body, (text,), limit=limit)


def embed_batch(texts: Iterable[str], model: str) -> Call[list[EmbedResponse]]:
    """POST /v1/embed/batch, answered as a list."""
    return _batch(texts, model, answers.read_batch)


def embed_batch_array(
    texts: Iterable[str], model: str, dimensions: int | None, on_answer: Callable[[], object] | None
) -> Call[EmbeddingArray]:
    """POST /v1/embed/batch, answered as float32 rows."""
    if dimensions is not None and type(dimensions) is not int:
        raise _invalid("dimensions must be a whole number")
    return _batch(texts, model, answers.read_array, dimensions, on_answer)


def search(
    text: str | None,
    vector: Iterable[float] | None,
    model: str,
    top_k: int,
    min_score: float | None,
    include_text: bool,
    include_vectors: bool,
) -> Call[SearchResponse]:
    """POST /v1/search, by text or by vector. The server sends texts by default; we do not."""
    wanted: dict[str, object] = {"model": model, "top_k": top_k, "include_text": bool(include_text)}
    if type(top_k) is not int or not 1 <= top_k <= 100:
        raise _invalid("top_k must be a whole number from 1 to 100")
    if (text is None) == (vector is None):
        raise _invalid("search needs a text or a vector, and not both")
    if text is not None:
        check_text(text)
        wanted["query_text"] = text
    if vector is not None:
        wanted["query_vector"] = _unit_vector(vector)
    if min_score is not None:
        if type(min_score) not in (int, float) or not 0 <= min_score <= 1:
            raise _invalid("min_score must be a number from 0 to 1")
        wanted["min_score"] = min_score
    if include_vectors:
        wanted["include_vectors"] = True
    texts = () if text is None else (text,)
    limit = http.search_limit(top_k, include_vectors)
    return Call("POST", "/v1/search", answers.read_search, _body(wanted), texts, limit=limit)


def stats() -> Call[StatsResponse]:
    """GET /v1/stats."""
    return Call("GET", "/v1/stats", answers.read_stats)


def health() -> Call[HealthResponse]:
    """GET /v1/health, without the key."""
    return Call("GET", "/v1/health", answers.read_health, with_key=False)


def check_text(text: object, index: int | None = None) -> None:
    """Raise ValidationError for a text that cannot be embedded. `index`: its position in a list."""
    fault = http.text_fault(text)
    if fault is not None:
        name = "text" if index is None else f"texts[{index}]"
        raise _invalid(f"{name} cannot be embedded: {fault}", index)


def check_iterable(texts: object, *, may_be_async: bool = False) -> None:
    """Raise ValidationError for what is not a list, and for a bare string, a list of letters."""
    kinds = (Iterable, AsyncIterable) if may_be_async else (Iterable,)
    if isinstance(texts, (str, bytes)) or not isinstance(texts, kinds):
        raise _invalid(f"texts must be a list of strings, not one {type(texts).__name__}")


class Packer:
    """Takes one valid text at a time and returns the batches that are full.

    It holds fewer than MAX_BATCH_SIZE texts. A valid text always fits alone: 10,000 characters are
    at most 60,000 bytes.
    """

    def __init__(self, model: str) -> None:
        self._room = http.MAX_BODY_BYTES - http.body_frame_bytes(model)
        self._texts: list[str] = []
        self._bytes = 0

    def add(self, text: str) -> list[list[str]]:
        """Add `text`. Returns the batches that are full now: at most two."""
        full: list[list[str]] = []
        size = http.text_bytes(text)
        if self._texts and self._bytes + size > self._room:
            full += self.rest()
        self._texts.append(text)
        self._bytes += size
        if len(self._texts) == http.MAX_BATCH_SIZE:
            full += self.rest()
        return full

    def rest(self) -> list[list[str]]:
        """A batch of the texts that were added and not yet returned, if there are any."""
        texts, self._texts, self._bytes = self._texts, [], 0
        return [texts] if texts else []


def pack(texts: Iterable[str], model: str) -> Iterator[list[str]]:
    """`texts` in order, in batches of one request each. Every batch is as full as it can be."""
    packer = Packer(model)
    for text in texts:
        yield from packer.add(text)
    yield from packer.rest()


def _batch(
    texts: Iterable[str],
    model: str,
    read: Callable[[bytes, int], T],
    dimensions: int | None = None,
    on_answer: Callable[[], object] | None = None,
) -> Call[T]:
    """POST /v1/embed/batch. `read` gets the answer and the number of texts."""
    check_iterable(texts)
    listed = list(islice(texts, http.MAX_BATCH_SIZE + 1))  # it may be endless
    if not listed:
        raise _invalid("a batch of no texts: it takes 1 to 100")
    if len(listed) > http.MAX_BATCH_SIZE:
        raise _invalid("a batch takes at most 100 texts: embed_many takes any number")
    for index, text in enumerate(listed):
        check_text(text, index)
    count = len(listed)
    body = _body(http.batch_body(listed, model))
    return Call(
        "POST",
        "/v1/embed/batch",
        lambda content: read(content, count),
        body,
        tuple(listed),
        on_answer=on_answer,
        limit=http.vectors_limit(count, dimensions),
    )


def _unit_vector(vector: Iterable[float]) -> list[float]:
    """`vector`, checked: for any other length the server always answers with a 500."""
    numbers: list[float] = []
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        numbers = [float(number) for number in vector]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise _invalid("vector must be a list of finite numbers, and not empty")
    length = math.hypot(*numbers)
    if abs(length - 1) > 0.01:
        raise _invalid(
            f"vector must be of length 1 (1 % more or less), not {length:.3g}: "
            "divide each number by the length"
        )
    return numbers


def _body(value: dict[str, object]) -> bytes:
    """`value` as JSON, if the server takes a body of this size."""
    body = b""
    # Raised outside the handler: the encoder's error holds the text, and would be kept as the
    # context.
    with contextlib.suppress(TypeError, ValueError):
        body = http.encode(value)
    if not body:  # a surrogate in the model, for one
        raise _invalid("the request cannot be written as JSON: check model, top_k and min_score")
    if len(body) > http.MAX_BODY_BYTES:
        raise ValidationError(
            f"the request's body is {len(body):,} bytes, more than {http.MAX_BODY_BYTES:,}: "
            "send fewer texts, or use embed_many",
            "too_large",
        )
    return body


def _invalid(message: str, index: int | None = None) -> ValidationError:
    return ValidationError(message, "invalid_request", index=index)
