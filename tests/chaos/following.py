"""Exports that follow a collection into a place, are killed, and begin again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from worker.local.child import Child

from .truth import Held, Same, equal

Start = Callable[..., Child]  # a command, by its name and arguments


@dataclass
class Following:
    """`vec export` with these `words`. `held`: what a person finds there, `same` of vectors."""

    where: str
    words: tuple[str, ...]
    held: Callable[[], Iterable[tuple[str, Held]]]
    same: Same = equal
    _child: Child | None = field(default=None, repr=False)

    def follow(self, start: Start, *, kill: bool = False) -> None:
        """Let it follow, in place of the one before."""
        if self._child is not None and (kill or not self._child.running):
            self._child.kill()
            self._child = None
        if self._child is None:
            self._child = start("vec", "export", *self.words, "--follow")

    def end(self) -> None:
        """Ask it to stop."""
        if self._child is not None:
            self._child.stop(60)
            self._child = None
