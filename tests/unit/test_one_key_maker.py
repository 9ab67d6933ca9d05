"""The keys of Redis are built in one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import worker

ROOM = Path(worker.__file__).parent
KEYS = ROOM / "store" / "keys.py"


def built_keys(source: str) -> Iterator[int]:
    """The lines where a string is built from the prefix and a colon."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            for part, after in zip(node.values, node.values[1:]):
                prefixed = isinstance(part, ast.FormattedValue) and "prefix" in ast.unparse(part)
                if prefixed and isinstance(after, ast.Constant) and str(after.value)[0] == ":":
                    yield node.lineno
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = ast.unparse(node.left), ast.unparse(node.right)
            if left.endswith("prefix") and right.startswith(("':", "f':")):
                yield node.lineno


def test_no_other_module_builds_a_key() -> None:
    found = {
        str(path.relative_to(ROOM)): lines
        for path in ROOM.rglob("*.py")
        if (lines := list(built_keys(path.read_text(encoding="utf-8"))))
    }
    assert list(found) == ["store/keys.py"]


def test_no_lua_step_builds_a_key_but_from_a_prefix_that_it_is_given() -> None:
    for path in ROOM.rglob("*.lua"):
        code = [line.partition("--")[0] for line in path.read_text(encoding="utf-8").splitlines()]
        assert not [line for line in code if "'vec:" in line or ":{" in line], path
