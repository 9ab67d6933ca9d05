"""Requests that are filled with texts of several collections, each of which is a tenant's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
import redis
from conftest import StartWorker
from faulty_api.vectors import expected_vector
from servers import API, TcpProxy, wait_until
from stored import Bench, Store, vector_of

from worker import enqueue
from worker.engine.filling import Filling
from worker.engine.portion import Portion, settle_all
from worker.engine.process import Process
from worker.engine.verdicts import Outcome
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Work
from worker.settings import Settings
from worker.store.backlog import release_all
from worker.store.errors import DimensionsDiffer
from worker.throttle.holds import hold as hold_by_hand
from worker.throttle.holds import read_holds
from worker.types import Embedded, Refused

ME = "process:1"
MakeProxy = Callable[[str], TcpProxy]


class Tenants:
    """Collections with texts, and what one slice for the first of them takes of the others."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process = Process(settings)
        self.throttles = ["throttle"]
        self.own = Bench(settings, "own")
        self.own.add(("own", "own text"))

    def add(self, name: str, texts: int = 1) -> Bench:
        bench = Bench(self.settings, name)
        bench.add(*[(f"{name}-{number}", f"text {number} of {name}") for number in range(texts)])
        return bench

    def filled(
        self, texts: int, dimensions: int | None = None, consumer: str = ME
    ) -> dict[str, list[str]]:
        """The ids that a slice claims of the others, by collection."""
        portions = self.portions(texts, dimensions, consumer)
        return {one.name: [lease.job.id for lease in one.leases] for one in portions}

    def portions(
        self, texts: int, dimensions: int | None = None, consumer: str = ME
    ) -> list[Portion]:
        filling = self.filling(consumer)
        portions = filling.portions(texts, dimensions)
        filling.fill(portions, texts)
        return [one for one in portions if one.leases]

    def filling(self, consumer: str = ME) -> Filling:
        client, store = self.own.redis, self.own.collection
        own = Portion(self.process, store.backlog, store.reader.info())
        return Filling(self.process, client, own, consumer, lambda: self.throttles)


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


@pytest.fixture
def tenants(settings: Settings) -> Tenants:
    return Tenants(settings)


def count(filled: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, filled.values()))


def test_the_room_is_filled_and_no_more(tenants: Tenants) -> None:
    for number in range(30):
        tenants.add(f"tenant-{number}", 2)
    filled = tenants.filled(20)
    assert count(filled) == 20
    assert set(map(len, filled.values())) == {1}, "equal parts"
    assert "own" not in filled
    assert count(tenants.filled(99, consumer="process:2")) == 40, "what is left"


def test_what_some_cannot_give_the_others_do(tenants: Tenants) -> None:
    tenants.add("small")
    tenants.add("large", 500)
    filled = tenants.filled(99)
    assert (len(filled["small"]), len(set(filled["large"]))) == (1, 98)


def test_a_collection_alone_costs_one_command_more(
    tenants: Tenants, redis_client: redis.Redis
) -> None:
    before = redis_client.info("stats")["total_commands_processed"]
    assert tenants.filled(99) == {}
    after = redis_client.info("stats")["total_commands_processed"]
    assert after - before <= 3  # the info of its own, INFO itself, and a look at the others


def test_only_what_may_share_a_request_does(tenants: Tenants, settings: Settings) -> None:
    names = ("halted", "elsewhere", "held", "older", "longer", "shorter", "other-model", "good")
    for name in names[:-3]:
        tenants.add(name)
    enqueue([("a", "text")], "shorter", dtype="int8", settings=settings)
    enqueue([("a", "text")], "other-model", model="nomic-v2-moe", settings=settings)
    tenants.add("good")
    Store("halted", settings=settings).backlog.halt("throttle", "the reason")
    Store("elsewhere", settings=settings).backlog.halt("another throttle", "the reason")
    client = tenants.own.redis
    client.hset("vec:{older}:info", "throttle", "abc")
    client.hset("vec:{longer}:info", "dimensions", "4")
    hold_by_hand(client, "vec", "held", "by a person")
    tenants.process.holds = read_holds(client, "vec")
    assert tenants.filled(50, dimensions=3).keys() == {"elsewhere", "good"}


