"""The templates, and what they may call."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...logs import plain
from .. import figures
from .views import short

HERE = Path(__file__).parent
_TEXT_MOST = 5000  # characters of a text that are shown


def templates(version: str) -> Environment:
    """The templates, whose files have this version."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["version"] = version
    found.filters.update(
        clock=figures.clock,
        duration=figures.duration,
        lines=_lines,
        number=lambda number: f"{number:,}",
        plain=plain,
        short=short,
        size=figures.size,
        time=figures.local_time,
    )
    return found


def _lines(text: str) -> str:
    """A text with its line breaks; all else that cannot be printed is escaped."""
    cut = text[:_TEXT_MOST] + (f" ... ({len(text):,} characters)" if len(text) > _TEXT_MOST else "")
    return "\n".join(map(plain, cut.splitlines()))
