"""A pattern: several collections by one word on the command line, as `tenant-*`."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ..monitor.figures import count
from ..settings import Settings
from .command import Failure, Target, all_names


def is_pattern(word: str) -> bool:
    """Whether a word stands for several collections. No name has these characters."""
    return any(character in word for character in "*?[")


def matching(pattern: str | None, settings: Settings) -> list[str]:
    """The names of the collections that match; of all, without a pattern."""
    names = all_names(settings)
    return names if pattern is None else [name for name in names if fnmatchcase(name, pattern)]


def some_matching(pattern: str | None, settings: Settings, target: Target) -> list[str]:
    """As `matching`. Raises Failure if a pattern matches none."""
    names = matching(pattern, settings)
    if pattern is not None and not names:
        there = len(all_names(settings))
        are = f"there {'is' if there == 1 else 'are'} {count(there, 'collection')}"
        raise Failure(f"no collection matches {pattern!r}; {are}: see {target.command('status')}")
    return names
