"""The worker's Celery app: `celery -A worker worker -P threads -c 8`."""

from __future__ import annotations

from contextlib import suppress

import redis
from kombu.transport.redis import Channel, Transport

from .broker import make_app
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
    closed. Either is an AttributeError that ends the worker. Here neither is tried, nor is a word
    lost on one that fails: a wake-up is a hint, and a lost one is replaced.
    """

    do_restore = False

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if self.connection is None or self.connection.client is None:
            return
        with suppress(redis.RedisError):
            super().basic_ack(delivery_tag, multiple)  # type: ignore[no-untyped-call]  # kombu's


Transport.Channel = _Channel  # in the worker's process alone: nothing else imports this module
settings = _read()
app = make_app(settings)
