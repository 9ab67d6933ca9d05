"""A template: one text out of several fields of a line, as in `{title}\\n\\n{body}`.

A field's name stands between braces. `{{` and `}}` are braces of the text; `\\n` is a new line,
`\\t` a tab and `\\\\` a backslash.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from .errors import CorpusError, Unfit
from .fields import TextOf, kind

_ESCAPES = {r"\n": "\n", r"\t": "\t", "\\\\": "\\"}


def template_text(template: str) -> TextOf:
    """What makes a text by the template. Raises CorpusError if it is malformed or has no field."""
    unescaped = re.sub(r"\\[nt\\]", lambda found: _ESCAPES[found[0]], template)
    try:
        parsed = list(string.Formatter().parse(unescaped))
    except ValueError as error:
        raise CorpusError(f"--template {template!r}: {str(error).lower()}") from None
    names = tuple(name for _, name, _, _ in parsed if name is not None)
    if not all(names) or any(spec or conversion for _, _, spec, conversion in parsed):
        raise CorpusError(f"--template {template!r}: between braces stands the name of a field")
    if not names:
        raise CorpusError(f"--template {template!r}: names no field: write one as {{title}}")

    def fill(values: Sequence[object]) -> object:
        parts: list[str] = []
        rest = iter(values)
        for literal, name, _, _ in parsed:
            parts.append(literal)
            if name is None:
                continue
            value = next(rest)
            if isinstance(value, Unfit):
                return value
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                return Unfit(f"field {name!r}: neither a string nor a number but {kind(value)}")
            parts.append(str(value))
        return "".join(parts)

    return TextOf(names, "--template", fill)
