"""A map as a page: points as one path of SVG for each group, and what is odd beside it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from ...logs import plain
from ...store.plane import Map, Point
from .rendering import HERE, templates

SIZE = 1000  # of the picture, in its own units
_MARGIN = 20
_ID_MOST = 80  # characters of an id in a list


class Group(NamedTuple):
    """The points of one colour."""

    number: int
    name: str
    points: int
    path: str  # of SVG: a dot for each point


class Odd(NamedTuple):
    """Two points, and how near they are."""

    cosine: str
    one: int
    id: str
    other: int
    other_id: str


def view(found: Map, *, show_text: bool) -> dict[str, object]:
    """What the template is given."""
    return {
        "name": found.collection,
        "map": found,
        "kept": f"{found.kept * 100:.0f} %",
        "groups": _groups(found),
        "data": _data(found, show_text),
        "pairs": [_odd(found, *pair) for pair in found.pairs],
        "outliers": [_odd(found, *one) for one in found.outliers],
        "size": SIZE,
        "dots": "dots small" if found.is_dense else "dots",
    }


def page(found: Map, *, show_text: bool) -> str:
    """The map as one file of HTML, with its style and its script in it."""
    style, script = ((HERE / "static" / name).read_text("utf-8") for name in ("page.css", "map.js"))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    template = templates("").get_template("map_file.html")
    return template.render(
        **view(found, show_text=show_text), style=style, script=script, policy=policy
    )


def _hash(source: str) -> str:
    """How a Content-Security-Policy names a script or a style that it allows."""
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _groups(found: Map) -> list[Group]:
    members: list[list[Point]] = [[] for _ in found.groups]
    for point in found.points:
        members[point.group].append(point)
    return [
        Group(number, plain(name), len(some), "".join(f"M{_place(one)}h0" for one in some))
        for number, (name, some) in enumerate(zip(found.groups, members))
    ]


def _place(point: Point) -> str:
    span = SIZE - 2 * _MARGIN
    return f"{_MARGIN + span * point.x:.0f} {_MARGIN + span * (1 - point.y):.0f}"


def _data(found: Map, show_text: bool) -> str:
    """All points as JSON, for the script: x, y, group, id, passage. Safe inside of HTML."""
    rows: Sequence[object] = [
        [*map(int, _place(one).split()), one.group, plain(one.id), _passage(one, show_text)]
        for one in found.points
    ]
    said = json.dumps(rows, separators=(",", ":"))  # ASCII
    for character in "<>&":
        said = said.replace(character, f"\\u{ord(character):04x}")
    return said


def _passage(point: Point, show_text: bool) -> str:
    return plain(point.passage) if show_text else ""


def _odd(found: Map, cosine: float, one: int, other: int) -> Odd:
    ids = [plain(found.points[number].id[:_ID_MOST]) for number in (one, other)]
    return Odd(f"{cosine:.3f}", one, ids[0], other, ids[1])
