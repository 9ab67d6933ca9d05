"""Plots as shapes for SVG: what is drawn of the history. Pure functions.

A plot has layers, each a closed shape on the one below. A gap in the history is a gap in each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from ..figures import duration
from .history import GAP_SECONDS, Sample

WIDTH, HEIGHT = 600, 120  # of a plot, in its own units
MOST_POINTS = 240
SPANS = {"10 min": 600.0, "1 h": 3600.0, "1 day": 86_400.0}
OUTCOMES = ("ok", "rate_limited", "refused_or_failed")


class Layer(NamedTuple):
    """A shape, and the latest number of what it shows."""

    name: str
    path: str  # of SVG: one shape for each stretch without a gap
    latest: float


class Plot(NamedTuple):
    """A plot: its title, what a number is, the top of its scale, and its layers from below."""

    title: str
    unit: str
    top: float
    layers: Sequence[Layer]
    summary: str  # in words, for those who do not see it


class _Point(NamedTuple):
    at: float
    values: tuple[float, ...]  # one for each layer


def plots(samples: Sequence[Sample], now: float, seconds: float) -> list[Plot]:
    """Texts/s, requests by outcome, and the backlog of the last `seconds`."""
    window = now - seconds, now
    return [
        _plot("Texts done", "texts/s", ["rate"], _each(samples, lambda one: one.rate), window),
        _plot("Requests by outcome", "requests/min", OUTCOMES, _requests(samples), window),
        _plot("Backlog", "texts", ["backlog"], _each(samples, lambda one: one.backlog), window),
    ]


def _each(samples: Sequence[Sample], value: Callable[[Sample], float]) -> list[_Point]:
    return [_Point(one.at, (float(value(one)),)) for one in samples]


def _requests(samples: Sequence[Sample]) -> list[_Point]:
    """Requests a minute between two samples, by outcome."""
    points = []
    for before, after in zip(samples, samples[1:]):
        minutes = max(1e-3, after.at - before.at) / 60
        more = [n - m for n, m in zip(_grouped(after.outcomes), _grouped(before.outcomes))]
        # A counter that went back is that of another Redis, or of one that lost it.
        points.append(_Point(after.at, tuple(max(0, one) / minutes for one in more)))
    return points


def _grouped(outcomes: Mapping[str, int]) -> list[int]:
    groups: Counter[str] = Counter()
    for outcome, number in outcomes.items():
        groups[outcome if outcome in OUTCOMES[:2] else OUTCOMES[2]] += number
    return [groups[name] for name in OUTCOMES]


def _plot(
    title: str,
    unit: str,
    names: Sequence[str],
    points: Sequence[_Point],
    window: tuple[float, float],
) -> Plot:
    points = list(_thinned(points))
    top = round_up(max((sum(point.values) for point in points), default=0.0))
    stretches = list(_stretches(points))
    latest = points[-1].values if points else (0.0,) * len(names)
    layers = [
        Layer(name, " ".join(_shape(some, place, window, top) for some in stretches), latest[place])
        for place, name in enumerate(names)
    ]
    most = max((sum(point.values) for point in points), default=0.0)
    spoken = (
        f"now {sum(latest):,.0f} {unit}, at most {most:,.0f} in {duration(window[1] - window[0])}"
    )
    return Plot(title, unit, top, layers, spoken)


def _thinned(points: Sequence[_Point]) -> Iterator[_Point]:
    """At most MOST_POINTS, each the mean of neighbours."""
    step = max(1, math.ceil(len(points) / MOST_POINTS))
    for first in range(0, len(points), step):
        some = points[first : first + step]
        means = tuple(sum(column) / len(some) for column in zip(*(one.values for one in some)))
        yield _Point(some[-1].at, means)


def _stretches(points: Sequence[_Point]) -> Iterator[list[_Point]]:
    """The points between two gaps."""
    usual = [after.at - before.at for before, after in zip(points, points[1:])]
    gap = max(GAP_SECONDS, 3 * sorted(usual)[len(usual) // 2] if usual else 0.0)
    some: list[_Point] = []
    for point in points:
        if some and point.at - some[-1].at > gap:
            yield some
            some = []
        some.append(point)
    if some:
        yield some


def _shape(points: Sequence[_Point], place: int, window: tuple[float, float], top: float) -> str:
    """A layer over one stretch: along its upper edge, and back along the layer below it."""
    first, last = window
    upper, lower = [], []
    for point in points:
        x = WIDTH * min(1.0, max(0.0, (point.at - first) / (last - first)))
        below, above = [*accumulate(point.values, initial=0.0)][place : place + 2]
        upper.append(f"{x:.1f},{HEIGHT * (1 - above / top):.1f}")
        lower.append(f"{x:.1f},{HEIGHT * (1 - below / top):.1f}")
    return f"M{' L'.join([*upper, *reversed(lower)])}Z"


def round_up(number: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 ...; at least 1: the top of a scale."""
    if number <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(number))
    return next(step * power for step in (1, 2, 5, 10) if number <= step * power * (1 + 1e-9))
