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
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Callable, TypeVar

import click

from vector_embed_client import __version__

from ..monitor import figures
from ..monitor.obstacle import CommandLine
from ..settings import (
    DEFAULT_REDIS_URL,
    Settings,
    SettingsError,
    default_redis_url,
    read_settings,
    without_password,
)
from ..settings.keyfile import unread
from ..settings.surroundings import leave_out_celery
from .screen import Screen

if TYPE_CHECKING:
    from ..collection import Collection
    from ..store.reader import Reader

AS_HELP = {"help_option_names": ["-h", "--help"]}

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
            line = _explain(error, (ctx.obj or Target(None, False)).command)
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

    def command(self, *words: str, **options: str | None) -> str:
        """A command line to copy and run, for the same Redis: of `vec`, or of `vec-enqueue`.

        `words` are the command and its arguments; an option of one letter is `-o`. In place of a
        password there is ***: such a line has to be completed, and cannot meet another Redis.
        Empty if there is none: a local stack starts its workers by itself.
        """
        command, *names = words
        if self.local and command == "worker":
            return ""
        start = [command] if command == "vec-enqueue" else ["vec", command]
        given = [
            word
            for name, value in options.items()
            if value is not None
            for word in (f"-{name}" if len(name) == 1 else f"--{name}", value)
        ]
        if self.local:
            given += ["--local"]
        elif self._named and command == "worker":  # its settings are from the environment alone
            start = ["env", f"VECTOR_EMBED_REDIS_URL={self._named}", *start]
        elif self._named:
            given += ["--redis-url", self._named]
        if any(name.startswith("-") for name in names):
            return shlex.join((*start, *given, "--", *names))
        return shlex.join((*start, *names, *given))

    @property
    def _named(self) -> str | None:
        """What a command has to name: nothing where the environment names the same Redis."""
        if self.redis_url is None or self.redis_url == default_redis_url(os.environ)[1]:
            return None
        return without_password(self.redis_url)

    @contextmanager
    def open(self, *, work: bool = False, api: bool = False) -> Iterator[tuple[Settings, Screen]]:
        """The settings and the screen. `api`: the command asks the API, so it needs a key.

        With --local, start an `api`, and a worker for `work`.
        """
        with Screen() as screen, ExitStack() as stack:
            yield self._enter(stack, screen, work, api), screen

    def _enter(self, exits: ExitStack, screen: Screen, work: bool, api: bool) -> Settings:
        from ..store.faults import cannot_reach

        exits.enter_context(handled((signal.SIGTERM, signal.SIGHUP), _leave))
        if not self.local:
            settings = read_settings(redis_url=self.redis_url, keys=api)
            if (reason := unread(settings)) is not None:
                screen.say(f"Warning: {reason}")
            exits.enter_context(_one_line(settings, partial(cannot_reach, settings)))
            return settings
        from ..local.keeper import LOCAL_KEY
        from ..local.stack import local_directory, local_stack
        from ..local.surroundings import keep_to_this_machine

        keep_to_this_machine(os.environ)
        settings = read_settings(redis_url=DEFAULT_REDIS_URL)
        api = api or work
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
        try:
            connect(settings)  # of a cluster, it is asked for its nodes
        except ValueError as error:
            url = settings.shown_redis_url
            raise Failure(f"the Redis URL {url} cannot be read: {error}") from None
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


def _explain(error: Exception, command: CommandLine) -> str | None:
    """One line for an expected error; None for our own bugs. `command`: about the same Redis."""
    from ..corpus import CorpusError
    from ..export.files import ExportError
    from ..export.rows import EarlierLife
    from ..layout import LayoutError
    from ..local import MODULES
    from ..local.stack import StackError, local_directory
    from ..store.connection import RedisUnfit
    from ..store.errors import CollectionError, CollectionGone, LayoutsDiffer, ModelsDiffer
    from ..store.index import IndexUnfit

    if isinstance(error, CollectionGone):
        return f"{error.what}: see {command('status', error.collection)}"
    if isinstance(error, ModelsDiffer):
        other = "name another collection with --collection, or remove this one"
        return f"{error.what}: {other} with {command('drop', error.collection)}"
    if isinstance(error, LayoutsDiffer):
        smaller = f"make them smaller with {command('shrink', error.collection)}"
        keep = "leave --dimensions and --dtype out to keep that"
        return f"{error.what}: {keep}, {smaller}, or name another collection"
    if isinstance(error, EarlierLife):
        return f"{error.what}, with {command('export', error.collection, o=error.output)}"
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
