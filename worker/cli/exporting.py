"""The page while another command works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..settings import Settings
from .command import Failure, Target
from .screen import Screen


@contextmanager
def page(settings: Settings, screen: Screen, target: Target) -> Iterator[None]:
    """Serve the page while the block runs, on this machine alone, and say where.

    Raises Failure if the extra `web` is not installed.
    """
    from ..monitor.server import INSTALL, Exporter

    exporter = Exporter(settings, "127.0.0.1", 0, target.command)
    if not exporter.has_page:
        raise Failure(f"--web needs more packages: {INSTALL}")
    with exporter:
        screen.say(f"the page: {exporter.url}/")
        yield
