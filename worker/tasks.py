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
from typing import Any

import redis
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

from .celery import app, settings
from .engine.broker import send_wakeups
from .engine.intake import Intake
from .engine.linger import linger
from .engine.process import heartbeat
from .engine.readiness import unfit
from .engine.sender import HOLD_SECONDS, Deferred, Halted, Sender
from .engine.verdicts import AccountFault, DimensionsChanged, Unwell, embed
from .logs import ONCE, logger
from .monitor.fleet import Work
from .monitor.service import is_open_under
from .settings import Settings
from .settings.keyfile import current
from .store.backlog import BATCH_SIZE, Backlog
from .store.connection import connect
from .store.errors import DimensionsDiffer
from .store.keys import CollectionKeys
from .store.reader import Reader
from .throttle import throttle_name
from .types import Embedded, Lease, Refused


@app.task(name="worker.drain")
def drain(name: str, token: str = "") -> None:
    """Work on collection `name` for one slice."""
    pulse = heartbeat(settings)
    client, keys = connect(settings), CollectionKeys(settings.prefix, name)
    backlog, reader = Backlog(client, keys), Reader(client, keys)
    try:
        # Before the wake-up is answered: as long as it has its place, producers send no further
        # ones for the texts that it waits for.
        linger(lambda: reader.ledger().pending, BATCH_SIZE, settings.linger, pulse.stopping.wait)
        # One that grew old behind other collections' slices has been replaced: were both worked on,
        # they would fill the broker, and take the others' places.
        if token and not backlog.acknowledge(token):
            return
        throttle = throttle_name(settings.base_url, current(settings).api_key or "")
        if pulse.stopping.is_set() or not is_open_under(client, keys, reader.info(), throttle):
            return
        _drain(backlog, reader, settings, pulse.stopping)
        if not pulse.memory_full and is_open_under(client, keys, reader.info(), throttle):
            send_wakeups(settings, backlog, pulse.slots())
    except redis.RedisError as error:
        # What it held is given back as soon as Redis answers again.
        logger.warning("slice of %s ended: Redis does not answer (%s)", name, error, extra=ONCE)
    except Exception as error:  # a bug, or what this process's surroundings do not allow
        pulse.fitness.failed(name, error, time.monotonic())


def _drain(backlog: Backlog, reader: Reader, settings: Settings, stopping: threading.Event) -> None:
    pulse = heartbeat(settings)
    model, dimensions, keep_text, _, _ = reader.info()
    if model is None:
        return
    is_held = partial(pulse.is_held, backlog.name)
    sender = Sender(current(settings), model, dimensions, stopping, is_held)
    consumer = pulse.new_consumer()
    leases: list[Lease] = []
    done = 0  # texts with an outcome

    def renew() -> Work:
        backlog.keep_alive(consumer)
        sender.renew()
        return Work(backlog.name, len(leases), sender.waiting)

    failed: list[Lease] = []  # alone, and not yet counted

    def work(*, suspects: bool = False, ahead: bool = False) -> int:
        nonlocal leases, done
        # No slice is longer for waiting, but with a batch in hand: another's may be next. Suspects
        # come at its end.
        patience = HOLD_SECONDS if suspects else end - time.monotonic()
        most = BATCH_SIZE
        if not ahead:
            permit = sender.prepare(patience)
            # After the one text that goes first there is likely room for the others.
            most = BATCH_SIZE if permit.first else min(permit.most, BATCH_SIZE)
        leases = backlog.claim(
            consumer, most, suspects=suspects, take_over=pulse.judges, living=pulse.living()
        )
        count = len(leases)
        untested = leases and _work(backlog, reader, leases, sender, keep_text, failed)
        done += count - (untested or 0)
        if untested or failed:
            backlog.release(consumer, failed)
            failed.clear()
        leases = []
        return count

    def give_back() -> None:
        sender.cancel()
        backlog.release(consumer, failed, end_slice=True)

    pulse.open_slice(consumer, renew)
    claimed = 0
    outcome = "done"
    began = time.monotonic()
    end = began + settings.slice_seconds
    try:
        while time.monotonic() < end and not (stopping.is_set() or pulse.memory_full or is_held()):
            with pulse.room.together():
                # There is likely another whole batch, and no place for it yet.
                claimed = work(ahead=claimed == BATCH_SIZE and sender.crowded)
            # Suspects come last, but not never: a backlog may never be empty.
            over = not claimed or time.monotonic() >= end
            if over and backlog.holds_back():
                sender.cancel()  # its place, while it waits
                with pulse.room.alone():
                    claimed = work(suspects=True)
            if not claimed:
                break
    except Deferred as wait:
        outcome = "waits"
        logger.info("%s waits: %s", backlog.name, wait, extra=ONCE)
    except Halted as halt:
        outcome = "halted"
        pulse.fitness.halted(str(halt))
    except (Unwell, DimensionsDiffer) as trouble:
        outcome = "failed"
        logger.warning("%s will be tried again: %s", backlog.name, trouble, extra=ONCE)
    except AccountFault as fault:
        outcome = "halted"
        sender.halt(fault)
        pulse.fitness.halted(str(fault))
    except DimensionsChanged as change:
        outcome = "halted"
        reason = (
            f"{change}: where that is right, `vec drop {backlog.name}` and enqueue again, or "
            f"enqueue into another collection; where it is mended, `vec resume {backlog.name}`"
        )
        backlog.halt(reason)
        pulse.fitness.halted(f"{backlog.name}: {reason}")
    finally:
        pulse.close_slice(consumer, give_back)
    if done:
        seconds = round(time.monotonic() - began, 3)
        said = {"collection": backlog.name, "batch": done, "seconds": seconds}
        logger.info(
            "%s: %s texts in %.1f s",
            backlog.name,
            done,
            seconds,
            extra={**said, "outcome": outcome},
        )


def _work(
    backlog: Backlog,
    reader: Reader,
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
            committed = backlog.commit(embedded, refused, keep_text=keep_text)
            if embedded:
                sender.dimensions = len(embedded[0].vector) // 4
            heartbeat(settings).count(backlog.name, committed.stored + committed.dead)
            if committed.fenced and reader.info().model is None:
                logger.error(
                    "%s is gone from Redis, with all that was queued and stored: enqueue it again",
                    backlog.name,
                )
        untested -= len(outcomes)
        for refusal in refused:
            id, code = refusal.lease.job.id, refusal.code
            logger.warning("%s: text %s is dead: %s", backlog.name, id, code)
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


_interrupted = threading.Event()


@worker_shutting_down.connect
def _stop(sig: str = "", how: str = "", **_: object) -> None:
    heartbeat(settings).stopping.set()
    if sig == "SIGINT" and how == "Warm":
        _interrupted.set()
    else:
        _interrupted.clear()


@worker_shutdown.connect
def _end(sender: Any = None, **_: object) -> None:
    heartbeat(settings).end()
    if _interrupted.is_set():
        sender.exitcode = 0  # to Celery, Ctrl-C is a failure
