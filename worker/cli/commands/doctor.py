"""`vec doctor`: what is wrong here, and what to do about it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ...monitor.figures import count
from ..command import Command, Target
from ..folding import folded
from ..options import target_options

if TYPE_CHECKING:
    from ...engine.checkup import Finding


@click.command(cls=Command)
@target_options
def doctor(target: Target) -> None:
    """Check everything that can keep texts from being embedded.

    Redis, the broker, the API, the key, clocks, versions, the environment, the workers. Says what
    to do about each problem and changes nothing. Exits with 1 if there is a problem, and with 0 if
    there are only warnings.

    \b
    Example:
      vec doctor
    """
    from ...engine.checkup import PROBLEM, WARNING

    counts = {WARNING: 0, PROBLEM: 0}
    for finding in _findings(target):
        counts[finding.level] = counts.get(finding.level, 0) + 1
        click.echo(finding_line(finding, _width()))
    problems, warnings = counts[PROBLEM], counts[WARNING]
    if problems or warnings:
        click.echo(f"{count(problems, 'problem')}, {count(warnings, 'warning')}")
    else:
        click.echo("all is well")
    if problems:
        raise SystemExit(1)


def _findings(target: Target) -> Iterator[Finding]:
    from ...engine import checkup, key_checkup
    from ...local.checkup import local_stack

    if target.local:
        yield from checkup.machine(None)
        found = list(local_stack())
        yield from found
        if any(finding.level == checkup.PROBLEM for finding in found):
            return
        with target.open() as (local, _):
            # We chose its limits and its disk, so only problems count.
            for finding in checkup.redis_server(local):
                if finding.level != checkup.WARNING:
                    yield finding
            yield from checkup.collections(local, target.command)
        return
    settings, found = checkup.environment(target.redis_url)
    yield from found
    yield from checkup.machine(settings)
    if settings is None:
        return
    answers = True
    for finding in checkup.redis_server(settings):
        yield finding
        answers &= finding.level != checkup.PROBLEM
    if answers or settings.broker_url != settings.redis_url:
        yield from checkup.broker(settings)
    yield from key_checkup.api(settings, target.command)
    if answers:
        yield from checkup.work(settings, target.command)


def finding_line(finding: Finding, width: int | None) -> str:
    """A finding on one line, folded if there is a terminal of that width."""
    said = finding.said.rstrip(".") + (f": {finding.remedy}" if finding.remedy else "")
    line = f"{finding.level:<7}  {said}"
    if width is None:
        return line
    return "\n".join(folded(line, width, first="", rest=" " * 9))


def _width() -> int | None:
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return max(40, shutil.get_terminal_size().columns)
