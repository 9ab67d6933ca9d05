"""`vec exporter`: the metrics of the whole fleet, for Prometheus."""

from __future__ import annotations

import click

from ..command import Command, Failure, Target, target_options


@click.command(cls=Command)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for all networks, as in a container.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=9469, show_default=True)
@target_options
def exporter(host: str, port: int, target: Target) -> None:
    """Serve the metrics of all collections and workers to Prometheus.

    They are at /metrics, read from Redis at each scrape; one exporter is enough for any number of
    workers. /healthz answers "ok" while this process lives, whether or not Redis does.

    \b
    Example:
      vec exporter --host 0.0.0.0
    """
    from ...monitor.server import Exporter

    with target.open() as (settings, _):
        try:
            server = Exporter(settings, host, port)
        except OSError as error:
            reason = error.strerror or error
            raise Failure(f"cannot listen on {host}, port {port}: {reason}") from None
        with server:
            click.echo(f"serving {server.url}, of {settings.shown_redis_url}")
            server.serve()
