"""Editions of a corpus: the same ids, every time some with another text, a few of them poison."""

from __future__ import annotations

import json
import random
from pathlib import Path

POISONS = ("poison-named", "poison-unnamed", "poison-error")
# They stand in the faults of the API at all times: a poison text is never embedded.
POISON_RULES: list[dict[str, object]] = [
    {"answer": poison.partition("-")[2], "marker": poison} for poison in POISONS
]
_WEIGHTS = (5, 3, 1)
_POISON_SHARE = 0.004
_CHANGED_SHARE = 0.4
_WORDS = ("river", "météo", "本", "engine", "a\tb", 'quote"', "naïve", "\U0001f30a", "plain")


class Editions:
    """The texts in force, and every text that an id ever had."""

    def __init__(self, chance: random.Random, texts: int, directory: Path) -> None:
        self.number = 0
        self.texts = {f"id-{number}": "" for number in range(texts)}
        self.ever: dict[str, set[str]] = {id: set() for id in self.texts}
        self._chance = chance
        self._directory = directory
        self._change(list(self.texts))

    @property
    def path(self) -> Path:
        """The corpus of the edition in force."""
        return self._directory / f"edition-{self.number}.jsonl"

    @property
    def poison(self) -> set[str]:
        """The ids whose text in force is poison."""
        return {id for id, text in self.texts.items() if text.startswith(POISONS)}

    def next(self) -> None:
        """Change some of the texts."""
        self.path.unlink()
        self.number += 1
        self._change([id for id in self.texts if self._chance.random() < _CHANGED_SHARE])

    def write_innocent(self) -> Path:
        """A corpus of the texts in force that are no poison."""
        path = self._directory / "innocent.jsonl"
        self._write(path, self.poison)
        return path

    def _change(self, ids: list[str]) -> None:
        for id in ids:
            if self._chance.random() < _POISON_SHARE:
                kind = self._chance.choices(POISONS, _WEIGHTS)[0]
            else:
                kind = self._chance.choice(_WORDS)
            # Some are long, so that bytes bind before the count; some are shared by two ids.
            long = " long" * (1500 if self._chance.random() < 0.005 else 1)
            shared = int(id.partition("-")[2]) // 2 if self._chance.random() < 0.02 else id
            self.texts[id] = f"{kind} {shared} of edition {self.number}{long}"
            self.ever[id].add(self.texts[id])
        self._write(self.path, set())

    def _write(self, path: Path, without: set[str]) -> None:
        with path.open("w", encoding="utf-8") as file:
            for id, text in self.texts.items():
                if id not in without:
                    file.write(json.dumps({"id": id, "text": text}) + "\n")
