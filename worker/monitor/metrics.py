"""The metrics of the whole fleet for Prometheus, read from Redis when they are asked for.

A scrape takes one step for each collection, hundreds of them in one round trip, and two reads for
each throttle, however large they are: no key is scanned, no text or vector read. The number of
series is bounded: `series.py` says which collections are summed. Nothing is kept between two
scrapes, so all exporters agree. While Redis does not answer, `vec_up` is 0 and all else is absent:
no number is ever old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import Any

import redis
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily as Histogram
from prometheus_client.core import InfoMetricFamily as Info
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ..logs import logger
from ..settings import Settings
from ..store.connection import connect
from ..store.keys import CommonKeys
from ..store.ledgers import read_ledgers
from ..store.nodes import time_of
from ..store.registry import collection_names
from ..store.server_memory import read_memory
from ..throttle import known_throttles, read_throttles
from .fleet import LOST_SECONDS, read_fleet
from .requests import BOUNDS, read_requests
from .series import STATES, Measured, choose, measure
from .service import Service

_Page = dict[str, Any]  # the families of one scrape, by name without `vec_`
# Kind, labels, and the meaning of each name.
_FAMILIES: tuple[tuple[Callable[..., Metric], str, dict[str, str]], ...] = (
    (Gauge, "state", {"workers": "Worker processes: alive, or lost (not ended) within the hour."}),
    (
        Gauge,
        "",
        {
            "worker_slots": "Threads of all living workers.",
            "redis_memory_used_bytes": "Memory that Redis uses (of a cluster: its fullest node).",
            "redis_memory_max_bytes": "Redis' maxmemory; 0: no limit.",
        },
    ),
    (
        Gauge,
        "series",
        {
            "collections": "Collections with series of their own, and those that are summed as "
            "(others): see VECTOR_EMBED_METRICS_COLLECTIONS."
        },
    ),
    (Info, "collection", {"collection": "A collection and its model."}),
    (
        Gauge,
        "collection",
        {
            "collection_halted": "1: no worker alive can work on it; of (others): how many.",
            "collection_paused": "1: nothing is sent for a while, or it is paused by hand; "
            "of (others): how many.",
            "collection_waiting": "1: it has a backlog, and no worker is alive; of (others): how "
            "many.",
            "enqueued_texts": "Texts enqueued: the sum of vec_texts over its states.",
            "oldest_pending_age_seconds": "Time since the oldest text of the backlog was enqueued; "
            "0 if there is none.",
        },
    ),
    (Gauge, "collection state", {"texts": "Texts by what became of them."}),
    (Counter, "collection", {"embedded": "Vectors ever stored, replaced ones too."}),
    (Counter, "collection", {"cached": "Those of them that the API had in its cache."}),
    (Counter, "collection", {"removed": "Ids ever deleted: they are in no other count."}),
    (Counter, "collection code", {"dead": "Texts that ever became dead letters."}),
    (Info, "throttle", {"throttle": "A throttle and its endpoint."}),
    (
        Gauge,
        "throttle",
        {
            "throttle_halted": "1: nothing is sent until vec resume.",
            "throttle_paused": "1: nothing is sent for a while.",
            "throttle_pause_remaining_seconds": "Time until a pause ends; absent for one by hand, "
            "0 if there is none.",
            "throttle_in_flight": "Requests under way.",
            "throttle_in_flight_max": "Most requests at once; absent at first.",
            "throttle_rate": "Requests a second that may be sent; absent if as many as can.",
            "throttle_learned_rate": "Requests a second that the API was found to let through; "
            "absent if none was found.",
            "throttle_quota_used_texts": "Texts answered as new today.",
            "throttle_quota_max_texts": "Texts a day, absent where the API names none.",
        },
    ),
    (
        Counter,
        "throttle outcome",
        {"requests": "Requests to the API: outcome is ok or the error's code."},
    ),
    (Histogram, "throttle", {"request_seconds": "Time that a request to the API took."}),
)


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
        page = {
            name: kind(f"vec_{name}", meaning, labels=labels.split())
            for kind, labels, meanings in _FAMILIES
            for name, meaning in meanings.items()
        }
        was_up, self._up = self._up, False
        try:
            self._fleet(page)
            self._work(page)
            self._up = True
        except redis.RedisError as error:
            page.clear()
            if was_up:
                logger.warning("cannot read Redis (%s): vec_up is 0", error)
        if self._up and not was_up:
            logger.warning("Redis is back")
        yield Gauge("vec_up", "Whether Redis answers.", value=float(self._up))
        yield from page.values()

    def _fleet(self, page: _Page) -> None:
        client = connect(self._settings)
        fleet = read_fleet(client, self._settings.prefix)
        alive = [worker for worker in fleet if worker.alive]
        memory = read_memory(client)
        page["workers"].add_metric(["alive"], len(alive))
        page["workers"].add_metric(["lost"], len(fleet) - len(alive))
        page["worker_slots"].add_metric([], sum(worker.threads for worker in alive))
        page["redis_memory_used_bytes"].add_metric([], memory.used)
        page["redis_memory_max_bytes"].add_metric([], memory.limit)

    def _work(self, page: _Page) -> None:
        settings = self._settings
        client = connect(settings)
        service = Service(client, settings.prefix, settings.queue)
        models: set[str | None] = {None}
        older: set[str] = set()  # throttles of workers of an earlier version

        def measured() -> Iterator[Measured]:
            names = collection_names(client, settings.prefix)
            for name, ledger in read_ledgers(client, settings.prefix, names):
                models.add(ledger.model)
                if ledger.throttle is not None and service.any_older:
                    older.add(ledger.throttle)
                yield measure(name, ledger, service.standing(name, ledger))

        series = choose(measured(), settings.metrics_collections)
        page["collections"].add_metric(["own"], len(series.own))
        page["collections"].add_metric(["summed"], series.summed)
        for one in series.own:
            page["collection"].add_metric([one.collection], {"model": one.model or ""})
            self._collection(page, one)
        if series.summed:
            self._collection(page, series.others)
        live = {name for worker in service.fleet for name in worker.keys} | older
        self._throttles(page, live, models)

    def _collection(self, page: _Page, one: Measured) -> None:
        for family, value in (
            ("collection_halted", one.halted),
            ("collection_paused", one.paused),
            ("collection_waiting", one.waiting),
            ("enqueued_texts", one.enqueued),
            ("oldest_pending_age_seconds", one.oldest_age),
            ("embedded", one.embedded_ever),
            ("cached", one.cached_ever),
            ("removed", one.removed_ever),
        ):
            page[family].add_metric([one.collection], value)
        for state in STATES:
            page["texts"].add_metric([one.collection, state], one.texts.get(state, 0))
        for code, number in sorted(one.dead_ever.items()):
            page["dead"].add_metric([one.collection, code], number)

    def _throttles(
        self, page: _Page, live: AbstractSet[str], models: AbstractSet[str | None]
    ) -> None:
        """Those of the workers alive, and those that were used within the hour."""
        client, prefix = connect(self._settings), self._settings.prefix
        now, _ = time_of(client, CommonKeys(prefix).throttles)
        announced = known_throttles(client, prefix)
        names = live | {one for one, told in announced.items() if told.seen > now - LOST_SECONDS}
        ways = [read_throttles(client, prefix, sorted(names), model) for model in models]
        for name in sorted(names):
            known = ways[0][name]
            if name in announced:
                page["throttle"].add_metric([name], {"endpoint": announced[name].endpoint})
            # A halt that concerns no living worker does not count.
            states = {way[name].state for way in ways if name in live}
            ends = [way[name].pause_seconds for way in ways if way[name].state == "paused"]
            pause = max((end for end in ends if end is not None), default=None if ends else 0.0)
            for family, value in (
                ("halted", "halted" in states),
                ("paused", "paused" in states and "halted" not in states),
                ("pause_remaining_seconds", pause),
                ("in_flight", known.in_flight),
                ("in_flight_max", known.in_flight_ceiling),
                ("rate", known.rate),
                ("learned_rate", known.learned_limit),
                ("quota_used_texts", known.quota_used),
                ("quota_max_texts", known.quota_limit),
            ):
                if value is not None:
                    page[f"throttle_{family}"].add_metric([name], value)
            told = read_requests(client, prefix, name)
            for outcome, number in sorted(told.outcomes.items()):
                page["requests"].add_metric([name, outcome], number)
            bounds = [*map(str, BOUNDS), "+Inf"]
            buckets = list(zip(bounds, accumulate(told.durations)))
            page["request_seconds"].add_metric([name], buckets, told.seconds)
