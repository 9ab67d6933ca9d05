"""A map as a picture for a report: a PNG, drawn by matplotlib (extra `png`)."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

# Else it tells on standard error that it builds a list of the fonts, once on each machine.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
os.environ["MPLBACKEND"] = "agg"  # a name that it does not know would end it

from matplotlib import rc_context, rcParamsDefault  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.font_manager import get_font_names  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

from ..logs import plain  # noqa: E402
from ..store.plane import Map  # noqa: E402

_STYLE = Path(__file__).parent / "page" / "static" / "page.css"
_COLOURS = re.findall(r"\.g\d { stroke: (#\w+)", _STYLE.read_text("utf-8"))
_GREY = "#57606a"
_FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Hebrew")
_INCHES = (10.0, 6.5)
_DPI = 160
_NAME_MOST = 40  # characters of a group's name


def draw(found: Map, file: BinaryIO) -> None:
    """Write a map as a PNG, 1,150 pixels high, without texts."""
    # Not as a matplotlibrc here or at home says; a letter that no font has is drawn as a box.
    with rc_context(rcParamsDefault), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ", UserWarning)
        figure = Figure(_INCHES, dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 0.65, 1), aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(), yticks=())
        colours = [*_COLOURS, _GREY]
        _dots(axes, found, colours)
        _words(axes, found, colours)
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.15)


def _dots(axes: Axes, found: Map, colours: Sequence[str]) -> None:
    axes.scatter(
        [point.x for point in found.points],
        [point.y for point in found.points],
        c=[colours[point.group] for point in found.points],
        s=8 if found.is_dense else 30,
        alpha=0.8,
        linewidths=0,
    )


def _words(axes: Axes, found: Map, colours: Sequence[str]) -> None:
    drawn, vectors = f"{len(found.points):,}", f"{found.vectors:,}"
    title = axes.set_title(f"{found.collection}: {drawn} of {vectors} vectors", loc="left")
    model = f"{plain(found.model)}; two principal components, {found.kept:.0%} of the variance"
    note = axes.set_xlabel(model, loc="left", color=_GREY)
    number = len(found.groups)
    legend = axes.legend(
        [Line2D([], [], color=one, marker="o", linestyle="") for one in colours[:number]],
        [str(one) for one in range(number)],  # "_name" would be left out
        loc="upper left",
        bbox_to_anchor=(1.02, 1.02),
        title=f"By {plain(found.coloured)}",
        frameon=False,
        alignment="left",
        handletextpad=0.2,
    )
    counted = Counter(point.group for point in found.points)
    for one, (text, name) in enumerate(zip(legend.get_texts(), found.groups)):
        text.set_text(f"{_cut(plain(name))} ({counted[one]:,})")
    installed = set(get_font_names())
    for text in (title, note, legend.get_title(), *legend.get_texts()):
        text.set_parse_math(False)  # a $ is a dollar
        text.set_fontfamily([font for font in _FONTS if font in installed])


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_MOST else f"{name[: _NAME_MOST - 3]}..."
