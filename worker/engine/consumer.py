"""The consumer: how a worker takes wake-ups from its broker, and survives the broker's faults.

If Redis refuses for a while (READONLY in a failover, MISCONF, NOREPLICAS), or a message cannot be
read, Celery takes that for a fault of the program and ends the process. Here a refusal is waited
out like a lost connection, and a message is dropped with one line: a wake-up is only a hint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import redis
from celery.app.amqp import AMQP
from celery.worker.consumer import Consumer
from kombu.connection import Connection
from kombu.message import Message
from kombu.transport.redis import Channel, Transport

from ..logs import logger
from ..store.keys import NAME
from .waker import IS_NEEDED, Waker

RETRY_SECONDS = 1.0
MOST_BYTES = 10_000  # of a message; a wake-up has some 600


class _Channel(Channel):
    """A channel to a Redis that may be lost, and to which strangers may write."""

    # When the broker goes away, kombu 5.7 puts back what is not acknowledged, over a connection
    # that has no address any more: an AttributeError that ends the worker.
    do_restore = False

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu's
        except (Empty, redis.RedisError, OSError):
            raise
        except Exception as error:  # it was not made by kombu
            _say_dropped(_unreadable(error))
            raise Empty from None


class _Transport(Transport):
    """Redis as a broker. What it refuses now it may accept later."""

    Channel = _Channel
    connection_errors = (*Transport.connection_errors, redis.RedisError)

    def _deliver(self, message: Any, queue: str) -> None:
        if len(message["body"]) > MOST_BYTES or "compression" in message["headers"]:
            _say_dropped("it is too large")
            return
        super()._deliver(message, queue)  # type: ignore[no-untyped-call]  # kombu's


class _Connection(Connection):
    """A connection that looks for a lost broker every two seconds, however long it is away.

    kombu's waits grow to half a minute, during which no work would be done.
    """

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        return super().ensure_connection(*args, **{"interval_max": 2, **options})  # type: ignore[no-untyped-call]  # kombu's

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()  # type: ignore[no-untyped-call]  # kombu's
        return _Transport if found is Transport else found


class WorkerAMQP(AMQP):  # type: ignore[misc]  # celery's, without types
    """Celery's messaging, over connections that survive the loss of their broker."""

    Connection = _Connection


class WorkerConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, for wake-ups alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Our workers announce themselves in Redis. Celery's events would need another connection,
        # and a user of Redis without rights on `celeryev.*` could run no worker.
        alone = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        self._waker = Waker() if IS_NEEDED else None
        super().__init__(*args, **{**options, **alone})

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        if self._waker is not None:
            self._waker.watch(hub)

    def call_soon(self, step: Any, *args: Any, **options: Any) -> Any:
        called = super().call_soon(step, *args, **options)
        if self._waker is not None:
            self._waker.wake()
        return called

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        time.sleep(RETRY_SECONDS)  # a Redis that refuses answers at once

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], None]:
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Message) -> None:
            reason = _foreign(message)
            if reason is None:
                try:
                    handle(message)
                    return
                except self.connection_errors:
                    raise
                except Exception as error:  # a header that no program of ours writes
                    reason = _unreadable(error)
            _say_dropped(reason)
            message.ack_log_error(logger, self.connection_errors)  # type: ignore[no-untyped-call]

        return on_message


def _shorten(record: logging.LogRecord) -> bool:
    """Celery before 5.7 logs the loss of a broker with a traceback: here it is one line."""
    if record.levelno == logging.WARNING and record.exc_info:
        record.msg = f"{record.getMessage()} ({record.exc_info[1]!r})"
        record.args = None
        record.exc_info = None
    return True


logging.getLogger("celery.worker.consumer.consumer").addFilter(_shorten)


def _foreign(message: Message) -> str | None:
    """Why this is no wake-up of ours; None if it is one."""
    headers = message.headers
    if not isinstance(headers, dict) or headers.get("task") != "worker.drain":
        return "it is for another task"
    if not isinstance(headers.get("id"), str) or headers.get("eta") or headers.get("expires"):
        return "no wake-up has such headers"
    try:
        arguments, names, more = message.payload
    except Exception as error:  # another serializer, another shape
        return _unreadable(error)
    said = isinstance(arguments, list) and all(isinstance(one, str) for one in arguments)
    if not said or not 1 <= len(arguments) <= 2 or names or any((more or {}).values()):
        return "no wake-up has such arguments"
    if not NAME.match(arguments[0]):
        return "it names no collection"
    return None


def _unreadable(error: Exception) -> str:
    return f"it cannot be read ({type(error).__name__})"  # its words may hold what was sent


def _say_dropped(reason: str) -> None:
    logger.warning("dropped a message from the broker's queue: %s", reason)
