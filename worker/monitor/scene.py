"""The scene: what surrounds a collection whose backlog does not move, read without a change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import redis

from ..settings import Settings, without_password
from ..settings.address import broker_url
from ..store.connection import connect
from ..store.keys import CommonKeys
from ..store.ledgers import have_quarantined
from ..types import Status
from .fleet import Worker, read_fleet
from .obstacle import CommandLine, Obstacle, Scene, obstacle

BROKER_SECONDS = 2.0  # for each of two attempts


def read_scene(status: Status, settings: Settings, command: CommandLine) -> Scene:
    """What surrounds a collection now. Asks Redis, and the broker if it is another server."""
    return next(Surroundings(settings, command).scenes([status]))


class Surroundings:
    """What surrounds all collections: looked at once, when a scene is asked for."""

    def __init__(self, settings: Settings, command: CommandLine) -> None:
        self._settings = settings
        self._command = command

    def scenes(self, statuses: Sequence[Status]) -> Iterator[Scene]:
        """The scene of each of these collections."""
        settings = self._settings
        names = [status.collection for status in statuses]
        quarantined = have_quarantined(connect(settings), settings.prefix, names)
        for status, is_quarantined in zip(statuses, quarantined):
            yield Scene(
                status,
                self._command,
                self._fleet,
                settings.queue,
                refusal=self._refusal,
                broker=self._broker,
                quarantined=is_quarantined,
            )

    def obstacles(self, statuses: Sequence[Status]) -> dict[str, Obstacle]:
        """What blocks each of these collections that is stalled, by name, where it is known."""
        scenes = self.scenes([status for status in statuses if status.is_stalled])
        found = {scene.status.collection: obstacle(scene) for scene in scenes}
        return {name: one for name, one in found.items() if one is not None}

    @cached_property
    def _fleet(self) -> list[Worker]:
        return read_fleet(connect(self._settings), self._settings.prefix)

    @cached_property
    def _refusal(self) -> str | None:
        """Why Redis takes no change; None if it does. Tries to delete a key that never exists."""
        try:
            connect(self._settings).delete(CommonKeys(self._settings.prefix).nothing)
        except redis.exceptions.NoPermissionError:  # our user only reads; the workers' may write
            return None
        except redis.ResponseError as error:
            return str(error).rstrip(".")
        return None

    @cached_property
    def _broker(self) -> str | None:
        """Why the broker does not answer, if it is another server."""
        same = self._settings.broker_url == self._settings.redis_url
        return None if same else broker_fault(self._settings)


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
