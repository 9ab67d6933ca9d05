"""`vec`: show, read and manage collections. One module per command."""

from __future__ import annotations

import click

from ..command import AS_HELP, Commands, version_option
from .compare import compare
from .dead import dead
from .delete import delete
from .doctor import doctor
from .drop import drop
from .export import export
from .exporter import exporter
from .index import index
from .map import map
from .pause import pause
from .resume import resume
from .retry import retry
from .search import search
from .shrink import shrink
from .status import status
from .verify import verify
from .wait import wait
from .watch import watch
from .worker import worker
from .workers import workers


@click.group(cls=Commands, context_settings=AS_HELP)
@version_option()
def vec() -> None:
    """Show, read and manage collections of vectors.

    \b
    Example:
      vec status
    """


# In the order of their use.
_LOOK = (status, wait, watch, workers, doctor)
_READ = (export, verify, search, compare, map)
_MANAGE = (index, dead, retry, pause, resume, delete, shrink, drop)
_RUN = (exporter, worker)
for command in (*_LOOK, *_READ, *_MANAGE, *_RUN):
    vec.add_command(command)
