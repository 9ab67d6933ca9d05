"""Real worker processes on a real Redis, the local API over HTTP, and faults on request."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from statistics import median
from typing import cast

import pytest
import redis
from conftest import heavy
from faulty_api.vectors import expected_vector
from servers import API, API_KEY, WorkerProcess, wait_until
from stored import Store

from worker import Job, Status, enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.throttle import resume, throttle_name

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


def corpus(count: int, prefix: str = "text") -> dict[str, str]:
    return {f"id-{number}": f"{prefix} {number}" for number in range(count)}


def check_ledger(status: Status) -> Status:
    parts = status.embedded + status.evicted + status.dead + status.pending + status.leased
    assert status.enqueued == parts, status
    return status


def wait_idle(collection: Store, timeout: float = 60.0) -> Status:
    def idle() -> bool:
        return not check_ledger(collection.status()).backlog

    wait_until(idle, timeout, f"{collection} idle", every=0.1)
    return collection.status()


def check_vectors(collection: Store, texts: Mapping[str, str]) -> None:
    stored = {record.id: record.tobytes() for record in collection}
    assert stored.keys() == texts.keys()
    for id, text in texts.items():
        assert stored[id] == array("f", expected_vector(text)).tobytes(), id


def start(settings: Settings, texts: Mapping[str, str], name: str = "wiki") -> Store:
    receipt = enqueue(texts.items(), name, settings=settings)
    assert receipt.new == len(texts)
    return Store(name, settings=settings)


def test_every_text_gets_its_own_vector_with_two_workers(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    worker_process()
    worker_process()
    texts = corpus(5_000)
    collection = start(settings, texts)
    status = wait_idle(collection)
    assert (status.embedded, status.dead, status.state) == (5_000, 0, "idle")
    assert status.workers == 2
    check_vectors(collection, texts)
    assert api.log().charged == 5_000


def test_work_enqueued_before_any_worker_starts_is_done_when_one_does(
    settings: Settings, worker_process: StartWorker
) -> None:
    texts = corpus(300)
    collection = start(settings, texts)
    assert collection.status().workers == 0
    worker_process()
    wait_idle(collection)
    check_vectors(collection, texts)


def test_work_that_nothing_announces_is_found_by_a_worker_that_starts(
    settings: Settings, worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    texts = corpus(150)
    collection = start(settings, texts)
    redis_client.delete("vec:busy", settings.queue)
    worker_process()
    wait_idle(collection)
    check_vectors(collection, texts)


def test_enqueuing_the_same_again_costs_no_request(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    worker_process()
    texts = corpus(250)
    collection = start(settings, texts)
    wait_idle(collection)
    before = api.log().requests
    receipt = enqueue(texts.items(), "wiki", settings=settings)
    assert (receipt.new, receipt.unchanged) == (0, 250)
    wait_idle(collection)
    assert api.log().requests == before


def test_many_producers_of_one_text_each_fill_a_batch(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    worker_process(VECTOR_EMBED_LINGER="0.25")
    wait_until(lambda: Store("wiki", settings=settings).status().workers, 30, "the worker")
    texts = corpus(40)
    for text in texts.items():
        enqueue([text], "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    wait_idle(collection)
    check_vectors(collection, texts)
    # One, as a rule; without the wait a dozen.
    assert api.log().requests <= 4


def test_a_quarantined_text_has_its_turn_also_while_the_backlog_is_never_empty(
    settings: Settings, worker_process: StartWorker, api: API, redis_client: redis.Redis
) -> None:
    # Given a text over which two owners died, and a backlog that outlasts many slices
    collection = start(settings, {"suspect": "was it me?"})
    collection.backlog.keep_alive("heir")
    (lease,) = collection.backlog.claim("heir")
    redis_client.hset("vec:{wiki}:attempts", f"lost:{lease.entry.decode()}", "2")
    collection.backlog.release("heir", end_slice=True)
    start(settings, corpus(5_000))
    api.faults(latency=0.3)
    # When one thread works on it in short slices
    worker_process(concurrency=1, VECTOR_EMBED_SLICE_SECONDS="0.5")
    # Then the text does not wait for the end of the rest
    wait_until(lambda: collection.get("suspect"), 60, "the suspect's vector")
    assert collection.backlog.size() > 0


def test_a_quarantined_text_is_worked_on_with_nothing_else_in_its_process(
    settings: Settings, worker_process: StartWorker, api: API, redis_client: redis.Redis
) -> None:
    # Given a text over which two owners died, before work for many threads
    latency = 0.3
    collection = start(settings, {"suspect": "was it me?"})
    collection.backlog.keep_alive("heir")
    (lease,) = collection.backlog.claim("heir")
    redis_client.hset("vec:{wiki}:attempts", f"lost:{lease.entry.decode()}", "2")
    collection.backlog.release("heir", end_slice=True)
    start(settings, corpus(6_000))
    api.faults(latency=latency)
    # When they work on it in short slices
    worker_process(VECTOR_EMBED_SLICE_SECONDS="0.5")
    wait_until(lambda: collection.get("suspect"), 60, "the suspect's vector")
    wait_until(lambda: api.log().recent[-1][2] > 1, 20, "the work after it")
    # Then no other request was in flight with the one of this text
    told = api.log().recent
    suspect = [at for at, _, texts, _ in told if texts == 1][-1]
    others = [at for at, _, texts, _ in told if texts > 1]
    assert min(others) < suspect < max(others)
    assert min(abs(at - suspect) for at in others) >= 0.9 * latency


def test_the_last_text_of_an_id_wins_while_the_old_one_is_in_flight(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency=0.3)
    worker_process()
    texts = corpus(200, "first")
    collection = start(settings, texts)
    wait_until(lambda: api.log().in_flight, what="a request in flight")
    last = corpus(200, "second")
    enqueue(last.items(), "wiki", settings=settings)
    status = wait_idle(collection)
    assert (status.enqueued, status.embedded) == (200, 200)
    check_vectors(collection, last)


def test_equal_texts_under_many_ids_are_paid_once_a_batch(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    worker_process()
    texts = {f"id-{number}": "the same" for number in range(100)}
    collection = start(settings, texts)
    wait_idle(collection)
    check_vectors(collection, texts)
    assert api.log().charged == 2  # and a harmless text, which confirms the dimensions


def test_a_worker_killed_in_mid_request_loses_nothing(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency=0.5)
    doomed = worker_process()
    texts = corpus(2_000)
    collection = start(settings, texts)
    wait_until(lambda: api.log().in_flight >= 4, what="requests in flight")
    doomed.kill()
    worker_process()
    status = wait_idle(collection, 30)
    assert (status.embedded, status.dead, status.enqueued) == (2_000, 0, 2_000)
    check_vectors(collection, texts)


def test_a_worker_told_to_stop_ends_quickly_and_leaves_nothing_leased(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency=0.5)
    worker = worker_process()
    collection = start(settings, corpus(5_000))
    wait_until(lambda: api.log().in_flight >= 4, what="requests in flight")
    worker.stop(patience=10)
    status = check_ledger(collection.status())
    assert status.leased == 0
    assert status.pending > 0
    assert status.workers == 0


def test_lost_wakeups_are_replaced(
    settings: Settings,
    worker_process: StartWorker,
    redis_client: redis.Redis,
) -> None:
    texts = corpus(1_000)
    collection = start(settings, texts)
    redis_client.delete(settings.queue)
    worker_process()
    wait_idle(collection, 15)
    check_vectors(collection, texts)


def test_a_revoked_key_halts_the_queue_and_nothing_is_lost(
    settings: Settings, worker_process: StartWorker, api: API, redis_client: redis.Redis
) -> None:
    api.faults(latency=0.05, rules=[{"answer": "revoked", "skip": 5}])
    worker_process()
    texts = corpus(3_000)
    collection = start(settings, texts)
    status = collection.wait(20)
    assert status.state == "halted"
    assert "Invalid or revoked API key" in (status.reason or "")
    assert status.dead == 0
    api.faults()
    throttle = throttle_name(api.base_url, API_KEY)
    assert resume(redis_client, settings.prefix, throttle)  # type: ignore[arg-type]
    status = wait_idle(collection)
    assert (status.embedded, status.dead) == (3_000, 0)
    check_vectors(collection, texts)


def test_an_account_400_halts_the_queue_instead_of_killing_texts(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(rules=[{"answer": "account"}])
    worker_process()
    collection = start(settings, corpus(300))
    status = collection.wait(20)
    assert (status.state, status.dead, status.backlog) == ("halted", 0, 300)
    assert "Free tier requires BYOK provider" in (status.reason or "")


def test_a_quota_is_used_to_the_last_text_and_then_waited_for(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency=0.05, quota=1_234)
    worker_process()
    collection = start(settings, corpus(1_500))
    wait_until(lambda: collection.status().embedded == 1_234, 30, "the quota used up")
    # Before it is parked, half as many texts are tried after ever so short a pause.
    wait_until(lambda: (collection.status().paused_until or 0) > time.time() + 5, 10, "parked")
    status = collection.status()
    assert status.state == "paused"
    assert (status.dead, status.backlog) == (0, 266)
    assert "Limit: 1234/day" in (status.reason or "")
    assert status.paused_until is not None
    assert api.log().statuses[429] <= 25
    api.faults()
    status = wait_idle(collection, 40)
    assert (status.embedded, status.dead) == (1_500, 0)


@pytest.mark.parametrize("retry_after", ["", *heavy("1", "1.5", "+2")])
def test_a_429_is_a_wait_for_the_fleet_and_no_attempt(
    settings: Settings, worker_process: StartWorker, api: API, retry_after: str
) -> None:
    rule = {"answer": "slow_down", "skip": 3, "times": 3, "retry_after": retry_after}
    api.faults(rules=[rule])
    worker_process()
    texts = corpus(1_000)
    collection = start(settings, texts)
    status = wait_idle(collection)
    assert (status.embedded, status.dead) == (1_000, 0)
    check_vectors(collection, texts)


@pytest.mark.parametrize("answer", ["named", "unnamed", "error"])
def test_poison_texts_are_dead_with_their_reasons_and_the_rest_is_stored(
    settings: Settings, worker_process: StartWorker, api: API, answer: str
) -> None:
    api.faults(rules=[{"answer": answer, "marker": "poison"}])
    worker_process()
    texts = corpus(300)
    collection = start(settings, {**texts, "bad-1": "poison one", "bad-2": "poison two"})
    status = wait_idle(collection, 60)
    assert (status.embedded, status.dead) == (300, 2)
    check_vectors(collection, texts)
    assert {letter.id for letter in collection.dead()} == {"bad-1", "bad-2"}
    assert all(letter.code and letter.reason for letter in collection.dead())


def test_dead_letters_can_be_retried_when_the_api_has_mended(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(rules=[{"answer": "named", "marker": "poison"}])
    worker_process()
    texts = {**corpus(50), "bad": "poison"}
    collection = start(settings, texts)
    assert wait_idle(collection).dead == 1
    api.faults()
    assert collection.retry() == 1
    status = wait_idle(collection)
    assert (status.embedded, status.dead, status.enqueued) == (51, 0, 51)
    check_vectors(collection, texts)


MORE_WRONG = ["truncate", "garbage", "long", "dimension", "infinity", "zero", "gateway", "reset"]


@pytest.mark.parametrize("answer", ["short", "nan", "lost", *heavy(*MORE_WRONG)])
def test_nothing_wrong_is_stored_and_the_batch_is_tried_again(
    settings: Settings, worker_process: StartWorker, api: API, answer: str
) -> None:
    api.faults(rules=[{"answer": answer, "times": 2}])
    worker_process(concurrency=2)
    texts = corpus(300)
    collection = start(settings, texts)
    status = wait_idle(collection, 30)
    assert (status.embedded, status.dead) == (300, 0)
    check_vectors(collection, texts)


def test_an_api_that_is_down_for_long_makes_no_dead_letter(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(rules=[{"answer": "unavailable"}])
    worker_process()
    texts = corpus(1_000)
    collection = start(settings, texts)
    wait_until(lambda: api.log().requests >= 8, 20, "eight probes")
    status = check_ledger(collection.status())
    assert (status.embedded, status.dead, status.state) == (0, 0, "paused")
    api.faults()
    wait_idle(collection, 30)
    check_vectors(collection, texts)


def test_requests_in_flight_stay_below_the_limit_over_all_workers(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency=0.05)
    for _ in range(2):
        worker_process(VECTOR_EMBED_MAX_IN_FLIGHT="3")
    collection = start(settings, corpus(3_000))
    wait_idle(collection)
    assert 1 < api.log().most_in_flight <= 3


def leased_for_a_second(collection: Store) -> list[int]:
    leased = []
    for _ in range(21):
        leased.append(collection.status().leased)
        time.sleep(0.05)
    return leased


def test_a_batch_is_claimed_while_all_request_slots_are_taken(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency=0.5)
    # With so long a timeout, a hundred texts are safe also after a first answer that took minutes:
    # of 300 s, they are fewer after one of 1.5 s.
    worker_process(VECTOR_EMBED_MAX_IN_FLIGHT="1", VECTOR_EMBED_TIMEOUT="80000")
    collection = start(settings, corpus(1_000))
    wait_until(lambda: api.log().batches.get(100), what="a whole batch", timeout=20)
    assert median(leased_for_a_second(collection)) >= 200  # 100 are under way
    api.faults()
    wait_idle(collection)
    assert api.log().most_in_flight == 1
    # One text first, then its batch's rest; so the second batch, if it has asked before the answer.
    assert api.log().batches in ({1: 1, 99: 1, 100: 9}, {1: 2, 99: 2, 100: 8})


def test_nothing_is_claimed_while_a_rate_is_what_is_waited_for(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    worker_process(VECTOR_EMBED_RATE="5/s")
    collection = start(settings, corpus(1_500))
    wait_until(lambda: api.log().requests >= 2, what="two requests")
    assert median(leased_for_a_second(collection)) <= 100
    wait_idle(collection)


def test_two_collections_are_worked_on_side_by_side(
    settings: Settings, worker_process: StartWorker
) -> None:
    worker_process()
    one = start(settings, corpus(500, "one"), "one")
    two = start(settings, corpus(500, "two"), "two")
    for collection, prefix in ((one, "one"), (two, "two")):
        wait_idle(collection)
        check_vectors(collection, corpus(500, prefix))


def test_the_key_and_the_texts_stay_out_of_redis_messages_and_logs(
    settings: Settings,
    worker_process: StartWorker,
    api: API,
    redis_client: redis.Redis,
) -> None:
    key = "vec_a_very_secret_key"
    faults = [{"answer": "error", "probability": 0.3}, {"answer": "named", "marker": "tial 17"}]
    api.faults(rules=faults)
    worker = worker_process(VECTOR_EMBED_API_KEY=key)
    collection = start(settings, corpus(300, "confidential"))
    wait_idle(collection)
    assert key not in worker.log
    assert "confidential" not in worker.log
    for name in cast("list[bytes]", redis_client.keys("*")):
        value = redis_client.dump(name) or b""
        assert key.encode() not in value, name
        assert name.startswith(b"vec:{wiki}:") or b"confidential" not in value, name


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"VECTOR_EMBED_API_KEY": ""}, "VECTOR_EMBED_API_KEY is not set"),
        ({"VECTOR_EMBED_API_KYE": "x"}, "did you mean VECTOR_EMBED_API_KEY"),
    ],
)
def test_a_worker_that_cannot_work_says_so_in_one_line_and_leaves(
    worker_process: StartWorker, environ: dict[str, str], reason: str
) -> None:
    with pytest.raises(Exception, match=reason):
        worker_process(**environ)


def test_a_worker_refuses_a_redis_that_evicts(
    worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(Exception, match="evicts keys under maxmemory-policy allkeys-lru"):
            worker_process()
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")


def test_the_public_face_reads_back_what_was_stored(
    settings: Settings, worker_process: StartWorker
) -> None:
    worker_process()
    receipt = enqueue(["hello", "world", ""], "face", settings=settings)
    assert (receipt.new, receipt.rejected) == (2, 1)
    collection = Store("face", settings=settings)
    assert collection.wait(30).embedded == 2
    ids = sorted(record.id for record in collection)
    record = collection.get(ids[0])
    assert record is not None
    assert len(record.vector) == record.dimensions == 768
    assert record.tobytes() == array("f", record.vector).tobytes()
    assert collection.get_many([ids[1], "unknown"])[1] is None


def test_a_full_redis_stops_claims_before_anything_is_paid_until_there_is_room(
    settings: Settings, worker_process: StartWorker, api: API, redis_client: redis.Redis
) -> None:
    worker = worker_process()
    texts = corpus(500)
    for number in range(600):  # small beside it: the buffers of a large one would count too
        redis_client.set(f"ballast-{number}", bytes(100_000))

    def seen_full() -> bool:
        # Again and again: the buffers of what went before are still being given back.
        used = int(redis_client.info("memory")["used_memory"])
        redis_client.config_set("maxmemory", int(used / 0.9))
        return "claims wait" in worker.log

    try:
        wait_until(seen_full, what="the worker has seen it")
        # The producer would wait: what is there may have been enqueued while there was room.
        adder = Store("wiki", settings=settings).adder()
        adder.add([Job(id, text) for id, text in texts.items()])
        collection = Store("wiki", settings=settings)
        wait_until(lambda: collection.status().state == "paused", what="paused")
        assert "full" in (collection.status().reason or "")
        assert api.log().charged == 0
    finally:
        redis_client.config_set("maxmemory", 0)
    wait_idle(collection)
    check_vectors(collection, texts)


def test_an_api_that_changes_its_dimensions_stores_nothing_and_kills_nothing(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    worker_process()
    texts = corpus(200)
    collection = start(settings, texts)
    wait_idle(collection)
    api.faults(rules=[{"answer": "dimension"}])
    more = corpus(200, "more")
    enqueue(((f"more-{id}", text) for id, text in more.items()), "wiki", settings=settings)
    wait_until(lambda: collection.status().state == "paused", 20, "paused")
    status = check_ledger(collection.status())
    assert (status.embedded, status.dead) == (200, 0)
    api.faults()
    wait_idle(collection)
    check_vectors(collection, {**texts, **{f"more-{id}": text for id, text in more.items()}})
