"""The worker's Celery app: `celery -A worker worker -P threads -c 8`."""

from __future__ import annotations

import logging
import sys

from celery.signals import after_setup_logger, after_setup_task_logger

from .engine.broker import make_app
from .engine.consumer import WorkerAMQP, WorkerConsumer
from .logs import escape, quieten
from .settings import Settings, SettingsError, read_settings
from .settings.surroundings import leave_out_celery


def _read() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def _escape(logger: logging.Logger, **_: object) -> None:
    escape(logger, settings.log_format)
    quieten()


for _ready in (after_setup_logger, after_setup_task_logger):
    _ready.connect(_escape)
leave_out_celery()  # of which Celery reads some once it has the app
settings = _read()
app = make_app(settings)
app.amqp_cls = WorkerAMQP
app.conf.update(
    broker_transport_options={**app.conf.broker_transport_options, "socket_timeout": 30},
    worker_consumer=WorkerConsumer,
    # Any program on the same Redis may send its workers orders (shutdown, pool_shrink), and all
    # workers obey. Ours are ended by signals.
    worker_enable_remote_control=False,
    # After a restart of RabbitMQ, the reduced count left workers alive and deaf.
    worker_enable_prefetch_count_reduction=False,
    # There is none that is acknowledged late; Celery warns where it is left out.
    worker_cancel_long_running_tasks_on_connection_loss=True,
)
