"""The Celery tasks, thin: drain one slice of a collection's backlog.

A slice claims a batch, embeds it, commits, and again, until the backlog is empty or its time is up;
then the next wake-up may be another collection's. Whatever goes wrong, what it holds goes back.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial

import redis
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

from .broker import send_wakeups
from .celery import app, settings
from .collection import BATCH_SIZE, Collection, DimensionsDiffer, Embedded, Lease, Refused
from .connection import RedisUnfit, check_redis, connect
from .embedding import AccountFault, DimensionsChanged, Unwell, embed
from .fleet import Work
from .heartbeat import heartbeat
from .intake import Intake
from .linger import linger
from .logs import logger
from .sender import HOLD_SECONDS, Deferred, Halted, Sender, client
from .settings import Settings
from .throttle import throttle_name


@app.task(name="worker.drain")
def drain(name: str, token: str = "") -> None:
    """Work on collection `name` for one slice."""
    pulse = heartbeat(settings)
    collection = Collection(name, settings=settings)
    try:
        # Before the wake-up is answered: as long as it has its place, producers send no further
        # ones for the texts that it waits for.
        linger(
            lambda: collection.ledger().pending, BATCH_SIZE, settings.linger, pulse.stopping.wait
        )
        # One that grew old behind other collections' slices has been replaced: were both worked on,
        # they would fill the broker, and take the others' places.
        if token and not collection.answer(token):
            return
        throttle = throttle_name(settings.base_url, settings.api_key or "")
        if pulse.stopping.is_set() or not collection.is_open_under(throttle):
            return
        _drain(collection, settings, pulse.stopping)
        if not pulse.memory_full and collection.is_open_under(throttle):
            send_wakeups(settings, collection, pulse.slots())
    except redis.RedisError as error:
        # What it held is given back as soon as Redis answers again.
        logger.warning("slice of %s ended: Redis does not answer (%s)", name, error)
    except Exception as error:  # a bug, or what this process's surroundings do not allow
        pulse.fitness.failed(name, error, time.monotonic())


def _drain(collection: Collection, settings: Settings, stopping: threading.Event) -> None:
    pulse = heartbeat(settings)
    model = collection.model
    if model is None:
        return
    is_held = partial(pulse.is_held, collection.name)
    sender = Sender(settings, model, collection.dimensions, stopping, is_held)
    keep_text = collection.keep_text()
    consumer = pulse.new_consumer()
    leases: list[Lease] = []

    def renew() -> Work:
        collection.keep_alive(consumer)
        sender.renew()
        return Work(collection.name, len(leases), sender.waiting)

    failed: list[Lease] = []  # alone, and not yet counted

    def work(*, suspects: bool = False, ahead: bool = False) -> int:
        nonlocal leases
        # No slice is longer for waiting, but with a batch in hand: another's may be next. Suspects
        # come at its end.
        patience = HOLD_SECONDS if suspects else end - time.monotonic()
        most = BATCH_SIZE
        if not ahead:
            permit = sender.prepare(patience)
            # After the one text that goes first there is likely room for the others.
            most = BATCH_SIZE if permit.first else min(permit.most, BATCH_SIZE)
        leases = collection.claim(
            consumer, most, suspects=suspects, take_over=pulse.judges, living=pulse.living()
        )
        count = len(leases)
        if leases and _work(collection, leases, sender, keep_text, failed) or failed:
            collection.release(consumer, failed)
            failed.clear()
        leases = []
        return count

    def give_back() -> None:
        sender.cancel()
        collection.release(consumer, failed, end_slice=True)

    pulse.open_slice(consumer, renew)
    claimed = 0
    end = time.monotonic() + settings.slice_seconds
    try:
        while time.monotonic() < end and not (stopping.is_set() or pulse.memory_full or is_held()):
            with pulse.room.together():
                # There is likely another whole batch, and no place for it yet.
                claimed = work(ahead=claimed == BATCH_SIZE and sender.crowded)
            # Suspects come last, but not never: a backlog may never be empty.
            over = not claimed or time.monotonic() >= end
            if over and collection.holds_back():
                sender.cancel()  # its place, while it waits
                with pulse.room.alone():
                    claimed = work(suspects=True)
            if not claimed:
                break
    except Deferred as wait:
        logger.info("%s waits: %s", collection.name, wait)
    except Halted as halt:
        pulse.fitness.halted(str(halt))
    except (Unwell, DimensionsDiffer) as trouble:
        logger.warning("%s will be tried again: %s", collection.name, trouble)
    except AccountFault as fault:
        sender.halt(fault)
        pulse.fitness.halted(str(fault))
    except DimensionsChanged as change:
        reason = (
            f"{change}: where that is right, `vec drop {collection.name}` and enqueue again, or "
            f"enqueue into another collection; where it is mended, `vec resume {collection.name}`"
        )
        collection.halt(reason)
        pulse.fitness.halted(f"{collection.name}: {reason}")
    finally:
        pulse.close_slice(consumer, give_back)


def _work(
    collection: Collection,
    leases: list[Lease],
    sender: Sender,
    keep_text: bool,
    failed: list[Lease],
) -> int:
    """Embed and commit; adds to `failed` what failed alone; the number left untested."""
    embedded: list[Embedded]
    refused: list[Refused]
    untested = len(leases)
    trial = embed(leases, sender.model, sender.send, sender.experience, sender.dimensions)
    for outcomes in trial:
        embedded, refused = [], []
        for outcome in outcomes:
            if isinstance(outcome, Embedded):
                embedded.append(outcome)
            elif isinstance(outcome, Refused):
                refused.append(outcome)
            else:
                lease = outcome.lease
                counts = range(lease.attempts, lease.attempts + outcome.times)
                failed += [lease._replace(attempts=before) for before in counts]
        if embedded or refused:
            committed = collection.commit(embedded, refused, keep_text=keep_text)
            if embedded:
                sender.dimensions = len(embedded[0].vector) // 4
            heartbeat(settings).count(collection.name, committed.stored + committed.dead)
            if committed.fenced and collection.model is None:
                logger.error(
                    "%s is gone from Redis, with all that was queued and stored: enqueue it again",
                    collection.name,
                )
        untested -= len(outcomes)
        for refusal in refused:
            id, code = refusal.lease.job.id, refusal.code
            logger.warning("%s: text %s is dead: %s", collection.name, id, code)
    return untested


@worker_init.connect
def _check_fitness(**_: object) -> None:
    reason = unfit(settings)
    if reason is not None:
        # Celery logs and swallows what a signal handler raises: an unfit worker has to leave by
        # itself.
        print(f"Error: {reason}", file=sys.stderr, flush=True)
        os._exit(2)


@worker_ready.connect
def _begin(sender: object = None, **_: object) -> None:
    pool = getattr(sender, "pool", None)
    threads = "prefork" not in type(pool).__module__
    places = int(getattr(pool, "limit", None) or 1)
    queues = sorted(app.amqp.queues.consume_from)  # as -Q says
    queue = settings.queue if settings.queue in queues else ", ".join(queues)
    intake = Intake(sender, queues)
    heartbeat(settings).serve(places, threads=threads, queue=queue, intake=intake)


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    heartbeat(settings).stopping.set()


@worker_shutdown.connect
def _end(**_: object) -> None:
    heartbeat(settings).end()


def unfit(settings: Settings) -> str | None:
    """Why a worker must not start here; None when it may."""
    if not settings.api_key:
        return "VECTOR_EMBED_API_KEY is not set: a worker needs the API key"
    try:
        client(settings, settings.model)
    except ValueError as error:
        return str(error)
    try:
        check_redis(connect(settings))
    except RedisUnfit as error:
        return str(error)
    except redis.RedisError as error:
        logger.warning("Redis does not answer yet (%s)", error)
    return None
