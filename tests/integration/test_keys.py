"""Whose fault: two keys and three workers. What one key is refused, limited or told to wait stops
the workers with that key, and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from uuid import uuid4

import pytest
import redis
from servers import API, WorkerProcess, wait_until
from stored import Store

from worker import Status, enqueue
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Worker, announce_worker, read_fleet, threads_alive
from worker.settings import Settings
from worker.store.connection import Redis, connect
from worker.throttle import Permit, Throttle, known_throttles, pause, resume, throttle_name
from worker.throttle.holds import ALL, hold, release

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]

GOOD, BAD = "vec_good", "vec_bad"


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


@pytest.fixture
def client(settings: Settings) -> Redis:
    return connect(settings)


def corpus(count: int, prefix: str = "text") -> list[tuple[str, str]]:
    return [(f"{prefix}-{number}", f"{prefix} {number}") for number in range(count)]


def check(status: Status) -> Status:
    parts = status.embedded + status.evicted + status.dead + status.pending + status.leased
    assert status.enqueued == parts, status
    assert status.dead == 0
    return status


def wait_embedded(collection: Store, count: int, timeout: float = 60.0) -> None:
    """Wait until so many are embedded; never may it be halted meanwhile."""

    def done() -> bool:
        status = check(collection.status())
        assert status.state != "halted", status
        return status.embedded >= count

    wait_until(done, timeout, f"{count} embedded", every=0.05)


def states(client: Redis) -> list[tuple[str, bool]]:
    return sorted(
        (worker.state or "", worker.takes) for worker in read_fleet(client, "vec") if worker.alive
    )


def resume_all(client: Redis, settings: Settings) -> None:
    for name in known_throttles(client, "vec"):
        resume(client, "vec", name, [settings.model])


# Real workers


def test_a_worker_with_a_revoked_key_stops_no_other_takes_nothing_and_says_so_once(
    settings: Settings, worker_process: StartWorker, api: API, client: Redis
) -> None:
    api.faults(latency=0.02, keys=[GOOD])
    good = [worker_process(VECTOR_EMBED_API_KEY=GOOD) for _ in range(2)]
    bad = worker_process(VECTOR_EMBED_API_KEY=BAD)
    enqueue(corpus(12_000), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)

    wait_until(
        lambda: ("halted", False) in states(client), 15, "the worker to say that it is halted"
    )
    wait_embedded(collection, 12_000)

    assert states(client) == [("halted", False), ("working", True), ("working", True)]
    [halted] = [one for one in read_fleet(client, "vec") if one.state == "halted"]
    assert "Invalid or revoked API key" in (halted.reason or "")
    assert threads_alive(client, "vec") == 16  # of which two workers' slots
    assert bad.log.count("halted: ") == 1
    assert all("halted" not in worker.log for worker in good)

    # Whatever is resumed, it is refused again, and no other is stopped.
    refused = api.log().statuses[401]
    for turn in range(3):
        resume_all(client, settings)
        enqueue(corpus(2_000, f"turn {turn}"), "wiki", settings=settings)
        wait_embedded(collection, 14_000 + 2_000 * turn)

    def is_halted_again() -> bool:
        enqueue([(f"more-{uuid4()}", f"more {uuid4()}")], "wiki", settings=settings)
        return ("halted", False) in states(client)

    wait_until(is_halted_again, 30, "it is halted again", every=0.2)
    wait_embedded(collection, collection.status().enqueued)
    assert api.log().statuses[401] <= refused + 3 * 8  # what it had in flight at most

    # It takes no wake-up that another needs: a lone text is done at once.
    took = []
    for number in range(10):
        start = time.monotonic()
        enqueue([(f"lone-{number}", f"lone {number}")], "wiki", settings=settings)
        wait_embedded(collection, collection.status().enqueued, 5)
        took.append(time.monotonic() - start)
    assert median(took) < 0.9  # without a beat of the pump


def test_keys_are_changed_one_worker_at_a_time_under_load(
    settings: Settings, worker_process: StartWorker, api: API, client: Redis
) -> None:
    api.faults(latency=0.05, keys=[BAD, GOOD])
    workers = [worker_process(VECTOR_EMBED_API_KEY=BAD) for _ in range(3)]
    enqueue(corpus(20_000), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    wait_embedded(collection, 1_000)

    workers[0].stop()
    worker_process(VECTOR_EMBED_API_KEY=GOOD)
    api.faults(latency=0.05, keys=[GOOD])

    def are_two_halted() -> bool:
        enqueue(corpus(1_000, str(uuid4())), "wiki", settings=settings)
        return states(client).count(("halted", False)) == 2

    wait_until(are_two_halted, 40, "two are halted", every=0.2)
    wait_embedded(collection, collection.status().enqueued)
    workers[1].kill()
    worker_process(VECTOR_EMBED_API_KEY=GOOD)
    workers[2].stop()
    worker_process(VECTOR_EMBED_API_KEY=GOOD)

    enqueue(corpus(5_000, "last"), "wiki", settings=settings)
    wait_embedded(collection, collection.status().enqueued)
    assert states(client)[-3:] == [("working", True)] * 3
    assert api.log().most_in_flight <= settings.max_in_flight


def test_all_are_halted_where_no_key_is_good_and_a_restart_with_a_good_one_is_enough(
    settings: Settings, worker_process: StartWorker, api: API, client: Redis
) -> None:
    api.faults(keys=[GOOD])
    bad = worker_process(VECTOR_EMBED_API_KEY=BAD)
    enqueue(corpus(500), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    status = check(collection.wait(20))
    assert (status.state, status.workers, status.able) == ("halted", 1, 0)
    assert "Invalid or revoked API key" in (status.reason or "")
    assert not collection.is_open()

    bad.stop()
    status = check(collection.status())
    assert (status.state, status.workers) == ("waiting", 0)
    worker_process(VECTOR_EMBED_API_KEY=GOOD)
    wait_embedded(collection, 500)


def test_a_key_that_is_good_again_works_after_a_resume(
    settings: Settings, worker_process: StartWorker, api: API, client: Redis
) -> None:
    api.faults(keys=[GOOD])
    bad = worker_process(VECTOR_EMBED_API_KEY=BAD)
    enqueue(corpus(500), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    assert collection.wait(20).state == "halted"
    wait_until(lambda: states(client) == [("halted", False)], 10, "it takes no wake-ups")
    wait_until(lambda: "Canceling queue" in bad.log, 10, "the consumer to stop")

    api.faults()
    resume_all(client, settings)
    wait_embedded(collection, 500, 20)
    wait_until(lambda: states(client) == [("working", True)], 10, "it says that it works")


def test_a_key_whose_quota_is_used_up_leaves_the_work_to_the_other(
    settings: Settings, worker_process: StartWorker, api: API, client: Redis
) -> None:
    worker_process(VECTOR_EMBED_API_KEY=GOOD)
    worker_process(VECTOR_EMBED_API_KEY=BAD)
    throttle = Throttle(
        Settings(redis_url=settings.redis_url, base_url=api.base_url, api_key=BAD), settings.model
    )
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.deferred(permit, 3600.0, "slow down")
    wait_until(
        lambda: states(client) == [("working", False), ("working", True)], 10, "it takes no more"
    )
    enqueue(corpus(3_000), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    wait_embedded(collection, 3_000)
    assert collection.status().state == "idle"


@pytest.mark.parametrize("held", ["wiki", ALL])
def test_a_pause_by_hand_holds_for_every_key_and_for_a_worker_that_starts_meanwhile(
    settings: Settings, worker_process: StartWorker, api: API, client: Redis, held: str
) -> None:
    api.faults(latency=0.05)
    worker_process(VECTOR_EMBED_API_KEY=GOOD)
    worker_process(VECTOR_EMBED_API_KEY=BAD)
    enqueue(corpus(20_000), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    wait_embedded(collection, 500)

    hold(client, "vec", held, "by hand: the invoice")
    status = collection.status()
    assert (status.state, status.reason, status.held) == ("paused", "by hand: the invoice", True)
    wait_until(lambda: not collection.status().leased, 10, "what is in hand to be finished")
    embedded = collection.status().embedded
    assert embedded < 20_000
    worker_process(VECTOR_EMBED_API_KEY="vec_third")
    enqueue(corpus(100, "other"), "other", settings=settings)
    other = Store("other", settings=settings)
    if held == ALL:  # a collection that is new is held too
        assert other.status().state == "paused"
    else:
        wait_embedded(other, 100)
    assert collection.status().embedded == embedded

    assert release(client, "vec", ALL) == [held]
    wait_embedded(collection, 20_000)
    wait_embedded(other, 100)


def test_a_collection_whose_slices_raise_is_said_to_be_halted_and_stops_no_other(
    settings: Settings, worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    worker = worker_process()
    enqueue(corpus(10), "broken", settings=settings)
    broken = Store("broken", settings=settings)
    wait_embedded(broken, 10)
    # A job whose meta is no JSON: no producer of ours writes one.
    redis_client.hset("vec:{broken}:queued", "x", b"12345678999")
    job: dict[str, str] = {"id": "x", "text": "text", "meta": "{"}
    redis_client.xadd("vec:{broken}:jobs", job, id="99999999999999-999")  # type: ignore[arg-type]
    redis_client.hincrby("vec:{broken}:info", "enqueued", 1)
    redis_client.sadd("vec:busy", "broken ")

    status = broken.wait(30)

    assert status.state == "halted"
    assert "JSONDecodeError" in (status.reason or "")
    assert check(status).pending + status.leased == 1
    enqueue(corpus(500), "wiki", settings=settings)
    wait_embedded(Store("wiki", settings=settings), 500, 40)
    assert worker.log.count("Traceback") == 1


def test_a_halted_worker_whose_broker_went_away_meanwhile_takes_wakeups_after_a_resume(
    settings: Settings,
    worker_process: StartWorker,
    api: API,
    client: Redis,
    redis_server: RedisServer,
    proxy: Callable[[str], object],
) -> None:
    between = proxy(redis_server.url)
    api.faults(keys=[GOOD])
    worker = worker_process(
        VECTOR_EMBED_API_KEY=BAD,
        VECTOR_EMBED_BROKER_URL=between.url,  # type: ignore[attr-defined]
    )
    enqueue(corpus(300), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    wait_until(lambda: "Canceling queue" in worker.log, 20, "the consumer to stop")
    between.refuse()  # type: ignore[attr-defined]
    wait_until(lambda: "Connection to broker lost" in worker.log, 20, "the broker is missed")
    between.refuse(False)  # type: ignore[attr-defined]

    api.faults()
    resume_all(client, settings)

    wait_until(lambda: collection.status().embedded == 300, 40, "all embedded")


# Standing, by what the workers announce


def throttle_of(settings: Settings, key: str, state: str) -> str:
    """The name of a key's throttle, brought into a state."""
    throttle = Throttle(
        Settings(redis_url=settings.redis_url, base_url="http://a", api_key=key), settings.model
    )
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    if state == "halted":
        throttle.halted(permit, f"{key} is refused", of_key=True)
    elif state == "paused":
        throttle.deferred(permit, 60.0 if key == "vec_a" else 600.0, f"{key} waits")
    else:
        throttle.unused(permit)
    return throttle.name


