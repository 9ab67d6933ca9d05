"""A harmless text: no API refuses it and no cache has it, so it shows whether anything passes."""

from __future__ import annotations

import uuid

HARMLESS = "hello world"
_LETTERS = {2: "é", 3: "字", 4: "😀"}  # by their bytes in UTF-8


def harmless(like: str = "") -> str:
    """A new harmless text as long as `like`, in characters and in bytes."""
    start = f"{HARMLESS} {uuid.uuid4().hex[:8]}"
    rest = like[len(start) :]
    words = f" {HARMLESS}" * (len(rest) // (len(HARMLESS) + 1) + 1)
    if rest.isascii():
        return start + words[: len(rest)]
    return start + "".join(
        word if letter.isascii() else _LETTERS[len(letter.encode("utf-8", "replace"))]
        for letter, word in zip(rest, words)
    )
