"""The broker: Celery's settings, and the wake-ups that it carries.

The stream in Redis is the truth; a Celery message is only a hint that there is work. So nothing is
acknowledged late, no result is kept, and a message lost or doubled does no harm.
"""

from __future__ import annotations

from functools import cache

from celery import Celery
from kombu.exceptions import OperationalError

from .collection import Collection
from .logs import logger
from .settings import Settings


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


def send_wakeups(settings: Settings, collection: Collection, slots: int) -> None:
    """Send the wake-ups that `collection` is worth with `slots` places in the fleet.

    A broker that does not answer is only logged: the pump sends them again.
    """
    app = make_app(settings)
    for token in collection.wake(slots):
        try:
            app.send_task("worker.drain", args=[collection.name, token], retry=False)
        except (OperationalError, OSError) as error:
            logger.warning("the broker does not answer (%s): the pump will wake the workers", error)
            return
