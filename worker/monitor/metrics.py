"""The metrics of the whole fleet for Prometheus, read from Redis when they are asked for.

One step for each collection and two reads for each throttle, whatever they hold: no key is scanned,
no text or vector read. Nothing is kept between two scrapes, so any number of exporters agree. While
Redis does not answer, `vec_up` is 0 and all else is absent: no number is ever an old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import accumulate

import redis
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ..logs import logger, skip
from ..settings import Settings
from ..store.connection import connect, read_memory
from ..store.keys import CollectionKeys
from ..store.reader import Reader
from ..store.registry import collection_names
from ..throttle import known_throttles, read_throttles
from .fleet import LOST_SECONDS, read_fleet
from .requests import BOUNDS, read_requests
from .service import Service


class FleetCollector(Collector):
    """Reads the fleet of one Redis at each scrape."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._up = True

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry would else scrape once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric, or `vec_up 0` alone."""
        try:
            families = [*self._fleet(), *self._work()]
        except redis.RedisError as error:
            families = []
            if self._up:
                logger.warning("cannot read Redis (%s): vec_up is 0", error)
        else:
            if not self._up:
                logger.warning("Redis is back")
        self._up = bool(families)
        yield GaugeMetricFamily("vec_up", "Whether Redis answers.", value=float(self._up))
        yield from families

    def _fleet(self) -> Iterator[Metric]:
        client = connect(self._settings)
        fleet = read_fleet(client, self._settings.prefix)
        alive = [worker for worker in fleet if worker.alive]
        workers = _gauge(
            "workers", "Worker processes: alive, or lost (not ended) within the hour.", "state"
        )
        workers.add_metric(["alive"], len(alive))
        workers.add_metric(["lost"], len(fleet) - len(alive))
        slots = _gauge("worker_slots", "Slices of work that the living can do at once.")
        slots.add_metric([], sum(worker.slots for worker in alive))
        memory = read_memory(client)
        used = _gauge(
            "redis_memory_used_bytes", "Memory that Redis uses (of a cluster: its fullest node)."
        )
        used.add_metric([], memory.used)
        most = _gauge("redis_memory_max_bytes", "Redis' maxmemory; 0: no limit.")
        most.add_metric([], memory.limit)
        yield from (workers, slots, used, most)

    def _work(self) -> Iterator[Metric]:
        settings = self._settings
        client = connect(settings)
        service = Service(client, settings.prefix, settings.queue)
        info = InfoMetricFamily(
            "vec_collection", "A collection and its model.", labels=["collection"]
        )
        halted = _gauge("collection_halted", "1: no worker alive can work on it.", "collection")
        paused = _gauge("collection_paused", "1: nothing is sent for a while.", "collection")
        waiting = _gauge(
            "collection_waiting", "1: it has a backlog, and no worker is alive.", "collection"
        )
        enqueued = _gauge(
            "enqueued_texts", "Texts enqueued: the sum of vec_texts over its states.", "collection"
        )
        texts = _gauge("texts", "Texts by what became of them.", "collection", "state")
        age = _gauge(
            "oldest_pending_age_seconds",
            "Time since the oldest text of the backlog was enqueued; 0 if there is none.",
            "collection",
        )
        embedded = _counter("embedded", "Vectors ever stored, replaced ones too.", "collection")
        cached = _counter("cached", "Those of them that the API had in its cache.", "collection")
        dead = _counter("dead", "Texts that ever became dead letters.", "collection", "code")
        models: set[str | None] = {None}
        older: set[str] = set()  # throttles of workers of an earlier version
        for name in collection_names(client, settings.prefix):
            try:
                ledger = Reader(client, CollectionKeys(settings.prefix, name)).ledger()
            except redis.ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                skip("collection", name)
                continue
            label = [name]
            info.add_metric(label, {"model": ledger.model or ""})
            standing = service.standing(name, ledger)
            halted.add_metric(label, standing.state == "halted")
            paused.add_metric(label, standing.state == "paused")
            unserved = standing.state == "running" and not standing.workers
            waiting.add_metric(label, unserved and ledger.backlog > 0)
            enqueued.add_metric(label, ledger.enqueued)
            for state in ("embedded", "evicted", "dead", "pending", "leased"):
                texts.add_metric([name, state], getattr(ledger, state))
            age.add_metric(label, ledger.oldest_age)
            embedded.add_metric(label, ledger.embedded_ever)
            cached.add_metric(label, ledger.cached_ever)
            for code, number in sorted(ledger.dead_ever.items()):
                dead.add_metric([name, code], number)
            models.add(ledger.model)
            if ledger.throttle is not None and service.any_older:
                older.add(ledger.throttle)
        yield from (info, halted, paused, waiting, enqueued, texts, age, embedded, cached, dead)
        live = {worker.throttle for worker in service.fleet} | older
        yield from self._throttles({name for name in live if name is not None}, models)

    def _throttles(
        self, live: AbstractSet[str], models: AbstractSet[str | None]
    ) -> Iterator[Metric]:
        """Of the throttles of the workers alive, and of those that were used within the hour."""
        client, prefix = connect(self._settings), self._settings.prefix
        label = "throttle"
        info = InfoMetricFamily("vec_throttle", "A throttle and its endpoint.", labels=[label])
        halted = _gauge("throttle_halted", "1: nothing is sent until somebody resumes.", label)
        paused = _gauge("throttle_paused", "1: nothing is sent for a while.", label)
        left = _gauge(
            "throttle_pause_remaining_seconds",
            "Time until a pause ends; absent for one by hand, 0 if there is none.",
            label,
        )
        in_flight = _gauge("throttle_in_flight", "Requests under way.", label)
        ceiling = _gauge("throttle_in_flight_max", "Most requests at once; absent at first.", label)
        rate = _gauge(
            "throttle_rate", "Requests a second that may be sent; absent if as many as can.", label
        )
        limit = _gauge(
            "throttle_learned_rate",
            "Requests a second that the API was found to let through; absent if none was found.",
            label,
        )
        used = _gauge("throttle_quota_used_texts", "Texts answered as new today.", label)
        quota = _gauge(
            "throttle_quota_max_texts", "Texts a day, absent where the API names none.", label
        )
        requests = _counter(
            "requests", "Requests to the API: outcome is ok or the error's code.", label, "outcome"
        )
        seconds = HistogramMetricFamily(
            "vec_request_seconds", "Time that a request to the API took.", labels=[label]
        )
        now, _ = client.time()
        announced = known_throttles(client, prefix)
        names = live | {one for one, told in announced.items() if told.seen > now - LOST_SECONDS}
        ways = [read_throttles(client, prefix, sorted(names), model) for model in models]
        for name in sorted(names):
            known = ways[0][name]
            if name in announced:
                info.add_metric([name], {"endpoint": announced[name].endpoint})
            # A halt that concerns no living worker does not count.
            states = {way[name].state for way in ways if name in live}
            halted.add_metric([name], "halted" in states)
            paused.add_metric([name], "paused" in states and "halted" not in states)
            ends = [way[name].pause_seconds for way in ways if way[name].state == "paused"]
            pause = max((end for end in ends if end is not None), default=None if ends else 0.0)
            for gauge, value in (
                (left, pause),
                (in_flight, known.in_flight),
                (ceiling, known.in_flight_ceiling),
                (rate, known.rate),
                (limit, known.learned_limit),
                (used, known.quota_used),
                (quota, known.quota_limit),
            ):
                if value is not None:
                    gauge.add_metric([name], value)
            told = read_requests(client, prefix, name)
            for outcome, number in sorted(told.outcomes.items()):
                requests.add_metric([name, outcome], number)
            bounds = [*map(str, BOUNDS), "+Inf"]
            seconds.add_metric([name], list(zip(bounds, accumulate(told.durations))), told.seconds)
        yield from (info, halted, paused, left, in_flight, ceiling, rate, limit, used, quota)
        yield from (requests, seconds)


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vec_{name}", meaning, labels=labels)


def _counter(name: str, meaning: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"vec_{name}", meaning, labels=labels)
