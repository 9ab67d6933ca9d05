"""Corpora that change: some texts are edited, shortened or removed, and others are added."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

_WORDS = ("river", "météo", "本", "engine", "quote", "naïve", "\U0001f30a", "harbour", "of", "the")
_SAID = [f"{word}{end}" for word in _WORDS for end in (*[" "] * 49, "\n\n# ")]


class Changing(ABC):
    """A corpus: its `texts` by id. `words` and `environ` say to the commands where it is."""

    words: Sequence[str]
    environ: Mapping[str, str] = {}

    def __init__(
        self, directory: Path, texts: Iterator[tuple[str, str]], size: int, chance: random.Random
    ) -> None:
        self.directory = directory
        self._supply = texts
        self._chance = chance
        self.texts: dict[str, str] = {}
        self.prepare()
        self._add(size)
        self.write(self.texts.keys())

    def change(self, share: float) -> set[str]:
        """Change this share of the texts. Returns the ids that are not as before."""
        number = max(4, round(share * len(self.texts)))
        chosen = self._chance.sample(some := self.candidates(), min(number, len(some)))
        changed = set(chosen)
        for at, id in enumerate(chosen):
            text = self.texts[id]
            where = self._chance.randrange(len(text) + 1)
            if at % 5 == 0:
                del self.texts[id]
            elif at % 5 == 1 and text[:where].strip():
                self.texts[id] = text[:where]
            else:
                said = f"\n\n{self._chance.choice(_WORDS)} {self._chance.random()}\n\n"
                self.texts[id] = text[:where] + said + text[where:]
        changed |= self._add(-(-number // 5))
        self.write(changed)
        return changed

    def prepare(self) -> None:  # noqa: B027  # most need nothing
        """Start what it is written to."""

    def close(self) -> None:  # noqa: B027
        """End what was started."""

    def candidates(self) -> list[str]:
        """The ids among which those that change are chosen."""
        return list(self.texts)

    @abstractmethod
    def write(self, changed: Collection[str]) -> None:
        """Write the texts down, of which these are not as before."""

    def _add(self, number: int) -> set[str]:
        added = set()
        for id, text in self._supply:
            if id not in self.texts:
                self.texts[id] = text
                added.add(id)
            if len(added) == number:
                break
        assert len(added) == number, "there are too few texts"
        return added


class Folder(Changing):
    """A folder with a file for each text."""

    words = ("docs", "--collection", "corpus")

    def write(self, changed: Collection[str]) -> None:
        for id in changed:
            path = self.directory / "docs" / id
            if id in self.texts:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.texts[id].encode())
            else:
                path.unlink(missing_ok=True)


class Lines(Changing):
    """A file of JSON lines."""

    words = ("corpus.jsonl",)

    def write(self, changed: Collection[str]) -> None:
        with (self.directory / "corpus.jsonl").open("w") as file:
            for id, text in self.texts.items():
                file.write(json.dumps({"id": id, "text": text}) + "\n")


def documents(root: Path) -> Iterator[tuple[str, str]]:
    """The documents of a folder, by their paths below it."""
    for path in sorted(root.rglob("*")):
        if path.suffix in (".md", ".txt") and path.is_file():
            text = path.read_bytes().decode().removeprefix("\ufeff")
            if text.strip():
                yield path.relative_to(root).as_posix(), text


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file, each with its number as id."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if line.strip():
                yield f"row-{number}", line.strip()


def made(chance: random.Random, suffix: str) -> Iterator[tuple[str, str]]:
    """Texts without end: most are short, one in a hundred has some 20,000 characters."""
    number = 0
    while True:
        number += 1
        words = 3000 if chance.random() < 0.01 else chance.randrange(4, 60)
        said = "".join(chance.choices(_SAID, k=words))
        yield f"{number % 7}/text-{number}{suffix}", f"{number} {said}"
