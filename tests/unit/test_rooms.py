"""The rooms of `worker`: which there are, and who imports whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import worker

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "worker"
FACE = "__init__"  # takes from every room


def rooms() -> list[str]:
    """The rooms as the map lists them, from the top down."""
    table = (ROOT / "docs" / "architecture" / "rooms.md").read_text()
    return re.findall(r"^\| `(\w+)` \|", table, re.M)


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The rooms that a module imports from."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        base: tuple[str, ...] = ()
        names = [one.name for one in node.names]
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = [node.module] if node.module else names
        for name in names:
            parts = (*base, *name.split("."))
            if parts[0] == "worker":
                yield parts[1]


def test_the_map_has_every_room_and_there_are_at_most_eighteen() -> None:
    there = {
        room_of(path)
        for path in HOUSE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {FACE}
    assert set(rooms()) == there
    assert len(there) <= 18
    assert all(re.search(rf"^    .*\b{room}\b", worker.__doc__ or "", re.M) for room in there)


def test_a_room_imports_only_rooms_below_it_in_the_map() -> None:
    order = rooms()
    for path in HOUSE.rglob("*.py"):
        room = room_of(path)
        if room != FACE:
            for other in imported(path):
                assert other == room or order.index(other) > order.index(room), (path, other)
