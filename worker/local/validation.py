"""Validation: what is wrong with a request body, in the words of the real server's 422.

Each function returns the errors of a body as entries of `detail`, in the server's order; none if
the body is valid. Each entry repeats the wrong input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

MAX_BATCH_SIZE = 100
MAX_TEXT_LENGTH = 10_000


class Wrong(NamedTuple):
    """One entry of a 422: what is wrong with the request, and where."""

    type: str
    loc: Sequence[object]
    msg: str
    input: object
    ctx: Mapping[str, object] | None = None

    def as_json(self) -> dict[str, object]:
        """The entry as it is sent."""
        entry = self._asdict()
        if self.ctx is None:
            del entry["ctx"]
        return entry


NO_AUTHORIZATION = Wrong("missing", ("header", "authorization"), "Field required", None)
NO_BODY = Wrong("missing", ("body",), "Field required", None)


def not_json(position: int, reason: str) -> Wrong:
    """The body is not JSON from this character on."""
    return Wrong("json_invalid", ("body", position), "JSON decode error", {}, {"error": reason})


def wrong_with_embed(body: object) -> list[Wrong]:
    """What is wrong with the body of an embed request."""
    return _wrong_with_field(body, "text", _wrong_with_text)


def wrong_with_batch(body: object) -> list[Wrong]:
    """What is wrong with the body of a batch. Only the first wrong text is named."""
    wrongs = _wrong_with_field(body, "texts", _wrong_with_texts)
    if wrongs:
        return wrongs
    assert isinstance(body, dict)
    for index, text in enumerate(body["texts"]):
        if not text:
            return [refused_text(body, f"texts[{index}] must be at least 1 character")]
        if len(text) > MAX_TEXT_LENGTH:
            told = f"texts[{index}] exceeds max length of {MAX_TEXT_LENGTH} characters"
            return [refused_text(body, told)]
    return []


def wrong_with_search(body: object) -> list[Wrong]:
    """What is wrong with the body of a search."""
    if not isinstance(body, dict):
        return [_not_an_object(body)]
    wrongs = []
    text, vector = body.get("query_text"), body.get("query_vector")
    if text is not None:
        wrongs += _wrong_with_text(("body", "query_text"), text)
    if vector is not None and not (isinstance(vector, list) and all(map(_is_number, vector))):
        told = "Input should be a valid list of numbers"
        wrongs.append(Wrong("list_type", ("body", "query_vector"), told, vector))
    wrongs += [_missing("model", body)] if "model" not in body else _wrong_with_model(body)
    wrongs += _out_of_range(body, "top_k", 1, 100)
    wrongs += _out_of_range(body, "min_score", 0, 1)
    if not wrongs and (text is None) == (vector is None):
        wrongs = [refused_text(body, "exactly one of query_text and query_vector is required")]
    return wrongs


def refused_text(body: object, told: str) -> Wrong:
    """An entry of the server's own checks. It repeats the whole body."""
    return Wrong("value_error", ("body",), f"Value error, {told}", body, {"error": {}})


def _wrong_with_field(
    body: object, name: str, wrong_with: Callable[[Sequence[object], object], list[Wrong]]
) -> list[Wrong]:
    """What is wrong with a body of this one field and a model."""
    if not isinstance(body, dict):
        return [_not_an_object(body)]
    wrongs = wrong_with(("body", name), body[name]) if name in body else [_missing(name, body)]
    return [*wrongs, *_wrong_with_model(body)]


def _wrong_with_text(loc: Sequence[object], text: object) -> list[Wrong]:
    if not isinstance(text, str):
        return [Wrong("string_type", loc, "Input should be a valid string", text)]
    if not text:
        told = "String should have at least 1 character"
        return [Wrong("string_too_short", loc, told, text, {"min_length": 1})]
    if len(text) > MAX_TEXT_LENGTH:
        told = f"String should have at most {MAX_TEXT_LENGTH} characters"
        return [Wrong("string_too_long", loc, told, text, {"max_length": MAX_TEXT_LENGTH})]
    return []


def _wrong_with_texts(loc: Sequence[object], texts: object) -> list[Wrong]:
    if not isinstance(texts, list):
        return [Wrong("list_type", loc, "Input should be a valid list", texts)]
    if not texts:
        told = "List should have at least 1 item after validation, not 0"
        sizes = {"field_type": "List", "min_length": 1, "actual_length": 0}
        return [Wrong("too_short", loc, told, texts, sizes)]
    if len(texts) > MAX_BATCH_SIZE:
        told = f"List should have at most {MAX_BATCH_SIZE} items after validation, not {len(texts)}"
        sizes = {"field_type": "List", "max_length": MAX_BATCH_SIZE, "actual_length": len(texts)}
        return [Wrong("too_long", loc, told, texts, sizes)]
    return [
        Wrong("string_type", (*loc, index), "Input should be a valid string", text)
        for index, text in enumerate(texts)
        if not isinstance(text, str)
    ]


def _wrong_with_model(body: Mapping[str, object]) -> list[Wrong]:
    if isinstance(body.get("model", ""), str):
        return []
    told = "Input should be a valid string"
    return [Wrong("string_type", ("body", "model"), told, body["model"])]


def _out_of_range(body: Mapping[str, object], name: str, low: int, high: int) -> list[Wrong]:
    value = body.get(name, low)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return [Wrong("float_type", ("body", name), "Input should be a valid number", value)]
    if value < low:
        told = f"Input should be greater than or equal to {low}"
        return [Wrong("greater_than_equal", ("body", name), told, value, {"ge": low})]
    if value > high:
        told = f"Input should be less than or equal to {high}"
        return [Wrong("less_than_equal", ("body", name), told, value, {"le": high})]
    return []


def _missing(name: str, body: object) -> Wrong:
    return Wrong("missing", ("body", name), "Field required", body)


def _not_an_object(body: object) -> Wrong:
    told = "Input should be a valid dictionary or object to extract fields from"
    return Wrong("model_attributes_type", ("body",), told, body)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
