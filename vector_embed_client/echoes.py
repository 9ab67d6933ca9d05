"""What an answer repeats of its request, found and masked before anything of it is shown.

A server, a framework or a proxy may repeat the texts or the key in what it says of an error: cut
short, in another case, with other white space, escaped for JSON, HTML or a URL. So both sides are
compared by their letters and digits alone, without case, as they stand and unescaped.

The limits: an echo that was escaped twice is found only as far as that left it alone. Of a text,
fewer than 16 letters in a row are not taken for an echo, or the whole text where it is shorter; of
the key, fewer than 8. A text of fewer than 8 letters is masked where it is quoted, because "text"
is also a word, and one of fewer than 4 never.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import unquote

MASK = "[…]"

_TEXT_RUN = 16
_KEY_RUN = 8
_SHORTEST = 4

_ESCAPE = re.compile(
    r"(?:\\u[0-9a-fA-F]{4})+|\\x[0-9a-fA-F]{2}|\\.|&#?\w{1,10};|(?:%[0-9a-fA-F]{2})+", re.DOTALL
)
_LETTERS = re.compile(r"[^\W_]+")
_QUOTES = tuple("\"'`«“‘„‚「『:;=([{<>")


class _Letters(NamedTuple):
    """The letters and digits of a string, in one case, and where each of them stands in it."""

    letters: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def is_word(self, begin: int, end: int) -> bool:
        """Whether the letters from `begin` to `end` touch no others."""
        before = begin > 0 and self.ends[begin - 1] == self.starts[begin]
        after = end < len(self.letters) and self.starts[end] == self.ends[end - 1]
        return not before and not after


class Sent:
    """The key and the texts of a request."""

    def __init__(self, key: str, texts: Sequence[str]) -> None:
        self.texts = texts
        self._key = key

    def masked(self, said: str) -> str:
        """`said` with every echo as […]."""
        if not said:
            return said
        hidden = bytearray(len(said))
        keys, long, short = self._forms
        for found in {_letters_of(said, unescaped=False), _letters_of(said, unescaped=True)}:
            for begin, end in (
                *_runs(found.letters, keys, _KEY_RUN),
                *_runs(found.letters, long, _TEXT_RUN),
                *_words(found, short, said),
            ):
                start, stop = found.starts[begin], found.ends[end - 1]
                hidden[start:stop] = b"\1" * (stop - start)
        pieces = groupby(zip(said, hidden), key=itemgetter(1))
        return "".join(MASK if echo else "".join(c for c, _ in piece) for echo, piece in pieces)

    @cached_property
    def _forms(self) -> tuple[str, str, set[str]]:
        """The letters of the key, of all long texts, and of each short one, escapes read or not."""
        keys = _forms_of(self._key)
        texts = {form for text in self.texts for form in _forms_of(text)}
        long = "\0".join(form for form in texts if len(form) >= _TEXT_RUN)
        short = {form for form in texts if _SHORTEST <= len(form) < _TEXT_RUN}
        short |= {form for form in keys if _SHORTEST <= len(form) < _KEY_RUN}
        return "\0".join(keys), long, short


NOTHING_SENT = Sent("", ())


def _runs(letters: str, secret: str, length: int) -> Iterator[tuple[int, int]]:
    """Where `length` of the letters stand in `secret` in the same order."""
    # Any such run has one of these halves in it, which spares most of the looking.
    half = length // 2
    for anchor in range(0, len(letters) - half + 1 if secret else 0, half):
        if letters[anchor : anchor + half] in secret:
            for begin in range(max(0, anchor - half), anchor + 1):
                run = letters[begin : begin + length]
                if len(run) == length and run in secret:
                    yield begin, begin + length


def _words(found: _Letters, secrets: Iterable[str], said: str) -> Iterator[tuple[int, int]]:
    """Where the whole of a short secret stands, as a word; the shortest only where quoted."""
    for secret in secrets:
        begin = found.letters.find(secret)
        while begin >= 0:
            end = begin + len(secret)
            quoted = said[: found.starts[begin]].rstrip().endswith(_QUOTES)
            if found.is_word(begin, end) and (quoted or len(secret) >= _KEY_RUN):
                yield begin, end
            begin = found.letters.find(secret, begin + 1)


def _letters_of(said: str, *, unescaped: bool) -> _Letters:
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    while at < len(said):
        escape = _ESCAPE.match(said, at) if unescaped else None
        stop = escape.end() if escape else at + 1
        for letter in _read(escape[0]) if escape else said[at]:
            for c in letter.casefold():
                if c.isalnum():
                    letters.append(c)
                    starts.append(at)
                    ends.append(stop)
        at = stop
    return _Letters("".join(letters), tuple(starts), tuple(ends))


def _forms_of(secret: str) -> set[str]:
    forms = {secret, _ESCAPE.sub(lambda escape: _read(escape[0]), secret)}
    return {"".join(_LETTERS.findall(form.casefold())) for form in forms} - {""}


def _read(escape: str) -> str:
    """What an escape stands for; a line break and the like have no letters, and are a blank."""
    if escape.startswith("\\u") and len(escape) > 2:
        return str(json.loads(f'"{escape}"'))
    if escape.startswith("\\x") and len(escape) > 2:
        return chr(int(escape[2:], 16))
    if escape.startswith("%"):
        return unquote(escape)
    if escape.startswith("&"):
        import html  # 3 ms, and seldom needed

        return html.unescape(escape)
    return " "
