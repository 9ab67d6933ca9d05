"""Faults injected for real: nothing is lost, nothing is done twice, nothing wrong is stored."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import redis
from servers import API, TcpProxy, WorkerProcess, wait_until
from stored import Store

from worker import Job, Status, enqueue
from worker.engine.broker import make_app
from worker.engine.verdicts import MAX_LOST
from worker.local.redis_server import RedisServer
from worker.producer import produce
from worker.settings import Settings
from worker.store.backlog import CHUNK_SIZE
from worker.store.registry import collection_names

from .conftest import Shell
from .machines import HASTY, Gate, Redis, customized, step
from .proof import balances, vector_of

pytestmark = pytest.mark.heavy

ACQUAINTED = 300  # texts
StartWorker = Callable[..., WorkerProcess]
MakeProxy = Callable[[str], TcpProxy]


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


@pytest.fixture
def wiki(settings: Settings) -> Store:
    return Store("wiki", settings=settings)


@pytest.fixture
def gate(redis_server: RedisServer) -> Iterator[Gate]:
    """Before Redis: it counts commits, and can keep them back."""
    made = Gate(redis_server.url, step("commit"))
    yield made
    made.close()


def corpus(count: int, prefix: str = "text") -> dict[str, str]:
    return {f"id-{number}": f"{prefix} {number}" for number in range(count)}


def acquaint(settings: Settings, api: API) -> dict[str, str]:
    """Embed some texts, so that the next requests are whole batches: the key, the dimensions and
    how long a batch takes are known. What the API was asked for them is forgotten.
    """
    texts = {f"first-{id}": text for id, text in corpus(ACQUAINTED, "first").items()}
    enqueue(texts.items(), "wiki", settings=settings)
    wait_idle(Store("wiki", settings=settings))
    api.reset()
    return texts


def write(path: Path, texts: Mapping[str, str]) -> str:
    lines = [json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()]
    path.write_text("".join(lines))
    return str(path)


def ledger(collection: Store) -> Status:
    status = collection.status()
    assert balances(status), status
    return status


def wait_idle(collection: Store, timeout: float = 45.0) -> Status:
    wait_until(lambda: not ledger(collection).backlog, timeout, f"{collection} idle", every=0.1)
    return ledger(collection)


def check(collection: Store, texts: Mapping[str, str]) -> None:
    """Every text has its own vector, once, and nothing else is there."""
    records = list(collection)
    assert len(records) == len(texts)
    assert {record.id: record.tobytes() for record in records} == {
        id: vector_of(text) for id, text in texts.items()
    }
    assert ledger(collection).embedded == len(texts)


# A worker dies or sleeps


def test_a_worker_killed_between_the_answer_and_the_commit_costs_one_request_and_no_charge(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    api: API,
    gate: Gate,
    hasty: dict[str, str],
) -> None:
    doomed = worker_process(concurrency=1, VECTOR_EMBED_REDIS_URL=gate.url, **hasty)
    first = acquaint(settings, api)
    gate.holding, before = True, gate.seen
    texts = corpus(100)
    enqueue(texts.items(), "wiki", settings=settings)
    wait_until(lambda: gate.seen > before, what="a commit on its way")
    assert api.log().charged == 100
    doomed.kill()
    status = ledger(wiki)
    assert (status.embedded, status.leased) == (ACQUAINTED, 100)
    worker_process(**hasty)
    status = wait_idle(wiki)
    assert (status.enqueued, status.embedded, status.dead) == (
        ACQUAINTED + 100,
        ACQUAINTED + 100,
        0,
    )
    check(wiki, {**first, **texts})
    assert (api.log().requests, api.log().charged) == (2, 100)


def test_an_owner_that_wakes_after_others_did_its_work_changes_nothing(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    api: API,
    gate: Gate,
    hasty: dict[str, str],
) -> None:
    sleeper = worker_process(concurrency=2, VECTOR_EMBED_REDIS_URL=gate.url, **hasty)
    first = acquaint(settings, api)
    api.faults(latency=0.5)
    enqueue(corpus(200, "old").items(), "wiki", settings=settings)
    wait_until(lambda: api.log().in_flight == 2, what="two requests in flight")
    before = gate.seen
    sleeper.freeze()
    assert ledger(wiki).leased == 200
    # Some of its texts are replaced while it sleeps, so that it wakes with answers nobody wants.
    texts = {**first, **corpus(200, "old"), **corpus(50, "new")}
    enqueue(texts.items(), "wiki", settings=settings)
    worker_process(**hasty)
    status = wait_idle(wiki)
    assert (status.enqueued, status.embedded, status.dead) == (
        ACQUAINTED + 200,
        ACQUAINTED + 200,
        0,
    )
    sleeper.thaw()
    wait_until(lambda: gate.seen >= before + 2, what="its two commits, too late")
    again = wait_idle(wiki)
    assert (again.embedded, again.dead) == (ACQUAINTED + 200, 0)
    check(wiki, texts)
    # It is as good as new.
    enqueue([("more", "more")], "wiki", settings=settings)
    wait_idle(wiki)
    check(wiki, {**texts, "more": "more"})


def test_a_thousand_orphans_behind_two_thousand_live_leases_are_all_taken_over(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    hasty: dict[str, str],
    redis_client: redis.Redis,
) -> None:
    texts = corpus(3_000)
    enqueue(texts.items(), "wiki", settings=settings)
    alive = ["alive-1", "alive-2"]
    for consumer in (*alive, "killed"):
        wiki.backlog.keep_alive(consumer)
        assert len(wiki.backlog.claim(consumer, 1_000)) == 1_000
    redis_client.delete(wiki.keys.alive("killed"))  # its heartbeat has run out
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(1.0):
            for consumer in alive:
                wiki.backlog.keep_alive(consumer)

    pulse = threading.Thread(target=beat)
    pulse.start()
    try:
        worker_process(**hasty)
        wait_until(lambda: ledger(wiki).embedded == 1_000, 30, "the orphans done")
        assert (ledger(wiki).leased, ledger(wiki).pending) == (2_000, 0)
    finally:
        ended.set()
        pulse.join()
    for consumer in alive:
        wiki.backlog.release(consumer, end_slice=True)
    wait_idle(wiki)
    check(wiki, texts)


DEADLY = """\
import os
import httpx

