"""Readiness: what must be right before a worker starts."""

from __future__ import annotations

import redis

from vector_embed_client.http import checked_base_url, checked_key

from ..health import beat
from ..logs import logger
from ..settings import PREFIX, Settings
from ..settings.keyfile import each_key
from ..store.connection import RedisUnfit, check_redis, connect
from ..store.faults import cannot_reach, passes
from .sender import client


def hindrance(settings: Settings) -> str | None:
    """Why a worker cannot start here; None if it can."""
    for one in each_key(settings):
        if not one.api_key:
            return "VECTOR_EMBED_API_KEY is not set: a worker needs the API key"
        key = "API_KEY" if settings.api_key_file is None else "API_KEY_FILE"
        for name, check, said in (
            (key, checked_key, one.api_key),
            ("BASE_URL", checked_base_url, one.base_url),
        ):
            try:
                check(said)
            except ValueError as error:
                return f"{PREFIX}{name}: {error}"
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
