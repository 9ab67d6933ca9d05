"""`vec-enqueue --prune`: what the corpora of a run did not bring leaves the collection."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ..export.surplus import Found, Surplus
from ..monitor import figures
from . import report
from .screen import Screen


def prune(
    name: str,
    surplus: Surplus,
    folders: Sequence[str],
    fault: str | None,
    yes: bool,
    screen: Screen,
    drop: str,
    *,
    is_implied: bool,
) -> bool:
    """Delete the surplus of a collection; asks first if it is much or may be wrong, unless `yes`.

    `fault`: why the run is no measure of what the collection should hold. `drop`: the command that
    deletes all of it. `is_implied`: no one asked for it, so it is silent if there is none. Returns
    whether it was done.
    """
    found = find(name, surplus, folders, fault, screen, drop)
    if found is None:
        return False
    what = f"{found.surplus:,} of {figures.count(found.held, 'id')}"
    if surplus.nameless:
        what += f", where {figures.count(surplus.nameless, 'rejected line')} had no id"
    much = found.surplus * 10 > found.held or found.surplus and surplus.nameless
    if much and not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            screen.say(f"{name}: nothing is pruned: cannot ask whether to delete {what}: use --yes")
            return False
        if not click.confirm(f"{name}: delete {what}, which the corpus does not have?", err=True):
            screen.say(f"{name}: nothing is pruned")
            return False
    removed = 0
    with screen.bar(name, found.surplus) as bar:
        for number in surplus.remove(found):
            removed += number
            bar.update(removed, found.surplus, shown=f"{removed:,} removed")
    if removed or not is_implied:
        screen.say(f"{name}: pruned, {figures.count(removed, 'id')} removed")
    return True


def find(
    name: str,
    surplus: Surplus,
    folders: Sequence[str],
    fault: str | None,
    screen: Screen,
    drop: str,
) -> Found | None:
    """Find the surplus; says why not if there is a reason, and what was not looked at."""
    empty = f"this run brought no id. To delete all that is there: {drop}"
    reason = fault or (None if surplus.brought else empty)
    if reason is not None:
        screen.say(f"{name}: nothing is pruned: {reason}")
        return None
    with screen.busy(f"{name}: looking for surplus"):
        found = surplus.find(folders)
    if found.unnamed:
        screen.say(f"{name}: {report.unnamed(found.unnamed)}")
    if found.missed:
        ids = figures.count(found.missed, "id")
        screen.say(f"{name}: {ids} evicted meanwhile, not looked at: run the same command again")
    return found
