"""The faults of Redis: which of them pass by themselves, and what to say of the others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import redis

from ..logs import logger
from ..settings import Settings, without_password

T = TypeVar("T")

RESENDS = 20

# Redis 6.2 says them in mid-sentence where it refuses a script's command. redis-py leaves out the
# code where it has an exception for it.
_CODES = re.compile(
    r"(?:^|-)(?:MISCONF|NOREPLICAS|UNBLOCKED|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN) "
)
_KINDS = (
    redis.ConnectionError,  # so is LOADING to redis-py
    redis.TimeoutError,
    redis.exceptions.ClusterError,  # CLUSTERDOWN, MASTERDOWN
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
)


def passes(error: redis.RedisError) -> bool:
    """Whether it passes by itself, so that the step that met it is worth another try."""
    return isinstance(error, _KINDS) or _CODES.search(str(error)) is not None


def is_lost(error: redis.RedisError) -> bool:
    """Whether the step may have been done, and only its reply was lost."""
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError))


def insist(
    step: Callable[[], T],
    pauses: Iterable[float],
    failed: Callable[[redis.RedisError], object] = lambda error: None,
    *,
    worth: Callable[[redis.RedisError], bool] = passes,
) -> T:
    """The reply of an idempotent step, tried once more after each pause, in seconds.

    Only a fault that is `worth` another try is retried; `failed` is told of each.
    """
    for pause in pauses:
        try:
            return step()
        except redis.RedisError as error:
            if not worth(error):
                raise
            failed(error)
        time.sleep(pause)
    return step()


def outlast(step: Callable[[], T], seconds: float | None = None) -> T:
    """The reply of an idempotent step, from a Redis that may be away for a minute.

    `seconds`: in place of the minute, how long after which no other try begins.
    """

    def failed(error: redis.RedisError) -> None:
        logger.warning("Redis does not answer (%s): asking again", error)

    pauses = (min(0.1 * 2**resend, 5.0) for resend in range(RESENDS))
    return insist(step, pauses if seconds is None else _within(seconds, pauses), failed)


def _within(seconds: float, pauses: Iterable[float]) -> Iterator[float]:
    end = time.monotonic() + seconds
    for pause in pauses:
        left = end - time.monotonic()
        if left <= 0:
            return
        yield min(pause, left)


def is_out_of_memory(error: redis.ResponseError) -> bool:
    """Whether Redis refused because it is full. Redis 6.2 says so in mid-sentence where it refuses
    a script's command.
    """
    return isinstance(error, redis.exceptions.OutOfMemoryError) or "-OOM command" in str(error)


def is_read_only(error: redis.ResponseError) -> bool:
    """Whether Redis refused because it is a replica; Redis 6.2 as above."""
    return isinstance(error, redis.exceptions.ReadOnlyError) or "-READONLY" in str(error)


# What redis-py raises, the word of it that tells one from another, and what it means.
_TROUBLES: tuple[tuple[type[Exception], str, str], ...] = (
    (redis.BusyLoadingError, "", "is still loading its data: try again in a moment"),
    (
        redis.AuthenticationError,
        "required",
        "asks for a password: put it into the URL, as redis://:PASSWORD@HOST:PORT/0",
    ),
    (
        redis.AuthenticationError,
        "",
        "refuses the user or the password ({reason}): correct it in the URL",
    ),
    (
        redis.exceptions.NoPermissionError,
        "",
        "does not let its user do what is needed ({reason}): deploy/redis/users.acl has the rights",
    ),
    (
        redis.ResponseError,
        "DB index",
        "has no such database ({reason}): name a lower number at the end of the URL",
    ),
    (redis.exceptions.ReadOnlyError, "", "is a read-only replica: name its primary"),
    # Redis 6.2 says so in mid-sentence where it refuses a script's command.
    (redis.ResponseError, "-READONLY", "is a read-only replica: name its primary"),
    (redis.ResponseError, "", "refuses: {reason}"),
    (
        redis.InvalidResponse,
        "",
        "does not answer as Redis does ({reason}): is another server at this port?",
    ),
    (
        redis.ConnectionError,
        "CERTIFICATE_VERIFY_FAILED",
        "has a certificate that is not trusted ({reason}): name the one that signed it with "
        "?ssl_ca_certs=FILE in the URL, or trust any with ?ssl_cert_reqs=none",
    ),
    (
        redis.ConnectionError,
        "SSL",
        "does not speak TLS as it should ({reason}): begin the URL with redis:// if it has none",
    ),
    (
        redis.ConnectionError,
        "max number of clients",
        "takes no more connections ({reason}): raise its maxclients, or end some of its clients",
    ),
    (
        redis.ConnectionError,
        r"(?i)name or service not known|name resolution|nodename|no address associated",
        "is at a host that cannot be found ({reason}): correct the name in the URL",
    ),
)


def cannot_reach(settings: Settings, error: Exception) -> str:
    """One line for a Redis that does not answer, or refuses: what it is, and what to do."""
    url = without_password(settings.redis_url)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    for kind, word, meaning in _TROUBLES:
        if isinstance(error, kind) and re.search(word, str(error)):
            return f"Redis at {url} {meaning.format(reason=reason)}"
    start = "Start one, name another with --redis-url or VECTOR_EMBED_REDIS_URL"
    if isinstance(error, redis.TimeoutError) and url.startswith("rediss"):
        start = "If this port is without TLS, begin the URL with redis://; else start it"
    elif "closed by server" in reason or "reset by peer" in reason:
        start = "If this port is for TLS, begin the URL with rediss://; else look into its log"
    return f"cannot reach Redis at {url}: {reason}. {start}, or try --local, which brings its own"
