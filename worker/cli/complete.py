"""Completion: the names of collections, for a shell that asks for them while a person types.

Such a question must neither hang nor complain: a Redis that is away, or slow, has no names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

PATIENCE_SECONDS = 0.5

_Function = TypeVar("_Function", bound=Callable[..., object])


def collection_argument(*, required: bool = True) -> Callable[[_Function], _Function]:
    """Adds COLLECTION to a command, completed from Redis."""
    return click.argument("collection", required=required, shell_complete=_names)


def _names(ctx: click.Context, option: click.Parameter, begun: str) -> list[str]:
    try:
        if ctx.params.get("local"):
            return []  # it would have to be started first
        names = _read(ctx.params.get("redis_url"))
    except Exception:
        return []
    return [name for name in names if name.startswith(begun)]


def _read(url: str | None) -> list[str]:
    import logging

    import redis

    from ..collection import collection_names
    from ..connection import Redis
    from ..settings import is_cluster, read_settings

    logging.disable()
    settings = read_settings(redis_url=url)
    options: dict[str, Any] = {
        "socket_timeout": PATIENCE_SECONDS,
        "socket_connect_timeout": PATIENCE_SECONDS,
        "retry": None,
    }
    if is_cluster(settings.redis_url):
        return []  # it takes many questions to find a cluster
    with redis.Redis.from_url(settings.redis_url, **options) as client:
        return collection_names(cast(Redis, client), settings.prefix)
