"""`vec watch`: the work on a live screen, or line by line if there is no terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ...settings import Settings
from ..command import Command, Failure, Target, all_names, known_collection, target_options
from ..complete import collection_argument
from .status import stalls_of

if TYPE_CHECKING:
    from ..board import View

LOOK_SECONDS = 1.0
REPEAT_SECONDS = 60.0  # before a line is printed again if only its numbers have changed


@click.command(cls=Command)
@collection_argument(required=False)
@target_options
def watch(collection: str | None, target: Target) -> None:
    """Show the work on COLLECTION, or on all, as a live screen.

    Progress, rate, time left, the throttle, the workers and their last errors. Ctrl-C leaves the
    screen; the work continues. If standard output is not a terminal, a line is printed when
    something changes, and once a minute.

    \b
    Example:
      vec watch wiki
    """
    import redis

    if sys.stdout is None:
        raise Failure("standard output is closed: there is nothing to watch on")
    with target.open() as (settings, _):
        if collection is not None:
            known_collection(collection, settings)
        view = _look(collection, settings, target)
        screen = _live if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else _lines
        try:
            with screen() as show:
                while True:
                    show(view)
                    time.sleep(LOOK_SECONDS)
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
    from ...store.connection import connect
    from ..board import View

    names = all_names(settings) if collection is None else [collection]
    statuses = [Collection(name, settings=settings).status() for name in names]
    stalls = stalls_of(statuses, settings, target)
    fleet = read_fleet(connect(settings), settings.prefix)
    return View(statuses, fleet, time.time(), stalls=stalls)


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
    """A line for each collection when its state changes, and once a minute."""
    from ...monitor.figures import clock
    from ..board import news

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
        for status in view.statuses:
            name = status.collection
            stall = view.stalls.get(name, "")
            kind = (status.state, status.reason, status.dead, bool(status.workers), bool(stall))
            tell(name, kind, news(status, stall), repeat=status.backlog > 0)
        if view.statuses:
            told.pop("", None)
        else:
            tell("", "none", "no collections yet")

    yield show
