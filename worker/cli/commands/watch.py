"""`vec watch`: the work on a live screen, or line by line if there is no terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING

import click

from ...settings import Settings
from ..command import Command, Failure, Target, known_collection
from ..complete import collection_argument
from ..options import target_options
from ..pattern import is_pattern, matching, some_matching
from .status import stalls_of, surroundings

if TYPE_CHECKING:
    from ..board import View

LOOK_SECONDS = 1.0
MOST = 100  # collections on a screen
REPEAT_SECONDS = 60.0  # before a line is printed again if only its numbers have changed


@click.command(cls=Command)
@collection_argument(required=False)
@target_options
def watch(collection: str | None, target: Target) -> None:
    """Show the work on COLLECTION, or on all, as a live screen.

    Progress, rate, time left, the throttle, the workers and their last errors. Ctrl-C leaves the
    screen; the work continues. If standard output is not a terminal, a line is printed when
    something changes, and once a minute.

    COLLECTION may be a pattern, such as 'tenant-*'. Of more than 20 collections, their sums are
    shown, and those with work left.

    \b
    Example:
      vec watch wiki
    """
    import redis

    if sys.stdout is None:
        raise Failure("standard output is closed: there is nothing to watch on")
    with target.open() as (settings, _):
        if is_pattern(collection or ""):
            some_matching(collection, settings, target)
        elif collection is not None:
            known_collection(collection, settings)
        view = _look(collection, settings, target)
        screen = _live if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else _lines
        try:
            with screen() as show:
                while True:
                    show(view)
                    time.sleep(max(LOOK_SECONDS, view.seconds))  # of many, half of the time
                    try:
                        view = _look(collection, settings, target)
                    except (redis.ConnectionError, redis.TimeoutError) as error:
                        reason = str(error).rstrip(".") or type(error).__name__
                        view = view._replace(fault=reason)
        except KeyboardInterrupt:
            return  # Ctrl-C is the usual way to leave, not a failure


def _look(collection: str | None, settings: Settings, target: Target) -> View:
    from ...collection import Collection
    from ...monitor.fleet import read_fleet
    from ...monitor.overview import overview
    from ...monitor.service import read_statuses
    from ...store.connection import connect
    from ..board import View
    from ..summary import FEW

    client, begun = connect(settings), time.monotonic()
    if collection is None or is_pattern(collection):
        names = matching(collection, settings)
        seen = overview(read_statuses(client, settings.prefix, settings.queue, names), MOST)
    else:
        seen = overview([Collection(collection, settings=settings).status()], 1)
    is_few = seen.sums.collections <= FEW
    first = sorted(seen.first, key=attrgetter("collection")) if is_few else seen.first
    stalls = stalls_of(first, surroundings(settings, target))
    fleet = read_fleet(client, settings.prefix)
    sums = None if is_few else seen.sums
    return View(
        first, fleet, time.time(), target.command, None, stalls, sums, time.monotonic() - begun
    )


@contextmanager
def _live() -> Iterator[Callable[[View], None]]:
    """A full screen that is removed at the end."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from ..board import board

    console = Console()

    def show(view: View) -> None:
        lines = board(view, *console.size, unicode=not console.options.ascii_only)
        texts = [Text(line.text, line.style, no_wrap=True, overflow="crop") for line in lines]
        live.update(Group(*texts), refresh=True)

    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield show


@contextmanager
def _lines() -> Iterator[Callable[[View], None]]:
    """A line for each collection when its state changes, and once a minute.

    Of many, only for those with work, and one for all.
    """
    from ...monitor.figures import clock
    from ...monitor.overview import is_active
    from ..board import news
    from ..summary import news_of_all

    told: dict[str, tuple[object, float]] = {}

    def tell(name: str, kind: object, line: str, *, repeat: bool = False) -> None:
        now = time.monotonic()
        before, at = told.get(name, (None, now))
        if kind != before or repeat and now - at >= REPEAT_SECONDS:
            told[name] = (kind, now)
            click.echo(f"{clock(time.time())} {line}")

    def show(view: View) -> None:
        if view.fault is not None:
            tell("", view.fault, f"Redis does not answer: trying again ({view.fault})")
            return
        if view.sums is not None:
            tell("*", "sums", news_of_all(view.sums), repeat=True)
        for status in view.statuses:
            name = status.collection
            if view.sums is not None and not is_active(status) and name not in told:
                continue
            stall = view.stalls.get(name, "")
            kind = (status.state, status.reason, status.dead, bool(status.workers), bool(stall))
            tell(name, kind, news(status, view.command, stall), repeat=status.backlog > 0)
        if view.statuses:
            told.pop("", None)
        else:
            tell("", "none", "no collections yet")

    yield show