def test_of_several_keys_those_that_the_own_collection_is_halted_for_are_not_asked(
    tenants: Tenants, settings: Settings
) -> None:
    for name in ("one", "two", "both"):
        tenants.add(name)
    for name, throttle in (("one", "k1"), ("two", "k2"), ("both", "k1"), ("both", "k2")):
        Store(name, settings=settings).backlog.halt(throttle, "the reason")
    tenants.throttles = ["k1", "k2"]
    assert tenants.filled(50) == {}
    Store("own", settings=settings).backlog.halt("k1", "the reason")
    assert tenants.filled(50).keys() == {"one"}
    tenants.throttles = ["k1", "k3"]  # the keys were read again
    assert tenants.filled(50, consumer="process:2").keys() == {"two", "both"}, "by the third"


def test_where_no_length_is_known_no_vectors_of_a_length_are_asked_for(tenants: Tenants) -> None:
    for name, length in (("three", "3"), ("four", "4"), ("new", "")):
        tenants.add(name)
        if length:
            tenants.own.redis.hset(f"vec:{{{name}}}:info", "dimensions", length)
    assert tenants.filled(50).keys() == {"new"}
    assert tenants.filled(50, 3, "process:2").keys() == {"three"}


def test_what_cannot_be_read_stops_no_other(
    tenants: Tenants, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("later", "strange", "string", "undecodable", "broken", "good"):
        tenants.add(name, 2)
    redis_client.hset("vec:{later}:info", "layout", "int4 128")
    redis_client.hset("vec:{strange}:info", "dimensions", "abc")
    redis_client.delete("vec:{string}:info")
    redis_client.set("vec:{string}:info", "of another program")
    redis_client.xadd("vec:{undecodable}:jobs", {"id": b"\xff", "text": b"\xff"})
    redis_client.set("vec:{broken}:attempts", "of another program")
    portions = tenants.portions(50)
    assert "good" in {one.name for one in portions}
    assert not {"later", "strange", "string"} & {one.name for one in portions}
    release_all([one.backlog for one in portions], ME, [()] * len(portions), [()] * len(portions))
    assert Store("good", settings=tenants.settings).status().leased == 0


def test_a_sample_is_looked_through_for_those_that_may_share(tenants: Tenants) -> None:
    for number in range(12):
        enqueue([("a", "text")], f"other-{number}", model="m2", settings=tenants.settings)
        tenants.add(f"good-{number}", 5)
    assert count(tenants.filled(20)) == 20


def test_a_sample_is_looked_through_in_three_round_trips(
    tenants: Tenants, redis_client: redis.Redis
) -> None:
    for number in range(20):
        enqueue([("a", "text")], f"other-{number}", model="m2", settings=tenants.settings)
    for number in range(19):
        tenants.add(f"good-{number}")
    tenants.process.open(Holding([f"other-{number}" for number in range(20)]))
    filling = tenants.filling()
    before = redis_client.info("stats")["total_reads_processed"]
    found = filling.portions(20, None)
    assert redis_client.info("stats")["total_reads_processed"] - before <= 1 + 2 + 3
    assert {one.name for one in found} == {f"good-{number}" for number in range(19)}


def test_where_those_that_are_asked_first_may_not_share_others_are_asked(tenants: Tenants) -> None:
    for number in range(5):
        enqueue([("a", "text")], f"other-{number}", model="m2", settings=tenants.settings)
    for number in range(7):
        tenants.add(f"good-{number}")
    tenants.process.open(Holding([f"good-{number}" for number in range(1, 7)]))
    found = [one.name for one in tenants.filling().portions(6, None)]
    assert found[0] == "good-0" and len(found) == 6, "no more than are wanted"


def test_what_is_done_with_is_forgotten_on_the_way(tenants: Tenants) -> None:
    for number in range(10):
        tenants.add(f"tenant-{number}").embed_all()
    assert tenants.filled(50) == {}
    assert tenants.own.redis.smembers("vec:busy") == {b"own "}


def test_a_text_that_may_have_killed_its_worker_or_failed_alone_is_left_to_its_own(
    tenants: Tenants,
) -> None:
    one = tenants.add("one", 4)
    one.claim("dead:1", 1)
    one.kill("dead:1")
    lost, failed = one.claim("process:next", 2)
    one.release("process:next", [failed], end_slice=True)
    assert lost.lost == 1
    orphaned = one.claim("dead:2", 1)
    one.kill("dead:2")
    assert [lease.lost for lease in orphaned] == [0] or orphaned[0] == lost
    left = {lost.job.id, failed.job.id, orphaned[0].job.id}
    (ids,) = tenants.filled(50).values()
    assert not left & set(ids) and len(ids) == 4 - len(left)
    assert one.status.leased == len(ids) + 1, "what is left out is not leased"


def test_each_is_stored_and_given_back_by_itself(tenants: Tenants) -> None:
    one, two = tenants.add("one", 3), tenants.add("two", 3)
    portions = tenants.portions(6)
    assert {portion.name for portion in portions} == {"one", "two"}
    for portion in portions:
        if portion.name == "one":
            one.commit(portion.leases)
    release_all([portion.backlog for portion in portions], ME, [(), ()], [(), ()])
    assert (one.counts, two.counts) == ((3, 0, 0, 0), (0, 0, 3, 0))
    assert one.stored() == {f"one-{n}": vector_of(f"text {n} of one") for n in range(3)}
    for name in ("one", "two"):
        consumers = tenants.own.redis.xinfo_consumers(f"vec:{{{name}}}:jobs", "workers")  # type: ignore[attr-defined]
        assert {consumer["name"] for consumer in consumers} <= {b"released"}
        assert not tenants.own.redis.exists(f"vec:{{{name}}}:alive:{ME}")


def test_what_a_thread_has_in_hand_is_asked_last(tenants: Tenants) -> None:
    for number in range(10):
        tenants.add(f"tenant-{number}", 2)
    first = tenants.portions(6)
    tenants.process.open(Holding([one.name for one in first]))
    others = {f"tenant-{number}" for number in range(10)} - {one.name for one in first}
    filled = tenants.filled(5, consumer="process:2")  # all are looked at
    assert filled.keys() > others and count(filled) == 5
    rest = tenants.filled(50, consumer="process:3")
    assert count(rest) == 20 - 6 - 5 and rest.keys() > {one.name for one in first} - filled.keys()


@dataclass
class Holding:
    """An open slice that has texts of these in hand."""

    in_hand: Sequence[str]
    consumer = "process:holding"
    unmoved_seconds = 0.0
    guests = 0

    def renew(self) -> Work:
        return Work("own", 0, False)

    def give_back(self) -> None:
        """It has nothing."""


def outcomes(portion: Portion, dimensions: int = 2) -> list[Outcome]:
    """All its texts embedded, but one that is refused."""
    refused, *embedded = portion.leases
    bad = Refused(refused, "poison", "the API refuses it")
    vectors = [vector_of(one.job.text, dimensions) for one in embedded]
    return [bad, *[Embedded(*pair, False) for pair in zip(embedded, vectors)]]


def test_outcomes_of_all_are_stored_in_one_round_trip(
    tenants: Tenants, redis_client: redis.Redis
) -> None:
    benches = [tenants.add(f"tenant-{number}", 3) for number in range(30)]
    portions = tenants.portions(90)
    settle_all((one, outcomes(one)) for one in portions[:1])  # the step is known now
    before = redis_client.info("stats")["total_reads_processed"]
    settle_all((one, outcomes(one)) for one in portions[1:])
    assert redis_client.info("stats")["total_reads_processed"] - before < 5
    assert [bench.counts for bench in benches] == [(2, 1, 0, 0)] * 30


@pytest.mark.parametrize("after_bytes", [0, 30])
def test_outcomes_whose_replies_are_lost_are_stored_once(
    tenants: Tenants, settings: Settings, proxy: MakeProxy, after_bytes: int
) -> None:
    between = proxy(settings.redis_url)
    tenants.own.collection.reader.info()
    for number in range(5):
        tenants.add(f"tenant-{number}", 3)
    behind = Tenants(dataclasses.replace(settings, redis_url=between.url))
    portions = behind.portions(15)
    between.cut_next_reply(after_bytes, to=b"EVALSHA")
    settle_all((one, outcomes(one)) for one in portions)
    assert between.cuts == 1
    for number in range(5):
        assert Bench(settings, f"tenant-{number}").counts == (2, 1, 0, 0)


def test_what_one_of_several_cannot_store_the_others_do(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("later", "good", "shrunk", "longer", "gone", "broken", "again")
    benches = {name: tenants.add(name, 3) for name in names}
    portions = tenants.portions(21)
    client = tenants.own.redis
    client.hset("vec:{shrunk}:info", "layout", "float16 2")
    client.hset("vec:{later}:info", "layout", "int4 128")
    client.hset("vec:{longer}:info", "dimensions", "3")
    benches["gone"].collection.drop()
    client.hset("vec:{again}:info", "layout", "float16 2")
    for name in ("broken", "again"):  # one at the first step, one at the second
        client.delete(f"vec:{{{name}}}:done")
        client.set(f"vec:{{{name}}}:done", "no stream")
    settle_all((one, outcomes(one)) for one in portions)
    assert [benches[name].counts for name in ("good", "shrunk")] == [(2, 1, 0, 0)] * 2
    assert client.hget("vec:{shrunk}:info", "layout") == b"float16 2"
    assert benches["longer"].counts == (0, 0, 0, 3)
    assert not benches["gone"].collection.exists()
    assert "longer will be tried again: the API answered with 2 dimensions" in caplog.text
    assert "broken will be tried again: " in caplog.text
    assert "again will be tried again: " in caplog.text
    assert "later will be tried again: layout 'int4 128' is of a later version" in caplog.text
    assert "gone is gone from Redis" in caplog.text


def test_what_the_slice_s_own_collection_cannot_store_is_raised_when_the_others_are_stored(
    tenants: Tenants,
) -> None:
    benches = {name: tenants.add(name, 3) for name in ("longer", "good")}
    portions = tenants.portions(6)
    tenants.own.redis.hset("vec:{longer}:info", "dimensions", "3")
    (own,) = (one for one in portions if one.name == "longer")
    with pytest.raises(DimensionsDiffer, match="2 dimensions"):
        settle_all(((one, outcomes(one)) for one in portions), own)
    assert [benches[name].counts for name in ("good", "longer")] == [(2, 1, 0, 0), (0, 0, 0, 3)]
    assert {one.name: one.dimensions for one in portions} == {"good": 2, "longer": 0}


# With real workers


def enqueue_all(settings: Settings, texts: Mapping[str, str]) -> list[Store]:
    for name, text in texts.items():
        enqueue([("id", text)], name, settings=settings)
    return [Store(name, settings=settings) for name in texts]


def wait_done(stores: Sequence[Store]) -> None:
    waiting = list(stores)

    def done() -> bool:
        waiting[:] = [store for store in waiting if store.backlog.size()]
        return not waiting

    wait_until(done, 60, "all of them done")


@pytest.fixture
def texts() -> Iterator[dict[str, str]]:
    """A hundred collections with one text each."""
    yield {f"tenant-{number}": f"text of tenant {number}" for number in range(100)}


def test_a_hundred_collections_of_one_text_need_a_few_requests(
    settings: Settings, worker_process: StartWorker, api: API, texts: dict[str, str]
) -> None:
    stores = enqueue_all(settings, texts)
    api.faults(latency=0.1)
    worker_process(concurrency=2)
    wait_done(stores)
    log = api.log()
    assert log.requests <= 12, log
    assert log.texts <= 101, "one text alone shows how long the vectors are"
    for store, text in zip(stores, texts.values()):
        (record,) = store
        assert list(record.vector) == expected_vector(text)
        assert store.status().embedded == store.status().enqueued == 1


def test_a_bad_text_of_one_tenant_costs_the_others_nothing(
    settings: Settings, worker_process: StartWorker, api: API, texts: dict[str, str]
) -> None:
    texts |= {f"bad-{number}": f"poison-unnamed {number}" for number in range(3)}
    api.faults(latency=0.05, rules=[{"answer": "unnamed", "marker": "poison-unnamed"}])
    stores = enqueue_all(settings, texts)
    worker_process(concurrency=2)
    wait_done(stores)
    sent = [texts for _, _, texts, _ in api.log().recent]
    assert sum(sent) < 4 * len(texts) + 200, "halves of a hundred, and the verdicts"
    for store in stores:
        dead = list(store.dead())
        assert len(dead) == store.name.startswith("bad")
        assert len(store) == (not dead)
        for letter in dead:
            assert letter.text == texts[store.name]
            assert not [name for name in texts if f"{name} " in letter.reason]
        assert not store.client.exists(store.keys.attempts)


def test_each_tenant_keeps_what_it_wants_kept(
    settings: Settings, worker_process: StartWorker, texts: dict[str, str]
) -> None:
    for number, (name, text) in enumerate(texts.items()):
        enqueue([("id", text)], name, keep_text=bool(number % 2), settings=settings)
    worker_process(concurrency=2)
    stores = [Store(name, settings=settings) for name in texts]
    wait_done(stores)
    for number, store in enumerate(stores):
        (record,) = store
        assert record.text == (texts[store.name] if number % 2 else None)


def test_a_killed_worker_leaves_the_texts_of_all_tenants_to_the_next(
    settings: Settings, worker_process: StartWorker, api: API, texts: dict[str, str]
) -> None:
    stores = enqueue_all(settings, texts)
    api.faults(latency=5)
    worker = worker_process(concurrency=1)
    wait_until(lambda: sum(s.status().leased for s in stores[:50]) > 20, 30, "a full request")
    worker.kill()
    api.faults(latency=0)
    worker_process(concurrency=2)
    wait_done(stores)
    for store in stores:
        status = store.status()
        assert (status.enqueued, status.embedded) == (1, 1)


def test_a_tenant_of_bad_texts_alone_costs_the_other_one_request_more(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    enqueue([(f"{n}", f"poison-unnamed {n}") for n in range(99)], "bad", settings=settings)
    enqueue([("id", "the only text")], "good", settings=settings)
    api.faults(rules=[{"answer": "unnamed", "marker": "poison-unnamed"}])
    worker_process(concurrency=1)
    good, bad = (Store(name, settings=settings) for name in ("good", "bad"))
    wait_done([good, bad])
    assert (good.status().embedded, bad.status().dead) == (1, 99)


@pytest.mark.parametrize("key", ["done", "attempts"])
def test_a_tenant_whose_keys_are_broken_keeps_no_other_from_its_vectors(
    settings: Settings,
    worker_process: StartWorker,
    redis_client: redis.Redis,
    texts: dict[str, str],
    key: str,
) -> None:
    stores = enqueue_all(settings, texts)
    broken = f"vec:{{tenant-50}}:{key}"
    redis_client.set(broken, "of another program")
    worker_process(concurrency=2)
    others = [store for store in stores if store.name != "tenant-50"]
    wait_done(others)
    for store in others:
        assert len(store) == 1 and not store.status().leased
