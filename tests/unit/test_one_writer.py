"""Vectors come into the store by one way: the client's readers, `embedding`, `commit.lua`.

The readers check count, length, numbers and zeros, see test_decoding. These tests find whoever
would go past them.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

import vector_embed_client
import worker

PACKAGES = [Path(package.__path__[0]) for package in (vector_embed_client, worker)]


@functools.cache
def calls() -> set[tuple[str, str]]:
    """The last part of each name that is called, and the module that calls it."""
    return {
        (ast.unparse(node.func).split(".")[-1], path.relative_to(package.parent).as_posix())
        for package in PACKAGES
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("EmbeddingArray", {"vector_embed_client/answers.py"}),
        ("Embedded", {"worker/engine/verdicts.py"}),
        ("Commit", {"worker/engine/portion.py"}),
        ("commit_all", {"worker/engine/portion.py"}),
    ],
)
def test_a_vector_is_made_and_handed_on_in_one_place_only(name: str, modules: set[str]) -> None:
    assert {module for called, module in calls() if called == name} == modules


def test_one_script_alone_writes_vectors_and_another_makes_them_smaller() -> None:
    writes = re.compile(r"'H(?:SET|MSET|SETNX)',\s*(?:docs?\b|doc_prefix)")
    scripts = {path.name: path.read_text() for path in Path(worker.__path__[0]).rglob("*.lua")}
    writers = {name for name, text in scripts.items() if writes.search(text)}
    assert {name for name in writers if "'vector'" in scripts[name]} == {
        "commit.lua",
        "shrink.lua",
    }
