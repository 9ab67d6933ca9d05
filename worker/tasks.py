"""The Celery task `worker.drain`, and what happens as a worker process starts and ends."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Any

import redis
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

from .celery import app, settings
from .engine.admission import throttle_names
from .engine.broker import send_wakeups, threads_worth_having
from .engine.heartbeat import heartbeat
from .engine.intake import Intake
from .engine.linger import linger
from .engine.loop import STATUS
from .engine.presence import Presence
from .engine.process import Process
from .engine.readiness import hindrance
from .engine.slice import Slice
from .logs import ONCE, logger
from .monitor.service import is_open_under
from .store.backlog import BATCH_SIZE, Backlog
from .store.connection import Redis, connect
from .store.keys import CollectionKeys
from .store.reader import Reader
from .types import Info

END_SECONDS = 20.0  # that a process may need to end, besides its requests


@app.task(name="worker.drain")
def drain(name: str, token: str = "") -> None:
    """Work on collection `name` for one slice."""
    pulse = heartbeat(settings)
    pulse.start()
    try:
        _drain(pulse.process, CollectionKeys(settings.prefix, name), token)
    except redis.RedisError as error:
        # What it held is given back as soon as Redis answers again.
        logger.warning("slice of %s ended: Redis does not answer (%s)", name, error, extra=ONCE)
    except Exception as error:  # a bug, or what this process's surroundings do not allow
        pulse.process.fitness.failed(name, error, time.monotonic())


def _drain(process: Process, keys: CollectionKeys, token: str) -> None:
    client = connect(settings)
    backlog, reader = Backlog(client, keys), Reader(client, keys)
    # The wake-up is acknowledged after the linger: so producers send no others for the texts that
    # it waits for.
    urgent = _linger(process, backlog)
    # A wake-up that waited too long behind other collections was replaced. If both led to a slice,
    # wake-ups would pile up in the broker and take the turns of other collections.
    if token and not backlog.acknowledge(token):
        return
    if not backlog.size():  # another slice had room in a batch for its texts
        return
    info = reader.info()
    if not _may_work(process, keys.name, info):
        return
    # The slice asks the throttle of this version; workers of an earlier one may pause theirs.
    if info.throttle is not None and not _is_open(client, keys, info):
        return
    slice = Slice(process, backlog, info, urgent=urgent)
    is_empty = slice.run()
    if slice.elsewhere is not None:
        _hurry(process, client, slice.elsewhere)
    if is_empty or not process.may_claim(keys.name):
        return
    if _is_open(client, keys, reader.info()):
        send_wakeups(settings, backlog, threads_worth_having(client, settings))


def _hurry(process: Process, client: Redis, name: str | None) -> None:
    """Work on an urgent collection for which a slice ended, without a wake-up.

    That may end for another one, and so on. After the time of a slice, whoever has a wake-up is
    next: where there is always something urgent, all others would wait for ever.
    """
    end = time.monotonic() + settings.slice_seconds
    while name is not None and time.monotonic() < end:
        keys = CollectionKeys(settings.prefix, name)
        backlog = Backlog(client, keys)
        if not backlog.pending().urgent:  # another slice was sooner
            return
        info = Reader(client, keys).info()
        if not _may_work(process, name, info):
            return
        slice = Slice(process, backlog, info, urgent=True)
        slice.run()
        name = slice.elsewhere


def _may_work(process: Process, name: str, info: Info) -> bool:
    """Whether this process may claim texts of a collection, and has a key to send them with."""
    is_halted = info.halts.keys() >= set(throttle_names(settings))
    return info.model is not None and not is_halted and process.may_claim(name)


def _linger(process: Process, backlog: Backlog) -> bool:
    """Wait for more texts, unless someone waits for one; returns whether someone does."""
    urgent = False

    def pending() -> int:
        nonlocal urgent
        texts, urgent = backlog.pending()
        return 0 if urgent else texts

    linger(pending, BATCH_SIZE, settings.linger, process.stopping.wait)
    return urgent


def _is_open(client: Redis, keys: CollectionKeys, info: Info) -> bool:
    """Whether the collection may be worked on now under an API key of this process."""
    return is_open_under(client, keys, info, throttle_names(settings))


@worker_init.connect
def _check_fitness(**_: object) -> None:
    reason = hindrance(settings)
    if reason is not None:
        # Celery logs and swallows what a signal handler raises: an unfit worker has to leave by
        # itself.
        print(f"Error: {reason}", file=sys.stderr, flush=True)
        os._exit(2)


@worker_ready.connect
def _begin(sender: object = None, **_: object) -> None:
    pool = getattr(sender, "pool", None)
    sees_work = "prefork" not in type(pool).__module__
    threads = int(getattr(pool, "limit", None) or 1)
    queues = sorted(app.amqp.queues.consume_from)  # as -Q says
    queue = settings.queue if settings.queue in queues else ", ".join(queues)
    pulse = heartbeat(settings)
    intake = Intake(sender, queues)
    pulse.serve(Presence(pulse.process, threads, sees_work=sees_work, queue=queue, intake=intake))
    threading.Thread(target=_end_in_time, args=(pulse.process,), daemon=True).start()


def _end_in_time(process: Process) -> None:
    """End a process that does not end by itself: a silent Redis takes 30 s for each command."""
    process.stopping.wait()
    patience = settings.timeout + END_SECONDS
    time.sleep(patience)
    logger.critical("not ended in %.0f s after its signal: other workers take its texts", patience)
    logging.shutdown()
    os._exit(STATUS)


_interrupted = threading.Event()


@worker_shutting_down.connect
def _stop(sig: str = "", how: str = "", **_: object) -> None:
    heartbeat(settings).process.stopping.set()
    if sig == "SIGINT" and how == "Warm":
        _interrupted.set()
    else:
        _interrupted.clear()


@worker_shutdown.connect
def _end(sender: Any = None, **_: object) -> None:
    heartbeat(settings).end()
    if _interrupted.is_set():
        sender.exitcode = 0  # to Celery, Ctrl-C is a failure
