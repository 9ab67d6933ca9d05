"""The scene: what surrounds a collection whose backlog does not move, read without a change."""

from __future__ import annotations

import redis

from ..settings import Settings, without_password
from ..settings.address import broker_url
from ..store.backlog import Backlog
from ..store.connection import connect
from ..store.keys import CollectionKeys, CommonKeys
from ..types import Status
from .fleet import read_fleet
from .obstacle import Scene

BROKER_SECONDS = 2.0  # for each of two attempts


def read_scene(status: Status, settings: Settings, *, local: bool = False) -> Scene:
    """What surrounds a collection now. Asks Redis, and the broker if it is another server."""
    client = connect(settings)
    backlog = Backlog(client, CollectionKeys(settings.prefix, status.collection))
    return Scene(
        status,
        read_fleet(client, settings.prefix),
        settings.queue,
        refusal=_refusal(settings),
        broker=None if settings.broker_url == settings.redis_url else broker_fault(settings),
        quarantined=backlog.has_quarantined(),
        local=local,
    )


def broker_fault(settings: Settings) -> str | None:
    """Why the broker does not answer; None if it does."""
    from kombu.connection import Connection  # here: it takes a fifth of a second

    try:
        connection = Connection(  # type: ignore[no-untyped-call]  # kombu's
            broker_url(settings.broker_url),
            connect_timeout=BROKER_SECONDS,
            transport_options={
                "socket_connect_timeout": BROKER_SECONDS,
                "socket_timeout": BROKER_SECONDS,
                "interval_start": 0,
            },
        )
        with connection:
            connection.connect()  # type: ignore[no-untyped-call]  # kombu's
    except Exception as error:  # whatever the transport of that URL raises
        return without_password(str(error)).rstrip(".") or type(error).__name__
    return None


def _refusal(settings: Settings) -> str | None:
    """Why Redis takes no change; None if it does. Tries to delete a key that never exists."""
    try:
        connect(settings).delete(CommonKeys(settings.prefix).nothing)
    except redis.exceptions.NoPermissionError:  # our user may only read; the workers' may write
        return None
    except redis.ResponseError as error:
        return str(error).rstrip(".")
    return None