_handle = httpx.HTTPTransport.handle_request


def handle_request(self, request):
    answer = _handle(self, request)
    if b"deadly" in request.read():
        os._exit(139)  # with the requests of the other threads in flight
    return answer


httpx.HTTPTransport.handle_request = handle_request
"""


@pytest.mark.slow
def test_a_text_that_kills_its_workers_ends_in_the_dead_letters_and_brings_no_other_near_them(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    api: API,
    redis_client: redis.Redis,
    tmp_path: Path,
) -> None:
    deadly = customized(tmp_path / "deadly", HASTY + DEADLY)
    api.faults(latency=0.2)
    texts = corpus(2_000)
    given = [*texts.items()]
    given.insert(150, ("bad", "a deadly text"))
    enqueue(given, "wiki", settings=settings)
    deaths = 0
    losses: dict[bytes, int] = {}
    worker = worker_process(**deadly)

    def over() -> bool:
        counted = cast("dict[bytes, bytes]", redis_client.hgetall("vec:{wiki}:attempts"))
        losses.update({entry: int(count) for entry, count in counted.items()})
        return not (worker.child.running and wiki.backlog.size())

    while ledger(wiki).backlog:
        wait_until(over, 60, "its end")
        if not worker.child.running:
            deaths += 1
            assert deaths <= MAX_LOST
            worker = worker_process(**deadly)
    assert [(letter.id, letter.code) for letter in wiki.dead()] == [("bad", "worker_lost")]
    check(wiki, texts)
    # Twice beside others, once among ten, and from then on nobody else was there.
    assert sorted(losses.values())[-2] <= 3
    assert deaths == MAX_LOST


def test_a_probe_of_the_account_that_fails_blames_nobody(
    settings: Settings, wiki: Store, worker_process: StartWorker, api: API
) -> None:
    api.faults(
        rules=[
            {"answer": "reset", "marker": "hello world", "times": 3},
            {"answer": "unnamed", "marker": "poison"},
        ]
    )
    worker = worker_process()
    enqueue([("bad", "poison"), ("good", "text")], "wiki", settings=settings)
    status = wait_idle(wiki)
    assert (status.embedded, status.dead) == (1, 1)
    assert "Traceback" not in worker.log


# Replies that never arrive


@pytest.mark.parametrize("name", ["claim", "commit", "release", "admit", "report"])
def test_a_lost_reply_to_a_worker_s_step_loses_nothing_and_counts_nothing_twice(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    redis_server: RedisServer,
    proxy: MakeProxy,
    api: API,
    name: str,
) -> None:
    line = proxy(redis_server.url)
    worker_process(concurrency=2, VECTOR_EMBED_REDIS_URL=line.url)
    first = acquaint(settings, api)
    texts = corpus(300)
    line.cut_next_reply(to=step(name))
    enqueue(texts.items(), "wiki", settings=settings)
    status = wait_idle(wiki, 20)
    wait_until(lambda: line.cuts == 1, 20, f"the reply to {name} cut")
    assert (status.enqueued, status.embedded, status.dead) == (
        ACQUAINTED + 300,
        ACQUAINTED + 300,
        0,
    )
    check(wiki, {**first, **texts})
    assert api.log().requests == 3  # what has been answered is not asked again


def test_a_lost_reply_to_the_commit_of_a_dead_letter_makes_no_second_one(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    redis_server: RedisServer,
    proxy: MakeProxy,
    api: API,
) -> None:
    line = proxy(redis_server.url)
    worker_process(VECTOR_EMBED_REDIS_URL=line.url)
    acquaint(settings, api)
    api.faults(rules=[{"answer": "named", "marker": "poison"}])
    line.cut_next_reply(to=step("commit"))
    enqueue([("bad", "poison")], "wiki", settings=settings)
    status = wait_idle(wiki, 20)
    assert line.cuts == 1
    assert (status.enqueued, status.embedded, status.dead) == (ACQUAINTED + 1, ACQUAINTED, 1)
    assert [letter.id for letter in wiki.dead()] == ["bad"]
    # The evidence was gathered once: the verdict was in hand, and sent again.
    refused = api.log().statuses[422]
    enqueue([("worse", "poison two")], "wiki", settings=settings)
    wait_idle(wiki, 20)
    assert (api.log().statuses[422] - refused, refused) == (1, 11)


def test_lost_replies_to_a_producer_make_no_duplicate_while_workers_are_at_it(
    wiki: Store,
    worker_process: StartWorker,
    redis_server: RedisServer,
    proxy: MakeProxy,
    api: API,
    shell: Shell,
) -> None:
    worker_process()
    line = proxy(redis_server.url)
    texts = corpus(8_000)
    path = write(shell.directory / "wiki.jsonl", texts)
    line.cut_next_reply(to=step("add"))
    producer = shell.start(line.url, "vec-enqueue", path, "--id-field", "id")
    for cuts in range(1, 4):
        wait_until(lambda: line.cuts >= cuts or not producer.running, 30, "a cut")  # noqa: B023
        line.cut_next_reply(to=step("add"))
    wait_until(lambda: not producer.running, 60, "the producer's end")
    assert line.cuts >= 2
    assert "8,000 new" in producer.tail()
    status = wait_idle(wiki)
    assert (status.enqueued, status.embedded, status.dead) == (8_000, 8_000, 0)
    assert api.log().charged == 8_000
    check(wiki, texts)


# Redis


def test_workers_and_a_producer_go_on_when_redis_is_killed_and_comes_back(
    mortal_redis: Redis, worker_process: StartWorker, api: API, shell: Shell
) -> None:
    api.faults(latency=0.1)
    settings = Settings(redis_url=mortal_redis.url, broker_url=mortal_redis.url)
    wiki = Store("wiki", settings=settings)
    workers = [worker_process(VECTOR_EMBED_REDIS_URL=mortal_redis.url) for _ in range(2)]
    texts = corpus(9_000)
    path = write(shell.directory / "wiki.jsonl", texts)
    producer = shell.start(
        mortal_redis.url, "vec-enqueue", path, "--id-field", "id", VECTOR_EMBED_HIGH_WATER="2000"
    )
    for share in (1_000, 3_500, 6_000):
        wait_until(lambda: wiki.status().embedded > share, 60, f"{share} embedded")  # noqa: B023
        mortal_redis.kill()
        mortal_redis.start()
        ledger(wiki)
    wait_until(lambda: not producer.running, 60, "the producer's end")
    assert "9,000 new" in producer.tail()
    status = wait_idle(wiki, 60)
    assert (status.enqueued, status.embedded, status.dead) == (9_000, 9_000, 0)
    check(wiki, texts)
    for worker in workers:
        assert worker.child.running
        assert "Traceback" not in worker.log


def test_a_worker_with_wakeups_in_hand_outlives_the_loss_of_its_broker(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    redis_server: RedisServer,
    proxy: MakeProxy,
    api: API,
) -> None:
    api.faults(latency=0.3)
    line = proxy(redis_server.url)
    worker = worker_process(concurrency=2, VECTOR_EMBED_REDIS_URL=line.url)
    texts = corpus(10_000)
    enqueue(texts.items(), "wiki", settings=settings)
    app = make_app(settings)
    for _ in range(2):
        # More wake-ups than threads: some are received, and wait in the worker's memory.
        for _ in range(8):
            app.send_task("worker.drain", args=["wiki", ""], retry=False)
        wait_until(lambda: api.log().in_flight == 2, 20, "both threads at work")
        line.refuse()
        wait_until(lambda: not api.log().in_flight, 20, "the slices to end")
        # So long that waits which grow would be of more than five seconds.
        tried = line.refused
        wait_until(lambda: line.refused > tried + 25, 60, "attempts")  # noqa: B023
        line.refuse(False)
        sent = api.log().requests
        wait_until(lambda: api.log().requests > sent, 5, "work to continue")  # noqa: B023
    api.faults()
    wait_idle(wiki)
    check(wiki, texts)
    assert worker.child.running


def test_an_emptied_redis_is_said_plainly_and_enqueuing_again_works(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    api: API,
    redis_client: redis.Redis,
    shell: Shell,
) -> None:
    api.faults(latency=0.3)
    worker = worker_process()
    texts = corpus(3_000)
    enqueue(texts.items(), "wiki", settings=settings)
    wait_until(lambda: api.log().in_flight >= 4 and wiki.status().embedded, what="work going on")
    redis_client.flushall()
    wait_until(lambda: "wiki is gone from Redis" in worker.log, 10, "the worker says so")
    said = shell(settings.redis_url, "vec", "status", "wiki")
    assert said.returncode == 2
    assert "wiki" in said.stderr
    api.faults()
    # From the same process as before: what it knows of the broker is no more.
    assert enqueue(texts.items(), "wiki", settings=settings).new == 3_000
    status = wait_idle(wiki)
    assert (status.enqueued, status.embedded, status.dead) == (3_000, 3_000, 0)
    check(wiki, texts)
    assert worker.child.running
    assert "Traceback" not in worker.log


def test_what_is_added_after_a_flush_in_mid_file_is_found_by_the_pump(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    redis_client: redis.Redis,
) -> None:
    texts = corpus(4 * CHUNK_SIZE)

    def flushing() -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(texts.items()):
            if number == 2 * CHUNK_SIZE + 1:
                # It reads ahead of what it has added.
                wait_until(lambda: ledger(wiki).enqueued == 2 * CHUNK_SIZE, what="half of it added")
                redis_client.flushall()
            yield pair

    enqueue(flushing(), "wiki", settings=settings)
    redis_client.delete(settings.queue)
    names = collection_names(redis_client, settings.prefix)  # type: ignore[arg-type]
    assert names == ["wiki"]
    worker_process()
    assert wait_idle(wiki).embedded == 2 * CHUNK_SIZE
    check(wiki, dict(list(texts.items())[2 * CHUNK_SIZE :]))


def test_a_producer_whose_redis_fills_up_between_a_look_and_an_add_waits_and_says_why(
    settings: Settings, wiki: Store, redis_client: redis.Redis, redis_server: RedisServer
) -> None:
    gate = Gate(redis_server.url, step("add"))

    def fill(seen: int) -> None:
        if not reasons and ledger(wiki).enqueued == CHUNK_SIZE:
            redis_client.config_set("maxmemory", 1)

    gate.before = fill
    texts = corpus(3 * CHUNK_SIZE)
    jobs = [Job(id, text) for id, text in texts.items()]
    reasons: list[str] = []
    try:
        near = replace(settings, redis_url=gate.url)
        for now in produce(jobs, Store("wiki", settings=near).adder(), near, rejected=print):
            assert ledger(wiki).enqueued in (now.new, now.new + CHUNK_SIZE)
            if now.waiting:
                reasons.append(now.waiting)
                if len(reasons) == 2:
                    redis_client.config_set("maxmemory", 0)
    finally:
        redis_client.config_set("maxmemory", 0)
        gate.close()
    assert len(reasons) == 2
    assert all(reason.endswith("% full") for reason in reasons)
    assert (now.new, now.waiting) == (len(texts), None)
    assert ledger(wiki).enqueued == len(texts)


def test_a_redis_without_any_room_stops_what_costs_and_keeps_what_was_paid_for(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    api: API,
    redis_client: redis.Redis,
    gate: Gate,
) -> None:
    api.faults(latency=0.3)
    texts = corpus(5_000)  # work for longer than a worker takes to look
    enqueue(texts.items(), "wiki", settings=settings)
    gate.before = lambda seen: seen == 3 and redis_client.config_set("maxmemory", 1)
    try:
        worker = worker_process(concurrency=2, VECTOR_EMBED_REDIS_URL=gate.url)
        wait_until(lambda: gate.seen >= 4 and wiki.status().state == "paused", 20, "it is full")
        wait_until(lambda: "claims wait" in worker.log, 20, "the worker sees it")
        wait_until(lambda: not ledger(wiki).leased, 20, "nothing in hand")
        status = ledger(wiki)
        assert "full" in (status.reason or "")
        # What was in flight has been paid for, and is stored; and nothing more is asked for.
        assert api.log().charged == status.embedded < len(texts)
        beats = worker.log.count("does not answer")
        wait_until(lambda: wiki.status().workers == 1, 10, "the worker is seen")
        assert worker.log.count("does not answer") == beats
    finally:
        redis_client.config_set("maxmemory", 0)
    api.faults()
    wait_idle(wiki)
    check(wiki, texts)


def test_an_api_that_fails_at_every_request_is_said_to_be_asked_for_the_wrong_model(
    settings: Settings, wiki: Store, worker_process: StartWorker, api: API
) -> None:
    api.faults(rules=[{"answer": "error"}])
    worker_process()
    enqueue(corpus(200).items(), "wiki", settings=settings)
    wait_until(lambda: "right model name" in (ledger(wiki).reason or ""), 30, "the reason")
    assert settings.model in (ledger(wiki).reason or "")
    assert ledger(wiki).dead == 0
    assert api.log().charged < 220  # a whole batch once, and then a text at a time


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
def test_a_producer_refuses_a_redis_that_evicts(
    settings: Settings, redis_client: redis.Redis, shell: Shell, policy: str
) -> None:
    path = write(shell.directory / "wiki.jsonl", corpus(10))
    redis_client.config_set("maxmemory-policy", policy)
    try:
        refused = shell(settings.redis_url, "vec-enqueue", path)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert policy in refused.stderr and "noeviction" in refused.stderr
    assert redis_client.dbsize() == 0


# A producer


def test_a_producer_killed_in_mid_file_and_run_again_adds_only_the_rest(
    settings: Settings, wiki: Store, worker_process: StartWorker, api: API, shell: Shell
) -> None:
    texts = corpus(9_000)
    path = write(shell.directory / "wiki.jsonl", texts)
    words = (path, "--id-field", "id")
    doomed = shell.start(settings.redis_url, "vec-enqueue", *words, VECTOR_EMBED_HIGH_WATER="3000")
    wait_until(lambda: ledger(wiki).enqueued >= 3_000, 30, "the producer in mid-file")
    doomed.kill()
    first = ledger(wiki).enqueued
    assert first < 9_000
    again = shell(settings.redis_url, "vec-enqueue", *words)
    assert again.returncode == 0
    assert f"{9_000 - first:,} new" in again.stdout
    assert f"{first:,} unchanged" in again.stdout
    assert ledger(wiki).enqueued == 9_000
    incomplete = shell(settings.redis_url, "vec", "verify", *words)
    assert incomplete.returncode == 1
    worker_process()
    wait_idle(wiki)
    complete = shell(settings.redis_url, "vec", "verify", *words)
    assert (complete.returncode, complete.stderr) == (0, "")
    assert "complete" in complete.stdout
    assert api.log().charged == 9_000


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_producer_told_to_stop_while_it_waits_loses_nothing_and_goes_on_when_run_again(
    settings: Settings, wiki: Store, shell: Shell, sign: signal.Signals, code: int
) -> None:
    texts = corpus(4_000)
    words = (write(shell.directory / "wiki.jsonl", texts), "--id-field", "id")
    stopped = shell.start(settings.redis_url, "vec-enqueue", *words, VECTOR_EMBED_HIGH_WATER="1000")
    wait_until(lambda: "texts are queued already" in stopped.tail(), 30, "it says why it waits")
    stopped.send(sign)
    wait_until(lambda: not stopped.running, 20, "its end")
    assert f"status {code}\n" in stopped.ended()
    assert "Traceback" not in stopped.tail()
    first = ledger(wiki).enqueued
    assert 1_000 <= first < 4_000
    again = shell(settings.redis_url, "vec-enqueue", *words)
    assert f"{4_000 - first:,} new, {first:,} unchanged" in again.stdout
    assert (ledger(wiki).enqueued, ledger(wiki).pending) == (4_000, 4_000)


def test_a_wait_notices_that_redis_was_emptied_and_says_what_to_do(
    settings: Settings, wiki: Store, shell: Shell, redis_client: redis.Redis
) -> None:
    path = write(shell.directory / "wiki.jsonl", corpus(10))
    waiting = shell.start(settings.redis_url, "vec-enqueue", path, "--id-field", "id", "--wait")
    wait_until(lambda: "no worker" in waiting.tail(), 30, "it waits")
    redis_client.flushall()
    wait_until(lambda: not waiting.running, 20, "its end")
    assert "status 1\n" in waiting.ended()
    assert "nothing is left of 10 texts: Redis was emptied" in waiting.tail()
    assert "Run the same command again" in waiting.tail()


def test_a_verification_told_to_stop_leaves_no_temporary_files(
    settings: Settings, shell: Shell
) -> None:
    enqueue(["text"], "wiki", settings=settings)
    room = shell.directory / "room"
    room.mkdir()
    pipe = shell.directory / "wiki.jsonl"
    os.mkfifo(pipe)
    verifying = shell.start(settings.redis_url, "vec", "verify", str(pipe), TMPDIR=str(room))
    with pipe.open("w") as lines:
        # One more than are kept in memory, and then no end.
        lines.writelines(json.dumps({"text": f"text {n}"}) + "\n" for n in range(200_500))
        lines.flush()
        wait_until(lambda: list(room.iterdir()), 30, "temporary files")
        verifying.send(signal.SIGTERM)
        wait_until(lambda: not verifying.running, 20, "its end")
    assert "status 143" in verifying.ended()
    assert list(room.iterdir()) == []


def test_the_last_text_wins_over_any_number_of_editions_in_flight(
    settings: Settings, wiki: Store, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency=0.05, jitter=0.3)
    for _ in range(2):
        worker_process(concurrency=4)
    chance = random.Random(20)
    ids = [f"id-{number}" for number in range(400)]
    texts: dict[str, str] = {}
    for _ in range(8):
        # Few texts, so that an id often gets one back that it had before.
        edition = {id: f"{id} {chance.choice('abc')}" for id in chance.sample(ids, 300)}
        enqueue(edition.items(), "wiki", settings=settings)
        texts.update(edition)
        requests = api.log().requests
        wait_until(lambda: api.log().requests >= requests + 2, what="requests")  # noqa: B023
        ledger(wiki)
    status = wait_idle(wiki)
    assert (status.enqueued, status.dead) == (len(texts), 0)
    check(wiki, texts)


def test_another_model_is_refused_at_enqueue_with_the_way_out(
    settings: Settings, wiki: Store, shell: Shell
) -> None:
    path = write(shell.directory / "wiki.jsonl", corpus(10))
    assert shell(settings.redis_url, "vec-enqueue", path, "--model", "one").returncode == 0
    more = write(shell.directory / "more.jsonl", corpus(20, "more"))
    words = (more, "--collection", "wiki", "--model", "two")
    refused = shell(settings.redis_url, "vec-enqueue", *words)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    for part in ("model one", "two", "--collection", "vec drop wiki"):
        assert part in refused.stderr
    assert ledger(wiki).enqueued == 10


def test_two_apis_of_different_dimensions_never_mix_in_a_collection(
    settings: Settings,
    wiki: Store,
    worker_process: StartWorker,
    api: API,
    tmp_path: Path,
) -> None:
    api.faults(latency=0.05)
    texts = corpus(1_000)
    worker_process()
    enqueue(list(texts.items())[:200], "wiki", settings=settings)
    wait_idle(wiki)
    other = API(tmp_path / "other.log", "--dimensions", "256")
    try:
        odd = worker_process(VECTOR_EMBED_BASE_URL=other.base_url)
        enqueue(texts.items(), "wiki", settings=settings)
        wait_until(lambda: other.log().requests, 20, "the other API asked")
        assert {record.dimensions for record in wiki} == {768}
        # Its worker stops itself, and not the one whose API is right.
        status = wait_idle(wiki)
        odd.stop(10)
    finally:
        other.stop()
    assert (status.embedded, status.dead) == (1_000, 0)
    check(wiki, texts)
