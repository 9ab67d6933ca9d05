"""What all commands share: their errors and exit codes, and the Redis they are about."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from math import isnan
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import click

from vector_embed_client import __version__
from vector_embed_client.http import MAX_TEXT_LENGTH

from ..monitor import figures
from ..settings import DEFAULT_REDIS_URL, Settings, SettingsError, read_settings, without_password
from ..settings.surroundings import leave_out_celery
from .screen import Screen

if TYPE_CHECKING:
    from ..collection import Collection
    from ..store.reader import Reader

AS_HELP = {"help_option_names": ["-h", "--help"]}

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


class Failure(click.ClickException):
    """Nothing could be done: one line, exit code 2."""

    exit_code = 2


class Command(click.Command):
    """A command. Expected errors are one line; it ends silently if no one reads its output."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # else a shell completes an unfinished line
            _, _, said = self.make_parser(ctx).parse_args(args.copy())
            _check_once(ctx, said)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        leave_out_celery()
        try:
            super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BrokenPipeError:
            _drop_output()
            raise SystemExit(141) from None  # as a program that SIGPIPE ends
        except Exception as error:
            line = _explain(error)
            if line is None:
                raise
            raise Failure(line) from None


def _check_once(ctx: click.Context, said: Iterable[click.Parameter]) -> None:
    """Raise BadParameter for an option that is given twice and has one value."""
    for option, times in Counter(said).items():
        has_one = isinstance(option, click.Option) and not (option.multiple or option.is_flag)
        if has_one and times > 1:
            fields = ": to join fields into a text, use --template"
            more = fields if option.name == "text_field" else ""
            raise click.BadParameter(f"is given twice{more}.", ctx, option)


