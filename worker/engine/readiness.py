"""Readiness: what must be right before a worker starts."""

from __future__ import annotations

import redis

from ..health import beat
from ..logs import logger
from ..settings import Settings
from ..settings.keyfile import each_key, misfit
from ..store.connection import RedisUnfit, check_redis, connect
from ..store.faults import cannot_reach, passes
from .sender import client


def hindrance(settings: Settings) -> str | None:
    """Why a worker cannot start here; None if it can."""
    keys = each_key(settings)
    if not all(one.api_key for one in keys):
        return "VECTOR_EMBED_API_KEY is not set: a worker needs the API key"
    if (wrong := misfit(settings)) is not None:
        return wrong
    for one in keys:
        try:
            client(one, settings.model)
        except ValueError as error:
            return str(error)
    if settings.heartbeat_file is not None:
        try:
            beat(settings.heartbeat_file)
        except OSError as error:
            file, why = settings.heartbeat_file, error.strerror or error
            return f"VECTOR_EMBED_HEARTBEAT_FILE: cannot write {file}: {why}"
    try:
        check_redis(connect(settings))
    except RedisUnfit as error:
        return str(error)
    except ValueError as error:
        return f"the Redis URL {settings.shown_redis_url} cannot be read: {error}"
    except redis.RedisError as error:
        if isinstance(error, redis.AuthenticationError) or not passes(error):
            return cannot_reach(settings, error)
        logger.warning("Redis does not answer yet (%s)", error)
    return None
