"""The broker: Celery's settings, and the wake-ups that it carries.

The stream in Redis is the truth; a Celery message is only a hint that there is work. So nothing is
acknowledged late, no result is kept, and a message lost or doubled does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import redis
from celery import Celery
from celery.loaders.app import AppLoader
from kombu.exceptions import ChannelError, OperationalError

from ..logs import logger
from ..monitor.fleet import threads_alive
from ..settings import Settings
from ..settings.address import broker_url
from ..settings.keyfile import count_endpoints
from ..store.backlog import Backlog
from ..store.connection import IDLE_SECONDS, Redis


class _Loader(AppLoader):  # type: ignore[misc]  # celery's, without types
    """Reads no configuration."""

    def read_configuration(self, env: str = "") -> dict[str, object]:
        return {}  # celery's own reads the module that CELERY_CONFIG_MODULE names


class _App(Celery):  # type: ignore[misc]
    """A Celery app that our settings alone configure.

    Celery lets CELERY_BROKER_URL and its relatives in the environment override a program: they
    would send our wake-ups to another program's broker.
    """

    sent_at: float | None = None  # the last wake-up, while connections may be open for the next

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        super().__init__(
            "worker",
            broker=broker_url,
            backend="disabled://",
            loader=_Loader,
            fixups=[],  # Django's is put in by DJANGO_SETTINGS_MODULE
            set_as_current=False,
        )

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(self._broker_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(self._broker_url, **options)


@cache
def make_app(settings: Settings) -> _App:
    """A Celery app on `settings.broker_url`; the worker's own, or a producer's to send wake-ups."""
    app = _App(broker_url(settings.broker_url))
    app.conf.update(
        include=["worker.tasks"],
        task_default_queue=settings.queue,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # kombu keeps what is not acknowledged in one place for all programs of a Redis
            # database, and whoever finds it there after a time of his own sends it again. We keep
            # nothing there: a lost wake-up is replaced.
            "ack_emulation": False,
            "socket_connect_timeout": 5,
            "socket_timeout": 5,  # also of TLS' handshake; a wake-up is not worth a longer wait
            "socket_keepalive": True,
        },
    )
    return app


def most_threads(settings: Settings) -> int:
    """How many slices at once are worth having in any fleet."""
    # Twice the requests in flight: while one half waits for the API, the other decodes and commits.
    return 2 * settings.max_in_flight * count_endpoints(settings)


def threads_worth_having(client: Redis, settings: Settings) -> int:
    """How many slices at once are worth having in the fleet."""
    return min(threads_alive(client, settings.prefix), most_threads(settings))


def send_wakeups(settings: Settings, backlog: Backlog, threads: int) -> None:
    """Send the wake-ups that a backlog is worth to a fleet with this many `threads`."""
    send_tokens(settings, backlog.name, backlog.wake(threads))


def send_tokens(settings: Settings, collection: str, tokens: Iterable[str]) -> None:
    """Send wake-ups with these tokens.

    A broker that does not answer is only logged: the pump sends them again.
    """
    app = make_app(settings)
    for token in tokens:
        app.sent_at = time.monotonic()
        try:
            app.send_task("worker.drain", args=[collection, token], retry=False)
        except (OperationalError, ChannelError, redis.RedisError, OSError) as error:
            logger.warning("the broker does not answer (%s): the pump will wake the workers", error)
            return


def close_idle(settings: Settings) -> None:
    """Close the connections for wake-ups, if none was sent for IDLE_SECONDS.

    Each is two connections to Redis, which may allow only twenty.
    """
    app = make_app(settings)
    if app.sent_at is None or time.monotonic() - app.sent_at <= IDLE_SECONDS:
        return
    app.sent_at = None
    pool = app.pool
    try:
        with suppress(pool.LimitExceeded):  # the others are in use
            for _ in range(pool.limit):
                pool.replace(pool.acquire())
    finally:
        pool.setup()  # room for new ones; else kombu waits for one that is given back
