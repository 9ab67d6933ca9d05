"""What each template is given, as it follows from what was read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from ...settings import Settings
from ...store.connection import connect
from ...store.keys import CollectionKeys
from ...store.ledgers import read_ledger
from ...store.server_memory import Memory, read_memory
from ...types import Ledger, Status
from .. import figures, pace
from ..crew import doing, state_of
from ..fleet import Worker, read_fleet
from ..obstacle import CommandLine, Obstacle
from ..scene import Surroundings
from ..service import Service
from . import words
from .bar import Part, bar, percent
from .history import History
from .letters import Letters
from .plots import SPANS, plots
from .shared import Seen
from .snapshot import Endpoint, Snapshot
from .words import Said

PAGE = 50  # collections on a page
WORKERS = 50  # that are listed


class Row(NamedTuple):
    """A collection in the table."""

    name: str
    status: Status
    bar: Sequence[Part]
    done: int
    percent: str
    rate: str
    left: str
    spoken: str  # the bar in words
    said: Said


class Shown(NamedTuple):
    """A worker in words."""

    state: str
    host: str
    pid: str
    doing: str
    threads: str
    up: str
    version: str
    fault: str  # of its key file


class Detail(NamedTuple):
    """One collection, as it was read."""

    at: float
    status: Status
    ledger: Ledger
    obstacle: Obstacle | None
    fleet: Sequence[Worker]
    memory: Memory


def overview(
    seen: Seen, history: History, command: CommandLine, *, find: str, start: int, span: str
) -> dict[str, object]:
    """The overview; `seen` has a snapshot."""
    snapshot = seen.snapshot
    assert snapshot is not None
    sums, now = snapshot.sums, time.time()
    begun = now if history.begun is None else history.begun
    span = span if span in SPANS else _usual_span(now - begun)
    wanted = [one for one in snapshot.first if find.lower() in one.collection.lower()]
    alive = snapshot.alive
    end = start + PAGE
    is_moving = any(sums.states.get(state) for state in words.MOVING)
    return {
        "at": snapshot.at,
        "age": max(0.0, now - snapshot.at),
        "fault": seen.fault,
        "said": words.of_all(seen, command),
        "sums": sums,
        "bar": bar(sums),
        "done": percent(sums.enqueued - sums.backlog, sums.enqueued),
        "rate": pace.per_second(sums.rate, "text") if sums.rate and is_moving else "",
        "alive": len(alive),
        "lost": len(snapshot.fleet) - len(alive),
        "rows": [_row(one, snapshot, command) for one in wanted[start:end]],
        "find": find,
        "listed": len(snapshot.first),
        "unlisted": sums.collections - len(snapshot.first),
        "before": max(0, start - PAGE) if start else None,
        "after": end if end < len(wanted) else None,
        "page_size": min(PAGE, len(wanted) - end),
        "all_command": f"{command('status')} --all",
        "plots": plots(history.since(now - SPANS[span]), now, SPANS[span]),
        "span": span,
        "spans": list(SPANS),
        "begun": begun,
        "workers": [_shown(one, "", command) for one in snapshot.fleet[:WORKERS]],
        "more_workers": max(0, len(snapshot.fleet) - WORKERS),
        "start_commands": words.start_worker(command),
        "workers_command": command("workers"),
        "endpoints": [words.sending(one) for one in snapshot.endpoints],
        "complaints": words.complaints(alive),
        "memory": snapshot.memory,
    }


def _usual_span(seconds: float) -> str:
    """The shortest span that has all of the history, or an hour."""
    return next((name for name in list(SPANS)[:2] if SPANS[name] >= seconds), "1 h")


def _row(status: Status, snapshot: Snapshot, command: CommandLine) -> Row:
    done = status.enqueued - status.backlog
    obstacle = snapshot.obstacles.get(status.collection)
    return Row(
        status.collection,
        status,
        bar(status),
        done,
        percent(done, status.enqueued),
        words.rate_of(status),
        words.left_of(status),
        f"{done:,} of {status.enqueued:,} done, {status.dead:,} of them dead",
        words.trouble_of(status, obstacle, command),
    )


def _shown(worker: Worker, queue: str, command: CommandLine) -> Shown:
    return Shown(
        state_of(worker),
        figures.plain(worker.host),
        figures.plain(worker.pid),
        figures.plain(doing(worker, queue or worker.queue or "", command)),
        figures.count(worker.threads, "thread"),
        "" if worker.up_seconds is None else figures.duration(worker.up_seconds),
        figures.plain(worker.version or ""),
        figures.plain(worker.key_fault or ""),
    )


def read_detail(settings: Settings, name: str, command: CommandLine) -> Detail | None:
    """Read one collection; None if there is none. Raises CollectionError and RedisError."""
    client = connect(settings)
    ledger = read_ledger(client, CollectionKeys(settings.prefix, name))
    if ledger.model is None:
        return None
    status = Service(client, settings.prefix, settings.queue).status(name, ledger)
    found = Surroundings(settings, command).obstacles([status])
    fleet = read_fleet(client, settings.prefix)
    return Detail(time.time(), status, ledger, found.get(name), fleet, read_memory(client))


def collection(
    detail: Detail, letters: Letters, command: CommandLine, queue: str, *, code: str | None
) -> dict[str, object]:
    """One collection."""
    status, name = detail.status, detail.status.collection
    alive = [worker for worker in detail.fleet if worker.alive]
    at_it = [one for one in alive if any(work.collection == name for work in one.work or ())]
    codes = sorted(detail.ledger.dead_ever.items(), key=lambda one: (-one[1], one[0]))
    keys = status.keys or ([] if status.throttle is None else [status.throttle])
    # An address may name any code: a command is shown for one that there is, and can be typed.
    its = code if code is not None and code in dict(codes) and code.isprintable() else None
    return {
        "at": detail.at,
        "name": name,
        "status": status,
        "said": words.of_collection(status, detail.obstacle, command),
        "bar": bar(status),
        "done": percent(status.enqueued - status.backlog, status.enqueued),
        "rate": words.rate_of(status),
        "left": words.left_of(status),
        "facts": words.facts_of(status),
        "endpoints": [words.sending(Endpoint("", key)) for key in keys],
        "workers": [_shown(one, queue, command) for one in at_it[:WORKERS]],
        "complaints": words.complaints(alive, name),
        "codes": codes,
        "are_exact": sum(number for _, number in codes) == status.dead,
        "code": code,
        "letters": letters.letters,
        "next": letters.next,
        "dead_commands": [command("dead", name, code=its), command("retry", name, code=its)],
        "types": words.types_of(status, command),
        "memory": detail.memory,
    }


def short(number: float) -> str:
    """`0`, `3.4`, `512`, `12.3 k`, `4.1 M`."""
    for unit, size in (("M", 1e6), ("k", 1e4)):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else 1e6):,.1f} {unit}"
    return f"{number:.1f}" if 0 < number < 10 and number != int(number) else f"{number:,.0f}"
