"""One slice of work beside other collections, run here on a real Redis and a local API."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import pytest
from servers import API, API_KEY
from stored import Bench, Store

from vector_embed_client import EmbeddingArray
from worker import enqueue
from worker.engine.process import Process
from worker.engine.slice import Slice
from worker.local.redis_server import RedisServer
from worker.settings import Settings

OTHERS = 5


def nothing() -> None:
    pass


class Watched(Slice):
    """A slice in whose first request something happens."""

    during: Callable[[], object]

    def _send(self, texts: Sequence[str]) -> EmbeddingArray:
        happens, self.during = self.during, nothing
        happens()
        return super()._send(texts)


class Tenants:
    """A collection of a text, whose slice it is, and five others of a text each."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process = Process(settings)
        names = ["own", *(f"other-{number}" for number in range(OTHERS))]
        self.own, *self.others = self.all = [Store(name, settings=settings) for name in names]
        self.enqueue("1")

    def enqueue(self, id: str, own: str = "text of own") -> None:
        """A text for each."""
        for store in self.all:
            text = own if store is self.own else f"text {id} of {store.name}"
            enqueue([(id, text)], store.name, settings=self.settings)

    def run(self, during: Callable[[], object] = nothing) -> bool:
        """A slice of `own`; returns whether its backlog was empty at the end."""
        self.slice = Watched(self.process, self.own.backlog, self.own.reader.info())
        self.slice.during = during
        return self.slice.run()

    @property
    def embedded(self) -> int:
        """How many vectors the others have."""
        return sum(map(len, self.others))

    @property
    def leased(self) -> int:
        return sum(store.status().leased for store in self.others)


@pytest.fixture
def settings(redis_server: RedisServer, api: API) -> Settings:
    return Settings(
        redis_url=redis_server.url,
        broker_url=redis_server.url,
        api_key=API_KEY,
        base_url=api.base_url,
    )


@pytest.fixture
def tenants(settings: Settings) -> Tenants:
    return Tenants(settings)


def test_the_texts_of_collections_that_have_vectors_share_a_request(
    tenants: Tenants, api: API
) -> None:
    assert tenants.run()
    assert tenants.embedded == OTHERS
    tenants.enqueue("2")
    before = api.log().requests
    assert tenants.run()
    assert (tenants.embedded, tenants.leased) == (2 * OTHERS, 0)
    assert api.log().requests == before + 1


def test_what_a_slice_has_done_is_told_of_each_collection(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "worker"):
        assert tenants.run()
    [line] = [line for line in caplog.messages if line.startswith("own: 1 texts in ")]
    assert line.endswith(f", and {OTHERS} of other collections")
    done = tenants.process.done.since_done(time.monotonic())
    assert done.keys() == {store.name for store in tenants.all}


def test_a_text_that_may_have_killed_its_worker_is_sent_without_those_of_others(
    tenants: Tenants, settings: Settings
) -> None:
    own = Bench(settings, "own")
    own.claim("dead:1")
    own.kill("dead:1")
    assert [lease.lost for lease in own.claim("next:1")] == [1]
    own.release("next:1", end_slice=True)
    assert tenants.run()
    assert (len(tenants.own), tenants.embedded) == (1, 0)


def test_the_leases_of_others_are_renewed_while_a_request_lasts(tenants: Tenants) -> None:
    lives: list[int] = []

    def last_long() -> None:
        for store in tenants.others:
            store.client.delete(store.keys.alive(tenants.slice.consumer))
        tenants.slice.renew()
        for store in tenants.others:
            lives.append(store.client.pttl(store.keys.alive(tenants.slice.consumer)))

    assert tenants.run(last_long)
    assert len(lives) == OTHERS and min(lives) > 0


def test_a_process_knows_of_which_collections_it_has_texts_in_hand(
    tenants: Tenants, settings: Settings
) -> None:
    Bench(settings, "other-0").claim("another:1")
    seen: list[set[str]] = []
    assert tenants.run(lambda: seen.append(tenants.process.in_hand()))
    assert seen == [{"own", *(store.name for store in tenants.others[1:])}]
    assert tenants.process.in_hand() == set()


def test_a_collection_that_is_paused_while_its_texts_are_tried_holds_the_batch(
    tenants: Tenants, api: API
) -> None:
    api.faults(rules=[{"answer": "unnamed", "marker": "poison-unnamed"}])
    tenants.enqueue("1", own="poison-unnamed")

    def pause() -> None:
        tenants.process.holds = {"other-0": "by a person"}

    assert not tenants.run(pause)
    assert api.log().requests == 1
    assert (tenants.embedded, tenants.leased) == (0, 0), "all are given back"


def test_a_collection_that_begins_again_with_another_length_costs_the_others_nothing(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    def change() -> None:
        for store in tenants.others[:2]:
            store.client.hset(store.keys.info, "dimensions", "4")

    assert tenants.run(change)
    assert [len(store) for store in tenants.all] == [1, 0, 0, 1, 1, 1]
    assert tenants.leased == 0
    assert "other-0 will be tried again" in caplog.text


def test_what_its_own_collection_cannot_store_costs_the_others_nothing(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    own = tenants.own
    assert tenants.run()
    tenants.enqueue("2")

    assert not tenants.run(lambda: own.client.hset(own.keys.info, "dimensions", "4"))
    assert (len(own), tenants.embedded, tenants.leased) == (1, 2 * OTHERS, 0)
    assert own.status().pending == 1
    assert "own will be tried again" in caplog.text


def test_a_collection_that_cannot_be_written_costs_the_others_nothing(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt, *others = tenants.others

    assert tenants.run(lambda: spoilt.client.set(spoilt.keys.done, "of another program"))
    assert [len(store) for store in (tenants.own, *others)] == [1] * OTHERS
    assert f"{spoilt.name} will be tried again" in caplog.text


def test_where_the_others_cannot_be_found_a_slice_works_on_its_own(tenants: Tenants) -> None:
    tenants.own.client.set("vec:busy", "of another program")
    assert tenants.run()
    assert (len(tenants.own), tenants.embedded) == (1, 0)