class Commands(click.Group):
    """Commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@dataclass(frozen=True)
class Target:
    """Which Redis the command line names."""

    redis_url: str | None
    local: bool

    def command(self, *words: str, code: str | None = None) -> str:
        """A `vec` command line to copy and run, for the same Redis."""
        command, *names = words
        options = [] if code is None else ["--code", code]
        if self.local:
            options += ["--local"]
        elif self.redis_url is not None and without_password(self.redis_url) == self.redis_url:
            options += ["--redis-url", self.redis_url]
        if any(name.startswith("-") for name in names):
            return shlex.join(("vec", command, *options, "--", *names))
        return shlex.join(("vec", command, *names, *options))

    @contextmanager
    def open(self, *, work: bool = False, api: bool = False) -> Iterator[tuple[Settings, Screen]]:
        """The settings and the screen. With --local, start an `api`, and a worker for `work`."""
        with Screen() as screen, ExitStack() as stack:
            yield self._enter(stack, screen, work, api or work), screen

    def _enter(self, exits: ExitStack, screen: Screen, work: bool, api: bool) -> Settings:
        from ..store.faults import cannot_reach

        exits.enter_context(handled((signal.SIGTERM, signal.SIGHUP), _leave))
        if not self.local:
            settings = read_settings(redis_url=self.redis_url)
            exits.enter_context(_one_line(settings, partial(cannot_reach, settings)))
            return settings
        from ..local.keeper import LOCAL_KEY
        from ..local.stack import local_directory, local_stack
        from ..local.surroundings import keep_to_this_machine

        keep_to_this_machine(os.environ)
        settings = read_settings(redis_url=DEFAULT_REDIS_URL)
        others = ", a local API and a worker" if work else " and a local API" if api else ""
        with screen.busy(f"starting Redis{others}"):
            stack = exits.enter_context(local_stack(worker=work, api=api))
        settings = stack.settings(settings, LOCAL_KEY if api else None)
        ended = f"the local stack has ended; see the logs in {local_directory()}"
        exits.enter_context(_one_line(settings, lambda _: ended))
        return settings


# click's option keeps the name of its first program: one for each command.
version_option = partial(click.version_option, __version__, message="%(prog)s %(version)s")

collection_option = click.option(
    "--collection",
    metavar="NAME",
    help="Collection name.  [default: file name without its extension]",
)


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
        return function(*args, target=Target(redis_url, local), **options)

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


def all_names(settings: Settings) -> list[str]:
    """The names of all collections."""
    from ..store.connection import connect
    from ..store.registry import collection_names

    return collection_names(connect(settings), settings.prefix)


def known_collection(name: str, settings: Settings) -> Collection:
    """A collection that exists. Raises UnknownCollection."""
    from ..collection import Collection

    collection = Collection(name, settings=settings)
    len(collection)  # raises it
    return collection


def chosen_collections(name: str | None, settings: Settings) -> list[Collection]:
    """The collection of that name, which must exist, or all collections."""
    from ..collection import Collection

    if name is not None:
        return [known_collection(name, settings)]
    return [Collection(one, settings=settings) for one in all_names(settings)]


def reader_of(name: str, settings: Settings) -> Reader:
    """What reads the vectors of a collection."""
    from ..store.connection import connect
    from ..store.keys import CollectionKeys
    from ..store.reader import Reader

    return Reader(connect(settings), CollectionKeys(settings.prefix, name))


def print_lines(lines: Iterable[str]) -> None:
    """Lines of a result, on standard output."""
    for line in lines:
        click.echo(line)


@contextmanager
def _one_line(settings: Settings, unreachable: Callable[[Exception], str]) -> Iterator[None]:
    """Turn errors of Redis into one line."""
    import redis

    from ..store.connection import connect
    from ..store.faults import cannot_reach

    try:
        connect(settings)
    except ValueError as error:
        raise Failure(f"the Redis URL {settings.shown_redis_url} cannot be read: {error}") from None
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Failure(unreachable(error)) from None
    except redis.RedisError as error:
        raise Failure(cannot_reach(settings, error)) from None


def _leave(number: int, _: FrameType | None) -> None:
    """Let a signal end the command as Ctrl-C does, so that nothing is left running."""
    raise SystemExit(128 + number)


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Give these signals to `handler` while the block runs."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _explain(error: Exception) -> str | None:
    """One line for an expected error; None for our own bugs."""
    from ..corpus import CorpusError
    from ..export.files import ExportError
    from ..layout import LayoutError
    from ..local import MODULES
    from ..local.stack import StackError, local_directory
    from ..store.connection import RedisUnfit
    from ..store.errors import CollectionError, CollectionGone, ModelsDiffer
    from ..store.index import IndexUnfit

    if isinstance(error, CollectionGone):
        return f"{error.what}: see vec status {error.collection}"
    if isinstance(error, ModelsDiffer):
        other = "name another collection with --collection, or remove this one"
        return f"{error.what}: {other} with vec drop {error.collection}"
    if isinstance(error, LayoutError) and error.may_force:
        return f"{error.what}; use --force if you know that it does not"
    of_redis = (CollectionError, LayoutError, RedisUnfit, IndexUnfit)
    if isinstance(error, (SettingsError, CorpusError, ExportError, *of_redis)):
        return str(error)
    if isinstance(error, StackError):
        first, *log = str(error).splitlines()
        last = f": {log[-1].strip()}; see the logs in {local_directory()}" if log else ""
        return first + last
    if isinstance(error, ModuleNotFoundError):
        extra = "local" if error.name in MODULES else "worker"
        return f"{error.name} is missing: pip install 'vector-embed-cache-client[{extra}]'"
    if isinstance(error, UnicodeEncodeError):  # of an argument that Python could not decode
        return f"{error.object.encode(errors='backslashreplace').decode()} is not UTF-8: check it"
    if isinstance(error, OSError):
        what = "cannot write" if error.filename is None else figures.plain(str(error.filename))
        return f"{what}: {error.strerror or error}"
    return None


def _drop_output() -> None:
    """Discard what is still buffered: no one reads it, and writing it at exit would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
