"""The Celery app and its settings: `celery -A worker worker -P threads -c 8`.

The stream in Redis is the truth; a Celery message is only a hint that there is work. So nothing is
acknowledged late, no result is kept, and a message lost or doubled does no harm.
"""

from __future__ import annotations

from functools import cache

from celery import Celery

from .settings import Settings, SettingsError, read_settings


@cache
def make_app(settings: Settings) -> Celery:
    """A Celery app on `settings.broker_url`; the worker's own, or a producer's to send wake-ups."""
    app = Celery("worker", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        include=["worker.tasks"],
        task_default_queue=settings.queue,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # The defaults took 95 s to give a lost message to another worker.
        broker_transport_options={
            "visibility_timeout": 300,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_keepalive": True,
        },
    )
    return app


def _read() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        raise SystemExit(f"Error: {error}") from None


settings = _read()
app = make_app(settings)
