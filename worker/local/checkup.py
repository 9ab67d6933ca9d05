"""The checkup of a local stack: what `vec doctor --local` looks at before it starts one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from ..engine.checkup import Finding, installed, ok, problem, warning
from ..monitor import figures
from . import MODULES
from .redis_server import find_program
from .stack import StackError, local_directory


def local_stack() -> Iterator[Finding]:
    """What --local needs."""
    missing = [name for name in MODULES if not installed(name)]
    if missing:
        yield problem(
            f"--local needs {', '.join(missing)}", "pip install 'vector-embed-cache-client[local]'"
        )
    if find_program() is None:
        yield problem(
            "--local needs a redis-server, 6.2 or newer",
            "install redis-server, or pip install 'vector-embed-cache-client[local]'",
        )
    try:
        directory = local_directory()
    except StackError as error:
        yield problem(str(error))
        return
    parent = next(one for one in (directory, *directory.parents) if one.exists())
    shown = figures.plain(str(directory))
    if not os.access(parent, os.W_OK):
        another = "name another directory with VECTOR_EMBED_LOCAL_DIR"
        yield problem(f"{shown} cannot be written", another)
        return
    free = shutil.disk_usage(parent).free
    said = f"--local keeps its data in {shown}, {figures.size(free)} free"
    yield ok(said) if free > 1e9 else warning(said, "make room")
