"""The worker's Celery app: `celery -A worker worker -P threads -c 8`."""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery.app.amqp import AMQP
from celery.signals import after_setup_logger, after_setup_task_logger
from kombu.connection import Connection
from kombu.transport.redis import Channel, Transport
from kombu.transport.virtual import QoS

from .broker import make_app
from .logs import escape
from .settings import Settings, SettingsError, read_settings


def _read() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        raise SystemExit(f"Error: {error}") from None


class _Channel(Channel):
    """A channel to Redis that may be lost.

    When the broker goes away, kombu 5.7 puts back what is not acknowledged, over a connection that
    has no address any more; and the tasks in hand are acknowledged later, on a channel that is
    closed. Either is an AttributeError that ends the worker. Here neither is tried: a wake-up is a
    hint, and a lost one is replaced.
    """

    do_restore = False

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if self.connection is None or self.connection.client is None:
            return
        try:
            super().basic_ack(delivery_tag, multiple)  # type: ignore[no-untyped-call]  # kombu's
        except redis.RedisError:
            # Here it is done with: as one in hand it would keep another from being received.
            QoS.ack(self.qos, delivery_tag)  # type: ignore[no-untyped-call]


class _Connection(Connection):
    """A connection that looks for a lost broker every two seconds, however long it is away.

    kombu's waits grow to half a minute, in which work that could go on would lie.
    """

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        return super().ensure_connection(*args, **{"interval_max": 2, **options})  # type: ignore[no-untyped-call]  # kombu's


class _AMQP(AMQP):  # type: ignore[misc]  # celery's, without types
    Connection = _Connection


def _escape(logger: logging.Logger, **_: object) -> None:
    escape(logger)


for _ready in (after_setup_logger, after_setup_task_logger):
    _ready.connect(_escape)
Transport.Channel = _Channel  # in the worker's process alone: nothing else imports this module
settings = _read()
app = make_app(settings)
app.amqp_cls = _AMQP
