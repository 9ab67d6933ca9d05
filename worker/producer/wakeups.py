"""Wake-ups for what calls have added, sent by one thread of the process: no call waits for the
broker. One that cannot be sent is left to the pump.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from threading import BoundedSemaphore

import redis

from ..engine.broker import send_tokens, send_wakeups, threads_worth_having
from ..logs import logger
from ..settings import Settings
from ..store.backlog import Backlog
from ..store.calls import Kind
from ..store.connection import Redis, is_cluster
from ..store.keys import CollectionKeys
from ..store.urgent import announce_urgent

ASK_SECONDS = 0.01  # between two looks for wake-ups that are worth sending
FORK_SECONDS = 6.0  # that a fork waits: a broker that does not answer takes 5
MOST = 100  # that wait to be sent: of a broker that is away


def look_and_wake(client: Redis, keys: CollectionKeys, settings: Settings) -> None:
    """Look which wake-ups a backlog is worth, and send them."""
    try:
        threads = max(1, threads_worth_having(client, settings))
        send_wakeups(settings, Backlog(client, keys), threads)
    except redis.RedisError as error:  # away, or full
        logger.warning("no wake-up is sent (%s): the pump will wake the workers", error)


class Wakeups:
    """The wake-ups for what calls of one kind add.

    A step may ask for the wake-ups that are worth sending; that costs as much as adding a text. So
    one that follows another within ASK_SECONDS does not ask, and a look is made a little later.
    `each`: each step asks, because a look would need a connection beside that of the caller.
    """

    def __init__(self, kind: Kind, *, each: bool = False) -> None:
        self._kind = kind
        self._each = each
        self._looked = 0.0  # when a step asked, or a look was made
        self._asks = False  # the step under way
        self._is_due = False  # a look, later
        self._added = 0.0  # when something was that needs it

    def asks(self) -> bool:
        """Whether the step that is sent now asks."""
        now = time.monotonic()
        self._asks = self._each or now - self._looked >= ASK_SECONDS
        if self._asks:
            self._looked = now
        return self._asks

    def added(self, client: Redis, tokens: Sequence[str]) -> None:
        """The step under way has added something; the tokens came with it, if it asked."""
        kind, sender = self._kind, _sender(os.getpid())
        if tokens:
            sender.submit(partial(_send, kind.settings, kind.collection, tokens))
        if self._asks and not is_cluster(client):
            return
        if kind.priority == "interactive" and is_cluster(client):
            keys = CollectionKeys(kind.settings.prefix, kind.collection)
            sender.submit(partial(announce_urgent, client, keys))
        self._added = time.monotonic()
        if not self._is_due:
            self._is_due = True
            self._is_due = sender.submit(partial(self._look, client))

    def _look(self, client: Redis) -> None:
        time.sleep(max(0.0, self._looked + 2 * ASK_SECONDS - time.monotonic()))
        if time.monotonic() - self._added < ASK_SECONDS and not is_cluster(client):
            # More is added all the time, and one of those steps asks.
            self._is_due = _sender(os.getpid()).submit(partial(self._look, client))
            return
        self._is_due = False  # from here on, what is added has another look
        if self._looked < self._added or is_cluster(client):
            self._looked = time.monotonic()
            keys = CollectionKeys(self._kind.settings.prefix, self._kind.collection)
            with _sending.lock:
                look_and_wake(client, keys, self._kind.settings)


def _send(settings: Settings, collection: str, tokens: Sequence[str]) -> None:
    with _sending.lock:
        send_tokens(settings, collection, tokens)


class _Sending:
    """Keeps a fork and the sending of a wake-up apart.

    Celery and kombu have locks of their own, and import modules when they send for the first time.
    A child that is forked meanwhile would wait for these locks for ever.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._stop, after_in_parent=self._resume, after_in_child=self._renew
            )

    def _stop(self) -> None:
        self._held = self.lock.acquire(timeout=FORK_SECONDS)

    def _resume(self) -> None:
        if self._held:
            self.lock.release()

    def _renew(self) -> None:
        self.lock = threading.Lock()


_sending = _Sending()


class _Sender:
    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vec-wake")
        self._room = BoundedSemaphore(MOST)

    def submit(self, send: Callable[[], None]) -> bool:
        """Send, soon; False if too many wait already."""
        if not self._room.acquire(blocking=False):
            return False
        try:
            self._thread.submit(self._send, send)
        except RuntimeError:  # the interpreter ends, and starts no thread
            self._send(send)
        return True

    def _send(self, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception:
            logger.exception("no wake-up is sent: the pump will wake the workers")
        finally:
            self._room.release()


@cache
def _sender(pid: int) -> _Sender:
    # A forked child has none of its parent's threads: the pid is part of the key.
    return _Sender()
