"""Folding: a long text on lines of a width, with each command that it tells whole on its line.

So what is copied from a line is all of a command. Without its end, `vec resume` would be about all
collections, and `vec resume wiki` about the Redis of the environment.
"""

from __future__ import annotations

import re
import textwrap

WIDTH = 80
# With an option that names a Redis, a command may have any number of words.
_COMMAND = re.compile(
    r"\b(env \S+ vec \S+|vec(-enqueue)? (.*?(--redis-url \S+|--local)( -- \S+)?|\S+ \S+))"
)
_GLUE = "\0"  # in place of a space; no text that is shown has one


def folded(
    text: str, width: int = WIDTH, *, first: str = "  ", rest: str = "  ", break_words: bool = False
) -> list[str]:
    """`text` in lines of at most `width` columns, if its words and commands fit or may be broken.

    `first`, `rest`: what the first and the other lines begin with.
    """
    most = width - len(rest) if break_words else len(text)

    def whole(found: re.Match[str]) -> str:
        return found[0].replace(" ", _GLUE) if len(found[0]) <= most else found[0]

    lines = textwrap.wrap(
        _COMMAND.sub(whole, text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=break_words,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines]
