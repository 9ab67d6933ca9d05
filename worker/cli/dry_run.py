"""The dry run: what corpora would cost, on the screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from ..corpus import CorpusError, Source
from ..engine.plan import Plan, Planner
from ..export.surplus import Surplus
from ..layout import PLAIN, Layout, alternatives
from ..local.vectors import WORDLLAMA_DIMENSIONS, WORDLLAMA_MODEL
from ..monitor import figures, pace
from ..settings import Settings, read_settings
from ..store.connection import connect
from ..store.keys import CollectionKeys
from ..types import Job, Rate
from .asked import Asked
from .command import print_lines
from .prune import find
from .rejections import Rejections
from .screen import Screen, watched
from .sources import say_skipped

DIMENSIONS = 768  # of nomic-v1.5; those of another model are known with its first vector


def dry_run(asked: Asked, quota: int | None, rate: Rate | None) -> bool:
    """Print what the corpora would cost. Returns whether none of their lines is rejected."""
    with asked.target.open() if asked.prune else _without_redis(asked) as (settings, screen):
        model = asked.model or settings.model
        answers = WORDLLAMA_MODEL if asked.target.local else model
        layout = asked.layout(answers) or Layout(answers)
        planner = Planner(model, keep_text=asked.keep_text, documents=asked.documents)
        surplus = {
            name: Surplus(connect(settings), CollectionKeys(settings.prefix, name))
            for name in asked.names
            if asked.prune
        }
        fault: str | None = None
        for source, name in zip(asked.corpora, asked.names):
            fault = _read(asked, source, name, planner, screen, surplus.get(name)) or fault
        one, *others = asked.corpora
        print_lines(
            plan_page(
                f"{1 + len(others):,} corpora" if others else figures.source(one.path),
                planner.plan(),
                dimensions=WORDLLAMA_DIMENSIONS if asked.target.local else DIMENSIONS,
                layout=layout,
                others=alternatives(layout),
                high_water=settings.high_water,
                quota=quota,
                rate=rate or settings.rate,
                documents=asked.documents,
            )
        )
        clean = not planner.rejected
        for name, its in surplus.items():
            drop = asked.target.command("drop", name)
            found = find(name, its, asked.sinks(name), fault, screen, drop)
            clean &= found is not None
            if found is not None:
                held = figures.count(found.held, "id")
                click.echo(f"{name}: {found.surplus:,} of {held} would be deleted")
    return clean


@contextmanager
def _without_redis(asked: Asked) -> Iterator[tuple[Settings, Screen]]:
    with Screen() as screen:
        yield read_settings(redis_url=asked.target.redis_url, keys=False), screen


def _read(
    asked: Asked,
    source: Source,
    name: str,
    planner: Planner,
    screen: Screen,
    surplus: Surplus | None,
) -> str | None:
    """Add up the costs of one corpus. Returns why it could not be read to its end."""
    rejections = Rejections(source, None, screen, append=False)
    with asked.open(source) as corpus, rejections:
        say_skipped(corpus, screen)
        with screen.bar(name, corpus.size, bytes=True) as bar:
            lines = watched(corpus, bar)
            for line in lines if surplus is None else surplus.watch(lines):
                if isinstance(line, Job):
                    planner.add(line, name)
                else:
                    planner.rejected += 1
                    rejections.add(line)
        planner.pack()
        if corpus.broken is not None:
            raise CorpusError(corpus.broken)
        return None if corpus.fault is None else f"{figures.source(source.path)}: {corpus.fault}"


def plan_page(
    label: str,
    plan: Plan,
    *,
    dimensions: int,
    high_water: int,
    quota: int | None,
    rate: Rate | None,
    documents: bool = False,
    layout: Layout = PLAIN,
    others: Iterable[Layout] = (),
) -> Iterator[str]:
    """The result of a dry run, a line for each fact. `documents`: some may be split.

    `dimensions`: of the API's answers. `others`: layouts whose memory is shown too.
    """
    yield f"{label}: a dry run, nothing was sent"
    queue = plan.queued_bytes * min(1.0, high_water / plan.texts) if plan.texts else 0
    replaced = plan.texts - plan.ids
    of_what = "of documents that come again" if documents else "under the id of another"
    same = f"{replaced:,} of them {of_what}" if replaced else ""
    charged = "charged once each; twice if two requests overlap"
    length, small = layout.length(dimensions), "" if layout.is_plain else f", {layout.dtype}"
    vectors = f"for {figures.count(plan.ids, 'vector')} of {length} dimensions{small}"
    rows = [
        ("texts", f"{plan.texts:,}", same),
        ("distinct texts", f"{plan.distinct:,}", charged),
        ("rejected lines", f"{plan.rejected:,}", ""),
        ("requests", f"{plan.requests:,}", f"{figures.size(plan.request_bytes)} to send"),
        ("Redis", figures.size(queue), f"for the queue, of at most {high_water:,} texts"),
        ("", figures.size(plan.stored_bytes(length, layout.dtype)), vectors),
    ]
    for other in others:
        stored = plan.stored_bytes(other.length(dimensions), other.dtype)
        rows.append(("", figures.size(stored), f"with {other.options}"))
    if documents:
        rows.insert(0, ("documents", f"{plan.documents:,}", f"{plan.split:,} of them split"))
    if quota is not None:
        days = math.ceil(plan.distinct / quota)
        rows.append(("quota", figures.count(days, "day"), f"at {quota:,} texts a day"))
    if rate is not None:
        seconds = (plan.requests if rate.of == "requests" else plan.distinct) / rate.per_second
        given = pace.per_second(rate.per_second, rate.of[:-1])
        rows.append(("time", figures.duration(seconds), f"at {given}"))
    width = max(len(figure) for _, figure, _ in rows)
    for name, figure, remark in rows:
        yield f"  {name:<14}  {figure:>{width}}  {remark}".rstrip()
    yield "  It may be less: what is stored, queued or cached already costs nothing."
