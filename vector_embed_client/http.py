"""The wire, as pure functions."""

from __future__ import annotations

import json
from typing import Optional

try:
    import orjson
except ImportError:  # the base install has httpx alone
    _HAS_ORJSON = False
else:
    _HAS_ORJSON = True

VERSION = "0.1.0"

MAX_TEXT_LENGTH = 10_000  # code points
MAX_BATCH_SIZE = 100  # texts a request
MAX_BODY_BYTES = 1_000_000  # of a request's body


def text_fault(text: object) -> Optional[str]:
    """Why `text` cannot be embedded, in plain words, or None if it can.

    The server embeds white space and charges for it, and answers an unpaired surrogate with a 500.
    """
    if not isinstance(text, str):
        return f"not a string but {type(text).__name__}"
    if not text:
        return "empty"
    if text.isspace():
        return "white space only"
    if len(text) > MAX_TEXT_LENGTH:
        return f"{len(text):,} characters, more than {MAX_TEXT_LENGTH:,}"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"an unpaired surrogate at character {error.start}"
    return None


def encode(value: object) -> bytes:
    """`value` as compact UTF-8 JSON: what is sent."""
    if _HAS_ORJSON:
        return orjson.dumps(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def text_bytes(text: str) -> int:
    """The bytes that a valid text takes inside the body: its JSON form with quotes, and a comma."""
    return len(encode(text)) + 1
