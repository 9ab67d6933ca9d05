"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from math import isnan
from typing import Any, TypeVar

import click

from vector_embed_client.http import MAX_TEXT_LENGTH

from .command import Target

# A shell completes file names. The value is an ordinary string, and may be "-".
FILE = click.Path(allow_dash=True, readable=False)
# For a folder or the address of a database, which no shell completes.
FOLDER = click.Path(file_okay=False, readable=False)
# The address of a database into which vectors are exported.
SINK_VARIABLE = "VECTOR_EMBED_SINK_URL"


class _Seconds(click.FloatRange):
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if isnan(seconds):  # it is in every range
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


SECONDS = _Seconds(min=0)

_Function = TypeVar("_Function", bound=Callable[..., object])


def export_option(look: str) -> Callable[[_Function], _Function]:
    """--export, for a command that needs the names of evicted ids; after a shrink, of several."""
    return click.option(
        "--export",
        "folders",
        metavar="FOLDER",
        type=FOLDER,
        multiple=True,
        help=f"{look} into this folder or database of exported vectors too; repeatable.",
    )


def sink_option(*names: str) -> Callable[[_Function], _Function]:
    """An option that names a folder or an address; its last name is the help text."""
    *flags, text = names

    def named(ctx: click.Context, option: click.Parameter, said: str | None) -> str | None:
        if said != "":
            return said
        if not (said := os.environ.get(SINK_VARIABLE)):
            raise click.BadParameter(f"name a folder or an address, or set {SINK_VARIABLE}.")
        return said

    return click.option(
        *flags,
        metavar="[SINK]",
        type=FOLDER,
        is_flag=False,
        flag_value="",
        callback=named,
        help=f"{text} Without SINK: {SINK_VARIABLE}, which hides a password from others.",
    )


def _delimiter(ctx: click.Context, option: click.Parameter, said: str | None) -> str | None:
    said = "\t" if said == r"\t" else said
    if said is not None and (len(said) != 1 or said in '"\r\n\0'):
        raise click.BadParameter(r"is one character, or \t for a tab.")
    return said


def reading_options(function: _Function) -> _Function:
    """Adds the options that say how to read a corpus, given to a command as one Reading."""

    @click.option(
        "--text-field",
        metavar="FIELD",
        help="Field or column with the text; a.b is b in a.  [default: text]",
    )
    @click.option(
        "--template",
        metavar="TEMPLATE",
        help=r'Join fields into the text, as "{title}\n\n{body}".',
    )
    @click.option("--id-field", metavar="FIELD", help="Field or column with the id.  [default: id]")
    @click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=_delimiter,
        help="Between the columns of a .csv or .tsv.",
    )
    @click.option(
        "--encoding",
        metavar="NAME",
        help="Encoding of text, such as cp1252.  [default: UTF-8, or what a byte order mark says]",
    )
    @click.option("--whole-files", is_flag=True, help="Take each .txt as one text, not each line.")
    @wraps(function)
    def with_reading(
        *args: Any,
        text_field: str | None,
        template: str | None,
        id_field: str | None,
        delimiter: str | None,
        encoding: str | None,
        whole_files: bool,
        **options: Any,
    ) -> object:
        from ..corpus import Reading

        if text_field is not None and template is not None:
            raise click.UsageError("--template makes the text: leave out --text-field.")
        text = "text" if text_field is None else text_field
        reading = Reading(text, id_field, (), template, delimiter, encoding, whole_files)
        return function(*args, reading=reading, **options)

    return with_reading  # type: ignore[return-value]  # the same but for the options


def target_options(function: _Function) -> _Function:
    """Adds --redis-url and --local to a command, given to it as one Target."""

    @click.option(
        "--redis-url",
        metavar="URL",
        help="Use this Redis, not the one that VECTOR_EMBED_REDIS_URL or REDIS_URL names.",
    )
    @click.option("--local", is_flag=True, help="Use a private Redis, with data kept between runs.")
    @wraps(function)
    def with_target(*args: Any, redis_url: str | None, local: bool, **options: Any) -> object:
        if local and redis_url is not None:
            raise click.UsageError("--local brings its own Redis: leave out --redis-url.")
        target = click.get_current_context().obj = Target(redis_url, local)
        return function(*args, target=target, **options)

    return with_target  # type: ignore[return-value]  # the same but for the two options


def layout_options(function: _Function) -> _Function:
    """Adds --dimensions, --dtype and --force to a command."""
    click.option("--force", is_flag=True, help="Also a length that the model was not trained for.")(
        function
    )
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "int8"]),
        help="Type of the numbers of a vector.",
    )(function)
    click.option(
        "--dimensions",
        metavar="NUMBER",
        type=click.IntRange(min=1),
        help="How many numbers a vector has.",
    )(function)
    return function


def long_options(function: _Function) -> _Function:
    """Adds --long and what goes with it, given to the command as one Long."""

    @wraps(function)
    def with_long(
        *args: Any,
        way: str,
        kind: str | None,
        size: int | None,
        overlap: int | None,
        **options: Any,
    ) -> object:
        from ..corpus.long import Long

        if way != "split" and (kind, size, overlap) != (None, None, None):
            raise click.UsageError("--split-as, --chunk-size and --overlap go with --long split.")
        if (overlap or 0) >= (size or MAX_TEXT_LENGTH):
            raise click.UsageError("--overlap must be less than --chunk-size.")
        long = Long(way, kind or "text", size or MAX_TEXT_LENGTH, overlap or 0)
        return function(*args, long=long, **options)

    click.option(
        "--overlap",
        metavar="CHARACTERS",
        type=click.IntRange(min=0),
        help="With --long split: how much of a piece the next one repeats at most.  [default: 0]",
    )(with_long)
    click.option(
        "--chunk-size",
        "size",
        metavar="CHARACTERS",
        type=click.IntRange(1, MAX_TEXT_LENGTH),
        help=f"With --long split: the most of a piece.  [default: {MAX_TEXT_LENGTH:,}]",
    )(with_long)
    click.option(
        "--split-as",
        "kind",
        type=click.Choice(["text", "markdown"]),
        help="With --long split: where a text is split best.  [default: text]",
    )(with_long)
    click.option(
        "--long",
        "way",
        type=click.Choice(["reject", "cut", "split"]),
        default="reject",
        show_default=True,
        help=f"What to do with a text of more than {MAX_TEXT_LENGTH:,} characters: reject it, cut "
        "it, or split it into pieces.",
    )(with_long)
    return with_long  # type: ignore[return-value]  # the same but for the four options
