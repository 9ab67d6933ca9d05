"""Masks what an error answer repeats of its request, before any of it is shown.

Compared are runs of letters and digits, in any case and without escapes: 16 of a text, 8 of the
key. A shorter text is masked where it stands as a word: below 8 letters only after a quote or the
like, because "text" is also a word; below 4 never.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

MASK = "[…]"

_TEXT_RUN = 16
_KEY_RUN = 8
_SHORTEST = 4

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|[bfnrt])")
_AFTER_QUOTE = r"""(["'`«“‘„‚「『:;=(\[{<>]\s*)"""
_NOT_AFTER_LETTER = r"((?<![^\W_]))"


class Sent(NamedTuple):
    """The key and the texts of a request."""

    key: str = ""
    texts: Sequence[str] = ()

    def masked(self, said: str) -> str:
        """`said` without escapes, and with […] in place of what it repeats of the request."""
        said = _unescaped(said)
        secrets = [_unescaped(secret) for secret in (self.key, *self.texts)]
        letters = [_letters(secret) for secret in secrets]
        for secret, its in zip(secrets, letters):
            if _SHORTEST <= len(its) < _TEXT_RUN:
                before = _AFTER_QUOTE if len(its) < _KEY_RUN else _NOT_AFTER_LETTER
                pattern = rf"(?i){before}{re.escape(secret.strip())}(?![^\W_])"
                said = re.sub(pattern, rf"\1{MASK}", said)
        found = _letters(said)
        at = [i for i, c in enumerate(said) for letter in c.casefold() if letter.isalnum()]
        shown = list(said)
        for run, hidden in ((_KEY_RUN, letters[0]), (_TEXT_RUN, "\0".join(letters[1:]))):
            for begin in range(len(found) - run + 1):
                if found[begin : begin + run] in hidden:
                    span = slice(at[begin], at[begin + run - 1] + 1)
                    shown[span] = "\0" * len(shown[span])
        return re.sub("\0+", MASK, "".join(shown))


NOTHING_SENT = Sent()


def _letters(said: str) -> str:
    return re.sub(r"[\W_]+", "", said.casefold())


def _unescaped(said: str) -> str:
    """`said` without the escapes of JSON, HTML and URLs, also nested ones."""
    import html  # 3 ms, and only for errors

    for _ in range(2):
        said = html.unescape(unquote(_ESCAPE.sub(_character, said)))
    return said


def _character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2]
    return chr(int(code, 16)) if code else " "