@pytest.mark.parametrize(
    ("a", "b", "state", "reason", "able"),
    [
        ("running", "running", "running", None, 2),
        ("running", "halted", "running", None, 1),
        ("paused", "running", "running", None, 2),
        ("paused", "halted", "paused", "vec_a waits", 1),
        ("paused", "paused", "paused", "vec_a waits", 2),
        ("halted", "halted", "halted", "vec_a is refused", 0),
        ("running", "unfit", "running", None, 1),
        ("paused", "unfit", "paused", "vec_a waits", 1),
        ("unfit", "unfit", "halted", "no certificates", 0),
        ("running", "elsewhere", "running", None, 1),
        ("halted", "elsewhere", "halted", "vec_a is refused", 0),
        ("elsewhere", "elsewhere", "waiting", None, 0),
    ],
)
def test_a_collection_stands_as_the_best_of_its_workers_can_serve_it(
    settings: Settings, client: Redis, a: str, b: str, state: str, reason: str | None, able: int
) -> None:
    enqueue(corpus(1), "wiki", settings=settings)
    for key, said in (("vec_a", a), ("vec_b", b)):
        worker = Worker(
            f"{key}:1:x",
            8,
            throttle=throttle_of(settings, key, said),
            queue="celery" if said == "elsewhere" else settings.queue,
            takes=said in ("running", "paused"),
            state="unfit" if said == "unfit" else "working",
            faults={"wiki": "no certificates"} if said == "unfit" else {},
        )
        announce_worker(client, "vec", worker)

    status = Store("wiki", settings=settings).status()

    assert (status.state, status.reason, status.able) == (state, reason, able)
    assert status.workers == [a, b].count("elsewhere") * -1 + 2
    assert (status.paused_until is not None) is (state == "paused")
    taking = sum(said in ("running", "paused") for said in (a, b))
    assert threads_alive(client, "vec") == 8 * taking


