"""`vec search`: the texts of a collection that are nearest to a query."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import click

from ...monitor import figures
from ...settings import Settings
from .. import report
from ..command import Command, Failure, Target, known_collection, print_lines
from ..options import target_options
from ..screen import Screen

if TYPE_CHECKING:
    from ...types import Hit

SHOWN_TEXT = 300  # characters


@click.command(cls=Command)
@click.argument("collection")
@click.argument("query")
@click.option(
    "-k",
    "count",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="Number of results.",
)
@click.option(
    "--filter",
    "filters",
    metavar="FIELD=VALUE",
    multiple=True,
    help="Only texts whose kept field has this value. Given again for the same field: or this one.",
)
@click.option("--exact", is_flag=True, help="Compare every vector, also where there is an index.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the whole texts.")
@target_options
def search(
    collection: str,
    query: str,
    count: int,
    filters: tuple[str, ...],
    exact: bool,
    as_json: bool,
    target: Target,
) -> None:
    """Show the texts in COLLECTION that are nearest to QUERY.

    The query is embedded with one request, and compared with every vector that is stored, or looked
    up in the index (see vec index). A score is the cosine, 1 at most. Texts are shown if they were
    kept (vec-enqueue --keep-text).

    \b
    Example:
      vec search wiki "ships of the ancient world" -k 3
      vec search wiki "ships of the ancient world" --filter lang=en
    """
    from ...store.connection import connect
    from ...store.keys import CollectionKeys
    from ...store.search import Search

    allowed = _allowed(filters)
    with target.open(api=True) as (settings, screen):
        status = known_collection(collection, settings).status()
        if status.evicted and not status.embedded:
            raise Failure(
                f"{collection} holds no vector any more: all were evicted, into the folder of "
                "their export"
            )
        if not status.embedded or status.model is None:
            raise Failure(f"{collection} holds no vector yet: see {target.command('status')}")
        vector = _embed(query, settings, status.model)
        if len(vector) != status.answered_dimensions:
            raise Failure(
                f"the API answers with {len(vector)} dimensions, {collection} has "
                f"{status.answered_dimensions}: is VECTOR_EMBED_BASE_URL the one of its workers?"
            )
        keys = CollectionKeys(settings.prefix, collection)
        with screen.bar(collection, status.embedded) as bar:

            def show(number: int) -> None:
                total = max(number, status.embedded)
                bar.update(number, total, shown=f"{number:,}/{total:,}")

            hits = Search(connect(settings), keys, allowed).nearest(
                vector, count, exact=exact, progress=show, tell=partial(_tell, screen, collection)
            )
        if status.evicted:
            screen.say(f"{collection}: {status.evicted:,} evicted vectors are not searched")
    if as_json:
        click.echo(json.dumps([_object(hit) for hit in hits], indent=2))
        return
    rows = [
        report.Row([f"{hit.score:.3f}", figures.plain(hit.document)], _shown(hit)) for hit in hits
    ]
    print_lines(report.table(["score", "id"], rows, right=[0]))


def _embed(query: str, settings: Settings, model: str) -> Sequence[float]:
    """The vector of a query. Raises Failure with what the API says."""
    from vector_embed_client import VectorEmbedError

    from ...engine.query import NotSent, ThrottledClient
    from ...settings.keyfile import misfit

    try:
        return ThrottledClient(settings, model=model).embed(query).vector
    except (VectorEmbedError, NotSent) as error:
        raise Failure(f"the query cannot be embedded: {error}") from None
    except ValueError as error:  # a key or an address that cannot be one
        raise Failure(misfit(settings) or str(error)) from None


def _tell(screen: Screen, collection: str, why: str) -> None:
    screen.say(f"{collection}: {why}: all vectors are compared")


def _allowed(filters: Sequence[str]) -> dict[str, list[object]]:
    """The values that each field may have. A number in the corpus is meant by its digits too."""
    allowed: dict[str, list[object]] = {}
    for said in filters:
        field, equals, value = said.partition("=")
        if not field or not equals:
            raise click.UsageError(f"--filter {said!r} is not FIELD=VALUE.")
        values = allowed.setdefault(field, [])
        values.append(value)
        with suppress(ValueError):
            values.append(json.loads(value))
    return allowed


def _object(hit: Hit) -> dict[str, object]:
    found: dict[str, object] = {"id": hit.record.id, "document": hit.document}
    found["score"] = round(hit.score, 6)
    if hit.record.text is not None:
        found["text"] = hit.record.text
    if hit.record.meta is not None:
        found["meta"] = hit.record.meta
    return found


def _shown(hit: Hit) -> str:
    """The text; of a piece without its text, where it is in its document."""
    if hit.record.text is None:
        is_piece = hit.document != hit.record.id
        return report.place(hit.record.meta or {}) if is_piece else ""
    line = figures.plain(" ".join(hit.record.text.split()))
    return line if len(line) <= SHOWN_TEXT else f"{line[: SHOWN_TEXT - 3]}..."
