"""The vectors of real texts, by the local model: what a benchmark of nearness needs."""

from __future__ import annotations

import ast
import json
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from worker.local.vectors import WORDLLAMA_DIMENSIONS, WordLlama

LEAST = 20  # characters: a shorter paragraph says nothing
_AT_ONCE = 1000


def vectors(file: str | None, count: int) -> Any:
    """A matrix of float32 with the unit vectors of distinct texts: `count`, or all there are.

    The texts are those of a file of JSON lines, or paragraphs of the docstrings of this Python. A
    file .npy has the vectors.
    """
    if file is not None and file.endswith(".npy"):
        return numpy.load(file, mmap_mode="r")[:count]
    return _embedded(_texts(file, count))


def _texts(file: str | None, count: int) -> list[str]:
    found: dict[str, None] = {}
    for line in _docstrings() if file is None else _lines(file):
        found[line] = None
        if len(found) == count:
            break
    return list(found)


def _embedded(lines: list[str]) -> Any:
    model = WordLlama()
    model.load()
    rows = numpy.empty((len(lines), WORDLLAMA_DIMENSIONS), numpy.float32)
    for first in range(0, len(lines), _AT_ONCE):
        some = lines[first : first + _AT_ONCE]
        packed = b"".join(model.pack(some))
        rows[first : first + _AT_ONCE] = numpy.frombuffer(packed, "<f4").reshape(len(some), -1)
    return rows


def _lines(file: str) -> Iterator[str]:
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _docstrings() -> Iterator[str]:
    paths = sysconfig.get_paths()
    for folder in dict.fromkeys([paths["purelib"], paths["stdlib"]]):
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError, OSError, RecursionError):
                continue  # a test of Python itself
            for node in ast.walk(tree):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                    paragraphs = (ast.get_docstring(node) or "").split("\n\n")
                    yield from (text for text in paragraphs if len(text) >= LEAST)
