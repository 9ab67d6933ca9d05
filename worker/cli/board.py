"""The board: what `vec watch` shows, as lines for a terminal of a given size. Pure functions.

Collections with work left come first. If not all fit, the rest are counted. Of more than a few, the
sums come first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ..monitor import pace
from ..monitor.figures import cells, clock, count, duration, plain
from ..types import Status
from . import report
from .folding import folded
from .summary import sums_lines

if TYPE_CHECKING:
    from ..monitor.fleet import Worker
    from ..monitor.obstacle import CommandLine
    from ..monitor.overview import Sums

SHOWN_TROUBLES = 5
_STYLES = {"halted": "bold red", "paused": "yellow", "waiting": "yellow", "running": "bold"}


class View(NamedTuple):
    """What was read last, and why nothing newer could be read."""

    statuses: Sequence[Status]
    fleet: Sequence[Worker]
    at: float  # Unix time
    command: CommandLine  # about the same Redis
    fault: str | None = None
    stalls: Mapping[str, str] = {}  # what blocks those that are stalled, by name
    sums: Sums | None = None  # of all, where the statuses are only those to look at first
    seconds: float = 0.0  # that it took to read


class Line(NamedTuple):
    """A line of the screen."""

    text: str
    style: str = ""


def board(view: View, width: int, height: int, *, unicode: bool = True) -> list[Line]:
    """The whole screen: at most `height` lines, none wider than `width`."""
    foot = [Line(f"{clock(view.at)}  Ctrl-C leaves; the work continues", "dim")]
    if view.fault is not None:
        foot.insert(0, Line(f"Redis does not answer: trying again ({view.fault})", "yellow"))
    top = [] if view.sums is None else [*map(Line, sums_lines(view.sums)), Line("")]
    ordered = view.statuses
    if view.sums is None:
        ordered = sorted(ordered, key=lambda status: (not status.backlog, status.collection))
    blocks = [list(_block(status, width, unicode, view)) for status in ordered]
    heads = [block[0] for block in blocks] or [Line("no collections yet")]
    crew, troubles = [Line(""), *_crew(view.fleet, view.command)], [*_troubles(view.fleet)]
    spare = height - len(top) - len(crew) - len(foot) - 1
    every = len(heads) if view.sums is None else view.sums.collections
    if every > min(spare, len(heads)):
        heads = heads[: max(0, spare - 1)]
        heads.append(Line(f"... and {every - len(heads):,} more", "dim"))
    whole = list(chain.from_iterable(blocks)) if every == len(blocks) else []
    above = whole if whole and len(whole) <= spare else heads
    lines = [*top, *above, *crew, *troubles[: max(0, spare - len(above))]]
    return [Line(cut(line.text, width), line.style) for line in [*lines, Line(""), *foot][:height]]


def news(status: Status, command: CommandLine, stall: str = "") -> str:
    """A collection in one line, for output without a screen. `stall`: what blocks it."""
    kind, note = _note(status, command)
    note = note or stall
    speed = "" if kind == "paused" else pace.speed(status)
    parts = [f"{done(status):,} of {status.enqueued:,} done", speed, note]
    if status.dead:
        parts.insert(1, f"{status.dead:,} dead")
    state = "" if kind == status.state else f"{status.state}, "
    return f"{status.collection}: {state}{', '.join(filter(None, parts))}"


def _note(status: Status, command: CommandLine) -> tuple[str, str]:
    """A short word for what blocks a collection, and a line; both empty if nothing does."""
    if status.state == "halted":
        return "halted", f"halted: {plain(status.reason or '')}"
    return report.note(status, command)


def done(status: Status) -> int:
    """The number of texts that are finished: embedded, evicted or dead."""
    return status.enqueued - status.backlog


def cut(text: str, width: int) -> str:
    """`text`, cut to `width` columns."""
    if cells(text) <= width:
        return text
    kept, used = "", 3
    for character in text:
        used += cells(character)
        if used > width:
            break
        kept += character
    return f"{kept}..."[:width]


def _block(status: Status, width: int, unicode: bool, view: View) -> Iterator[Line]:
    """A collection: its first line, which can stand alone, and its details."""
    share = done(status) / status.enqueued if status.enqueued else 1.0
    percent = f"{int(share * 100)} %"
    speed = pace.speed(status) if status.backlog and status.state == "running" else ""
    tail = ", ".join(filter(None, [status.state, speed]))
    name = cut(status.collection, max(8, width - cells(tail) - cells(percent) - 4))
    head = f"{name}  {tail}"
    gap = " " * max(2, width - cells(head) - cells(percent))
    yield Line(f"{head}{gap}{percent}", _STYLES.get(status.state, ""))
    if not status.backlog:
        return
    full, empty = ("━", "─") if unicode else ("#", "-")
    filled = int(share * width)
    yield Line(full * filled + empty * (width - filled), "green")
    figures = [f"{done(status):,} of {status.enqueued:,} done", f"{status.leased:,} in hand"]
    figures += [f"{status.dead:,} dead"] if status.dead else []
    yield from _folded(", ".join(figures), width)
    if note := _note(status, view.command)[1] or view.stalls.get(status.collection, ""):
        yield from _folded(note, width, "yellow")
    if status.state == "running" and (sending := pace.all_sending(status)):
        yield from _folded(sending, width)
    if status.throttle is not None and len(status.keys) < 2:
        yield from _folded(pace.quota(status.throttle), width)


def _crew(fleet: Sequence[Worker], command: CommandLine) -> Iterator[Line]:
    alive = [worker for worker in fleet if worker.alive]
    if not alive:
        yield Line(report.workers_line(0, command), "yellow")
    else:
        threads = sum(worker.threads for worker in alive)
        work = [one for worker in alive for one in worker.work or ()]
        waiting = sum(one.waiting for one in work)
        parts = [
            report.workers_line(len(alive), command),
            count(threads, "thread"),
            f"{len(work)} at work",
        ]
        parts += [f"{waiting:,} of them waiting for the throttle"] if waiting else []
        yield Line(", ".join(parts))
    if lost := len(fleet) - len(alive):
        look = command("workers")
        yield Line(f"{count(lost, 'worker')} lost within the hour (see {look})", "yellow")


def _troubles(fleet: Sequence[Worker]) -> Iterator[Line]:
    """The last warnings of the workers, the latest first."""
    every = sorted(trouble for worker in fleet for trouble in worker.troubles)
    for trouble in every[:SHOWN_TROUBLES]:
        yield Line(f"{duration(trouble.seconds)} ago  {plain(trouble.said)}", "dim")


def _folded(text: str, width: int, style: str = "") -> list[Line]:
    return [Line(line, style) for line in folded(text, width, break_words=True)]
