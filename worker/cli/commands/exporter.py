"""`vec exporter`: the metrics of the whole fleet, for Prometheus; and the page, for people."""

from __future__ import annotations

import click

from ..command import Command, Failure, Target
from ..options import target_options


@click.command(cls=Command)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for all networks, as in a container.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=9469, show_default=True)
@click.option(
    "--show-text", is_flag=True, help="Show texts on the page: of dead letters and on maps."
)
@target_options
def exporter(host: str, port: int, show_text: bool, target: Target) -> None:
    """Serve a page for people, and the metrics for Prometheus.

    The page is at / and shows what vec watch shows, and the dead letters; it changes nothing. It
    asks for no password: listen on 127.0.0.1, or put a proxy with a login before it. The metrics of
    all collections and workers are at /metrics, read from Redis at each scrape; one exporter is
    enough for any number of workers. /healthz answers "ok" while this process lives, whether or not
    Redis does.

    \b
    Example:
      vec exporter --host 0.0.0.0
    """
    from ...monitor.server import INSTALL, Exporter

    with target.open() as (settings, _):
        try:
            server = Exporter(settings, host, port, target.command, show_text=show_text)
        except OSError as error:
            reason = error.strerror or error
            raise Failure(f"cannot listen on {host}, port {port}: {reason}") from None
        page = f"the page: {server.url}/" if server.has_page else f"for a page: {INSTALL}"
        click.echo(f"serving {server.url}/metrics, of {settings.shown_redis_url}; {page}")
        server.serve()
