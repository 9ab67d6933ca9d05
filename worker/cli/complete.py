"""Completion: the names of collections, for a shell while a person types.

It must neither hang nor print errors: if Redis is away or slow, there are no names.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import click

PATIENCE_SECONDS = 0.5


def _names(ctx: click.Context, option: click.Parameter, begun: str) -> list[str]:
    try:
        if ctx.params.get("local"):
            return []  # its Redis may not run
        names = _read(ctx.params.get("redis_url"))
    except Exception:
        return []
    return [name for name in names if name.startswith(begun)]


def _read(url: str | None) -> list[str]:
    import logging

    import redis

    from ..settings import read_settings
    from ..settings.address import read_address
    from ..store.connection import Redis
    from ..store.registry import collection_names

    logging.disable()
    settings = read_settings(redis_url=url, keys=False)
    address = read_address(settings.redis_url)
    if address.is_cluster:
        return []  # finding a cluster's nodes takes many requests
    url, said = address.for_redis()
    patience = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS}
    with redis.Redis.from_url(url, retry=None, **patience, **said) as client:
        return collection_names(cast(Redis, client), settings.prefix)


# Adds COLLECTION to a command.
collection_argument = partial(click.argument, "collection", shell_complete=_names)