def test_a_halt_of_a_key_that_no_worker_has_does_not_count(
    settings: Settings, client: Redis
) -> None:
    enqueue(corpus(1), "wiki", settings=settings)
    collection = Store("wiki", settings=settings)
    name = throttle_of(settings, "vec_a", "halted")
    assert (collection.status().state, collection.status().workers) == ("waiting", 0)
    announce_worker(client, "vec", Worker("a:1:x", 8, throttle=name, queue=settings.queue))
    assert collection.status().state == "halted"


# Beside workers of an earlier version, which announce no throttle


OLDER = "0123456789abcdef"


@pytest.fixture
def older(settings: Settings, redis_client: redis.Redis) -> Store:
    """A collection that a worker of an earlier version has seen, and that worker."""
    enqueue(corpus(1), "wiki", settings=settings)
    redis_client.hset("vec:{wiki}:info", "throttle", OLDER)
    redis_client.zadd("vec:workers", {"old:1:x/8": now_of(redis_client)})
    return Store("wiki", settings=settings)


def now_of(client: redis.Redis) -> float:
    seconds, _ = client.time()
    return float(seconds)


def test_an_older_workers_halt_is_seen_and_stops_no_newer_worker(
    older: Store, settings: Settings, client: Redis, redis_client: redis.Redis
) -> None:
    redis_client.hset(f"vec:throttle:{{{OLDER}}}", "halted", "the API refuses the key")
    assert (older.status().state, older.status().reason) == ("halted", "the API refuses the key")
    name = throttle_name("http://a", "vec_a")
    announce_worker(client, "vec", Worker("a:1:x", 8, throttle=name, queue=settings.queue))
    assert older.status().state == "running"
    assert resume(client, "vec", OLDER)
    assert not redis_client.hexists(f"vec:throttle:{{{OLDER}}}", "halted")


def test_a_pause_by_hand_from_before_an_upgrade_holds_after_it(
    older: Store, settings: Settings, client: Redis
) -> None:
    pause(client, "vec", OLDER, "by hand")
    name = throttle_name("http://a", "vec_a")
    announce_worker(client, "vec", Worker("a:1:x", 8, throttle=name, queue=settings.queue))
    assert (older.status().state, older.status().held) == ("paused", True)
    assert not older.is_open_under(name)
    resume(client, "vec", OLDER)
    assert older.status().state == "running"
    assert older.is_open_under(name)
